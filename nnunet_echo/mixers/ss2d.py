"""SS2D, the selective scan of an image in four directions (Liu et al. 2024, VMamba, arXiv 2401.10166, figure 3).

The map is read along rows and along columns, each from either end: four sequences with parameters of their own,
scanned in one call as four groups of channels, put back in place and summed. Parameter names are those that VMamba
published.

Letters: B batch, H and W rows and columns, L = H * W tokens, N = d_state, d_inner = expand * d_model, R = dt_rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.mixers.mamba import dt_rank, initial_A_log, initialise_dt
from nnunet_echo.scan import selective_scan
from nnunet_echo.scan.precision import autocast_off

DIRECTIONS = 4


class SS2D(nn.Module):
    """Gated four-direction scan: (B, H, W, d_model) -> (B, H, W, d_model).

    `d_conv` is the kernel of the depthwise convolution in front of the scan, an odd number. From there to the norm
    behind the scan everything is float32, whatever autocast says.
    """

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 3, expand: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv={d_conv} has to be odd: an even kernel would change the size of the map.")
        d_inner = expand * d_model
        self.d_state, self.dt_rank = d_state, dt_rank(d_model)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, d_conv, padding=d_conv // 2, groups=d_inner)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, self.dt_rank + 2 * d_state, d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, d_inner))
        self.A_logs = nn.Parameter(initial_A_log(DIRECTIONS * d_inner, d_state))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * d_inner))
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.x_proj_weight, -(d_inner**-0.5), d_inner**-0.5)  # as nn.Linear's
        initialise_dt(self.dt_projs_weight, self.dt_projs_bias)
        for parameter in (self.A_logs, self.Ds):
            parameter._no_weight_decay = True

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2)))
        with autocast_off(x.device):
            y = self.out_norm(self.scan(x.to(self.A_logs.dtype)).permute(0, 2, 3, 1))
        return self.dropout(self.out_proj(y * F.silu(z)))

    def scan(self, x: Tensor) -> Tensor:
        """Sum of the four scans of x (B, d_inner, H, W), same shape."""
        u = four_directions(x)
        projected = torch.einsum("bkdl,kcd->bkcl", u, self.x_proj_weight)
        delta, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=2)
        delta = torch.einsum("bkrl,kdr->bkdl", delta, self.dt_projs_weight)
        y = selective_scan(
            u.flatten(1, 2),
            delta.flatten(1, 2),
            -torch.exp(self.A_logs),
            B,
            C,
            self.Ds,
            delta_bias=self.dt_projs_bias.flatten(),
            delta_softplus=True,
        )
        return merge_directions(y.unflatten(1, (DIRECTIONS, -1)), x.shape[2:])


def four_directions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4, C, L): along rows, along columns, and both backwards."""
    there = torch.stack((x.flatten(2), x.transpose(2, 3).flatten(2)), dim=1)
    return torch.cat((there, there.flip(-1)), dim=1)


def merge_directions(y: Tensor, size: Sequence[int]) -> Tensor:
    """Sum over the directions of (B, 4, C, L), each put back in place: (B, C, *size)."""
    height, width = size
    rows, columns = (y[:, :2] + y[:, 2:].flip(-1)).unbind(1)
    return rows.unflatten(-1, (height, width)) + columns.unflatten(-1, (width, height)).transpose(-2, -1)
