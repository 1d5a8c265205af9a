"""Selective scan in Triton for GPUs: float32, forward and backward, a sequence cut into chunks that run in parallel.

Scans of images have few rows (batch times channels) and many tokens. A block of threads for each row, as mamba_ssm has
it, leaves most of a GPU idle then; here a program has a tile of `_ROWS` channels and one chunk of `_TOKENS` tokens:

1. `chunk_ends`: the state behind each chunk as if it were zero before it, a plain sum over the chunk's tokens;
2. `combine_chunks`: from those the state before each chunk, a scan over chunks;
3. `outputs`: y of each chunk.

Where rows alone fill the GPU, `outputs` walks over the chunks and 1 and 2 are left out. The backward takes steps 1 and
2 for the recurrence of the gradient, which runs the other way, and then `gradients` recomputes the states of each chunk
from the state before it. Groups that read backwards have their tiles scanned from the end: nothing is flipped.

Why tokens are scanned in parallel inside a tile (`tl.associative_scan`) and states are looped over: a loop over tokens
with the states in registers takes fewer instructions, but its threads are channels, which lie far apart in memory, and
in the backward it would need the states of all tokens of the chunk at once and sum over threads for each token of B
and C. Over the states, everything but one state of a tile is the same for all of them and stays in registers.

Extra memory, in units of u: (N + 1) / `_TOKENS` in the forward, of which N / `_TOKENS`, the states between chunks, stay
for the backward, and (2 N + 3) / `_TOKENS` more there. Where its chunks do not fill the GPU, the backward splits the
channels too, with copies of the gradients of B and C, in all below 32 N `_TOKENS` floats for each multiprocessor.
Inputs whose tokens are not neighbours in memory are copied for the time of the call; outputs and gradients are
contiguous.

Every sum has a fixed order and nothing is added atomically: the same inputs give the same bits on one kind of GPU.
Letters as in `nnunet_echo.ops.selective_scan`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnunet_echo.ops.selective_scan import reference, traceable
from nnunet_echo.ops.selective_scan._operator import INPUTS, register_gradients
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

if TYPE_CHECKING:
    from nnunet_echo.ops.selective_scan._triton_tiles import Array, Inputs, Sizes

READS_BACKWARDS = True

# Channels and tokens of a tile, which one warp computes: two channels of four neighbouring tokens for each thread.
_ROWS, _TOKENS = 8, 32
# Programs on a multiprocessor with which it counts as busy; registers of a thread that leave room for twice as many.
_PROGRAMS, _REGISTERS = 8, 128
# Chunks that `combine_chunks` takes at a time.
_CHUNKS = 512


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Reason why Triton cannot serve this device and dtype; None when it can."""
    if device.type != "cuda":
        return "the Triton scan runs on CUDA devices only"
    if dtype != torch.float32:
        return f"the Triton scan computes in float32, not in {dtype}"
    return _why_no_kernels(device)


def selective_scan(inputs: ScanInputs, reverse: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N)."""
    y, last_state, _ = _scan(*inputs, reverse)
    return y, last_state


@torch.library.custom_op("nnunet_echo::scan_triton", mutates_args=(), schema=f"({INPUTS}) -> (Tensor, Tensor, Tensor)")
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
    """y, last state, and what the backward starts from: states before and behind chunks, (B, chunks + 1, N, D)."""
    from nnunet_echo.ops.selective_scan._triton_kernels import outputs

    y, last, states = _outputs(u, delta, A)
    states[:, 0] = 0
    inputs = _inputs(u, delta, A, B, C, D, z, delta_bias)
    launches = list(_launches(inputs, B.shape[1], reverse))
    programs = min((len(u) * sizes.groups * blocks for sizes, blocks, _ in launches), default=0)
    walk = states.shape[1] == 2 or programs >= _PROGRAMS * _multiprocessors(u.device)
    with torch.cuda.device_of(u):
        if not walk:
            _states_between_chunks(states, inputs, None, launches, softplus)
        for sizes, blocks, options in launches:
            grid = (len(u) * sizes.groups * blocks * (1 if walk else sizes.chunks),)
            outputs[grid](inputs, _array(y, B.shape[1]), states, sizes, WALK=walk, SOFTPLUS=softplus, **options)
    last.copy_(states[:, -1].mT)
    return y, last, states


@_scan.register_fake
def _outputs(u: Tensor, delta: Tensor, A: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, channels, length), states = u.shape, A.shape[1]
    shapes = (batch, channels, states), (batch, -(-length // _TOKENS) + 1, states, channels)
    last, states_of_chunks = (u.new_empty(shape) for shape in shapes)
    return u.new_empty(u.shape), last, states_of_chunks


@torch.library.custom_op(
    "nnunet_echo::scan_triton_backward",
    mutates_args=(),
    schema=f"({INPUTS}, Tensor states, Tensor grad_y, Tensor grad_last) -> Tensor[]",
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
    states: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> list[Tensor]:
    """Gradients at u, delta, A, B, C, D, z, delta_bias; where z is missing, its gradient has no elements."""
    from nnunet_echo.ops.selective_scan import _triton_kernels as kernels
    from nnunet_echo.ops.selective_scan._triton_tiles import Inputs

    gradients = Inputs(*_gradients_like(u, delta, A, B, C, D, z))
    if not u.numel():
        return [x.zero_() for x in gradients]
    batch, groups, chunks = len(u), B.shape[1], states.shape[1] - 1
    inputs, at_y = _inputs(u, delta, A, B, C, D, z, delta_bias), _array(grad_y, groups)
    launches = list(_launches(inputs, groups, reverse))
    leaving = torch.empty_like(states)
    leaving[:, 0] = grad_last.mT
    # A program takes all channels of its chunk and group, one after the other, unless that leaves the GPU idle.
    programs = min(batch * sizes.groups * chunks for sizes, _, _ in launches)
    splits = min(launches[0][1], -(-_PROGRAMS * _multiprocessors(u.device) // programs))
    by_chunk, by_split = (batch, chunks), (batch, splits)
    sums = gradients._replace(
        A=u.new_empty(*by_chunk, *A.mT.shape),
        B=u.new_empty(*by_split, *B.shape[1:]),
        C=u.new_empty(*by_split, *C.shape[1:]),
        D=u.new_empty(*by_chunk, len(A)),
        delta_bias=u.new_empty(*by_chunk, len(A)),
    )
    grads = sums._replace(
        u=_array(gradients.u, groups),
        delta=_array(gradients.delta, groups),
        B=_array(sums.B.flatten(0, 1), groups),
        C=_array(sums.C.flatten(0, 1), groups),
        z=_array(None if z is None else gradients.z, groups),
    )
    with torch.cuda.device_of(u):
        if chunks > 1:
            _states_between_chunks(leaving, inputs, at_y, launches, softplus)
        for sizes, _, options in launches:
            kernels.gradients[(batch * sizes.groups * chunks * splits,)](
                inputs, states, leaving, at_y, grads, sizes, splits, SOFTPLUS=softplus, maxnreg=_REGISTERS, **options
            )
    torch.sum(sums.A, (0, 1), out=gradients.A.mT)
    torch.sum(sums.D, (0, 1), out=gradients.D)
    torch.sum(sums.delta_bias, (0, 1), out=gradients.delta_bias)
    torch.sum(sums.B, 1, out=gradients.B)
    torch.sum(sums.C, 1, out=gradients.C)
    return list(gradients)


@_scan_backward.register_fake
def _gradients_like(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, *others: Any
) -> list[Tensor]:
    sizes = (x.shape for x in (u, delta, A, B, C, A[:, 0], u[:0, 0, 0] if z is None else z, A[:, 0]))
    return [u.new_empty(size) for size in sizes]


register_gradients(_scan, _scan_backward)


def _states_between_chunks(
    states: Tensor, inputs: Inputs, grad_y: Array | None, launches: list, softplus: bool
) -> None:
    """Fill slots 1 and on of `states` (B, chunks + 1, N, D), whose slot 0 is given; with `grad_y` those of g."""
    from nnunet_echo.ops.selective_scan._triton_kernels import chunk_ends, combine_chunks

    batch, slots, *state = states.shape
    spans = states.new_empty(batch, slots - 1, state[1])
    for sizes, blocks, options in launches:
        grid = (batch * sizes.groups * blocks * sizes.chunks,)
        chunk_ends[grid](inputs, grad_y, states, spans, sizes, SOFTPLUS=softplus, **options)
    block, chunks = 8, min(_CHUNKS, _power_of_two(slots - 1))
    combine_chunks[(-(-state[0] * state[1] // block), batch)](
        states, spans, inputs.A, state[1], state[0], slots - 1, block, chunks, num_warps=8, enable_fp_fusion=True
    )


def _launches(inputs: Inputs, groups: int, reverse: Sequence[bool]) -> Iterator[tuple[Sizes, int, dict[str, Any]]]:
    """For each run of groups that read the same way: what it covers, blocks of channels in a group, and options."""
    from nnunet_echo.ops.selective_scan._triton_tiles import Sizes

    _, all_channels, length = inputs.u.data.shape
    channels, states = all_channels // groups, inputs.A.shape[0]
    if not inputs.u.data.numel():
        return
    rows = min(_ROWS, _power_of_two(channels))
    first = 0
    for backwards, run in groupby(reverse):
        count = len(list(run))
        sizes = Sizes(count, first, channels, all_channels, states, length, -(-length // _TOKENS))
        yield (
            sizes,
            -(-channels // rows),
            {"BACKWARDS": backwards, "ROWS": rows, "TOKENS": _TOKENS, "num_warps": 1, "enable_fp_fusion": True},
        )
        first += count


def _inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> Inputs:
    """The tensors as the kernels take them."""
    from nnunet_echo.ops.selective_scan._triton_tiles import Inputs

    traceable.refuse_forward_mode("nnunet_echo's Triton scan")
    at_u, at_delta, at_B, at_C, at_z = (_array(x, B.shape[1]) for x in (u, delta, B, C, z))
    D, delta_bias = (None if x is None else x.contiguous() for x in (D, delta_bias))
    return Inputs(at_u, at_delta, A.mT.contiguous(), at_B, at_C, D, at_z, delta_bias)


def _array(x: Tensor | None, groups: int) -> Array | None:
    """x (B, D, L) or (B, G, N, L) as the kernels take it."""
    from nnunet_echo.ops.selective_scan._triton_tiles import Array

    if x is None:
        return None
    # With any other axis as neighbours, Triton 3.9 scans a tile with twice the instructions: a copy costs less.
    x = x if x.stride(-1) == 1 else x.contiguous()
    return Array(x, *(x if x.ndim == 4 else x.unflatten(1, (groups, -1))).stride()[:-1])


def _power_of_two(number: int) -> int:
    """The smallest one that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@torch.compiler.assume_constant_result  # torch.compile need not see how it is found out
def _why_no_kernels(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 7:
        return f"Triton needs compute capability 7.0, this GPU has {major}.{minor}"
    return _probe(device)


@cache
def _probe(device: torch.device) -> str | None:
    """Compare one tiny scan with the reference: a compiler or driver that does not fit raises, or computes nonsense."""
    try:
        generator = torch.Generator().manual_seed(0)
        row, state, channel = (1, 8, 40), (1, 2, 4, 40), (8,)
        values = [torch.rand(s, generator=generator) for s in (row, row, (8, 4), state, state, channel, row, channel)]
        values[2].neg_()  # A below zero: states that decay
        ours = _outputs_and_gradients(lambda inputs: selective_scan(inputs, (False, False)), values, device)
        truth = _outputs_and_gradients(reference.selective_scan, values, torch.device("cpu"))
        for x, expected in zip(ours, truth, strict=True):
            error = float((x - expected).norm() / expected.norm())
            if not error < 1e-4:
                raise ArithmeticError(f"relative error {error:.1e} of a small scan")
    except Exception as error:  # whatever a broken build raises, training goes on with the next backend
        reason = f"the Triton scan does not work here ({type(error).__name__}: {error})"
        warnings.warn(f"{reason}; the next scan backend is used instead.", RuntimeWarning, stacklevel=2)
        return reason
    return None


def _outputs_and_gradients(scan: Callable, values: list[Tensor], device: torch.device) -> list[Tensor]:
    leaves = [x.to(device).requires_grad_() for x in values]
    y, last = scan(ScanInputs._make((*leaves, True)))
    return [x.detach().cpu() for x in (y, last, *torch.autograd.grad(y.sum() + last.sum(), leaves))]
