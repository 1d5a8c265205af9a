"""The shape of a U-Net, from a plan and from a patch size."""

from __future__ import annotations

import pytest

from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.nnunet.plans import unet_architecture


@pytest.mark.parametrize("patch_size", [(64, 48), (8, 32, 32)])
def test_a_patch_size_gives_the_shape_that_nnunet_plans_for_it(patch_size: tuple[int, ...]) -> None:
    shape = UNetShape.from_patch_size(2, 4, patch_size)
    assert shape == UNetShape.from_plan(2, 4, unet_architecture(patch_size))
    assert (shape.in_channels, shape.num_classes, shape.dim) == (2, 4, len(patch_size))


def test_a_residual_encoder_plan_counts_blocks() -> None:
    plan = unet_architecture((64, 48))
    residual = {**plan, "n_blocks_per_stage": [1, 3, 4, 6]}
    del residual["n_conv_per_stage"]
    assert UNetShape.from_plan(1, 2, residual).n_conv_per_stage == (1, 3, 4, 6)


def test_a_patch_that_cannot_be_halved_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"patch_size=\(7, 6\): a U-Net halves it at least once"):
        UNetShape.from_patch_size(1, 2, (7, 6))
