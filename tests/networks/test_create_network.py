"""The table of networks, and `create_network`: what it builds, and what it refuses with which words."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nnunet_echo
from nnunet_echo import networks
from nnunet_echo.networks import NETWORKS, create_network, list_networks, network_from_plan, network_options
from nnunet_echo.networks.base import AnySize, UNet
from nnunet_echo.nnunet.plans import unet_architecture

PATCH = (32, 48)


def patch_of(name: str) -> tuple[int, ...]:
    return PATCH if 2 in NETWORKS[name].dims else (4, 32, 32)


def toy(name: str, *, patch_size: tuple[int, ...] | None = None, **options: object) -> nn.Module:
    return create_network(name, 1, 4, patch_size or patch_of(name), **{**NETWORKS[name].toy, **options})


def test_names_and_their_dimensions() -> None:
    assert list_networks() == list(NETWORKS)
    assert list_networks(3)[:4] == ["lkm_unet", "umamba_bot", "umamba_enc", "no_mamba"]
    assert list_networks(3) == [name for name, row in NETWORKS.items() if 3 in row.dims]
    assert list_networks(2) == [name for name, row in NETWORKS.items() if 2 in row.dims]
    assert list_networks(4) == []


def test_examples() -> None:
    assert doctest.testmod(networks).failed == 0
    assert doctest.testmod(networks).attempted >= 4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_and_its_class_agree(name: str) -> None:
    """One contract, whatever the network; and `scan` says whether a scan is called."""
    row = NETWORKS[name]
    assert issubclass(row.load(), AnySize)
    arguments = ["in_channels", "num_classes", "patch_size", "architecture", "deep_supervision"]
    assert list(inspect.signature(row.load().from_plan).parameters)[:5] == arguments
    assert row.toy.keys() <= network_options(name).keys()
    modules = {type(module).__name__ for module in toy(name).modules()}
    assert row.scan == bool(modules & {"Mamba", "BiMamba", "PixelLevelSSM", "SS2D", "LMS"})


@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if issubclass(row.load(), UNet)])
def test_a_plan_of_other_axes_is_refused(name: str) -> None:
    (architecture, patch) = (unet_architecture((32, 48)), (4, 32, 32))
    with pytest.raises(ValueError, match=r"patch_size=\(4, 32, 32\)(: expected 2| has 3) axes"):
        NETWORKS[name].load().from_plan(1, 4, patch, architecture, False)


def test_samus_on_clips_has_the_options_of_samus() -> None:
    """With the same defaults: the weights of one are those of the other."""
    assert network_options("samus").items() <= network_options("samus_tra_lia").items()


@pytest.mark.parametrize("name", NETWORKS)
def test_defaults_are_the_network_of_a_plan(name: str) -> None:
    """The same weights, for the same seed, as the class builds by itself from nnU-Net's shape for the patch."""
    toys = {key: value for key, value in NETWORKS[name].toy.items() if key not in networks.SHAPE_OPTIONS}
    torch.manual_seed(1)
    ours = create_network(name, 2, 3, patch_of(name), deep_supervision=True, **toys)
    torch.manual_seed(1)
    planned = NETWORKS[name].load().from_plan(2, 3, patch_of(name), unet_architecture(patch_of(name)), True, **toys)
    assert ours.decoder.deep_supervision
    assert not toy(name).decoder.deep_supervision
    assert ours.state_dict().keys() == planned.state_dict().keys()
    assert all(torch.equal(x, planned.state_dict()[key]) for key, x in ours.state_dict().items())


def test_shape_options_replace_those_of_the_patch() -> None:
    network = toy("no_mamba", strides=[[1, 1], [2, 4]], kernel_sizes=[(3, 5), 7], features_per_stage=[4, 6])
    assert network.size_multiple == (2, 4)
    assert network.encoder.stages[0][0].conv1.kernel_size == (3, 5)
    assert network.encoder.stages[1][0].conv1.kernel_size == (7, 7)
    assert toy("no_mamba", strides=None, features_per_stage=8).size_multiple == (8, 8)


def test_numbers_may_be_of_numpy() -> None:
    assert create_network("vil", np.int64(1), 2, np.array(PATCH), **NETWORKS["vil"].toy).size_multiple == (16, 16)


SHAPE = {"strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2, "features_per_stage": [4, 4]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lkm_unet", {"kernel_size": 3}, "kernel_size: lkm_unet has no such option. Choose from features_per_stage, "),
        (
            "vm_unet",
            {"strides": [[1, 1], [2, 2]]},
            "strides: vm_unet has no such option. Choose from depths, depths_decod",
        ),
        (
            "no_mamba",
            {"features_per_stage": [8, 12]},
            r"features_per_stage=\(8, 12\): expected 4 entries, since strides",
        ),
        (
            "lkm_unet",
            {**SHAPE, "kernel_sizes": [[3, 3]] * 3},
            r"kernel_sizes=.*: expected 2 entries, since strides has 2",
        ),
        ("lkm_unet", {**SHAPE, "kernel_sizes": [[3, 3, 3]] * 2}, "kernel_sizes=.*: expected 2 numbers for each stage"),
        ("lkm_unet", {"kernel_sizes": 4}, "kernel_sizes=.*: expected odd numbers"),
        ("no_mamba", {**SHAPE, "strides": [[2, 2], [2, 2]]}, "strides=.*: expected 1 in the first stage"),
        ("no_mamba", {**SHAPE, "strides": [[1] * 3, [2] * 3], "kernel_sizes": 3}, r"patch_size=\(32, 48\) has 2 axes"),
        (
            "umamba_enc",
            {**SHAPE, "strides": [[1] * 3, [2] * 3], "kernel_sizes": 3},
            r"patch_size=\(32, 48\): expected 3",
        ),
        ("no_mamba", {"strides": [[1, 1]]}, "strides=.*: expected at least 2 stages of 2 or 3 axes"),
        ("no_mamba", {"strides": [1, 2]}, "strides=.*: expected at least 2 stages of 2 or 3 axes"),
        ("no_mamba", {"strides": 2}, "strides=2: expected at least 2 stages of 2 or 3 axes"),
        ("no_mamba", {"n_conv_per_stage": 0}, "n_conv_per_stage=0: no_mamba expects whole numbers of at least 1"),
        ("no_mamba", {"n_conv_per_stage": [1, 1.5, 1, 1]}, "n_conv_per_stage=.*: no_mamba expects whole numbers"),
        ("no_mamba", {"features_per_stage": []}, "features_per_stage=.*: no_mamba expects whole numbers"),
        ("no_mamba", {"n_conv_per_stage": [[1]] * 4}, "no_mamba cannot be built with .*Its options and their defaults"),
        ("lkm_unet", {"window_sizes": [7, 7]}, "window_sizes=.*expected 4 windows, one per stage"),
        ("lkm_unet", {"window_sizes": 7}, "lkm_unet cannot be built with .*'window_sizes': 7"),
        ("lkm_unet", {"window_mode": "dilated"}, r"window_mode='dilated': expected one of \('paper', 'released'\)"),
        ("lkm_unet", {"window_mode": None}, "window_mode=None: lkm_unet expects names; the default is 'paper'"),
        ("lkm_unet", {"pixel_level": "no"}, "pixel_level='no': lkm_unet expects True or False; the default is True"),
        ("vm_unet", {"dims": 6}, r"dims=\(6, 12, 24, 48\): .* multiple of 4"),
        ("vm_unet", {"depths": 3}, "vm_unet cannot be built with .*'depths': 3"),
        ("vm_unet", {"d_state": True}, "d_state=True: vm_unet expects whole numbers of at least 1"),
        ("vm_unet", {"drop_path_rate": "0.1"}, "drop_path_rate='0.1': vm_unet expects a number; the default is 0.2"),
        ("vm_unet", {"drop_path_rate": 1.5}, r"drop_path_rate=1.5 has to be in \[0, 1\)"),
        ("vil", {"dim": 10}, "dim=10 has to be a multiple of 4"),
        ("vil", {"depth": 3}, "depth=3: the decoder takes features from 4 depths"),
        ("vil2", {"conv_kind": "3d"}, "conv_kind='3d': expected '2d' or 'causal1d'"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(name, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swin", 1, 2, PATCH), "network 'swin': expected one of lkm_unet, umamba_bot"),
        ((["vil"], 1, 2, PATCH), "network .*: expected one of lkm_unet"),
        (("vil", 0, 2, PATCH), "in_channels=0: expected a whole number of at least 1"),
        (("vil", "1", 2, PATCH), "in_channels='1': expected a whole number"),
        (("vil", 1, 2.5, PATCH), "num_classes=2.5: expected a whole number"),
        (("vil", 1, 2, 32), r"patch_size=32: expected a number of pixels along each axis, such as \(256, 256\)"),
        (("vil", 1, 2, (32, 0)), r"patch_size=\(32, 0\): expected a number of pixels"),
        (("vil", 1, 2, (32.5, 32)), r"patch_size=\(32.5, 32\): expected a number of pixels"),
        (("vil", 1, 2, (32,)), "has 1 axes, but vil is 2D.*there is none"),
        (("no_mamba", 1, 2, (4, 4, 32, 32)), "has 4 axes, but no_mamba is 2D or 3D"),
        (("no_mamba", 1, 2, (7, 6)), r"patch_size=\(7, 6\): a U-Net halves it at least once"),
    ],
)
def test_arguments_that_cannot_be(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_network(*arguments)


def test_deep_supervision_that_is_neither() -> None:
    with pytest.raises(ValueError, match="deep_supervision='no': expected True or False"):
        create_network("vil", 1, 2, PATCH, deep_supervision="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vm_unet", "vil", "vil2", "segresnet", "unetr"])
def test_a_network_that_is_no_unet_takes_the_smallest_patch(name: str) -> None:
    """It pads its input to a multiple of its own, so the rule of a U-Net's halvings is none of its rules."""
    network = toy(name, patch_size=(7, 6))
    assert network(torch.zeros(2, 1, 7, 6)).shape == (2, 4, 7, 6)


@pytest.mark.parametrize("name", [name for name, row in NETWORKS.items() if 3 not in row.dims])
def test_a_network_without_a_3d_form_says_so_and_names_those_that_have_one(name: str) -> None:
    message = rf"patch_size=\(8, 32, 32\) has 3 axes, but {name} is 2D\..*lkm_unet, umamba_bot, umamba_enc, no_mamba"
    with pytest.raises(ValueError, match=message):
        toy(name, patch_size=(8, 32, 32))
    with pytest.raises(ValueError, match=message):
        network_from_plan(name, 1, 4, (8, 32, 32), unet_architecture((8, 32, 32)), False)


def test_the_contents_page_imports_nothing_until_it_is_asked() -> None:
    assert {"__version__", "create_network", "from_upstream", "list_networks"} <= set(nnunet_echo.__all__)
    assert set(nnunet_echo.__all__) <= set(dir(nnunet_echo))
    assert nnunet_echo.create_network is create_network
    assert nnunet_echo.from_upstream is networks.from_upstream
    for module in (nnunet_echo, networks):
        with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
            module.nosuch  # noqa: B018
    code = (
        "import sys, nnunet_echo; loaded = {m for m in sys.modules if m.startswith('nnunet_echo')}; "
        "assert loaded == {'nnunet_echo'}, loaded; print(len(nnunet_echo.list_networks())); "
        "assert not {'torch', 'numpy', 'nnunetv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(len(NETWORKS)), done.stderr


def test_the_documentation_has_every_row_and_every_option() -> None:
    root = Path(__file__).resolve().parents[2]
    text = "".join((root / page).read_text() for page in ("README.md", "docs/reference/networks.md"))
    options = text[text.index("| network | options |") :].partition("\n\n")[0]
    for name, row in NETWORKS.items():
        (line,) = (line for line in text.splitlines() if re.match(rf"\| (`\w+`, )*`{row.trainer}`[,| ]", line))
        network = line.split("|")[2]  # related ones share a line
        assert row.title.split()[0] in network and all(f"{n}D" in network for n in row.dims), line
        assert row.paper in text
        (line,) = (line for line in options.splitlines() if re.match(rf"\| (`\w+`, )*`{name}`[,| ]", line))
        missing = {option for option in network_options(name) if f"`{option}`" not in line}
        assert missing <= set(networks.SHAPE_OPTIONS), (name, missing)
    assert all(f"`{option}`" in text for option in networks.SHAPE_OPTIONS)
