"""Multiscale attention aggregation of the skip connections of a U-Net (CM-UNet, Liu et al. 2024, arXiv 2405.10530).

Letters: B batch, C channels, H and W the map's size. Two-dimensional.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = 3  # levels that a fused skip connection is made of
REDUCTION = 4


class ChannelAttention(nn.Module):
    """x (B, C, H, W) times a weight for each channel, from its mean and its largest value (CBAM, arXiv 1807.06521).

    >>> x = torch.randn(2, 8, 10, 12)
    >>> bool((ChannelAttention(8)(x).abs() <= x.abs()).all())  # the weights lie between 0 and 1
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.fc = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc(mean) + self.fc(largest))


class SpatialAttention(nn.Module):
    """x (B, C, H, W) times a weight for each pixel, from the mean and the largest value of the channels around it.

    >>> weight = SpatialAttention()(torch.ones(1, 8, 10, 12))
    >>> bool((weight == weight[:, :1]).all())  # one weight for all channels of a pixel
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)))


class MSAA(nn.Module):
    """Maps of one size, together `in_channels`, to one map (B, out_channels, H, W).

    A 1 x 1 convolution to a quarter of `out_channels`; a spatial path, the sum of convolutions of three sizes under
    spatial attention; a channel path, channel attention of what enters those; a 1 x 1 convolution of the sum of both.

    >>> MSAA(12, 8)(torch.randn(2, 4, 10, 12), torch.randn(2, 8, 10, 12)).shape
    torch.Size([2, 8, 10, 12])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = max(1, out_channels // REDUCTION)
        self.down = nn.Conv2d(in_channels, width, 1)
        self.conv_3x3, self.conv_5x5, self.conv_7x7 = (nn.Conv2d(width, width, n, padding=n // 2) for n in (3, 5, 7))
        self.spatial_attention = SpatialAttention()
        self.channel_attention = ChannelAttention(width)
        self.up = nn.Conv2d(width, out_channels, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        x = self.down(torch.cat(maps, dim=1))
        spatial = self.spatial_attention(self.conv_3x3(x) + self.conv_5x5(x) + self.conv_7x7(x))
        return self.up(spatial + self.channel_attention(x))


class SkipFusion(nn.Module):
    """Maps of several levels, finest first, to the same number of maps of the same sizes and channels.

    Each level is made of the three levels nearest to it, itself the first, then the nearer before the farther and the
    finer before the coarser, all reduced to a quarter of their channels. With three levels that is CM-UNet's fusion,
    which has no more.

    >>> fine, coarse = SkipFusion([8, 16])([torch.randn(1, 8, 10, 12), torch.randn(1, 16, 5, 6)])
    >>> fine.shape, coarse.shape
    (torch.Size([1, 8, 10, 12]), torch.Size([1, 16, 5, 6]))
    """

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        reduced = [max(1, n // REDUCTION) for n in features]
        self.reduce = nn.ModuleList(nn.Conv2d(n, r, 1, bias=False) for n, r in zip(features, reduced, strict=True))
        self.sources = [nearest_levels(level, len(features)) for level in range(len(features))]
        self.fuse = nn.ModuleList(
            MSAA(sum(reduced[level] for level in sources), n) for sources, n in zip(self.sources, features, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        reduced = [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]
        return [
            fuse(*(resize(reduced[level], x.shape[2:]) for level in sources))
            for fuse, sources, x in zip(self.fuse, self.sources, maps, strict=True)
        ]


def nearest_levels(level: int, levels: int) -> list[int]:
    """The up to three levels of a fused skip connection, in the order of `SkipFusion`.

    >>> [nearest_levels(level, 4) for level in range(4)]
    [[0, 1, 2], [1, 0, 2], [2, 1, 3], [3, 2, 1]]
    """
    return sorted(range(levels), key=lambda other: (abs(other - level), other))[:NEIGHBOURS]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (B, C, H, W) to (B, C, *size), bilinear, corner pixels on corner pixels; `x` itself where it has that size.

    >>> resize(torch.tensor([[[[0.0, 2.0]]]]), (1, 3))
    tensor([[[[0., 1., 2.]]]])
    """
    return x if x.shape[2:] == tuple(size) else F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)
