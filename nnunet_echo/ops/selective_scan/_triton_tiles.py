"""What the kernels of the scan in Triton share: how tensors are passed and read, tile by tile.

Letters as in `nnunet_echo.ops.selective_scan`. A tile is ROWS channels of one group and TOKENS tokens of one sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Array(NamedTuple):
    """A tensor (B, G, rows, L) with its strides; tokens are neighbours in memory."""

    data: Any
    batch: Any
    group: Any
    row: Any


class Inputs(NamedTuple):
    """What is scanned: A (N, D), D and delta_bias (D,) contiguous, the others `Array`; D, z, delta_bias may be None."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    z: Any
    delta_bias: Any


class Sizes(NamedTuple):
    """Numbers: what a launch covers, `groups` groups of `channels` channels from `first_group` on, out of `all`."""

    groups: Any
    first_group: Any
    channels: Any
    all: Any
    states: Any
    length: Any
    chunks: Any


class Tile(NamedTuple):
    """Where a program is: sequence, group, channels in the group and in all (ROWS,), tokens (TOKENS,), which exist."""

    b: Any
    g: Any
    rows: Any
    channels: Any
    tokens: Any
    is_row: Any
    is_token: Any


@triton.jit
def place(sizes, parts, chunks):
    """Sequence, group, part of its channels, and chunk; programs of the same chunk are neighbours and share B and C."""
    program = tl.program_id(0)
    part = program % parts
    chunk = (program // parts % chunks).to(tl.int64)
    g = sizes.first_group + program // parts // chunks % sizes.groups
    b = program // parts // chunks // sizes.groups
    return b.to(tl.int64), g.to(tl.int64), part, chunk


@triton.jit
def tile_of(b, g, block, chunk, sizes, ROWS: tl.constexpr, TOKENS: tl.constexpr):
    rows = (block * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    tokens = chunk * TOKENS + tl.arange(0, TOKENS)
    return Tile(b, g, rows, g * sizes.channels + rows, tokens, rows < sizes.channels, tokens < sizes.length)


@triton.jit
def elements(x, at):
    return x.data + at.b * x.batch + at.g * x.group + (at.rows * x.row)[:, None] + at.tokens[None, :]


@triton.jit
def load(x, at):
    return tl.load(elements(x, at), at.is_row[:, None] & at.is_token[None, :], other=0.0)


@triton.jit
def store(x, value, at):
    tl.store(elements(x, at), value, at.is_row[:, None] & at.is_token[None, :])


@triton.jit
def row(x, b, g, n, at):
    return x.data + b * x.batch + g * x.group + n * x.row + at.tokens


@triton.jit
def load_row(x, at, n):
    """B or C of state n, (1, TOKENS)."""
    return tl.load(row(x, at.b, at.g, n, at), at.is_token, other=0.0)[None, :]


@triton.jit
def slot(states, at, slot, sizes):
    """Pointers (ROWS,) to state 0 in a slot of `states` (B, chunks + 1, N, D)."""
    return states + (at.b * (sizes.chunks + 1) + slot) * sizes.states * sizes.all + at.channels


@triton.jit
def load_state(pointers, at):
    """One number for each channel, (ROWS, 1)."""
    return tl.load(pointers, at.is_row, other=0.0)[:, None]


@triton.jit
def store_state(pointers, h, column, at, TOKENS: tl.constexpr):
    """Store a column of h, (ROWS, TOKENS) or (ROWS, 1): by the threads that have it, so that nothing moves."""
    local = tl.arange(0, TOKENS)[None, :]
    tl.store(pointers[:, None] + 0 * local, h + tl.zeros_like(local), at.is_row[:, None] & (local == column))


@triton.jit
def before_gate(grad_y, inputs, at):
    """Gradient at what silu(z) multiplies."""
    grad = load(grad_y, at)
    if inputs.z is not None:
        z = load(inputs.z, at)
        grad *= z * tl.sigmoid(z)
    return grad


@triton.jit
def raw_steps(inputs, at):
    """delta + delta_bias."""
    step = load(inputs.delta, at)
    if inputs.delta_bias is not None:
        step += load_state(inputs.delta_bias + at.channels, at)
    return step


@triton.jit
def steps(inputs, at, SOFTPLUS: tl.constexpr):
    """Steps as the recurrence has them, 0 where there is no element: such a token leaves the state as it is."""
    step = raw_steps(inputs, at)
    if SOFTPLUS:
        # max(x, 0) + log(1 + w) with log(1 + w) = 2 artanh(s), which keeps the digits of a small w
        w = tl.exp(-tl.abs(step))
        s = w / (2 + w)
        q = s * s
        series = 1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))
        step = tl.where(step < 0, 0.0, step) + 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * series)))
    return tl.where(at.is_row[:, None] & at.is_token[None, :], step, 0.0)


@triton.jit
def steps_behind(inputs, at, sizes, SOFTPLUS: tl.constexpr, BACK: tl.constexpr, TOKENS: tl.constexpr):
    """For each token the step of the one behind it, as the recurrence goes; 0 behind the last one of the chunk."""
    local = tl.arange(0, TOKENS)
    tokens = at.tokens - 1 if BACK else at.tokens + 1
    is_token = ((local > 0) if BACK else (local < TOKENS - 1)) & (tokens < sizes.length)
    return steps(inputs, Tile(at.b, at.g, at.rows, at.channels, tokens, at.is_row, is_token), SOFTPLUS)
