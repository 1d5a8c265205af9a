"""U-Mamba (Ma, Li, Wang 2024, arXiv 2401.04722), Bot and Enc, and the same network without Mamba.

A residual U-Net with Mamba behind the last encoder stage (Bot) or behind every second stage, the last included (Enc; in
3D behind every stage, as published). Where a stage has no more pixels than channels, Enc takes the channels as tokens,
each described by its pixels. Such a layer is built for one map size; other maps go through it in tiles of that size.

The control without mixers is what "nnU-Net Revisited" (Isensee et al. 2024, arXiv 2404.09556) calls No-Mamba Base.

Published details kept here: the second half of the stages has one block each, whatever the plan says, and the 2D
decoder leaves out the finest skip connection, which the 3D one has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunet_echo.layers.mamba import Mamba
from nnunet_echo.layers.windows import merge_windows, partition_windows, to_image, to_tokens
from nnunet_echo.networks.base import MixedEncoder, UNet
from nnunet_echo.networks.plan import UNetShape


class UMamba(UNet):
    """The U-Net of all variants and of xLSTM-UNet; `mixers` has one module per stage, (B, C, *S) to the same shape.

    (B, in_channels, *S) to logits (B, num_classes, *S); Ma et al. 2024, arXiv 2401.04722, figure 1.

    >>> shape = UNetShape(1, 4, (4, 8), 3, ((1, 1), (2, 2)), 1, 1)
    >>> network = UMamba(shape, [nn.Identity(), PixelTokens(8)])  # U-Mamba Bot
    >>> network(torch.zeros(1, 1, 30, 40)).shape
    torch.Size([1, 4, 30, 40])
    """

    def __init__(self, shape: UNetShape, mixers: Sequence[nn.Module], deep_supervision: bool = False) -> None:
        n, features = shape.n_stages, shape.features_per_stage
        blocks = [1 if s >= math.ceil(n / 2) else count for s, count in enumerate(shape.n_conv_per_stage)]
        stem = _blocks(shape, 0, shape.in_channels, features[0], 1, blocks[0])
        inputs = (features[0], *features)
        stages = [_blocks(shape, s, inputs[s], features[s], shape.strides[s], blocks[s]) for s in range(n)]
        super().__init__(MixedEncoder(stem, stages, mixers), UMambaDecoder(shape, deep_supervision), shape.strides)
        self.apply(InitWeights_He(1e-2))


class UMambaBot(UMamba):
    """U-Mamba with one Mamba layer, behind the coarsest stage."""

    def __init__(self, shape: UNetShape, deep_supervision: bool = False) -> None:
        mixers = [nn.Identity() for _ in shape.strides[1:]]
        super().__init__(shape, [*mixers, PixelTokens(shape.features_per_stage[-1])], deep_supervision)


class UMambaEnc(UMamba):
    """U-Mamba with Mamba layers through the encoder; `patch_size` (*S) decides where channels become tokens."""

    takes_patch_size = True

    def __init__(self, shape: UNetShape, deep_supervision: bool = False, *, patch_size: Sequence[int]) -> None:
        mixers: list[nn.Module] = []
        for s, (features, size) in enumerate(zip(shape.features_per_stage, map_sizes(shape, patch_size), strict=True)):
            if shape.dim == 2 and (shape.n_stages - 1 - s) % 2:
                mixers.append(nn.Identity())
            else:
                mixers.append(ChannelTokens(size) if math.prod(size) <= features else PixelTokens(features))
        super().__init__(shape, mixers, deep_supervision)


class NoMamba(UMamba):
    """U-Mamba without its mixers: what the convolutions do alone."""

    def __init__(self, shape: UNetShape, deep_supervision: bool = False) -> None:
        super().__init__(shape, [nn.Identity() for _ in shape.strides], deep_supervision)


class PixelTokens(nn.Module):
    """(B, C, *S) to the same shape: LayerNorm and Mamba over the pixels. There is no residual connection around it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim)

    def forward(self, x: Tensor) -> Tensor:
        return mix_pixels(x, lambda tokens: self.mamba(self.norm(tokens)))


class ChannelTokens(nn.Module):
    """(B, C, *S) to the same shape: LayerNorm and Mamba over the channels, each described by the pixels of `size`."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)
        self.norm = nn.LayerNorm(math.prod(size))
        self.mamba = Mamba(math.prod(size))

    def forward(self, x: Tensor) -> Tensor:
        return mix_channels(x, self.size, lambda tokens: self.mamba(self.norm(tokens)))


def map_sizes(shape: UNetShape, patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """Size of the map of each stage for a patch (*S)."""
    size: tuple[int, ...] = tuple(patch_size)
    sizes = []
    if len(size) != shape.dim:
        raise ValueError(f"patch_size={size}: expected {shape.dim} axes, since strides has {shape.dim}.")
    for stride in shape.strides:
        size = tuple(-(-n // k) for n, k in zip(size, stride, strict=True))
        sizes.append(size)
    return sizes


def mix_pixels(x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """`mix` of the pixels of x (B, C, *S) as tokens (B, L, C), put back in place."""
    return to_image(mix(to_tokens(x)), x.shape[2:])


def mix_channels(x: Tensor, size: Sequence[int], mix: Callable[[Tensor], Tensor]) -> Tensor:
    """`mix` of the channels of x (B, C, *S) as tokens (B, C, pixels of `size`), in tiles of that size."""
    tokens = mix(partition_windows(x, size).flatten(2))
    return merge_windows(tokens.unflatten(2, tuple(size)), x.shape[2:])


class ProjectionBlock(nn.Module):
    """Two convolutions and a 1x1 convolution around them: the block of U-Mamba that changes channels or resolution."""

    def __init__(self, shape: UNetShape, kernel: Sequence[int], inputs: int, outputs: int, stride: int | Sequence[int]):
        super().__init__()
        arguments = shape.block_arguments()
        conv, norm = arguments["conv_op"], arguments["norm_op"]
        padding = [k // 2 for k in kernel]
        self.conv1 = conv(inputs, outputs, tuple(kernel), stride, padding)
        self.norm1 = norm(outputs, **arguments["norm_op_kwargs"])
        self.conv2 = conv(outputs, outputs, tuple(kernel), padding=padding)
        self.norm2 = norm(outputs, **arguments["norm_op_kwargs"])
        self.conv3 = conv(inputs, outputs, 1, stride)
        self.act = arguments["nonlin"](**arguments["nonlin_kwargs"])

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(y)) + self.conv3(x))


class Upsample(nn.Module):
    """Nearest neighbour by `stride`, then a 1x1 convolution: (B, inputs, *S) -> (B, outputs, *(S * stride))."""

    def __init__(self, conv_op: type[nn.Module], inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = [float(s) for s in stride]
        self.conv = conv_op(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=self.stride, mode="nearest"))


class UMambaDecoder(nn.Module):
    """From the encoder's maps to logits; nnU-Net toggles `deep_supervision`."""

    def __init__(self, shape: UNetShape, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        n, conv = shape.n_stages, shape.block_arguments()["conv_op"]
        self.skip_finest = shape.dim == 3
        upsample, stages, heads = [], [], []
        for k, count in enumerate(shape.n_conv_per_stage_decoder):
            s = n - 2 - k  # the encoder stage whose resolution is reached
            below, here = shape.features_per_stage[s + 1], shape.features_per_stage[s]
            upsample.append(Upsample(conv, below, here, shape.strides[s + 1]))
            inputs = 2 * here if s or self.skip_finest else here
            stages.append(_blocks(shape, s, inputs, here, 1, 1 if k >= math.ceil(n / 2) else count))
            heads.append(conv(here, shape.num_classes, 1))
        self.upsample_layers = nn.ModuleList(upsample)
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(heads)  # all of them always, so that the keys do not depend on the flag

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        x, finest, logits = skips[-1], len(self.stages) - 1, []
        levels = zip(self.upsample_layers, self.stages, self.seg_layers, strict=True)
        for k, (upsample, stage, head) in enumerate(levels):
            x = upsample(x)
            if k < finest or self.skip_finest:
                x = torch.cat((x, skips[-(k + 2)]), dim=1)
            x = stage(x)
            if self.deep_supervision or k == finest:
                logits.append(head(x))
        return logits[::-1] if self.deep_supervision else logits[0]


def _blocks(
    shape: UNetShape, stage: int, inputs: int, outputs: int, stride: int | Sequence[int], count: int
) -> nn.Sequential:
    """`count` blocks with the kernel of an encoder stage, of which the first changes channels and resolution."""
    kernel, arguments = shape.kernel_sizes[stage], shape.block_arguments()
    conv_op = arguments.pop("conv_op")
    residual = [BasicBlockD(conv_op, outputs, outputs, kernel, 1, **arguments) for _ in range(count - 1)]
    return nn.Sequential(ProjectionBlock(shape, kernel, inputs, outputs, stride), *residual)
