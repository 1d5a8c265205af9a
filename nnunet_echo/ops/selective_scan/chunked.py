"""Selective scan in plain PyTorch with its own backward: any device, any float type, little memory.

The forward keeps the state h only at the start of every chunk of tokens; the backward walks the chunks from the last to
the first, recomputes the states inside, and runs the adjoint recurrence. Extra memory: B*D*N*L / chunk plus a few
buffers of one chunk. Inside a chunk everything but the recurrence itself is one operation over all its tokens.

Letters as in the package; further S = sequences with their own B and C (batch times groups), H = channels of one
group, T = tokens of a chunk. Buffers are (T, S, N, H): the token first, since the recurrence goes over it, and the
channels last, since there are many and they are contiguous. g is the gradient at h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_echo.ops.selective_scan import traceable
from nnunet_echo.ops.selective_scan.inputs import ScanInputs
from nnunet_echo.ops.selective_scan.reference import skip_and_gate

# A chunk's buffers (T, S, N, H) should stay in the cache of a core; measured with benchmarks/scan.py.
_ELEMENTS_OF_A_TOKEN = 1 << 15
_ELEMENTS_OF_A_CHUNK = 1 << 19
_TOKENS_OF_A_CHUNK = (16, 128)

READS_BACKWARDS = False


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """None: plain PyTorch runs everywhere."""
    return None


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N)."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)

    def token_first(x: Tensor) -> Tensor:  # (B, G * X, L) or (B, G, X, L) -> (L, S, X)
        return x.reshape(batch * groups, -1, length).permute(2, 0, 1)

    y, last_state = _Recurrence.apply(
        token_first(u),
        token_first(delta),
        A.reshape(groups, -1, states).transpose(1, 2),
        token_first(B),
        token_first(C),
    )
    y = y.permute(1, 2, 0).reshape(batch, channels, length)
    last_state = last_state.transpose(1, 2).reshape(batch, channels, states)
    return skip_and_gate(y, u, D, z), last_state


class _Recurrence(torch.autograd.Function):
    """``y[t] = C[t] h[t]`` with ``h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]``.

    u, delta (L, S, H); A (G, N, H), sequence s uses A[s mod G]; B, C (L, S, N). Returns y (L, S, H) and the last h
    (S, N, H).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        length, sequences, width = u.shape
        y = u.new_empty(length, sequences, width)
        last = u.new_empty(sequences, A.shape[1], width)
        starts = []  # per slice of sequences: h before each chunk
        for rows, a, chunks in _slices(u, A):
            h = torch.zeros_like(a)
            start = u.new_empty(len(chunks), *h.shape)
            for k, tokens in enumerate(chunks):
                start[k] = h
                here = (tokens, rows)
                states, _ = _states(u[here], delta[here], a, B[here], h)
                y[here] = torch.matmul(C[here].unsqueeze(-2), states).squeeze(-2)
                h = states[-1]
            last[rows] = h
            starts.append(start)
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        return y, last

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        # Not `once_differentiable`, which lets a second derivative be zero where the gradients at y have none.
        if traceable.gradients_wanted((grad_y, grad_last)):
            return tuple(traceable.gradients(_plainly, (u, delta, A, B, C), (grad_y, grad_last)))
        grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
        grad_A = torch.zeros_like(A)
        for (rows, a, chunks), start in zip(_slices(u, A), starts, strict=True):
            grad_a = torch.zeros_like(a)
            carried = grad_last[rows]  # decay[t+1] * g[t+1] of the token behind the chunk
            for k in reversed(range(len(chunks))):
                here = (chunks[k], rows)
                states, decay = _states(u[here], delta[here], a, B[here], start[k])
                dy, d, b = grad_y[here].contiguous(), delta[here].contiguous(), B[here]
                grad_C[here] = torch.matmul(states, dy.unsqueeze(-1)).squeeze(-1)
                g = C[here].unsqueeze(-1) * dy.unsqueeze(-2)
                carried = _adjoint(g, decay, carried)
                grad_B[here] = torch.matmul(g, (d * u[here]).unsqueeze(-1)).squeeze(-1)
                grad_du = torch.matmul(b.unsqueeze(-2), g).squeeze(-2)  # at the product delta * u
                # At the exponent delta * A the gradient is g[t] * h[t-1] * decay[t]; g and states are not needed after.
                g[1:] *= states[:-1]
                g[0] *= start[k]
                g *= decay
                grad_delta[here] = torch.mul(g, a, out=states).sum(-2) + grad_du * u[here]
                grad_u[here] = grad_du * d
                grad_a += g.mul_(d.unsqueeze(-2)).sum(0)
            grad_A.index_add_(0, _groups_of(rows, A), grad_a)
        return grad_u, grad_delta, grad_A, grad_B, grad_C


def _plainly(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """What `_Recurrence` computes, as `traceable` does."""
    groups, states, width = A.shape
    batch = u.shape[1] // groups
    u, delta = (x.permute(1, 2, 0).unflatten(0, (batch, groups)).flatten(1, 2) for x in (u, delta))
    B, C = (x.permute(1, 2, 0).unflatten(0, (batch, groups)) for x in (B, C))
    A = A.transpose(1, 2).flatten(0, 1)
    y, last = traceable.selective_scan(ScanInputs(u, delta, A, B, C), ())
    y = y.reshape(batch * groups, width, -1).permute(2, 0, 1)
    return y, last.reshape(batch * groups, width, states).transpose(1, 2)


def _states(u: Tensor, delta: Tensor, a: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """h of every token of a chunk, and the decay exp(delta A), both (T, S, N, H), from `start`, the h before it."""
    delta = delta.contiguous()
    decay = torch.mul(delta.unsqueeze(-2), a).exp_()
    states = (delta * u).unsqueeze(-2) * B.unsqueeze(-1)
    previous = start
    for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
        state_t.addcmul_(decay_t, previous)
        previous = state_t
    return states, decay


def _adjoint(g: Tensor, decay: Tensor, carried: Tensor) -> Tensor:
    """Complete g (T, S, N, H), now C[t] dy[t], with what later tokens send back; returns what leaves the chunk."""
    for g_t, decay_t in zip(reversed(g.unbind()), reversed(decay.unbind()), strict=True):
        g_t += carried
        carried = decay_t * g_t
    return carried


def _slices(u: Tensor, A: Tensor) -> Iterator[tuple[slice, Tensor, list[slice]]]:
    """Slices of sequences that keep the buffers in cache, with their rows of A (S, N, H) and their chunks of tokens."""
    length, sequences, width = u.shape
    row = A.shape[1] * width
    step = max(1, _ELEMENTS_OF_A_TOKEN // row)
    shortest, longest = _TOKENS_OF_A_CHUNK
    for first in range(0, sequences, step):
        rows = slice(first, min(first + step, sequences))
        tokens = min(max(_ELEMENTS_OF_A_CHUNK // ((rows.stop - first) * row), shortest), longest)
        chunks = [slice(t, min(t + tokens, length)) for t in range(0, length, tokens)]
        yield rows, A[_groups_of(rows, A)].contiguous(), chunks


def _groups_of(rows: slice, A: Tensor) -> Tensor:
    """Index of the group of A that each sequence of `rows` uses."""
    return torch.arange(rows.start, rows.stop, device=A.device) % A.shape[0]
