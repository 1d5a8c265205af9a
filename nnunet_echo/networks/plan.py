"""The shape of a U-Net, from nnU-Net's plan or from a patch size.

A stage is one resolution of the encoder, 0 the finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn

from nnunet_echo.nnunet.plans import unet_architecture
from nnunet_echo.ops.instance_norm import InstanceNorm2d, InstanceNorm3d


@dataclass(frozen=True)
class UNetShape:
    """Shape of a U-Net, in the words of nnU-Net's plan. Per stage, finest first; the constructor takes one int for all
    stages, or for all axes of a kernel, too.

    Normalisation and activation are those of the published networks, nnU-Net's defaults: InstanceNorm with affine
    parameters, LeakyReLU, convolutions with bias. Raises ValueError for numbers of entries that do not fit `strides`,
    a first stage with a stride, and even kernels.

    >>> shape = UNetShape(1, 4, (32, 64, 128), 3, ((1, 1), (2, 2), (2, 2)), 2, 2)
    >>> shape.kernel_sizes, shape.n_conv_per_stage_decoder
    (((3, 3), (3, 3), (3, 3)), (2, 2))
    """

    in_channels: int
    num_classes: int
    features_per_stage: Sequence[int]
    kernel_sizes: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    n_conv_per_stage: Sequence[int]
    n_conv_per_stage_decoder: Sequence[int]

    def __post_init__(self) -> None:
        stages = 0 if isinstance(self.strides, int) else len(self.strides)
        if stages < 2 or any(isinstance(stage, int) or len(stage) not in (2, 3) for stage in self.strides):
            raise ValueError(f"strides={self.strides}: expected at least 2 stages of 2 or 3 axes each.")
        for name, count in (
            ("strides", stages),
            ("features_per_stage", stages),
            ("kernel_sizes", stages),
            ("n_conv_per_stage", stages),
            ("n_conv_per_stage_decoder", stages - 1),
        ):
            value = getattr(self, name)
            value = (value,) * count if isinstance(value, int) else tuple(value)
            if len(value) != count:
                raise ValueError(f"{name}={value}: expected {count} entries, since strides has {stages} stages.")
            object.__setattr__(self, name, value)
        for name in ("strides", "kernel_sizes"):
            value = tuple((n,) * self.dim if isinstance(n, int) else tuple(n) for n in getattr(self, name))
            if any(len(stage) != self.dim for stage in value):
                raise ValueError(f"{name}={value}: expected {self.dim} numbers for each stage, as strides[0] has.")
            object.__setattr__(self, name, value)
        if any(n != 1 for n in self.strides[0]):
            raise ValueError(f"strides={self.strides}: expected 1 in the first stage: it has the image's size.")
        if any(n % 2 == 0 for kernel in self.kernel_sizes for n in kernel):
            raise ValueError(f"kernel_sizes={self.kernel_sizes}: expected odd numbers, so that maps keep their size.")

    @classmethod
    def from_plan(cls, in_channels: int, num_classes: int, architecture: dict[str, Any]) -> UNetShape:
        """From the plan's ``network_arch_init_kwargs``, of a plain or a residual encoder plan."""
        return cls(
            in_channels,
            num_classes,
            architecture["features_per_stage"],
            architecture["kernel_sizes"],
            architecture["strides"],
            architecture["n_conv_per_stage" if "n_conv_per_stage" in architecture else "n_blocks_per_stage"],
            architecture["n_conv_per_stage_decoder"],
        )

    @classmethod
    def from_patch_size(cls, in_channels: int, num_classes: int, patch_size: Sequence[int]) -> UNetShape:
        """As nnU-Net plans it for patches of this size (pixels, 2 or 3 axes, equally long along all of them).

        Raises ValueError as `unet_architecture`.

        >>> UNetShape.from_patch_size(1, 4, (64, 48)).features_per_stage
        (32, 64, 128, 256)
        """
        return cls.from_plan(in_channels, num_classes, unet_architecture(patch_size))

    @property
    def dim(self) -> int:
        """2 or 3 axes of space."""
        return len(self.strides[0])

    @property
    def n_stages(self) -> int:
        return len(self.strides)

    def block_arguments(self) -> dict[str, Any]:
        """What the blocks of dynamic-network-architectures need to know of convolution, norm and activation."""
        return {
            "conv_op": convert_dim_to_conv_op(self.dim),
            "conv_bias": True,
            "norm_op": InstanceNorm2d if self.dim == 2 else InstanceNorm3d,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": nn.LeakyReLU,
            "nonlin_kwargs": {"inplace": True},
        }
