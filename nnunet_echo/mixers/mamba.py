"""The Mamba block (Gu and Dao 2023, arXiv 2312.00752, figure 3 and algorithm 2), in one direction and in two.

Parameter names are those of mamba_ssm, so published weights load. Letters: B batch, L tokens, N = d_state,
d_inner = expand * d_model, R = dt_rank, the rank of delta's projection (section 3.6).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.scan import selective_scan
from nnunet_echo.scan.precision import autocast_off


class ScanInputs(NamedTuple):
    """What `selective_scan` takes, in its order; B and C are (B, 1, N, L)."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor


class Mamba(nn.Module):
    """Mamba block: tokens (B, L, d_model) to (B, L, d_model), in float32 whatever autocast says.

    `project_out` False leaves out the last projection: the output is (B, L, d_inner).
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, project_out: bool = True
    ) -> None:
        super().__init__()
        d_inner, self.dt_rank, self.d_state = expand * d_model, dt_rank(d_model), d_state
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.A_log = nn.Parameter(initial_A_log(d_inner, d_state))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False) if project_out else nn.Identity()
        initialise_dt(self.dt_proj.weight, self.dt_proj.bias)
        for parameter in (self.A_log, self.D):
            parameter._no_weight_decay = True  # as in mamba_ssm: decay would pull the dynamics to a fixed time scale

    def scan_inputs(self, tokens: Tensor) -> ScanInputs:
        """Everything in front of the scan: projection, causal convolution, and the input-dependent delta, B, C."""
        u, z = self.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)  # (B, d_inner, L)
        u = F.silu(self.conv1d(u)[..., : tokens.shape[1]])
        delta, B, C = self.x_proj(u.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = (delta @ self.dt_proj.weight.t()).transpose(1, 2)
        B, C = B.transpose(1, 2).unsqueeze(1), C.transpose(1, 2).unsqueeze(1)
        return ScanInputs(u, delta, -torch.exp(self.A_log), B, C, self.D, z, self.dt_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        with autocast_off(tokens.device):
            y = selective_scan(*self.scan_inputs(tokens.to(self.A_log.dtype)), delta_softplus=True)
            return self.out_proj(y.transpose(1, 2))


class BiMamba(nn.Module):
    """Bidirectional Mamba (LKM-UNet, arXiv 2403.07332, "BiM"): tokens (B, L, d_model) to the same shape.

    Two blocks, one over the tokens, one over the reversed tokens; their sum goes through one shared projection. Both
    directions share one scan call: they are two groups of channels. `bidirectional` False keeps the first block only.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, bidirectional: bool = True
    ) -> None:
        super().__init__()
        self.mamba_forw = Mamba(d_model, d_state, d_conv, expand, project_out=False)
        self.mamba_backw = Mamba(d_model, d_state, d_conv, expand, project_out=False) if bidirectional else None
        self.out_proj = nn.Linear(expand * d_model, d_model, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        with autocast_off(tokens.device):
            tokens = tokens.to(self.out_proj.weight.dtype)
            if self.mamba_backw is None:
                return self.out_proj(self.mamba_forw(tokens))
            there, back = self.mamba_forw.scan_inputs(tokens), self.mamba_backw.scan_inputs(tokens.flip(1))
            # u, delta, B, C, z are stacked along channels or groups (axis 1), the parameters along channels (axis 0)
            both = ScanInputs(*(torch.cat(pair, dim=int(pair[0].ndim > 2)) for pair in zip(there, back, strict=True)))
            there, back = selective_scan(*both, delta_softplus=True).transpose(1, 2).chunk(2, dim=-1)
            return self.out_proj(there + back.flip(1))


def dt_rank(d_model: int) -> int:
    """Rank of delta's projection, d_model / 16 rounded up (mamba_ssm's "auto")."""
    return math.ceil(d_model / 16)


def initial_A_log(d_inner: int, d_state: int) -> Tensor:
    """(d_inner, d_state): A = -exp(A_log) = -1 ... -d_state, the real part of S4D-Lin (section 3.6)."""
    return torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(d_inner, 1)


def initialise_dt(weight: Tensor, bias: Tensor, dt_min: float = 1e-3, dt_max: float = 0.1) -> None:
    """Section 3.6: softplus(bias) is log-uniform in [dt_min, dt_max]; weight (..., d_inner, R) is uniform
    within +- 1 / sqrt(R), which keeps the variance."""
    nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)
    dt = torch.exp(torch.rand_like(bias) * math.log(dt_max / dt_min) + math.log(dt_min))
    with torch.no_grad():
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
