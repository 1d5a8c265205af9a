"""Every network fits plans of nnU-Net's residual encoder presets, which give blocks and not convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_echo.networks import NETWORKS, network_from_plan
from nnunet_echo.nnunet.plans import unet_architecture

PATCHES = {2: (32, 48), 3: (4, 32, 32)}


def resenc(patch_size: tuple[int, ...]) -> dict[str, Any]:
    """As a planner of nnU-Net's ResEnc presets writes it, with few features."""
    architecture = unet_architecture(patch_size, features=(4, 16))
    del architecture["n_conv_per_stage"]
    stages = architecture["n_stages"]
    return {**architecture, "n_blocks_per_stage": [1, 3, 4, 6][:stages], "n_conv_per_stage_decoder": [1] * (stages - 1)}


@pytest.mark.parametrize(("name", "dims"), [(name, dims) for name, row in NETWORKS.items() for dims in row.dims])
def test_every_network_is_built_from_one(name: str, dims: int) -> None:
    options = NETWORKS[name].toy
    if "features_per_stage" in options:  # one of the plan's shape
        of_the_plan = ("features_per_stage", "n_conv_per_stage", "n_conv_per_stage_decoder", "window_sizes")
        options = {key: value for key, value in options.items() if key not in of_the_plan}
    patch = PATCHES[dims]
    network = network_from_plan(name, 1, 3, patch, resenc(patch), True, **options)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 1, *patch))[0].shape == (1, 3, *patch)


def test_its_blocks_are_those_of_the_plan() -> None:
    network = network_from_plan("no_mamba", 1, 3, PATCHES[2], resenc(PATCHES[2]), True)
    # the deeper half has one block in U-Mamba, whatever the plan says
    assert [len(stage) for stage in network.encoder.stages] == [1, 3, 1, 1]
