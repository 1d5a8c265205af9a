"""Attention in windows of three axes (Swin Transformer, Liu et al. 2021, arXiv 2103.14030), as nnFormer has it.

Letters: B batch, Z, Y, X axes of the map, C channels, w window, N = w**3 voxels of a window. Maps are channels last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.ops.linear import Linear

_MASKED = -100.0  # added to the weight of a pair that must not see each other


class WindowAttention(nn.Module):
    """Attention in windows of a map (B, Z, Y, X, C), to the same shape (Swin Transformer, section 3.2).

    The map is padded with zeros to a multiple of the window. With a `shift` the windows begin that many voxels later,
    and voxels that only the wrap-around brings together do not see each other. `cross` takes the queries as they are,
    keys and values from another map.

    >>> layer = WindowAttention(8, heads=2, window=4, shift=2, released=False, cross=False)
    >>> layer(torch.randn(1, 5, 8, 6, 8)).shape
    torch.Size([1, 5, 8, 6, 8])
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int, shift: int, released: bool, cross: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        if cross:
            self.kv = Linear(dim, 2 * dim)
        else:
            self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window, released))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        size = x.shape[1:4]
        padded = [-(-n // self.window) * self.window for n in size]
        q = self._windows(x, padded)
        if memory is None:
            q, k, v = self.qkv(q).chunk(3, dim=-1)
        else:
            k, v = self.kv(self._windows(memory, padded)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (windows, heads, N, d)
        weights = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        weights = weights + self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if self.shift:
            masks = self._masks(padded, x.device)[:, None]
            weights = (weights.unflatten(0, (-1, len(masks))) + masks).flatten(0, 1)
        y = self.proj((weights.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return self._map(y, padded)[:, : size[0], : size[1], : size[2]]

    def _windows(self, x: Tensor, padded: Sequence[int]) -> Tensor:
        """(B, Z, Y, X, C) -> (B * windows, N, C)."""
        missing = [n - m for n, m in zip(padded, x.shape[1:4], strict=True)]
        if any(missing):
            x = F.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        if self.shift:
            x = x.roll([-self.shift] * 3, dims=(1, 2, 3))
        w = self.window
        x = x.reshape(x.shape[0], padded[0] // w, w, padded[1] // w, w, padded[2] // w, w, -1)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, w**3, x.shape[-1])

    def _map(self, windows: Tensor, padded: Sequence[int]) -> Tensor:
        """(B * windows, N, C) -> (B, *padded, C), the inverse of `_windows` but for the padding."""
        w = self.window
        counts = [n // w for n in padded]
        x = windows.reshape(-1, *counts, w, w, w, windows.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(x.shape[0], *padded, -1)
        return x.roll([self.shift] * 3, dims=(1, 2, 3)) if self.shift else x

    def _masks(self, padded: Sequence[int], device: torch.device) -> Tensor:
        """(windows, N, N), added to the weights: voxels that a shift wraps around are regions of their own."""
        region = torch.zeros(1, *padded, 1, device=device)
        for axis, n in enumerate(padded):
            place = torch.arange(n, device=device)
            part = (place >= n - self.window).float() + (place >= n - self.shift).float()
            region = region + part.view([n if a == axis + 1 else 1 for a in range(5)]) * 3**axis
        w = self.window
        x = region.view(padded[0] // w, w, padded[1] // w, w, padded[2] // w, w).permute(0, 2, 4, 1, 3, 5).flatten(3)
        x = x.flatten(0, 2)
        return (x[:, None] != x[:, :, None]) * _MASKED


def relative_position_index(window: int, released: bool) -> Tensor:
    """(N, N): entry of the table of biases for each pair of voxels of a window; `released` as published.

    >>> [relative_position_index(4, released).unique().numel() for released in (False, True)]  # the release collides
    [343, 115]
    """
    axes = torch.meshgrid(*[torch.arange(window)] * 3, indexing="ij")
    voxels = torch.stack([axis.flatten() for axis in axes])
    z, y, x = voxels[:, :, None] - voxels[:, None, :] + window - 1
    side = 2 * window - 1
    return z * (3 * window - 1 if released else side**2) + y * side + x
