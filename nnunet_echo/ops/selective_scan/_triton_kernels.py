"""The kernels of `nnunet_echo.ops.selective_scan.triton`, which says how they work together.

A program works on a tile: ROWS channels of one group and TOKENS tokens of one sequence, one chunk. Its element is
(channel, token); the states n are looped over, one at a time in registers. BACKWARDS: the recurrence takes the tokens
from the last to the first; tiles lie in memory as ever, and only their scans turn round.

Letters as in the package; g is the gradient at the state h, and what leaves a chunk is decay * g of its first token,
the gradient at the state before it. "order" counts chunks as the recurrence meets them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from nnunet_echo.ops.selective_scan._triton_tiles import (
    before_gate,
    load,
    load_row,
    load_state,
    place,
    raw_steps,
    row,
    slot,
    steps,
    steps_behind,
    store,
    store_state,
    tile_of,
)

# exp(x) = exp2(x log2(e)), the one exponential that GPUs have: A is multiplied once, not every product with it.
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def chunk_ends(
    inputs,
    grad_y,
    ends,
    spans,
    sizes,
    SOFTPLUS: tl.constexpr,
    BACKWARDS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The state behind a chunk, as if the state before it were zero, and the sum of the chunk's steps.

    ends (B, chunks + 1, N, D): the chunk of order i writes slot i + 1. spans (B, chunks, D).
    With `grad_y` the same for the recurrence of g, which runs the other way and adds C dy where h adds delta B u: what
    leaves the chunk, as if nothing came in. Order counts as that recurrence goes.
    """
    ADJOINT: tl.constexpr = grad_y is not None
    BACK: tl.constexpr = BACKWARDS != ADJOINT
    b, g, block, chunk = place(sizes, tl.cdiv(sizes.channels, ROWS), sizes.chunks)
    at = tile_of(b, g, block, chunk, sizes, ROWS, TOKENS)
    step = steps(inputs, at, SOFTPLUS)
    # The decays of several tokens multiply to one exponential of the sum of their steps. It is summed from the end of
    # the chunk, where decays are weak and the sum has to be exact.
    if ADJOINT:
        value = before_gate(grad_y, inputs, at)
        left = tl.cumsum(step, 1, reverse=not BACK)
    else:
        value = step * load(inputs.u, at)
        left = tl.cumsum(steps_behind(inputs, at, sizes, SOFTPLUS, BACK, TOKENS), 1, reverse=not BACK)
    order = sizes.chunks - 1 - chunk if BACK else chunk
    tl.store(spans + (b * sizes.chunks + order) * sizes.all + at.channels, tl.sum(step, 1), at.is_row)
    end = slot(ends, at, order + 1, sizes)
    for n in range(sizes.states):
        a = load_state(inputs.A + n * sizes.all + at.channels, at) * _LOG2_E
        drive = load_row(inputs.C if ADJOINT else inputs.B, at, n)
        h = tl.sum(tl.exp2(left * a) * value * drive, 1, keep_dims=True)
        store_state(end + n * sizes.all, h, 0, at, TOKENS)


@triton.jit
def combine_chunks(ends, spans, A, channels, states, chunks, BLOCK: tl.constexpr, CHUNKS: tl.constexpr):
    """Turn slots 1, 2, ... of `chunk_ends` into the true states, given the one in slot 0."""
    b = tl.program_id(1).to(tl.int64)
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]  # of (N, D)
    is_state = state < states * channels
    a = tl.load(A + state, is_state, other=0.0) * _LOG2_E
    ends += b * (chunks + 1) * states * channels + state
    spans += b * chunks * channels + state % channels
    local = tl.arange(0, CHUNKS)[:, None]
    before = tl.load(ends, is_state, other=0.0)
    for first in range(0, chunks, CHUNKS):
        chunk = (first + local).to(tl.int64)
        inside = (chunk < chunks) & is_state
        end = ends + (chunk + 1) * states * channels
        decay = tl.exp2(tl.load(spans + chunk * channels, inside, other=0.0) * a)
        h = tl.load(end, inside, other=0.0)
        h = tl.where(local == 0, h + decay * before, h)
        _, h = tl.associative_scan((decay, h), 0, _then)
        tl.store(end, h, inside)
        before = tl.sum(tl.where(local == CHUNKS - 1, h, 0.0), 0, keep_dims=True)


@triton.jit
def outputs(
    inputs,
    y,
    starts,
    sizes,
    WALK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BACKWARDS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """y of a chunk, from the state before it in `starts` (B, chunks + 1, N, D).

    WALK: y of all chunks, one after the other, from slot 0; writes the other slots.
    """
    FIRST: tl.constexpr = TOKENS - 1 if BACKWARDS else 0
    b, g, block, begin = place(sizes, tl.cdiv(sizes.channels, ROWS), 1 if WALK else sizes.chunks)
    for order in range(begin, sizes.chunks if WALK else begin + 1):
        at = tile_of(b, g, block, sizes.chunks - 1 - order if BACKWARDS else order, sizes, ROWS, TOKENS)
        first = tl.arange(0, TOKENS)[None, :] == FIRST
        u = load(inputs.u, at)
        step = steps(inputs, at, SOFTPLUS)
        product = step * u
        total = tl.zeros_like(u)
        start = slot(starts, at, order, sizes)
        for n in range(sizes.states):
            decay = tl.exp2(step * (load_state(inputs.A + n * sizes.all + at.channels, at) * _LOG2_E))
            h = product * load_row(inputs.B, at, n)
            h = tl.where(first, h + decay * load_state(start + n * sizes.all, at), h)
            _, h = tl.associative_scan((decay, h), 1, _then, reverse=BACKWARDS)
            total += h * load_row(inputs.C, at, n)
            if WALK:
                store_state(start + (sizes.states + n) * sizes.all, h, TOKENS - 1 - FIRST, at, TOKENS)
        if inputs.D is not None:
            total += load_state(inputs.D + at.channels, at) * u
        if inputs.z is not None:
            z = load(inputs.z, at)
            total *= z * tl.sigmoid(z)
        store(y, total, at)
        if WALK:
            tl.debug_barrier()  # the next chunk reads what other threads of this program have stored


@triton.jit
def gradients(
    inputs,
    starts,
    leaving,
    grad_y,
    grads,
    sizes,
    splits,
    SOFTPLUS: tl.constexpr,
    BACKWARDS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """All gradients of a chunk, for one of `splits` parts of a group's channels, a block of ROWS after the other.

    starts as `outputs` has it. leaving (B, chunks + 1, N, D): slot 0 the gradient at the last state, slot i what leaves
    the chunk that is i-th from the end. grads, an `Inputs`: B and C (B * splits, G, N, L) are sums over the part's
    channels; A (B, chunks, N, D), D and delta_bias (B, chunks, D) are sums over the chunk's tokens.
    """
    FIRST: tl.constexpr = TOKENS - 1 if BACKWARDS else 0
    b, g, part, chunk = place(sizes, splits, sizes.chunks)
    order = sizes.chunks - 1 - chunk if BACKWARDS else chunk
    blocks = tl.cdiv(tl.cdiv(sizes.channels, ROWS), splits)
    for i in range(blocks):
        at = tile_of(b, g, part * blocks + i, chunk, sizes, ROWS, TOKENS)
        first = tl.arange(0, TOKENS)[None, :] == FIRST
        last = tl.arange(0, TOKENS)[None, :] == TOKENS - 1 - FIRST
        step = steps(inputs, at, SOFTPLUS)
        step_behind = steps_behind(inputs, at, sizes, SOFTPLUS, BACKWARDS, TOKENS)
        product = step * load(inputs.u, at)
        grad_total = before_gate(grad_y, inputs, at)
        total = tl.zeros_like(step)
        grad_product = tl.zeros_like(step)
        grad_step = tl.zeros_like(step)
        start = slot(starts, at, order, sizes)
        behind = slot(leaving, at, sizes.chunks - 1 - order, sizes)
        sums = (b * sizes.chunks + chunk) * sizes.all + at.channels
        sums_of_A = grads.A + (b * sizes.chunks + chunk) * sizes.states * sizes.all + at.channels
        for n in range(sizes.states):
            a = load_state(inputs.A + n * sizes.all + at.channels, at)
            B = load_row(inputs.B, at, n)
            C = load_row(inputs.C, at, n)
            # kept[t] = decay[t] h[t-1]; as h[t] - delta[t] B[t] u[t] it would be all rounding where the decay is strong
            decay = tl.exp2(step * (a * _LOG2_E))
            kept = tl.where(first, decay * load_state(start + n * sizes.all, at), 0.0)
            h = product * B + kept
            _, h, kept = tl.associative_scan((decay, h, kept), 1, _then_keeping, reverse=BACKWARDS)
            # g[t] = C[t] dy[t] + decay[t+1] g[t+1]
            grad_h = grad_total * C
            grad_h = tl.where(last, grad_h + load_state(behind + n * sizes.all, at), grad_h)
            decay = tl.exp2(step_behind * (a * _LOG2_E))
            _, grad_h = tl.associative_scan((decay, grad_h), 1, _then, reverse=not BACKWARDS)
            total += h * C
            grad_product += grad_h * B
            grad_exponent = grad_h * kept
            grad_step += grad_exponent * a
            grad_A = tl.sum(grad_exponent * step, 1, keep_dims=True)
            store_state(sums_of_A + n * sizes.all, grad_A, 0, at, TOKENS)
            grad_B, grad_C = tl.reduce((grad_h * product, h * grad_total), 0, _add_pairs)
            into_B = row(grads.B, b * splits + part, g, n, at)
            into_C = row(grads.C, b * splits + part, g, n, at)
            if i > 0:
                grad_B += tl.load(into_B, at.is_token, other=0.0)
                grad_C += tl.load(into_C, at.is_token, other=0.0)
            tl.store(into_B, grad_B, at.is_token)
            tl.store(into_C, grad_C, at.is_token)
        u = load(inputs.u, at)
        grad_step += grad_product * u
        grad_u = grad_product * step
        if inputs.D is not None:
            D = load_state(inputs.D + at.channels, at)
            total += D * u
            grad_u += D * grad_total
            tl.store(grads.D + sums, tl.sum(grad_total * u, 1), at.is_row)
        if inputs.z is not None:
            z = load(inputs.z, at)
            gate = tl.sigmoid(z)
            store(grads.z, load(grad_y, at) * total * gate * (1 + z * (1 - gate)), at)
        if SOFTPLUS:
            grad_step *= tl.sigmoid(raw_steps(inputs, at))
        if inputs.delta_bias is not None:
            exists = at.is_row[:, None] & at.is_token[None, :]
            tl.store(grads.delta_bias + sums, tl.sum(tl.where(exists, grad_step, 0.0), 1), at.is_row)
        store(grads.u, grad_u, at)
        store(grads.delta, grad_step, at)
        tl.debug_barrier()  # the next block adds to grads.B and grads.C, which other threads have stored


@triton.jit
def _then(decay, h, next_decay, next_h):
    """Two stretches of a recurrence as one."""
    return decay * next_decay, next_decay * h + next_h


@triton.jit
def _then_keeping(decay, h, kept, next_decay, next_h, next_kept):
    """`_then`, and how much of h is not the last token's own."""
    return decay * next_decay, next_decay * h + next_h, next_decay * h + next_kept


@triton.jit
def _add_pairs(x, y, other_x, other_y):
    return x + other_x, y + other_y
