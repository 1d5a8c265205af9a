"""SS2D, the selective scan of an image in four directions (Liu et al. 2024, VMamba, arXiv 2401.10166, figure 3).

The map is read along rows and along columns, each from either end: four sequences with parameters of their own,
scanned in one call as four groups of channels, put back in place and summed. Parameter names are those that VMamba
published. With two directions it is read along rows only.

Letters: B batch, H and W rows and columns, L = H * W tokens, N = d_state, d_inner = expand * d_model, R = dt_rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.layers.mamba import dt_rank, initial_A_log, initialise_dt, input_dependent_scan
from nnunet_echo.layers.weight_decay import spare_from_weight_decay
from nnunet_echo.ops.linear import Linear
from nnunet_echo.ops.precision import autocast_off

# By the number of directions: the scans along rows, along columns, and both from the other end; or along rows.
BACKWARDS = {4: (False, False, True, True), 2: (False, True)}


class SS2D(nn.Module):
    """Gated four-direction scan (VMamba, arXiv 2401.10166, figure 3): (B, H, W, d_model) -> (B, H, W, d_model).

    `d_conv` is the kernel of the depthwise convolution in front of the scan. From there to the norm behind the scan
    everything is float32, whatever autocast says. `gate` is what the gate goes through, (B, H, W, d_inner) to the same
    shape, in front of its SiLU; `directions` is 4 or, along rows only, 2. Raises ValueError for an even `d_conv`.

    >>> SS2D(d_model=16)(torch.randn(2, 10, 12, 16)).shape
    torch.Size([2, 10, 12, 16])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 3,
        expand: int = 2,
        dropout: float = 0.0,
        directions: int = 4,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv={d_conv} has to be odd: an even kernel would change the size of the map.")
        d_inner, rank = expand * d_model, dt_rank(d_model)
        self.backwards = BACKWARDS[directions]
        self.in_proj = Linear(d_model, 2 * d_inner, bias=False)
        self.conv2d = nn.Conv2d(d_inner, d_inner, d_conv, padding=d_conv // 2, groups=d_inner)
        self.x_proj_weight = nn.Parameter(torch.empty(directions, rank + 2 * d_state, d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(directions, d_inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(directions, d_inner))
        self.A_logs = nn.Parameter(initial_A_log(directions * d_inner, d_state))
        self.Ds = nn.Parameter(torch.ones(directions * d_inner))
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = Linear(d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Identity() if gate is None else gate
        nn.init.uniform_(self.x_proj_weight, -(d_inner**-0.5), d_inner**-0.5)  # as nn.Linear's
        initialise_dt(self.dt_projs_weight, self.dt_projs_bias)
        spare_from_weight_decay(self.A_logs, self.Ds)

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2)))
        with autocast_off(x.device):
            y = self.out_norm(self.scan(x.to(self.A_logs.dtype)).permute(0, 2, 3, 1))
        return self.dropout(self.out_proj(y * F.silu(self.gate(z))))

    def scan(self, x: Tensor) -> Tensor:
        """Sum of the scans of x (B, d_inner, H, W), same shape."""
        y = input_dependent_scan(
            rows_and_columns(x) if len(self.backwards) == 4 else torch.stack([x.flatten(2)] * 2, dim=1),
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias.flatten(),
            self.A_logs,
            self.Ds,
            z=None,
            reverse=self.backwards,
        )
        y = y.unflatten(1, (len(self.backwards), -1))
        return merge_directions(y, x.shape[2:]) if len(self.backwards) == 4 else y.sum(1).view_as(x)


def rows_and_columns(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4, C, L): along rows, along columns, and both again.

    >>> rows_and_columns(torch.tensor([[[[1, 2], [3, 4]]]]))[0, :2, 0].tolist()
    [[1, 2, 3, 4], [1, 3, 2, 4]]
    """
    x = x.contiguous()  # once, where stacking channels that are neighbours in memory would turn them around twice
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    return torch.stack((rows, columns, rows, columns), dim=1)


def merge_directions(y: Tensor, size: Sequence[int]) -> Tensor:
    """Sum over the directions of (B, 4, C, L), the columns put back in place: (B, C, *size).

    >>> x = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> merge_directions(rows_and_columns(x), (2, 2)).tolist()  # each pixel four times
    [[[[4, 8], [12, 16]]]]
    """
    height, width = size
    rows, columns = (y[:, :2] + y[:, 2:]).unbind(1)
    return rows.unflatten(-1, (height, width)) + columns.unflatten(-1, (width, height)).transpose(-2, -1)
