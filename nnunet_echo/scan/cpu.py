"""Selective scan in C for CPUs: float32, forward and backward, the states recomputed in the backward.

The library is optional: it is compiled at install from _cpu_scan.c, which says how it works, and called through ctypes,
so without the interpreter lock. It takes as many threads as PyTorch has (`torch.get_num_threads`); the result does not
depend on their number. Letters as in `nnunet_echo.scan`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache

import torch
from torch import Tensor

_SIZES = ("batch", "channels", "groups", "states", "length", "softplus", "threads", "width")
_ARRAYS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "y", "last", "starts", "grad_y", "grad_last")
_ARRAYS += ("grad_u", "grad_delta", "grad_B", "grad_C", "grad_z", "grad_A", "grad_D", "grad_bias")

# Floats in a vector (4, 8 or 16, as far as the processor has them), 0: the widest. For tests and benchmarks.
vector_width = 0


class _Scan(ctypes.Structure):
    """`Scan` in _cpu_scan.c."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES] + [(name, ctypes.c_void_p) for name in _ARRAYS]


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why the library cannot serve this device and dtype; None when it can."""
    if device.type != "cpu":
        return "the C scan runs on CPUs only"
    if dtype != torch.float32:
        return f"the C scan computes in float32, not in {dtype}"
    if _library() is None:
        return "the C scan was not compiled at install (get gcc or clang and install nnunet-echo again)"
    return None


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N); B and C are (B, G, N, L)."""
    inputs = [None if x is None else x.contiguous() for x in (u, delta, A, B, C, D, z, delta_bias)]
    y, last_state, _ = _scan(*inputs, delta_softplus)
    return y, last_state


@torch.library.custom_op(
    "nnunet_echo::scan_cpu",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus) -> (Tensor, Tensor, Tensor)",
)
def _scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """y, last state, and what the backward starts from: the state before each chunk of tokens (B, D, chunks, N)."""
    y, last, starts = _outputs(u, delta, A)
    arrays = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    _call("scan_forward", delta_softplus, **arrays, y=y, last=last, starts=starts)
    return y, last, starts


@_scan.register_fake
def _outputs(u, delta, A, *others):
    (batch, channels, length), states = u.shape, A.shape[1]
    chunks = -(-length // _library().scan_chunk())
    shapes = (u.shape, (batch, channels, states), (batch, channels, chunks, states))
    return tuple(u.new_empty(shape) for shape in shapes)


@torch.library.custom_op(
    "nnunet_echo::scan_cpu_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus, Tensor starts, Tensor grad_y, Tensor grad_last) -> Tensor[]",
)
def _scan_backward(u, delta, A, B, C, D, z, delta_bias, delta_softplus, starts, grad_y, grad_last):
    """Gradients at u, delta, A, B, C, D, z, delta_bias; where z is missing, its gradient has no elements."""
    batch, channels, _ = u.shape
    gradients = {f"grad_{name}": torch.empty_like(x) for name, x in (("u", u), ("delta", delta), ("B", B), ("C", C))}
    gradients["grad_z"] = u.new_empty(0) if z is None else torch.empty_like(z)
    shapes = {"grad_A": (batch, *A.shape), "grad_D": (batch, channels), "grad_bias": (batch, channels)}
    of_sequences = {name: u.new_empty(shape) for name, shape in shapes.items()}
    arrays = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    arrays |= {"starts": starts, "grad_y": grad_y, "grad_last": grad_last}
    _call("scan_backward", delta_softplus, **arrays, **gradients, **of_sequences)
    gradients |= {name: x.sum(0) for name, x in of_sequences.items()}
    return [gradients[f"grad_{name}"] for name in ("u", "delta", "A", "B", "C", "D", "z", "bias")]


@_scan_backward.register_fake
def _(u, delta, A, B, C, D, z, *others):
    gradients = [torch.empty_like(x) for x in (u, delta, A, B, C)]
    return [*gradients, A.new_empty(A.shape[0]), u.new_empty(0 if z is None else z.shape), A.new_empty(A.shape[0])]


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.delta_softplus = inputs
    ctx.save_for_backward(*tensors, output[2])


def _gradients(ctx, grad_y, grad_last, _):
    *tensors, starts = ctx.saved_tensors
    gradients = _scan_backward(*tensors, ctx.delta_softplus, starts, grad_y.contiguous(), grad_last.contiguous())
    return *(g if x is not None else None for g, x in zip(gradients, tensors, strict=True)), None


_scan.register_autograd(_gradients, setup_context=_keep)


def _call(function: str, delta_softplus: bool, **arrays: Tensor | None) -> None:
    """Call the library; the tensors stay alive in `arrays` meanwhile."""
    (batch, channels, length), (_, groups, states, _) = arrays["u"].shape, arrays["B"].shape
    sizes = (batch, channels, groups, states, length, delta_softplus, torch.get_num_threads(), vector_width)
    for name, x in arrays.items():
        assert x is None or x.is_contiguous() and x.dtype == torch.float32, name
    pointers = {name: None if x is None else x.data_ptr() for name, x in arrays.items()}
    scan = _Scan(**dict(zip(_SIZES, sizes, strict=True)), **pointers)
    if getattr(_library(), function)(ctypes.byref(scan)):
        raise MemoryError(f"selective_scan: no memory for the work space of {scan.threads} threads.")


def widest_vector() -> int:
    """Floats in the widest vector that this processor computes with: 16 (AVX-512), 8 (AVX2) or 4."""
    return _library().scan_width()


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled library; None where the install had no compiler."""
    spec = importlib.util.find_spec("nnunet_echo.scan._cpu_scan")
    if spec is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.scan_chunk.restype = library.scan_width.restype = ctypes.c_int64
    return library
