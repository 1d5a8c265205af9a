"""What VM-UNet and the Vision-LSTM networks share besides the contract of every network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): while training, drops a residual path.

    Each sample of the batch by itself loses the path with probability `rate`; the others are scaled by 1 / (1 -
    rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop_path_rate={rate} has to be in [0, 1); 0 switches stochastic depth off.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keep / (1.0 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


def require_2d(network: str, patch_size: Sequence[int]) -> tuple[int, int]:
    """`patch_size` as two integers; ValueError for the patch of a 3D configuration."""
    if len(patch_size) != 2:
        raise ValueError(
            f"patch_size={tuple(patch_size)} has {len(patch_size)} axes, but {network} is two-dimensional. "
            "Train it on the 2d configuration."
        )
    return int(patch_size[0]), int(patch_size[1])
