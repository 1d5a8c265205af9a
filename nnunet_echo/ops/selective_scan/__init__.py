"""Selective scan, the state space recurrence of Mamba (Gu and Dao 2023, arXiv 2312.00752, section 3 and algorithm 2).

For every channel d and state n, over the tokens t of one sequence::

    h[t, n] = exp(delta[t] * A[n]) * h[t-1, n] + delta[t] * B[t, n] * u[t]        h[-1] = 0
    y[t]    = sum_n C[t, n] * h[t, n] + D * u[t]                                  then y[t] * silu(z[t])

Letters, as in the paper and in mamba_ssm:

=============  =================================  =====================================================
name           shape                              meaning
=============  =================================  =====================================================
u              (B, D, L)                          input; B batch, D channels (d_inner), L tokens
delta          (B, D, L)                          step size, before `delta_bias` and softplus
A              (D, N)                             state matrix (diagonal, negative); N states (d_state)
B, C           (B, N, L) or (B, G, N, L)          input and output matrices, one for each of G groups of
                                                  D / G neighbouring channels
D              (D,)                               skip connection
z              (B, D, L)                          gate
delta_bias     (D,)                               bias of delta
=============  =================================  =====================================================

Backends, in the order in which ``auto`` tries them: `cuda` (mamba_ssm's kernel), `triton` (any GPU, float32), `cpu` (C,
float32, where the install had a compiler), `chunked` (PyTorch on any device, with its own backward), `reference` (the
plain recurrence, the definition of correct) and `traceable` (plain operations on all tokens at once), never chosen by
``auto``. While PyTorch traces, exports or transforms (torch.func, forward mode), `traceable` stands in for all but
`reference`, with the same result. A backend is a module with ``why_not(device, dtype) -> str | None`` (None: it can
run), ``selective_scan``, which takes `ScanInputs`, and ``READS_BACKWARDS``: whether that takes `reverse` too, or the
tokens have to be flipped for it, which costs copies. The environment variable ``NNUNET_ECHO_SCAN`` names one for all
calls that say ``auto``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_echo.ops.precision import autocast_off
from nnunet_echo.ops.selective_scan import chunked, cpu, cuda, reference, traceable, triton
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

BACKENDS = {
    "cuda": cuda,
    "triton": triton,
    "cpu": cpu,
    "chunked": chunked,
    "reference": reference,
    "traceable": traceable,
}
BACKEND_VARIABLE = "NNUNET_ECHO_SCAN"


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
    reverse: Sequence[bool] = (),
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan (Gu and Dao 2023, arXiv 2312.00752, algorithm 2) with the signature and shapes of mamba_ssm.

    For B sequences of L tokens, D channels, N states and G groups of channels: `u`, `delta`, `z` (B, D, L); `A` (D, N);
    `B`, `C` (B, N, L) or (B, G, N, L); `D`, `delta_bias` (D,). `reverse` has one bool for each group, whether it reads
    the tokens from the last to the first; empty means that none does. Computes in float32 (float64 if `u` is) with
    autocast off, whatever surrounds the call.

    Returns `y` (B, D, L) in the dtype of `u`, and with `return_last_state` also h after the token read last, (B, D, N).

    Raises ValueError for shapes that do not fit, RuntimeError when the backend asked for cannot run here.

    >>> u = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])  # one channel; its impulse decays by half from token to token
    >>> delta, A, ones = torch.ones(1, 1, 4), torch.tensor([[0.5]]).log(), torch.ones(1, 1, 4)
    >>> selective_scan(u, delta, A, B=ones, C=ones)
    tensor([[[1.0000, 0.5000, 0.2500, 0.1250]]])
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias, reverse)
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    module = BACKENDS[choose_backend(u.device, dtype, backend)]
    if module is not reference and traceable.wanted():
        module = traceable
    if B.ndim == 3:
        B = B.unsqueeze(1)
    if C.ndim == 3:
        C = C.unsqueeze(1)
    tensors = [None if t is None else t.to(dtype) for t in (u, delta, A, B, C, D, z, delta_bias)]
    with autocast_off(u.device):
        if module.READS_BACKWARDS:
            reverse = tuple(reverse) or (False,) * B.shape[1]
            y, last_state = module.selective_scan(ScanInputs._make((*tensors, delta_softplus)), reverse)
        else:
            turned = [x if x is None or x.ndim < 3 else traceable.turn(x, reverse) for x in tensors]
            y, last_state = module.selective_scan(ScanInputs._make((*turned, delta_softplus)))
            y = traceable.turn(y, reverse)
    y = y.to(u.dtype)
    return (y, last_state) if return_last_state else y


def choose_backend(device: torch.device, dtype: torch.dtype = torch.float32, backend: str = "auto") -> str:
    """Name of the backend that a call on `device` gets; `backend` and ``NNUNET_ECHO_SCAN`` as in `selective_scan`.

    Raises ValueError for a backend that there is not, RuntimeError for one that cannot run there.

    >>> choose_backend(torch.device("cpu"), backend="reference")
    'reference'
    >>> choose_backend(torch.device("cpu"), torch.float64)  # the C scan is float32 alone
    'chunked'
    """
    source = "backend"
    if backend == "auto":
        backend, source = os.environ.get(BACKEND_VARIABLE) or "auto", BACKEND_VARIABLE
    if backend == "auto":
        return next(name for name, module in BACKENDS.items() if module.why_not(device, dtype) is None)
    if backend not in BACKENDS:
        raise ValueError(f"{source}={backend!r}: expected 'auto' or one of {', '.join(map(repr, BACKENDS))}.")
    reason = BACKENDS[backend].why_not(device, dtype)
    if reason is not None:
        raise RuntimeError(
            f"{source}={backend!r} cannot run on {device} with {dtype}: {reason}. "
            "Use 'auto' to take the fastest backend that can; `nnunet-echo doctor` lists them."
        )
    return backend


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    reverse: Sequence[bool],
) -> None:
    if u.ndim != 3:
        raise ValueError(f"u has shape {tuple(u.shape)}: expected (batch, channels, length).")
    batch, channels, length = u.shape
    if A.ndim != 2 or A.shape[0] != channels or A.is_complex():
        raise ValueError(f"A is {A.dtype} of shape {tuple(A.shape)}: expected real ({channels}, states), u's channels.")
    for name, tensor, expected in (
        ("delta", delta, u.shape),
        ("z", z, u.shape),
        ("D", D, (channels,)),
        ("delta_bias", delta_bias, (channels,)),
    ):
        if tensor is not None and tuple(tensor.shape) != tuple(expected):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {tuple(expected)}, as u's shape asks.")
    states = A.shape[1]
    for name, tensor in {"B": B, "C": C}.items():
        groups = tensor.shape[1] if tensor.ndim == 4 else 1
        if tensor.ndim not in (3, 4) or (tensor.shape[0], *tensor.shape[-2:]) != (batch, states, length):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}: expected ({batch}, {states}, {length}) "
                f"or ({batch}, groups, {states}, {length})."
            )
        if channels % groups:
            raise ValueError(f"{name} has {groups} groups: u's {channels} channels must be a multiple of it.")
    if B.shape[1:-2] != C.shape[1:-2]:
        raise ValueError(f"B {tuple(B.shape)} and C {tuple(C.shape)}: expected the same number of groups.")
    if len(reverse) not in (0, groups):
        raise ValueError(f"reverse={tuple(reverse)}: expected one bool for each of the {groups} groups, or none.")
