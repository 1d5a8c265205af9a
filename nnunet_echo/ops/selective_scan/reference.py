"""The selective scan as the paper writes it, one token at a time: the definition of correct, slow on purpose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_echo.ops.selective_scan.inputs import ScanInputs

READS_BACKWARDS = False


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """None: plain PyTorch runs everywhere."""
    return None


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N). Gradients come from autograd."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    channels = u.shape[1]
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B = B.repeat_interleave(channels // B.shape[1], dim=1)  # (B, D, N, L)
    C = C.repeat_interleave(channels // C.shape[1], dim=1)
    h = u.new_zeros(u.shape[0], channels, A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        outputs.append((h * C[..., t]).sum(-1))
    y = torch.stack(outputs, dim=-1) if outputs else torch.zeros_like(u)
    return skip_and_gate(y, u, D, z), h


def skip_and_gate(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """``(y + D u) silu(z)``, what follows the recurrence; shared by the backends that compute the recurrence alone."""
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z)
    return y
