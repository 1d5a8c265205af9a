"""EchoTrainer and TokenTrainer: the network, lengths, optimiser and targets that nnU-Net is given, and the log."""

import re

import numpy as np
import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from toy_training import PATCH, Toy, ToyTokens, initialized, log_of, make

from nnunet_echo.training.trainer import other_lengths

pytest_plugins = ("toy_training",)


def test_network_is_built_from_the_plan_with_its_classes_resolved(toy_dataset):
    class Ablation(Toy):
        network_options = {"window_mode": "released"}

    trainer = initialized(Ablation)
    patch_size, architecture, options = trainer.network.arguments
    assert patch_size == list(PATCH) and options == {"window_mode": "released"}
    assert (architecture["conv_op"], architecture["norm_op"]) == (nn.Conv2d, nn.InstanceNorm2d)
    assert architecture["dropout_op"] is None and architecture["nonlin"] is nn.LeakyReLU
    in_the_plan = trainer.configuration_manager.network_arch_init_kwargs["conv_op"]
    assert in_the_plan == "torch.nn.modules.conv.Conv2d"


def test_constructor_keeps_nnunets_parameters_and_can_be_repeated(toy_dataset):
    trainer = make(Toy)
    assert set(trainer.my_init_kwargs) == {"plans", "configuration", "fold", "dataset_json", "device"}
    assert Toy(**trainer.my_init_kwargs).output_folder == trainer.output_folder


def test_no_mirroring_unless_asked_for(toy_dataset):
    class Mirrored(Toy):
        mirroring = True

    for trainer_class, axes in ((Toy, None), (Mirrored, (0, 1))):
        trainer = make(trainer_class)
        *_, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert mirror_axes == axes and trainer.inference_allowed_mirroring_axes == axes


@pytest.mark.parametrize(("wish", "compiles"), [(None, False), ("0", False), ("1", True)])
def test_torch_compile_only_for_those_who_ask(toy_dataset, monkeypatch, wish, compiles):
    if wish:
        monkeypatch.setenv("nnUNet_compile", wish)
    trainer = make(Toy)
    trainer.device = torch.device("cuda")  # on a CPU nnU-Net never compiles
    assert trainer._do_i_compile() is compiles


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_targets_have_the_sizes_of_the_outputs(toy_dataset, deep_supervision):
    class Trainer(Toy):
        enable_deep_supervision = deep_supervision

    trainer = initialized(Trainer)
    for loader in trainer.get_dataloaders():
        one = next(loader)
        outputs, targets = trainer.network(one["data"]), one["target"]
        if not deep_supervision:
            outputs, targets = [outputs], [targets]
        assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in targets]
    assert trainer.train_step(one)["loss"] > 0


def test_convolutional_networks_get_nnunets_optimiser(toy_dataset):
    trainer = initialized(Toy)
    (group,) = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD) and isinstance(trainer.lr_scheduler, PolyLRScheduler)
    settings = [group[name] for name in ("initial_lr", "weight_decay", "momentum", "nesterov")]
    assert settings == [1e-2, 3e-5, 0.99, True] and trainer.max_grad_norm == 12


def test_tokens_get_adamw_that_spares_biases_norms_and_marked_parameters(toy_dataset):
    trainer = initialized(ToyTokens)
    decayed, spared = trainer.optimizer.param_groups
    network = trainer.network
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert decayed["weight_decay"] == 0.05 and spared["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(network.conv.weight)}
    expected = [network.conv.bias, network.norm.weight, network.norm.bias, network.dynamics]
    assert {id(p) for p in spared["params"]} == {id(p) for p in expected}


@pytest.mark.parametrize(("epochs", "warm_up"), [(1, 1), (12, 1), (100, 5), (1000, 50)])
def test_token_schedule_warms_up_and_falls_to_a_hundredth(toy_dataset, epochs, warm_up):
    trainer = initialized(other_lengths(ToyTokens)(f"ToyTokens_{epochs}epochs"))
    rates = []
    for epoch in range(epochs):
        trainer.lr_scheduler.step(epoch)
        (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
        rates.append(rate)
    rising = np.diff([0, *rates[: warm_up + 1]])
    assert np.allclose(rising, 3e-4 / (warm_up + 1))
    assert all(np.diff(rates[warm_up:]) < 0)
    if epochs >= 100:
        assert max(rates) == pytest.approx(3e-4) and rates[-1] == pytest.approx(3e-6, rel=0.1)
    trainer.lr_scheduler.step(0)
    assert trainer.optimizer.param_groups[0]["lr"] == rates[0]


def test_the_log_says_what_is_trained_and_how(toy_dataset):
    trainer = make(ToyTokens)
    trainer.num_epochs = 1
    trainer.run_training()
    log = log_of(trainer)
    for part in (
        f"ToyTokens: {ToyTokens.network_path}, 0.00 M parameters. AdamW, learning rate 0.0003, warm-up, then cosine,",
        "weight decay 0.05, gradient norm clipped at 1.0, 1 epochs of 4 iterations,",
        "deep supervision on, mirroring off, torch.compile off. Selective scan on cpu: ",
    ):
        assert part in log
    peak_gib = float(re.search(r"Peak memory (\S+) GiB", log)[1])
    assert 0.1 < peak_gib < 1000
