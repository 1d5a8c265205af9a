"""The sLSTM cell, xLSTM's recurrence with scalar memories (Beck et al. 2024, arXiv 2405.04517, section 2.2).

The gates' preactivations of token t are ``a[t] = x[t] + R y[t-1] + b``, one for each of the gates i, f, z, o; R mixes
the channels of one head. Then, for every channel, with the stabiliser m of appendix A.2::

    l = m[t-1] + log sigmoid(a_f)              m[t] = max(a_i, l)
    i = exp(a_i - m[t])                        f = exp(l - m[t])
    c[t] = f c[t-1] + i tanh(a_z)              n[t] = f n[t-1] + i
    y[t] = sigmoid(a_o) c[t] / n[t]

Where all n of the batch are 0 before the first token there is nothing to forget, and m is a_i there, as in the
published code (NX-AI/xlstm).

Letters: B batch, S tokens, H heads, D channels of a head. The gates are stacked in the order i, f, z, o, the states in
the order y, c, n, m.

Backends: `cpu` (C, float32, where the install had a compiler) and `reference` (the recurrence token by token in
PyTorch, on any device, the definition of correct). No form of it computes tokens side by side: on a GPU each token
costs a few dozen launches, so a network should have few such layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_echo.ops import selective_scan
from nnunet_echo.ops.precision import autocast_off
from nnunet_echo.ops.selective_scan import traceable
from nnunet_echo.ops.slstm import cpu, reference
from nnunet_echo.ops.slstm.reference import GATES, STATES

__all__ = ["BACKENDS", "GATES", "STATES", "choose_backend", "slstm"]

BACKENDS = {"cpu": cpu, "reference": reference}


def slstm(
    x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None = None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Outputs y (B, H, S, D) and the states behind the last token (4, B, H * D).

    x (B, S, 4 * H * D) has the gates one after the other, R is (H, 4, D, D) by gate, output and input, b (4, H, D),
    `initial_state` (4, B, H * D), zeros by default. Computes in float32 (float64 if x is) with autocast off, and
    returns that precision. A state counts as none only where n of the whole batch is 0: sequences that begin and such
    that go on need calls of their own.

    `backend` "auto" is C on a CPU where the selective scan would take it (``NNUNET_ECHO_SCAN`` is for both), else
    `reference`; that also while PyTorch traces, exports or transforms. Raises ValueError for shapes that do not fit,
    RuntimeError when the backend asked for cannot run here.

    >>> y, state = slstm(torch.zeros(2, 5, 4 * 6), torch.zeros(3, 4, 2, 2), torch.zeros(4, 3, 2))
    >>> tuple(y.shape), tuple(state.shape)
    ((2, 3, 5, 2), (4, 2, 6))
    """
    _check_shapes(x, R, b, initial_state)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    module = BACKENDS[choose_backend(x.device, dtype, backend)]
    if traceable.wanted():
        module = reference
    with autocast_off(x.device):
        return module.slstm(*(None if t is None else t.to(dtype) for t in (x, R, b, initial_state)))


def choose_backend(device: torch.device, dtype: torch.dtype = torch.float32, backend: str = "auto") -> str:
    """Name of the backend that a call on `device` gets.

    Raises ValueError for a name that there is not, RuntimeError for a backend that cannot run there.

    >>> choose_backend(torch.device("cpu"), torch.float64)  # C computes in float32
    'reference'
    """
    if backend == "auto":
        in_c = selective_scan.choose_backend(device, dtype) == "cpu" and cpu.why_not(device, dtype) is None
        return "cpu" if in_c else "reference"
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: expected 'auto' or one of {', '.join(map(repr, BACKENDS))}.")
    reason = BACKENDS[backend].why_not(device, dtype)
    if reason is not None:
        raise RuntimeError(
            f"backend={backend!r} cannot run on {device} with {dtype}: {reason}. Use 'auto' to take one that can."
        )
    return backend


def _check_shapes(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None) -> None:
    if R.ndim != 4 or R.shape[1] != len(GATES) or R.shape[2] != R.shape[3]:
        raise ValueError(f"R has shape {tuple(R.shape)}: expected (heads, 4, D, D), by gate, output and input.")
    heads, gates, size, _ = R.shape
    if x.ndim != 3 or x.shape[2] != gates * heads * size:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: expected (batch, tokens, {gates * heads * size}), "
            f"4 gates of {heads} heads of {size} channels, as R has them."
        )
    for name, tensor in (("x", x), ("R", R), ("b", b), ("initial_state", initial_state)):
        if tensor is not None and tensor.is_complex():
            raise ValueError(f"{name} is {tensor.dtype}: expected real numbers.")
    for name, tensor, expected in (
        ("b", b, (gates, heads, size)),
        ("initial_state", initial_state, (len(STATES), x.shape[0], heads * size)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {expected}, as x and R have it.")
