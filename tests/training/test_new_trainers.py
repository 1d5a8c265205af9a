"""Trainers of networks with options of their own: they train on noise in this process, and say what they
are; the weights of a network's auxiliary losses reach nnU-Net's loss."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import toy_training
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from toy_training import CONFIGURATION, PATCH, initialized, log_of

from nnunet_echo.networks import NETWORKS, title_of
from nnunet_echo.training.trainer import EchoTrainer, other_lengths

pytest_plugins = ("toy_training",)

NAMES = [name for row in ("msv_mamba", "xlstm_unet_bot", "xlstm_unet_enc", "vil") for name in NETWORKS[row].trainers]
QUICK = "nnUNetTrainerMSVMamba"


@pytest.fixture
def planned(toy_dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole plan of four stages, where the toy's has what its stub needs."""
    configuration = deepcopy(CONFIGURATION)
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 4,
        "kernel_sizes": [[3, 3]] * 4,
        "n_conv_per_stage": [1] * 4,
        "n_conv_per_stage_decoder": [1] * 3,
    }
    monkeypatch.setattr(toy_training, "CONFIGURATION", configuration)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == QUICK else pytest.mark.slow) for n in NAMES])
def test_it_trains(planned: None, name: str) -> None:
    trainer = initialized(recursive_find_trainer_class_by_name(f"{name}_1epochs_2iterations"))
    trainer.run_training()
    log = log_of(trainer)
    assert title_of(name) in log and f"{name}_1epochs_2iterations: {trainer.network_path}" in log
    assert ("unofficial reconstruction" in log) == ("MSVMamba" in name)


def test_weights_of_auxiliary_losses_are_the_networks(planned: None) -> None:
    class AsCMUNet(EchoTrainer):
        network_path = "msv_mamba"
        network_options = {"aux_mode": "cm_unet"}

    class Stock(AsCMUNet):
        network_options = {}

    class Without(AsCMUNet):
        enable_deep_supervision = False

    assert tuple(initialized(AsCMUNet).loss.weight_factors) == (1.0, 0.4, 0.4)
    assert initialized(AsCMUNet)._get_deep_supervision_scales() == [[1.0, 1.0]] * 3
    assert tuple(initialized(Stock).loss.weight_factors) == pytest.approx((2 / 3, 1 / 3, 0))
    assert not hasattr(initialized(Without).loss, "weight_factors")


def test_every_output_of_mednext_counts(planned: None) -> None:
    """As in its released code; nnU-Net's own weights leave the coarsest out."""
    pytest.importorskip("monai")

    class Own(EchoTrainer):
        network_path, network_options = "mednext", NETWORKS["mednext"].toy

    trainer = initialized(Own)
    assert trainer.loss.weight_factors == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])  # 16 divides no patch here
    outputs = trainer.network(torch.randn(2, 1, *PATCH))
    targets = [torch.randint(0, 2, (2, 1, *output.shape[2:])).float() for output in outputs]
    trainer.loss(outputs, targets).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in map(_last, trainer.network.decoder.seg_layers))


def _last(head: torch.nn.Module) -> torch.nn.Module:
    return [module for module in head.modules() if hasattr(module, "weight")][-1]


@pytest.mark.parametrize(
    ("network", "options"), [("msv_mamba", {"aux_mode": "none"}), ("vm_unet", {}), ("segresnet", {}), ("unetr", {})]
)
@pytest.mark.parametrize("recipe", ["", "_vil30"])
@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning")
def test_a_single_output_counts_whole(planned: None, network: str, options: dict, recipe: str) -> None:
    """A trainer of one's own that leaves deep supervision on: nnU-Net's weight of a single output is 0 / 0."""
    if network in ("segresnet", "unetr"):
        pytest.importorskip("monai")

    class Own(EchoTrainer):
        network_path, network_options = network, options

    trainer = initialized(other_lengths(Own)(f"Own{recipe}_1epochs_1iterations"))
    assert tuple(trainer.loss.weight_factors) == (1.0,)
    output = trainer.network(torch.randn(2, 1, *PATCH))
    target = [torch.randint(0, 2, (2, 1, *PATCH)).float()]
    assert torch.isfinite(trainer.loss(output if isinstance(output, (list, tuple)) else [output], target))
