"""Large-window multiscale scan: what MSV-Mamba (Yang et al. 2025, arXiv 2501.07120) may have in its decoder.

An unofficial reconstruction. The paper's abstract has the name alone, "large-window multiscale Mamba", and its place;
no code is public. Here it is ::

    y = mean over r in `scales` of unpool_r( W( avgpool_r(x) ) )

where W scans contiguous windows of `window` tokens along each side, with the same weights at every scale, so that one
window of tokens covers `window`, 2 * `window` and 4 * `window` pixels. With windows as large as the map this is the
pyramid that CM-UNet's code (arXiv 2405.10530) has but does not call; windows are LKM-UNet's (arXiv 2403.07332).

Letters: B batch, C channels, H and W rows and columns. Two-dimensional.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.layers.msaa import ChannelAttention, SpatialAttention
from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.layers.windows import crop_to, merge_windows, partition_windows
from nnunet_echo.ops.linear import Linear

SCANS = {"ss2d": 4, "bi": 2}  # directions


class LMS(SS2D):
    """`SS2D` whose scan is that of the module's docstring: (B, H, W, d_model) to the same shape.

    Windows are clipped to the map, the last ones padded with zeros; a scale more than half the map is left out. With
    one scale of 1 and a window as large as the map it is `SS2D` itself. `scan` is "ss2d", four directions, or "bi",
    LKM-UNet's two along rows.

    >>> LMS(16, window=(8, 8))(torch.randn(2, 10, 12, 16)).shape
    torch.Size([2, 10, 12, 16])
    """

    def __init__(
        self,
        d_model: int,
        window: Sequence[int],
        scales: Sequence[int] = (1, 2, 4),
        scan: str = "ss2d",
        csm_gate: bool = True,
        d_state: int = 16,
        expand: int = 2,
    ) -> None:
        gate = ChannelSpatialGate(expand * d_model) if csm_gate else None
        super().__init__(d_model, d_state, expand=expand, directions=SCANS[scan], gate=gate)
        self.window, self.scales = tuple(window), tuple(scales)

    def scan(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        scales = [r for r in self.scales if r == 1 or 2 * r <= min(size)] or [1]
        return torch.stack([self._at_scale(x, r) for r in scales]).mean(0)

    def _at_scale(self, x: Tensor, r: int) -> Tensor:
        size = x.shape[2:]
        if r > 1:  # patches at the border average the pixels they have
            x = F.avg_pool2d(x, r, r, ceil_mode=True, count_include_pad=False)
        pooled = x.shape[2:]
        windows = partition_windows(x, [min(w, n) for w, n in zip(self.window, pooled, strict=True)])
        y = merge_windows(super().scan(windows), pooled)
        return crop_to(y.repeat_interleave(r, dim=2).repeat_interleave(r, dim=3), size) if r > 1 else y


class ChannelSpatialGate(nn.Module):
    """Channel attention, then spatial attention, of the gate (B, H, W, C): CM-UNet's "CSM".

    >>> ChannelSpatialGate(8)(torch.randn(2, 10, 12, 8)).shape
    torch.Size([2, 10, 12, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, z: Tensor) -> Tensor:
        return self.spatial(self.channel(z.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class LMSBlock(nn.Module):
    """CM-UNet's block around a scan: ``x + up(t + lms(norm(t)))``, ``t = down(x)`` of half the channels.

    (B, C, H, W) to the same shape. `options` are those of `LMS`.

    >>> LMSBlock(16, window=(8, 8), scan="bi")(torch.randn(2, 16, 10, 12)).shape
    torch.Size([2, 16, 10, 12])
    """

    def __init__(self, channels: int, window: Sequence[int], **options: Any) -> None:
        super().__init__()
        width = max(1, channels // 2)
        self.down = Linear(channels, width)
        self.norm = nn.LayerNorm(width)
        self.lms = LMS(width, window, **options)
        self.up = Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        t = self.down(x.permute(0, 2, 3, 1))
        return x + self.up(t + self.lms(self.norm(t))).permute(0, 3, 1, 2)
