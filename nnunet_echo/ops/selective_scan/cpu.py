"""Selective scan in C for CPUs: float32, forward and backward, the states recomputed in the backward. And the
convolution in front of it, as `nnunet_echo.ops.causal_conv` has it.

The library is optional: it is compiled at install from _cpu_scan.c, which says how it works, and called through ctypes,
so without the interpreter lock. It takes as many threads as PyTorch has (`torch.get_num_threads`); the result does not
depend on their number. Tensors are read where they lie, channel by channel or token by token, and gradients are laid
out like what they belong to; y lies token by token, as what follows a scan reads it.
Letters as in the package.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from nnunet_echo.ops.selective_scan import traceable
from nnunet_echo.ops.selective_scan._operator import INPUTS, register_gradients
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

READS_BACKWARDS = True

# Floats in a vector (4, 8 or 16, as far as the processor has them); 0 is the widest. For tests and benchmarks.
vector_width = 0

# Of the convolution, FRAME + 1 in _cpu_scan.c.
MOST_WEIGHTS = 17


class _Array(ctypes.Structure):
    """`Array` in _cpu_scan.c: (B, G, rows, L)."""

    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "group", "row", "token"))]


_SIZES = ("batch", "groups", "channels", "states", "length", "taps", "softplus", "threads", "width")
_STRIDED = ("u", "delta", "B", "C", "z", "y", "grad_y", "grad_u", "grad_delta", "grad_B", "grad_C", "grad_z")
_OF_THE_SCAN = ("A", "D", "delta_bias", "last", "starts", "grad_last", "grad_A", "grad_D", "grad_delta_bias")
_CONTIGUOUS = (*_OF_THE_SCAN, "weight", "bias", "grad_weight", "grad_bias")


class _Scan(ctypes.Structure):
    """`Scan` in _cpu_scan.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        ("reverse", ctypes.c_char_p),
        ("parallel", ctypes.c_void_p),
        *((name, _Array) for name in _STRIDED),
        *((name, ctypes.c_void_p) for name in _CONTIGUOUS),
    ]


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why the library cannot serve this device and dtype; None when it can."""
    if device.type != "cpu":
        return "the C scan runs on CPUs only"
    if dtype != torch.float32:
        return f"the C scan computes in float32, not in {dtype}"
    return _why_no_library()


def selective_scan(inputs: ScanInputs, reverse: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N)."""
    y, last_state, _ = _scan(*inputs, reverse)
    return y, last_state


@torch.library.custom_op(
    "nnunet_echo::scan_cpu", mutates_args=(), device_types="cpu", schema=f"({INPUTS}) -> (Tensor, Tensor, Tensor)"
)
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """y, last state, and what the backward starts from: the state before each chunk of tokens (B, D, chunks, N)."""
    y, last, starts = _outputs(u, delta, A)
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    outputs = {"y": y, "last": last, "starts": starts}
    _call("scan_forward", {"states": A.shape[1], "softplus": softplus}, reverse, **inputs, **outputs)
    return y, last, starts


@_scan.register_fake
def _outputs(u: Tensor, delta: Tensor, A: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, channels, length), states = u.shape, A.shape[1]
    chunks = -(-length // _loaded().scan_chunk())
    shapes = (batch, channels, states), (batch, channels, chunks, states)
    y = u.new_empty(batch, length, channels).transpose(1, 2)
    last, starts = (u.new_empty(shape) for shape in shapes)
    return y, last, starts


@torch.library.custom_op(
    "nnunet_echo::scan_cpu_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"({INPUTS}, Tensor starts, Tensor grad_y, Tensor grad_last) -> Tensor[]",
)
def _scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
    reverse: Sequence[bool],
    starts: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> list[Tensor]:
    """Gradients at u, delta, A, B, C, D, z, delta_bias; where z is missing, its gradient has no elements."""
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    gradients = dict(zip(inputs, _gradients_like(u, delta, A, B, C, D, z), strict=True))
    # Each sequence of the batch has its own sums over tokens; adding them up comes last.
    parts = {name: u.new_empty(len(u), *gradients[name].shape) for name in ("A", "D", "delta_bias")}
    outputs = {f"grad_{name}": x for name, x in (gradients | parts).items() if name != "z" or z is not None}
    outputs |= {"starts": starts, "grad_y": grad_y, "grad_last": grad_last}
    _call("scan_backward", {"states": A.shape[1], "softplus": softplus}, reverse, **inputs, **outputs)
    for name, part in parts.items():
        torch.sum(part, 0, out=gradients[name])
    return list(gradients.values())


@_scan_backward.register_fake
def _gradients_like(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, *others: Any
) -> list[Tensor]:
    grad_z = u.new_empty(0) if z is None else torch.empty_like(z)
    grad_D, grad_bias = A.new_empty(A.shape[0]), A.new_empty(A.shape[0])
    return [*(torch.empty_like(x) for x in (u, delta, A, B, C)), grad_D, grad_z, grad_bias]


register_gradients(_scan, _scan_backward)


def causal_conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: tuple[bool, ...]) -> Tensor:
    """`nnunet_echo.ops.causal_conv.causal_conv_silu` with weight (D, W)."""
    return _convolve(u, weight, bias, reverse)


@torch.library.custom_op("nnunet_echo::causal_conv_silu", mutates_args=(), device_types="cpu")
def _convolve(u: Tensor, weight: Tensor, bias: Tensor, reverse: list[bool]) -> Tensor:
    y = u.new_empty(u.shape)
    _call("conv_forward", {"taps": weight.shape[1]}, reverse, u=u, weight=weight, bias=bias, y=y)
    return y


@_convolve.register_fake
def _(u: Tensor, weight: Tensor, bias: Tensor, reverse: list[bool]) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("nnunet_echo::causal_conv_silu_backward", mutates_args=(), device_types="cpu")
def _convolve_backward(
    u: Tensor, weight: Tensor, bias: Tensor, reverse: list[bool], grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_u, grad_weight, grad_bias = torch.empty_like(u), *(u.new_empty(len(u), *x.shape) for x in (weight, bias))
    outputs = {"grad_u": grad_u, "grad_weight": grad_weight, "grad_bias": grad_bias}
    _call("conv_backward", {"taps": weight.shape[1]}, reverse, u=u, weight=weight, bias=bias, grad_y=grad_y, **outputs)
    return grad_u, grad_weight.sum(0), grad_bias.sum(0)


@_convolve_backward.register_fake
def _(u: Tensor, weight: Tensor, bias: Tensor, reverse: list[bool], grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(u), torch.empty_like(weight), torch.empty_like(bias)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    if traceable.gradients_wanted((grad_y,)):
        plain = partial(traceable.causal_conv_silu, reverse=ctx.reverse)
        return *traceable.gradients(plain, ctx.saved_tensors, (grad_y,)), None
    return *_convolve_backward(*ctx.saved_tensors, ctx.reverse, grad_y), None


_convolve.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.nnunet_echo.causal_conv_silu)
def _count(u: Sequence[int], weight: Sequence[int], *others: Any, **options: Any) -> int:
    return 2 * math.prod(u) * weight[1]  # a convolution's, as PyTorch counts it


@register_flop_formula(torch.ops.nnunet_echo.causal_conv_silu_backward)
def _count_backward(u: Sequence[int], weight: Sequence[int], *others: Any, **options: Any) -> int:
    return 2 * _count(u, weight)


def _call(function: str, options: dict[str, int], reverse: Sequence[bool], **tensors: Tensor | None) -> None:
    """Call the library with tensors by their names in `_Scan`, None for a missing one; `options` are more of its."""
    traceable.refuse_forward_mode(f"nnunet_echo's C operator {function}")
    u = tensors["u"]
    assert u is not None
    batch, channels, length = u.shape
    groups = len(reverse)
    channels //= groups
    sizes = {"batch": batch, "groups": groups, "channels": channels, "length": length, **options}
    sizes |= {"threads": torch.get_num_threads(), "width": vector_width}
    scan = _Scan(**sizes, reverse=bytes(reverse), parallel=_parallel())
    present = {name: x for name, x in tensors.items() if x is not None}
    contiguous = {name: x.contiguous() for name, x in present.items() if name in _CONTIGUOUS}  # alive during the call
    for name, x in present.items():
        assert x.dtype == torch.float32, name
        if name in contiguous:
            setattr(scan, name, contiguous[name].data_ptr())
        else:
            rows = x if x.ndim == 4 else x.unflatten(1, (groups, channels))
            setattr(scan, name, _Array(x.data_ptr(), *rows.stride()))
    if getattr(_loaded(), function)(ctypes.byref(scan)):
        raise MemoryError(f"selective_scan: no memory for the work space of {scan.threads} threads.")


@torch.compiler.assume_constant_result  # torch.compile cannot trace ctypes and need not
def _why_no_library() -> str | None:
    library = _library()
    if library is None:
        return "the C scan was not compiled at install (get gcc or clang and install nnunet-echo again)"
    if library.scan_size() != ctypes.sizeof(_Scan):
        return "the C scan was compiled from another version of its source (install nnunet-echo again)"
    return None


def widest_vector() -> int:
    """Floats in the widest vector that this processor computes with: 16 (AVX-512), 8 (AVX2) or 4."""
    return _loaded().scan_width()


@cache
def _parallel() -> int | None:
    """Address of OpenMP's GOMP_parallel in the runtime that PyTorch has loaded; None where that is not OpenMP."""
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _loaded() -> ctypes.CDLL:
    """The library, where `why_not` has found it."""
    library = _library()
    assert library is not None
    return library


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled library; None where the install had no compiler."""
    spec = importlib.util.find_spec("nnunet_echo.ops.selective_scan._cpu_scan")
    if spec is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.scan_chunk.restype = library.scan_width.restype = library.scan_size.restype = ctypes.c_int64
    return library
