"""Networks of MONAI under the contract: they compute what MONAI's do, on inputs of any size, or say what is missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_echo.analysis import receptive_field
from nnunet_echo.cli import doctor
from nnunet_echo.networks import NETWORKS, create_network, list_networks
from nnunet_echo.networks.monai import MedNeXt

BASELINES = [name for name, row in NETWORKS.items() if row.extra == "baselines"]
ADDED = {"segresnet_ds": {"norm": "instance", "dsdepth": 2}, "unetr": {"img_size": (32, 48)}}
MULTIPLES = {"segresnet": 4, "segresnet_ds": 4, "mednext": 16, "swin_unetr": 32}


def toy(name: str, patch_size: tuple[int, ...] = (32, 48), **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_network(name, 1, 4, patch_size, **{**NETWORKS[name].toy, **options})


def of_monai(name: str) -> nn.Module:
    """The same network by MONAI alone; the same seed gives it the same weights."""
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    options = {**NETWORKS[name].toy, **ADDED.get(name, {}), "spatial_dims": 2, "in_channels": 1, "out_channels": 4}
    if name == "mednext":
        options |= {"kernel_size": 3, "deep_supervision": True, "use_residual_connection": True}
    return getattr(nets, NETWORKS[name].title)(**options)


def test_those_there_are() -> None:
    assert {"segresnet", "segresnet_ds", "unetr", "swin_unetr", "mednext"} == set(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
def test_logits_are_those_of_monai(name: str) -> None:
    ours, theirs = toy(name, deep_supervision=True), of_monai(name)
    x = torch.randn(2, 1, 32, 48)
    size = [-(-n // MULTIPLES.get(name, 1)) * MULTIPLES.get(name, 1) for n in (32, 48)]
    padded = torch.zeros(2, 1, *size)
    padded[..., :32, :48] = x
    with torch.no_grad():
        outputs, expected = ours(x), theirs(padded)
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    assert len(outputs) == len(expected) == len(ours.deep_supervision_strides)
    for logits, truth, (stride, _) in zip(outputs, expected, ours.deep_supervision_strides, strict=True):
        torch.testing.assert_close(logits, truth[..., : 32 // stride, : 48 // stride], rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", ["segresnet_ds", "mednext"])
def test_evaluation_does_not_change_what_leaves(name: str) -> None:
    network = toy(name, deep_supervision=True).eval()
    x = torch.randn(1, 1, 32, 48)
    expected = [tuple(logits.shape) for logits in network.train()(x)]
    assert len(expected) > 1
    assert [tuple(logits.shape) for logits in network.eval()(x)] == expected
    assert not any(module.training for child in network.net.children() for module in child.modules())


@pytest.mark.parametrize("name", MULTIPLES)
def test_the_input_is_padded_to_what_the_network_divides(name: str) -> None:
    network, x = toy(name).eval(), torch.randn(1, 1, 37, 50)
    multiple = MULTIPLES[name]
    assert network.size_multiple == (multiple, multiple)
    padded = torch.zeros(1, 1, *(-(-n // multiple) * multiple for n in (37, 50)))
    padded[..., :37, :50] = x
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(padded)[..., :37, :50], rtol=1e-5, atol=1e-6)


def test_maps_that_no_target_of_nnunet_fits_are_not_supervised() -> None:
    """Its targets have the rounded quotient of patch and stride: 20 / 8 gives 2, the map has 3 pixels."""
    network = toy("mednext", (20, 32), deep_supervision=True)
    assert network.deep_supervision_strides == ((1, 1), (2, 2), (4, 4))
    assert [tuple(x.shape[2:]) for x in network(torch.randn(1, 1, 20, 32))] == [(20, 32), (10, 16), (5, 8)]
    assert len(network.decoder.seg_layers) == 3
    assert not any(p.grad is None for p in _with_gradients(network, (20, 32)).parameters())


def _with_gradients(network: nn.Module, size: tuple[int, ...]) -> nn.Module:
    sum(x.square().mean() for x in network(torch.randn(1, 1, *size))).backward()
    return network


def test_unetr_pads_to_its_patch_and_takes_larger_images_in_tiles() -> None:
    network, x = toy("unetr", (30, 40)).eval(), torch.randn(1, 1, 40, 50)
    assert network.size_multiple == (32, 48)
    with torch.no_grad():
        whole = network(x)
        for rows in (slice(0, 32), slice(32, 40)):
            for columns in (slice(0, 48), slice(48, 50)):
                part = x[..., rows, columns]
                torch.testing.assert_close(whole[..., rows, columns], network(part), rtol=1e-4, atol=1e-5)


def test_unetr_freezes_what_gets_no_gradient() -> None:
    frozen = [key for key, parameter in toy("unetr").named_parameters() if not parameter.requires_grad]
    assert len(frozen) == 24 and all(".norm_cross_attn." in key for key in frozen)


@pytest.mark.parametrize("variant", ["S", "B", "M", "L"])
def test_variants_of_mednext_are_those_of_monai(variant: str) -> None:
    mednext = pytest.importorskip("monai.networks.nets.mednext")
    with torch.device("meta"):
        theirs = mednext.create_mednext(variant, spatial_dims=2, in_channels=1, out_channels=4, deep_supervision=True)
        ours = MedNeXt(1, 4, (32, 32), variant=variant)
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (ours, theirs)]
    assert sorted(shapes[0]) == sorted(shapes[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("segresnet", {"blocks_up": (1,)}, r"blocks_up=\(1,\): expected 2 entries"),
        ("segresnet_ds", {"blocks_down": (1,)}, r"blocks_down=\(1,\): expected at least 2 resolutions"),
        ("mednext", {"variant": "XL"}, "variant='XL': expected one of S, B, M, L"),
        ("mednext", {"kernel_size": 4}, "kernel_size=4: expected an odd number"),
        ("swin_unetr", {"depths": (2, 2)}, r"depths=\(2, 2\), num_heads=.*: expected 4 entries in each"),
        ("swin_unetr", {"num_heads": (2, 2)}, r"num_heads=\(2, 2\): expected 4 entries in each"),
        ("swin_unetr", {"num_heads": (5, 5, 5, 5)}, r"num_heads=\(5, .*: expected divisors of \[12, 24, 48, 96\]"),
        ("swin_unetr", {"num_heads": (3, 6, 12, 36)}, r"num_heads=.*: expected divisors of \[12, 24, 48, 96\]"),
        ("swin_unetr", {"feature_size": 13}, "feature_size=13: expected a multiple of 12"),
        ("segresnet", {"init_filters": 7}, "init_filters=7: expected a multiple of 8"),
        ("unetr", {"hidden_size": 25}, "num_heads=.*: expected a divisor of hidden_size=25"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(name, **options)


@pytest.mark.parametrize("name", BASELINES)
def test_without_monai_they_say_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(
        RuntimeError, match=r"needs monai, which is not installed: pip install 'nnunet-echo\[baselines\]'"
    ):
        toy(name)
    assert "pip install 'nnunet-echo[baselines]'" in (NETWORKS[name].why_not() or "")


def test_without_monai_all_others_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list_networks(installed=True) == list(NETWORKS)
    monkeypatch.setitem(sys.modules, "monai", None)
    others = [name for name in NETWORKS if name not in BASELINES]
    assert list_networks(installed=True) == others
    assert list_networks() == list(NETWORKS)
    monkeypatch.setattr(receptive_field, "random_network", lambda trainer, size: trainer)
    of_images = [name for name in others if 2 in NETWORKS[name].dims]
    trainers = [receptive_field.BASELINE, *(NETWORKS[name].trainer for name in of_images)]
    assert list(receptive_field._subjects(None, {}, None)) == trainers
    for name in of_images:
        assert toy(name)
    problems: list[str] = []
    doctor._trainers(problems)
    report = capsys.readouterr().out.splitlines()
    for name, row in NETWORKS.items():
        (line,) = (line for line in report if line.split()[:2] == [row.trainer, "found"])
        assert ("needs monai, which is not installed" in line) == (name in BASELINES)
    assert not problems
