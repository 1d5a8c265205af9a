"""What the networks share: any input size, and the U-Net of nnU-Net's plan with a mixer behind each encoder stage.

Maps are (B, C, *S), S = H, W or Z, H, W. A stage is one resolution of the encoder, 0 the finest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.layers.windows import crop_to, pad_to_multiple
from nnunet_echo.networks.plan import UNetShape


class AnySize(nn.Module):
    """A network that pads its input with zeros at the end of each axis and crops its output back.

    Subclasses set `size_multiple`, what each axis of the padded input is a multiple of, and `deep_supervision_strides`,
    the stride of each output along each axis, finest first, and compute `padded_forward`. With
    `deep_supervision_weights` the outputs count by these in the loss, without them by nnU-Net's.
    """

    size_multiple: tuple[int, ...]
    deep_supervision_strides: tuple[tuple[int, ...], ...]

    @classmethod
    def from_plan(
        cls,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        architecture: dict[str, Any],
        deep_supervision: bool,
        **options: Any,
    ) -> AnySize:
        """The network of nnU-Net's plan: `architecture` is its ``arch_kwargs``, `patch_size` is *S.

        `options` are the keyword arguments of the subclass. As it is here, for networks that need nothing of
        `architecture`.
        """
        build: Callable[..., AnySize] = cls  # a subclass takes more
        return build(in_channels, num_classes, patch_size, deep_supervision=deep_supervision, **options)

    def pad(self, x: Tensor) -> Tensor:
        """The input that `padded_forward` gets."""
        return pad_to_multiple(x, self.size_multiple)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of a padded input: one tensor, or a list, finest first, with deep supervision."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        if len(size) != len(self.size_multiple):
            axes = "height, width" if len(self.size_multiple) == 2 else "depth, height, width"
            raise ValueError(f"input has shape {tuple(x.shape)}: expected (batch, channels, {axes}).")
        out = self.padded_forward(self.pad(x))
        if isinstance(out, Tensor):
            return crop_to(out, size)
        return [
            crop_to(logits, [-(-n // s) for n, s in zip(size, stride, strict=True)])
            for logits, stride in zip(out, self.deep_supervision_strides, strict=True)
        ]


def pad_for_instance_norm(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """Double the last axis of (B, C, *S) where S is `multiple`: one pixel would be left at the coarsest map.

    Instance norm needs two.

    >>> pad_for_instance_norm(torch.ones(1, 1, 16, 16), (16, 16)).shape
    torch.Size([1, 1, 16, 32])
    """
    return F.pad(x, (0, multiple[-1])) if tuple(x.shape[2:]) == tuple(multiple) else x


def halving_weights(outputs: int) -> tuple[float, ...]:
    """Of the outputs of deep supervision, finest first: each half of the one before, 1 together.

    nnU-Net's are these with 0 for the coarsest.

    >>> [round(weight, 3) for weight in halving_weights(3)]
    [0.571, 0.286, 0.143]
    """
    return tuple(2**level / (2**outputs - 1) for level in reversed(range(outputs)))


def drop_path_rates(rate: float, blocks: int, grows: bool = True) -> list[float]:
    """The rate of stochastic depth (Huang et al. 2016, arXiv 1603.09382) of each block: from 0 to `rate`, or constant.

    ValueError for a rate that would drop every path, which no layer refuses.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"drop_path_rate={rate} has to be in [0, 1); 0 switches stochastic depth off.")
    return torch.linspace(0, rate, blocks).tolist() if grows else [rate] * blocks


class MixedEncoder(nn.Module):
    """Stem, stages, and a mixer behind each stage; returns the map behind every mixer, finest first."""

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], mixers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.mixers = nn.ModuleList(mixers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        skips = []
        for stage, mixer in zip(self.stages, self.mixers, strict=True):
            x = mixer(stage(x))
            skips.append(x)
        return skips


class UNet(AnySize):
    """An encoder (B, C, *S) -> list of maps, and a decoder that turns these into logits."""

    takes_patch_size = False  # whether a subclass is built from that as well

    def __init__(self, encoder: nn.Module, decoder: nn.Module, strides: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        total = [tuple(int(n) for n in stride) for stride in np.cumprod(strides, axis=0)]
        self.size_multiple = total[-1]
        self.deep_supervision_strides = tuple(total[:-1])

    @classmethod
    def from_plan(
        cls,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        architecture: dict[str, Any],
        deep_supervision: bool,
        **options: Any,
    ) -> UNet:
        shape = UNetShape.from_plan(in_channels, num_classes, architecture)
        build: Callable[..., UNet] = cls  # a subclass is built from the shape
        if cls.takes_patch_size:
            options["patch_size"] = patch_size  # whose axes `map_sizes` counts
        elif shape.dim != len(patch_size):
            raise ValueError(f"strides={shape.strides}: patch_size={tuple(patch_size)} has {len(patch_size)} axes.")
        return build(shape, deep_supervision, **options)

    def pad(self, x: Tensor) -> Tensor:
        return pad_for_instance_norm(super().pad(x), self.size_multiple)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder(x))
