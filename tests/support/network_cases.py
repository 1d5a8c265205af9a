"""Every row of the table in a toy size, for the tests that all networks pass.

It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunet_echo.networks import NETWORKS, create_network

PATCHES = {2: (32, 48), 3: (4, 32, 32)}
# Case: a row of the table, its options, the patch.
CASES = {f"{name}-{n}d": (name, row.toy, PATCHES[n]) for name, row in NETWORKS.items() for n in row.dims}
CASES["lkm_unet-released"] = ("lkm_unet", {**NETWORKS["lkm_unet"].toy, "window_mode": "released"}, PATCHES[2])
CASES["nnformer-3d"] = ("nnformer", NETWORKS["nnformer"].toy, (16, 32, 32))  # more than a window along every axis
CASES["vil-slstm"] = ("vil", {**NETWORKS["vil"].toy, "slstm_at": (1, 2)}, PATCHES[2])
CASES["umamba_enc-anisotropic"] = (
    "umamba_enc",
    {
        **NETWORKS["umamba_enc"].toy,
        "features_per_stage": [6, 8, 130],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    },
    PATCHES[3],
)
CASES["samus-class_masks"] = (
    "samus",
    {**NETWORKS["samus"].toy, "decoder": "class_masks", "decoder_dim": 64},
    PATCHES[2],
)
every_network = pytest.mark.parametrize("name", CASES)
SLOW = ("unetr-3d", "swin_unetr-3d", "mednext-3d")  # dozens of steps take seconds
every_network_but_slow_ones = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES]
)


def slow_but_for(quick: str) -> pytest.MarkDecorator:
    """Every network, all but one with `-m slow` only."""
    others = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != quick]
    return pytest.mark.parametrize("name", [quick, *others])


def build(name: str, channels: int = 1, classes: int = 4, deep_supervision: bool = False) -> nn.Module:
    network, options, patch = CASES[name]
    return create_network(network, channels, classes, patch, deep_supervision=deep_supervision, **options)


def image(name: str, channels: int = 1, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, *CASES[name][2])


def outputs_and_gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    network.zero_grad()
    output = network(x)
    sum(logits.square().mean() for logits in output).backward()
    return [*output, *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
