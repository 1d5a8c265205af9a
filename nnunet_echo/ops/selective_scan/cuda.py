"""mamba_ssm's CUDA kernel for Mamba 1, where the user has it and it works (extra ``[cuda]``)."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nnunet_echo.ops.selective_scan.inputs import ScanInputs

READS_BACKWARDS = False


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why mamba_ssm cannot serve this device and dtype; None when it can."""
    if device.type != "cuda":
        return "mamba_ssm's kernel runs on CUDA devices only"
    if dtype != torch.float32:
        return f"mamba_ssm's kernel does not compute in {dtype}"
    if importlib.util.find_spec("mamba_ssm") is None:
        return "mamba_ssm is not installed (pip install 'nnunet-echo[cuda]')"
    return _probe(device)


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N)."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    y, last_state = selective_scan_fn(*inputs, return_last_state=True)
    return _OnceDifferentiable.apply(y), last_state


class _OnceDifferentiable(torch.autograd.Function):
    """The identity. autograd does not see into mamba_ssm's backward: second derivatives would silently be zero."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "mamba_ssm's scan can be differentiated once only. Set NNUNET_ECHO_SCAN=reference (or chunked, or "
                "triton, which are faster) to differentiate twice."
            )
        return grad_y


@cache
def _probe(device: torch.device) -> str | None:
    """Run one tiny scan: wheels import well and then lack the Mamba 1 kernel, or this GPU's architecture."""
    try:
        row, state = torch.ones(1, 8, 8, device=device), torch.ones(1, 1, 8, 8, device=device)
        selective_scan(ScanInputs(row, row, -torch.ones(8, 8, device=device), state, state, delta_softplus=True))
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever a broken build raises, training goes on with the next backend
        reason = f"mamba_ssm is installed but broken ({type(error).__name__}: {error})"
        warnings.warn(f"{reason}; the next scan backend is used instead.", RuntimeWarning, stacklevel=2)
        return reason
    return None
