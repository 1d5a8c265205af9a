"""The Mamba block (Gu and Dao 2023, arXiv 2312.00752, figure 3 and algorithm 2), in one direction and in two.

Parameter names are those of mamba_ssm, so published weights load. Letters: B batch, L tokens, N = d_state,
d_inner = expand * d_model, R = dt_rank, the rank of delta's projection (section 3.6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_echo.layers.weight_decay import spare_from_weight_decay
from nnunet_echo.ops.causal_conv import causal_conv_silu
from nnunet_echo.ops.linear import Linear, linear
from nnunet_echo.ops.precision import autocast_off
from nnunet_echo.ops.selective_scan import selective_scan, traceable

# Elements (a quarter of a GiB) of one of the ten or so maps (B, channels, L) that a block keeps for its backward.
_LARGEST_MAP = 1 << 26


class Mamba(nn.Module):
    """Mamba block (Gu and Dao 2023, figure 3): tokens (B, L, d_model) to the same shape, in float32 in any autocast.

    `project_out` False leaves out the last projection: the output is (B, L, d_inner).

    >>> layer = Mamba(d_model=16)
    >>> layer(torch.randn(2, 100, 16)).shape
    torch.Size([2, 100, 16])
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, project_out: bool = True
    ) -> None:
        super().__init__()
        d_inner, rank = expand * d_model, dt_rank(d_model)
        self.in_proj = Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.x_proj = Linear(d_inner, rank + 2 * d_state, bias=False)
        self.dt_proj = Linear(rank, d_inner)
        self.A_log = nn.Parameter(initial_A_log(d_inner, d_state))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = Linear(d_inner, d_model, bias=False) if project_out else nn.Identity()
        initialise_dt(self.dt_proj.weight, self.dt_proj.bias)
        spare_from_weight_decay(self.A_log, self.D)

    def forward(self, tokens: Tensor) -> Tensor:
        with autocast_off(tokens.device):
            return self.out_proj(scan_blocks([self], tokens.to(self.A_log.dtype)).transpose(1, 2))


class BiMamba(nn.Module):
    """Bidirectional Mamba (LKM-UNet, arXiv 2403.07332, "BiM"): tokens (B, L, d_model) to the same shape.

    Two blocks, one over the tokens from the first to the last, one from the last to the first; their sum goes through
    one shared projection. `bidirectional` False keeps the first block only. Where the tokens are so many that the maps
    in front of the scan would fill a GPU, they are computed for a few sequences at a time, and again in the backward.

    >>> layer = BiMamba(d_model=16).eval()
    >>> tokens = torch.randn(1, 10, 16)
    >>> changed = tokens.clone()
    >>> changed[0, 9, 0] += 1
    >>> bool((layer(changed) != layer(tokens))[0, 0].any())  # the first token sees the last
    True
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, bidirectional: bool = True
    ) -> None:
        super().__init__()
        self.mamba_forw = Mamba(d_model, d_state, d_conv, expand, project_out=False)
        self.mamba_backw = Mamba(d_model, d_state, d_conv, expand, project_out=False) if bidirectional else None
        self.out_proj = Linear(expand * d_model, d_model, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        blocks = [self.mamba_forw] if self.mamba_backw is None else [self.mamba_forw, self.mamba_backw]
        if traceable.checkpoints_refused():
            return self._mix(blocks, tokens)
        map_size = tokens.shape[1] * sum(len(block.D) for block in blocks)
        sequences = max(1, _LARGEST_MAP // map_size)
        if sequences >= len(tokens):
            return self._mix(blocks, tokens)
        slices = tokens.split(sequences)
        return torch.cat([checkpoint(self._mix, blocks, part, use_reentrant=False) for part in slices])

    def _mix(self, blocks: Sequence[Mamba], tokens: Tensor) -> Tensor:
        with autocast_off(tokens.device):
            directions = scan_blocks(blocks, tokens.to(self.out_proj.weight.dtype)).chunk(len(blocks), dim=1)
            return self.out_proj(reduce(torch.add, directions).transpose(1, 2))


def scan_blocks(blocks: Sequence[Mamba], tokens: Tensor) -> Tensor:
    """What the blocks compute of tokens (B, L, d_model), without their last projections, all in one scan.

    The first block reads the tokens from the first to the last, the others from the last to the first. Returns
    (B, d_inner of all blocks, L).

    >>> forwards, backwards = Mamba(8, project_out=False), Mamba(8, project_out=False)
    >>> scan_blocks([forwards, backwards], torch.randn(2, 50, 8)).shape  # d_inner is 16 for each
    torch.Size([2, 32, 50])
    """
    backwards = [block is not blocks[0] for block in blocks]
    halves = zip(*(block.in_proj.weight.chunk(2) for block in blocks), strict=True)  # for u, and for z
    u, z = linear(tokens, torch.cat([w for half in halves for w in half])).transpose(1, 2).chunk(2, dim=1)
    weight, bias = (torch.cat([getattr(block.conv1d, name) for block in blocks]) for name in ("weight", "bias"))
    return input_dependent_scan(
        causal_conv_silu(u, weight, bias, backwards).unflatten(1, (len(blocks), -1)),
        torch.stack([block.x_proj.weight for block in blocks]),
        torch.stack([block.dt_proj.weight for block in blocks]),
        torch.cat([block.dt_proj.bias for block in blocks]),
        torch.cat([block.A_log for block in blocks]),
        torch.cat([block.D for block in blocks]),
        z,
        backwards,
    )


def input_dependent_scan(
    u: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    z: Tensor | None,
    reverse: Sequence[bool],
) -> Tensor:
    """The scan whose delta, B and C are projections of its input (algorithm 2), for K independent groups of channels.

    u (B, K, d_inner, L), x_proj (K, R + 2 N, d_inner), dt_proj (K, d_inner, R), dt_bias and D (K * d_inner),
    A_log (K * d_inner, N), z (B, K * d_inner, L). Returns (B, K * d_inner, L).

    >>> batch, groups, d_inner, length, states, rank = 2, 4, 6, 30, 3, 1
    >>> u = torch.randn(batch, groups, d_inner, length)
    >>> x_proj, dt_proj = torch.randn(groups, rank + 2 * states, d_inner), torch.randn(groups, d_inner, rank)
    >>> dt_bias, A_log = torch.zeros(groups * d_inner), initial_A_log(groups * d_inner, states)
    >>> reverse = [False, False, True, True]
    >>> input_dependent_scan(u, x_proj, dt_proj, dt_bias, A_log, torch.ones(24), None, reverse).shape
    torch.Size([2, 24, 30])
    """
    rank, states = dt_proj.shape[-1], A_log.shape[-1]
    delta, B, C = (x_proj @ u).split([rank, states, states], dim=2)
    delta = (dt_proj @ delta.contiguous()).flatten(1, 2)  # of a slice the product takes six times as long
    A = -torch.exp(A_log)
    y = selective_scan(u.flatten(1, 2), delta, A, B, C, D, z, dt_bias, delta_softplus=True, reverse=reverse)
    return cast(Tensor, y)  # alone, without the last state


def dt_rank(d_model: int) -> int:
    """Rank of delta's projection, d_model / 16 rounded up (mamba_ssm's "auto").

    >>> dt_rank(96), dt_rank(97)
    (6, 7)
    """
    return math.ceil(d_model / 16)


def initial_A_log(d_inner: int, d_state: int) -> Tensor:
    """(d_inner, d_state): A = -exp(A_log) = -1 ... -d_state, the real part of S4D-Lin (section 3.6).

    >>> (-initial_A_log(d_inner=2, d_state=3).exp()).round().tolist()
    [[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]]
    """
    return torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(d_inner, 1)


def initialise_dt(weight: Tensor, bias: Tensor, dt_min: float = 1e-3, dt_max: float = 0.1) -> None:
    """Section 3.6: softplus(bias) is log-uniform in [dt_min, dt_max]; weight (..., d_inner, R) is uniform
    within +- 1 / sqrt(R), which keeps the variance.

    >>> weight, bias = torch.empty(64, 4), torch.empty(64)
    >>> initialise_dt(weight, bias)
    >>> step = nn.functional.softplus(bias)
    >>> bool((step > 0.9e-3).all() and (step < 0.11).all() and weight.abs().max() <= 0.5)
    True
    """
    nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)
    dt = torch.exp(torch.rand_like(bias) * math.log(dt_max / dt_min) + math.log(dt_min))
    with torch.no_grad():
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
