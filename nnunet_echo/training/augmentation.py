"""Augmentation of the recipes. It takes the place of nnU-Net's; what nnU-Net does with the labels afterwards stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform


@dataclass(frozen=True)
class _OneOver:
    """Draws 1 / x, x uniform in `low` to `high`, or of values `step` apart. A class, since workers may pickle it."""

    low: float
    high: float
    step: float = 0.0

    def __call__(self, *_: object, **__: object) -> float:
        if not self.step:
            return 1 / np.random.uniform(self.low, self.high)  # noqa: NPY002  nnU-Net's workers seed this one
        return 1 / (self.low + self.step * np.random.randint(round((self.high - self.low) / self.step) + 1))  # noqa: NPY002


@dataclass(frozen=True)
class Augmentation:
    """Gamma, rotation, enlargement and contrast, in this order, each with probability `p`; no mirroring.

    The defaults are those of SAMUS (Lin et al. 2023, arXiv 2309.06824, released code). As there, grey values g in
    [0, 1] become ``g ** (1 / gamma)``, gamma in tenths, and contrast is a factor about the mean. Other than there, the
    range of g is the patch's own instead of 8 bits, the crop after enlarging is about the centre, and the image is
    interpolated linearly. The frames of a clip, whose first axis is time, are turned and enlarged alike in their plane.

    >>> Augmentation(p=0.3).title
    'gamma 1.0 to 2.4, rotation up to 30 degrees, scale 1.0 to 1.3, contrast 0.8 to 2.0, each with p 0.3'
    """

    p: float = 0.5
    gamma: tuple[float, float] = (1.0, 2.4)
    rotation: float = math.radians(30)  # either way
    scale: tuple[float, float] = (1.0, 1.3)
    contrast: tuple[float, float] = (0.8, 2.0)

    @property
    def title(self) -> str:
        degrees = f"rotation up to {math.degrees(self.rotation):.0f} degrees"
        ranges = [f"{name} {low} to {high}" for name, (low, high) in (("gamma", self.gamma), ("scale", self.scale))]
        contrast = f"contrast {self.contrast[0]} to {self.contrast[1]}"
        return f"{ranges[0]}, {degrees}, {ranges[1]}, {contrast}, each with p {self.p}"

    def initial_patch_size(self, patch_size: Sequence[int]) -> np.ndarray:
        """What has to be loaded for a patch (H, W) or (T, H, W), so that its corners are not empty once turned.

        >>> Augmentation().initial_patch_size((10, 100, 100))
        array([ 10, 137, 137])
        """
        *time, height, width = patch_size
        return np.array([*time, _turned(height, width, self.rotation), _turned(width, height, self.rotation)])

    def replace(self, stock: ComposeTransforms, patch_size: Sequence[int] | np.ndarray) -> ComposeTransforms:
        """nnU-Net's transforms of a training, with this augmentation instead of theirs.

        Kept is all from where nnU-Net blanks the image around a mask or takes the labels it padded with away: labels of
        the cascade, regions, targets of deep supervision. Raises RuntimeError where there is no such step.
        """
        kinds = MaskImageTransform, RemoveLabelTansform
        first = next((i for i, step in enumerate(stock.transforms) if isinstance(step, kinds)), None)
        if first is None:
            raise RuntimeError(
                f"transforms={[type(step).__name__ for step in stock.transforms]}: nnU-Net's step that prepares the "
                "labels is not among them. Use a recipe without its own augmentation, or the tested nnU-Net 2.8."
            )
        return ComposeTransforms([*self._steps(patch_size), *stock.transforms[first:]])

    def _steps(self, patch_size: Sequence[int] | np.ndarray) -> list[BasicTransform]:
        spatial = SpatialTransform(
            tuple(patch_size[-2:]),
            patch_center_dist_from_border=0,
            random_crop=False,
            p_rotation=self.p,
            rotation=(-self.rotation, self.rotation),
            p_scaling=self.p,
            scaling=_OneOver(*self.scale),  # what it samples from: less than the patch is enlarged to it
            p_synchronize_scaling_across_axes=1,
            border_mode_seg="constant",
            padding_value_seg=-1,
        )
        is_clip = len(patch_size) == 3
        gamma = GammaTransform(
            _OneOver(*self.gamma, step=0.1),
            p_invert_image=0,
            synchronize_channels=True,
            p_per_channel=1,
            p_retain_stats=0,
        )
        contrast = ContrastTransform(self.contrast, preserve_range=True, synchronize_channels=True, p_per_channel=1)
        return [
            RandomTransform(gamma, self.p),
            *([Convert3DTo2DTransform()] if is_clip else []),
            spatial,
            *([Convert2DTo3DTransform()] if is_clip else []),
            RandomTransform(contrast, self.p),
        ]


def _turned(side: int, other: int, most: float) -> int:
    """Extent, along `side`, of a rectangle turned by at most that angle; its diagonal is the largest there is."""
    angle = min(most, math.atan2(other, side))
    return math.ceil(side * math.cos(angle) + other * math.sin(angle))
