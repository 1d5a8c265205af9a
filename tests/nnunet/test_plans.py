"""Shapes of U-Nets from a patch size: nnU-Net's own rule, without nnU-Net."""

from __future__ import annotations

import random

import pytest
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_echo.nnunet.plans import divisible, unet_architecture


def test_the_rule_is_nnunets() -> None:
    choice = random.Random(0)
    for _ in range(500):
        axes = choice.choice((2, 3))
        size = [choice.randint(12, choice.choice((30, 700))) for _ in range(axes)]
        spacing = [choice.choice((1.0, 0.154, 0.308, 2.0, choice.uniform(0.1, 5))) for _ in range(axes)]
        _, strides, kernels, padded, _ = get_pool_and_conv_props(spacing, size, 4, 999999)
        ours = unet_architecture(size, spacing)
        assert ours["strides"] == [list(stride) for stride in strides], (size, spacing)
        assert ours["kernel_sizes"] == [list(kernel) for kernel in kernels], (size, spacing)
        assert divisible(size, ours["strides"]) == tuple(int(n) for n in padded), (size, spacing)


def test_a_patch_that_cannot_be_halved_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"patch_size=\(7, 6\): a U-Net halves it at least once.*Take a larger patch"):
        unet_architecture((7, 6))
    assert unet_architecture((8, 8))["n_stages"] == 2
