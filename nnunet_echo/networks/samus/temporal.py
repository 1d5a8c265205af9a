"""What makes SAMUS see a clip: relations between frames (TRA) and attention along rows and columns (LIA).

`LocalMHRA` is UniFormerV2's (Li et al. 2022, arXiv 2211.09552), `STAdapter` that of Pan et al. 2022 (arXiv 2206.13559),
`CoordinateAttention` that of Hou et al. 2021 (arXiv 2103.02907). All of them change nothing before they are trained.

Letters: B clips, T frames, C or D channels, H and W, or h and w, rows and columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = ("batch", "group")


def norm(kind: str, channels: int, dims: int) -> nn.Module:
    """Normalisation of maps with `dims` axes of space: over the batch, or over up to 32 groups of channels."""
    if kind not in NORMS:
        raise ValueError(f"norm={kind!r}: expected one of {NORMS}.")
    if kind == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(channels)


def zero(layer: nn.Module) -> None:
    """All of its weights: what comes behind it starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class LocalMHRA(nn.Module):
    """Relations of each pixel with itself in neighbouring frames: (B, C, T, H, W) to the same shape, to be added.

    Norm, 1 x 1 x 1 to C / `dw_reduction` channels, a depth-wise convolution over `pos_kernel_size` frames, and back.
    The last convolution starts at zero.
    """

    def __init__(
        self, d_model: int, dw_reduction: float = 1.5, pos_kernel_size: int = 3, norm_kind: str = "batch"
    ) -> None:
        super().__init__()
        if pos_kernel_size % 2 == 0:
            raise ValueError(f"pos_kernel_size={pos_kernel_size} has to be odd, so that clips keep their length.")
        inner = int(d_model / dw_reduction)
        last = nn.Conv3d(inner, d_model, 1)
        self.pos_embed = nn.Sequential(
            norm(norm_kind, d_model, 3),
            nn.Conv3d(d_model, inner, 1),
            nn.Conv3d(inner, inner, (pos_kernel_size, 1, 1), padding=(pos_kernel_size // 2, 0, 0), groups=inner),
            last,
        )
        zero(last)

    def forward(self, x: Tensor) -> Tensor:
        return self.pos_embed(x)


class STAdapter(nn.Module):
    """Down, a depth-wise convolution over `kernel_size` frames, rows and columns, up: (B, T, H, W, C), to be added."""

    def __init__(self, in_channels: int, adapter_channels: int, kernel_size: tuple[int, int, int] = (3, 1, 1)) -> None:
        super().__init__()
        if not all(n % 2 for n in kernel_size):
            raise ValueError(f"kernel_size={tuple(kernel_size)}: expected odd numbers, so that clips keep their size.")
        time, rows, columns = kernel_size
        self.fc1 = nn.Linear(in_channels, adapter_channels)
        self.conv = nn.Conv3d(
            adapter_channels,
            adapter_channels,
            (time, rows, columns),
            padding=(time // 2, rows // 2, columns // 2),
            groups=adapter_channels,
        )
        self.fc2 = nn.Linear(adapter_channels, in_channels)
        zero(self.conv)
        for bias in (self.fc1.bias, self.fc2.bias):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).permute(0, 4, 1, 2, 3)
        return self.fc2(self.conv(x).permute(0, 2, 3, 4, 1))


class TemporalAttention(nn.Module):
    """Attention of each token to itself in all frames: (B, T, h, w, D), to be added. Ours: the seed defines none."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        zero(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, h, w, dim = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1, 4).reshape(batch * h * w, frames, dim)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        out = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out.reshape(batch, h, w, frames, dim).permute(0, 3, 1, 2, 4)


class CoordinateAttention(nn.Module):
    """Each pixel of (B, C, H, W) times a weight of its row and a weight of its column, for every channel.

    The weights come from the means of all rows and columns, through max(8, C / `reduction`) channels.
    """

    def __init__(self, inp: int, oup: int, reduction: int = 32, norm_kind: str = "batch") -> None:
        super().__init__()
        middle = max(8, inp // reduction)
        self.conv1 = nn.Conv2d(inp, middle, 1)
        self.bn1 = norm(norm_kind, middle, 2)
        self.conv_h = nn.Conv2d(middle, oup, 1)
        self.conv_w = nn.Conv2d(middle, oup, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        means = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2)
        rows, columns = F.hardswish(self.bn1(self.conv1(means))).split([height, width], dim=2)
        return x * self.conv_w(columns.transpose(2, 3)).sigmoid() * self.conv_h(rows).sigmoid()
