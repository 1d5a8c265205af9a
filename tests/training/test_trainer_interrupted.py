"""SafeTrainer: a training that is stopped or killed goes on as if nothing had happened, and so do its checkpoints."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from toy_training import Toy, ToyTokens, equal, initialized, make, weights

pytest_plugins = ("toy_training",)


def adam_steps(trainer):
    (steps,) = {int(state["step"]) for state in trainer.optimizer.state.values()}
    return steps


def record(trainer):
    """What an interrupted training must share with an uninterrupted one."""
    logged = trainer.logger.get_checkpoint()
    entries = {name: len(values) for name, values in logged.items()}
    return trainer.current_epoch, adam_steps(trainer), logged["lrs"], entries


def interrupted(kind, at, action):
    """A trainer that does `action` before its call number `at` (from 0) of `kind`."""

    class Interrupted(ToyTokens):
        calls = 0

        def _maybe(self, this):
            if this == kind:
                type(self).calls += 1
                if self.calls == at + 1:
                    action()

        def train_step(self, one):
            self._maybe("train")
            return super().train_step(one)

        def validation_step(self, one):
            self._maybe("validation")
            return super().validation_step(one)

    Interrupted.__name__ = "ToyTokens"  # the same folder of results
    return Interrupted


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("when", [("train", 0), ("train", 5), ("train", 7), ("validation", 1), ("validation", 2)])
def test_sigterm_saves_and_the_continued_training_equals_an_unbroken_one(toy_dataset, when, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    unbroken = make(ToyTokens)
    unbroken.run_training()
    shutil.rmtree(unbroken.output_folder)

    first = make(interrupted(*when, terminate))
    with pytest.raises(SystemExit) as stop:
        first.run_training()
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is handler
    assert not Path(first.output_folder, "checkpoint_final.pth").exists()
    last_losses = list(first._epoch_losses)

    second = make(ToyTokens)
    maybe_load_checkpoint(second, continue_training=True, validation_only=False)
    assert second._epoch_losses == last_losses
    second.run_training()
    assert "logging issue" not in capsys.readouterr().out  # nnU-Net's complaint of an epoch that is logged twice
    assert record(second) == record(unbroken)
    epochs, steps, rates, entries = record(second)
    assert (epochs, steps, len(set(rates)), set(entries.values())) == (3, 12, 3, {3})
    assert second.num_iterations_per_epoch == 4
    for name in ("best", "final"):
        checkpoint = torch.load(Path(second.output_folder, f"checkpoint_{name}.pth"), weights_only=False)
        assert "epoch_losses" not in checkpoint["optimizer_state"]
    assert checkpoint["current_epoch"] == 3 and checkpoint["inference_allowed_mirroring_axes"] is None
    assert not Path(second.output_folder, "checkpoint_latest.pth").exists()


def test_logged_loss_of_a_continued_epoch_is_the_mean_of_all_its_iterations(toy_dataset):
    first = make(interrupted("train", 2, terminate))
    with pytest.raises(SystemExit):
        first.run_training()
    second = make(ToyTokens)
    second.num_epochs = 1
    second.load_checkpoint(os.path.join(first.output_folder, "checkpoint_latest.pth"))
    new_losses = []
    step = second.train_step
    second.train_step = lambda one: new_losses.append(step(one)["loss"]) or {"loss": new_losses[-1]}
    second.run_training()
    assert len(first._epoch_losses) == 3 and len(new_losses) == 1
    logged = second.logger.get_value("train_losses", 0)
    assert logged == pytest.approx(np.mean([*first._epoch_losses, *new_losses]))


def test_sigterm_after_the_last_step_leaves_only_the_validation(toy_dataset):
    class Late(ToyTokens):
        def on_train_end(self):
            terminate()
            super().on_train_end()

    trainer = make(Late)
    with pytest.raises(SystemExit) as stop:
        trainer.run_training()
    assert stop.value.code == 143 and Path(trainer.output_folder, "checkpoint_final.pth").exists()


def test_a_crash_loses_no_more_than_the_time_between_saves(toy_dataset):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    trainer = make(interrupted("train", 6, crash))
    trainer.seconds_between_saves = -1  # save after every step
    with pytest.raises(Crash):
        trainer.run_training()
    second = make(ToyTokens)
    second.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
    assert (second.current_epoch, len(second._epoch_losses), adam_steps(second)) == (1, 2, 6)

    shutil.rmtree(trainer.output_folder)
    trainer = make(interrupted("train", 6, crash))
    trainer.seconds_between_epoch_saves = -1  # save after every epoch
    with pytest.raises(Crash):
        trainer.run_training()
    second = make(ToyTokens)
    second.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
    assert (second.current_epoch, second._epoch_losses, adam_steps(second)) == (1, [], 4)


def test_no_time_no_save(toy_dataset):
    trainer = make(ToyTokens)
    saved = []
    trainer.save_latest = lambda: saved.append(trainer.current_epoch)
    trainer.run_training()
    assert saved == []


def test_the_checkpoint_is_replaced_only_by_a_whole_one(toy_dataset, monkeypatch):
    trainer = initialized(Toy)
    os.makedirs(trainer.output_folder, exist_ok=True)
    trainer.save_latest()
    latest = Path(trainer.output_folder, "checkpoint_latest.pth")
    whole = latest.read_bytes()

    def killed_while_writing(checkpoint, filename):
        Path(filename).write_bytes(whole[: len(whole) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed_while_writing)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_latest()
    assert latest.read_bytes() == whole and trainer.current_epoch == 0


def test_half_a_checkpoint_is_an_error_with_the_remedy(toy_dataset):
    trainer = initialized(Toy)
    os.makedirs(trainer.output_folder, exist_ok=True)
    trainer.save_latest()
    latest = Path(trainer.output_folder, "checkpoint_latest.pth")
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match="checkpoint_latest.pth is not a complete checkpoint.*Remove it"):
        maybe_load_checkpoint(make(Toy), continue_training=True, validation_only=False)


def test_disabled_checkpoints_stay_disabled(toy_dataset):
    trainer = initialized(Toy)
    trainer.disable_checkpointing = True
    trainer.save_latest()
    assert not list(Path(trainer.output_folder).glob("*.pth*"))


def test_a_forked_worker_ends_at_sigterm_although_it_inherits_the_handler(toy_dataset):
    context = multiprocessing.get_context("fork")
    running = context.Event()
    worker = context.Process(target=lambda: running.set() or time.sleep(600), daemon=True)

    def terminate_worker():
        worker.start()
        assert running.wait(timeout=60)
        worker.terminate()
        worker.join(timeout=60)

    trainer = make(interrupted("train", 1, terminate_worker))
    trainer.run_training()
    assert worker.exitcode == 143 and trainer.current_epoch == 3


def test_pretrained_weights_reach_the_network(toy_dataset):
    source = initialized(Toy)
    os.makedirs(source.output_folder, exist_ok=True)
    source.save_latest()
    trainer = make(Toy)
    file = os.path.join(source.output_folder, "checkpoint_latest.pth")
    maybe_load_checkpoint(trainer, continue_training=False, validation_only=False, pretrained_weights_file=file)
    assert equal(weights(trainer), weights(source)) and trainer.current_epoch == 0
