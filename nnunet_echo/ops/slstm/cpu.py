"""The sLSTM cell in C for CPUs: float32, forward and backward. In the library of the selective scan, optional as it is.

It takes as many threads as PyTorch has, but not more than there are heads in all sequences; the result does not depend
on their number. Letters as in the package.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from nnunet_echo.ops.selective_scan import cpu as scan
from nnunet_echo.ops.selective_scan import traceable
from nnunet_echo.ops.slstm import reference

_KEPT, _LINE = 7, 16  # rows that _cpu_slstm.c keeps of each token, and what a row's length is a multiple of
_SIZES = ("batch", "length", "heads", "size", "fresh", "threads", "width")
_ARRAYS = ("x", "R", "b", "initial", "y", "last", "kept", "grad_y", "grad_last", "grad_x", "grad_initial")


class _Cell(ctypes.Structure):
    """`Cell` in _cpu_slstm.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        ("parallel", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
    ]


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why the library cannot serve this device and dtype; None when it can."""
    return scan.why_not(device, dtype) or _why_other_library()


@torch.compiler.assume_constant_result  # torch.compile cannot trace ctypes and need not
def _why_other_library() -> str | None:
    size = getattr(scan._library(), "slstm_size", None)
    if size is None or size() != ctypes.sizeof(_Cell):
        return "the C scan was compiled from another version of its source (install nnunet-echo again)"
    return None


def slstm(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, S, D) and last states (4, B, H * D)."""
    y, last_state, _ = _slstm(x, R, b, initial_state)
    return y, last_state


@torch.library.custom_op("nnunet_echo::slstm_cpu", mutates_args=(), device_types="cpu")
def _slstm(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """y, last states, and what the backward needs of each token."""
    y, last, kept = _outputs(x, R, b, initial_state)
    _call("slstm_forward", initial_state, x=x, R=R, b=b, y=y, last=last, kept=kept)
    return y, last, kept


@_slstm.register_fake
def _outputs(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    (batch, length, _), (heads, _, size, _) = x.shape, R.shape
    y, last = x.new_empty(batch, heads, length, size), x.new_empty(4, batch, heads * size)
    return y, last, x.new_empty(batch, heads, length, _KEPT, -(-size // _LINE) * _LINE)


@torch.library.custom_op("nnunet_echo::slstm_cpu_backward", mutates_args=(), device_types="cpu")
def _slstm_backward(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    y: Tensor,
    kept: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> list[Tensor]:
    """Gradients at x, R, b and the initial state, also where that is missing."""
    grad_x, _, _, grad_initial = _gradients_like(x, R, b, initial_state)
    gradients = {"grad_y": grad_y, "grad_last": grad_last, "grad_x": grad_x, "grad_initial": grad_initial}
    _call("slstm_backward", initial_state, x=x, R=R, b=b, kept=kept, **gradients)
    heads, gates, size, _ = R.shape
    at_gates = grad_x.unflatten(-1, (gates, heads, size))  # (B, S, gate, H, D)
    first = x.new_zeros(len(x), heads * size) if initial_state is None else initial_state[0]
    before = torch.cat((first.unflatten(-1, (heads, 1, size)), y), dim=2)[:, :, :-1]  # y of the token before
    of_heads = at_gates.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)  # (B * H, S, 4 * D)
    grad_R = (of_heads.transpose(1, 2) @ before.flatten(0, 1)).unflatten(0, (len(x), heads)).sum(0).view(R.shape)
    return [grad_x, grad_R, at_gates.sum((0, 1)), grad_initial]


@_slstm_backward.register_fake
def _gradients_like(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None, *others: Any) -> list[Tensor]:
    (batch, _, width), gates = x.shape, R.shape[1]
    return [x.new_empty(x.shape), torch.empty_like(R), torch.empty_like(b), x.new_empty(4, batch, width // gates)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[0], output[2])


def _gradients(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    *inputs, y, kept = ctx.saved_tensors
    if traceable.gradients_wanted((grad_y, grad_last)):
        return tuple(traceable.gradients(reference.slstm, inputs, (grad_y, grad_last)))
    found = _slstm_backward(*inputs, y, kept, grad_y, grad_last)
    return tuple(None if x is None else g for x, g in zip(inputs, found, strict=True))


_slstm.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.nnunet_echo.slstm_cpu)
def _count(x: Sequence[int], R: Sequence[int], *others: Any, **options: Any) -> int:
    return 2 * x[0] * x[1] * math.prod(R)  # R y, a product for each token


@register_flop_formula(torch.ops.nnunet_echo.slstm_cpu_backward)
def _count_backward(x: Sequence[int], R: Sequence[int], *others: Any, **options: Any) -> int:
    return 2 * _count(x, R)


def _call(function: str, initial_state: Tensor | None, **tensors: Tensor) -> None:
    """Call the library with tensors by their names in `_Cell`."""
    traceable.refuse_forward_mode(f"nnunet_echo's C operator {function}")
    (batch, length, _), (heads, _, size, _) = tensors["x"].shape, tensors["R"].shape
    fresh = initial_state is None or not initial_state[2].any()
    if initial_state is None:
        initial_state = tensors["x"].new_zeros(4, batch, heads * size)
    contiguous = {
        name: x.contiguous() for name, x in {**tensors, "initial": initial_state}.items()
    }  # alive in the call
    assert all(x.dtype == torch.float32 for x in contiguous.values())
    sizes = {"batch": batch, "length": length, "heads": heads, "size": size, "fresh": fresh}
    sizes |= {"threads": torch.get_num_threads(), "width": scan.vector_width}
    cell = _Cell(**sizes, parallel=scan._parallel(), **{name: x.data_ptr() for name, x in contiguous.items()})
    if getattr(scan._loaded(), function)(ctypes.byref(cell)):
        raise MemoryError(f"slstm: no memory for the work space of {cell.threads} threads.")
