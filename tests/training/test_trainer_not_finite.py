"""Batches whose loss or gradient is not finite: skipped, counted, and the end of a training that has too many."""

import multiprocessing

import numpy as np
import pytest
import torch
from toy_training import Toy, ToyTokens, batch, equal, initialized, log_of, weights

from nnunet_echo.training.trainer import EchoTrainer

pytest_plugins = ("toy_training",)


def test_non_finite_batches_change_nothing_and_a_few_in_a_row_end_the_training(toy_dataset):
    trainer = initialized(ToyTokens)
    trainer.train_step(batch(trainer))
    before, moments = weights(trainer), str(trainer.optimizer.state_dict()["state"])
    for _ in range(4):
        assert not np.isfinite(trainer.train_step(batch(trainer, float("nan")))["loss"])
    assert equal(weights(trainer), before) and str(trainer.optimizer.state_dict()["state"]) == moments
    with pytest.raises(RuntimeError, match="5 batches in a row") as error:
        trainer.train_step(batch(trainer, float("nan")))
    for part in ("cases p1_ED, p2_ES", "loss nan", "gradient norm nan", "learning rate 0.0003", "initial_lr"):
        assert part in str(error.value)
    assert equal(weights(trainer), before)
    assert log_of(trainer).count("Skipped a batch that is not finite. cases p1_ED, p2_ES") == 5


def test_a_finite_batch_ends_the_streak(toy_dataset):
    trainer = initialized(Toy)
    for _ in range(3):
        for _ in range(4):
            trainer.train_step(batch(trainer, float("inf")))
        before = weights(trainer)
        trainer.train_step(batch(trainer))
        assert not equal(weights(trainer), before)


def test_finite_loss_with_a_non_finite_gradient_counts(toy_dataset):
    trainer = initialized(Toy)
    trainer.loss = lambda outputs, target: (0 * outputs[0].mean()).sqrt()  # 0, but its derivative is infinite
    before = weights(trainer)
    with pytest.raises(RuntimeError, match="loss 0, gradient norm nan"):
        for _ in range(5):
            trainer.train_step(batch(trainer))
    assert equal(weights(trainer), before)


def overflow_like_float16(trainer):
    for parameter in trainer.network.parameters():
        parameter.register_hook(lambda gradient: gradient.half().to(gradient.dtype))


def test_too_high_a_loss_scale_is_left_to_the_scaler(toy_dataset):
    trainer = initialized(Toy)
    overflow_like_float16(trainer)
    trainer.grad_scaler = torch.GradScaler("cpu", init_scale=2.0**30)
    before = weights(trainer)
    steps = 0
    while equal(weights(trainer), before):
        trainer.train_step(batch(trainer))
        steps += 1
    assert steps > 6  # more than the batches allowed, had they counted
    assert 1 < trainer.grad_scaler.get_scale() == 2.0 ** (31 - steps)
    assert "not finite" not in log_of(trainer)


def test_gradients_that_overflow_at_any_loss_scale_end_the_training(toy_dataset):
    trainer = initialized(Toy)
    overflow_like_float16(trainer)
    trainer.grad_scaler = torch.GradScaler("cpu", init_scale=2.0)
    loss = trainer.loss
    trainer.loss = lambda outputs, target: 1e9 * loss(outputs, target)
    with pytest.raises(RuntimeError, match="gradient norm (inf|nan)"):
        for _ in range(6):
            trainer.train_step(batch(trainer))


def test_a_non_finite_loss_counts_under_a_scaler_too(toy_dataset):
    trainer = initialized(Toy)
    trainer.grad_scaler = torch.GradScaler("cpu")
    with pytest.raises(RuntimeError, match="loss nan"):
        for _ in range(5):
            trainer.train_step(batch(trainer, float("nan")))


def test_gradients_are_clipped(toy_dataset):
    trainer = initialized(Toy)
    trainer.max_grad_norm = 1e-3
    loss = trainer.loss
    trainer.loss = lambda outputs, target: 1e6 * loss(outputs, target)
    trainer.train_step(batch(trainer))
    norm = torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def _vote(rank, folder, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trainer = EchoTrainer.__new__(EchoTrainer)
    trainer.is_ddp, trainer.device = True, torch.device("cpu")
    answers.put(trainer._everywhere(torch.tensor(rank == 0), True, rank == 1))


def test_ranks_decide_alike(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=_vote, args=(rank, tmp_path, answers)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [answers.get(timeout=60) for _ in ranks] == [[False, True, False]] * 2
    for rank in ranks:
        rank.join()
