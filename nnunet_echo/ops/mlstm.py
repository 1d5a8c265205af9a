"""The mLSTM cell (Beck et al. 2024, xLSTM, arXiv 2405.04517) as a function of tensors.

It keeps a matrix memory. For one head, over the tokens t of a sequence (xLSTM, section 2.3)::

    C[t] = f[t] C[t-1] + i[t] v[t] k[t]^T / sqrt(d)            i = exp(i~), f = sigmoid(f~)
    n[t] = f[t] n[t-1] + i[t] k[t] / sqrt(d)
    h[t] = C[t] q[t] / max(|n[t] . q[t]|, 1)

`mlstm` computes it chunk by chunk: inside a chunk as attention, the parallel form of xLSTM (appendix A.3), whose work
and memory grow with the square of the number of tokens; from chunk to chunk by the recurrence. A short sequence is one
chunk.

Letters: B batch, S tokens, H heads, d channels of one head; n chunks of T tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_echo.ops.precision import autocast_off
from nnunet_echo.ops.selective_scan.traceable import exporting

_CHUNKWISE_FROM, _CHUNK = 512, 64  # tokens
_LARGEST_EXPONENT = 80.0  # exp of it is finite in float32, and zero for all purposes once divided by
_EPSILON = 1e-6  # of the published code; keeps h finite where n . q passes through zero


def mlstm(q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, forget_gate: Tensor, chunk: int | None = None) -> Tensor:
    """Hidden states h (B, H, S, d) of the mLSTM's recurrence (xLSTM, arXiv 2405.04517, section 2.3).

    q, k, v are (B, H, S, d); input_gate and forget_gate (B, H, S) are i~ and f~, before exp and sigmoid. Computes in
    float32 (float64 if `q` is) with autocast off, whatever surrounds the call, and returns that precision: h is not
    normalised yet and may exceed what 16 bits hold. `chunk` is the number of tokens T of a chunk; it changes cost,
    memory and rounding alone, and the default is what was fastest (docs/records/performance.md).

    >>> q, k, v = torch.randn(3, 1, 4, 100, 8)  # B = 1, H = 4 heads, S = 100 tokens, d = 8 channels
    >>> input_gate, forget_gate = torch.zeros(1, 4, 100), torch.full((1, 4, 100), 3.0)
    >>> h = mlstm(q, k, v, input_gate, forget_gate)
    >>> h.shape
    torch.Size([1, 4, 100, 8])
    >>> torch.allclose(mlstm(q, k, v, input_gate, forget_gate, chunk=16), h, atol=1e-4)
    True
    """
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    length = q.shape[-2]
    if chunk is None:
        chunk = length if length < _CHUNKWISE_FROM else _CHUNK
    missing = -length % chunk  # tokens behind the last one change none before them
    with autocast_off(q.device):
        q, k, v = (F.pad(x.to(dtype), (0, 0, 0, missing)).unflatten(-2, (-1, chunk)) for x in (q, k, v))
        i, f = (F.pad(x.to(dtype), (0, missing)).unflatten(-1, (-1, chunk)) for x in (input_gate, forget_gate))
        return _chunkwise(q, k, v, i, f).flatten(2, 3)[..., :length, :]


def _chunkwise(q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, forget_gate: Tensor) -> Tensor:
    """`mlstm` of tokens that are cut into chunks, (B, H, n, T, d) and (B, H, n, T), as are the hidden states.

    Token s has the weight ``i[s] f[s+1] ... f[t]`` in the state of token t, in logarithms ``decay[t] + source[s]``.
    Every row is divided by its largest one, so that no exponential exceeds 1; the quotient h stays the same when the 1
    in its denominator is divided too (appendix A.3). n . q is the sum of what multiplies v: v gets a column of ones.
    """
    decay = F.logsigmoid(forget_gate).cumsum(dim=-1)  # since the chunk began
    source = input_gate - decay
    chunks, length = q.shape[2:4]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    # Over s <= t; without decay[t], which all weights of a row share.
    if exporting():  # ONNX has no operator for a running maximum
        largest = source[..., None, :].masked_fill(future, -math.inf).amax(dim=-1)
    else:
        largest = source.cummax(dim=-1).values
    k = k / math.sqrt(q.shape[-1])
    v = F.pad(v, (0, 1), value=1.0)
    if chunks > 1:
        memory, scale = _memory_before(k, v, decay[..., -1], source)
        largest = torch.maximum(largest, scale)
    weights = (source[..., None, :] - largest[..., :, None]).masked_fill(future, -math.inf).exp()
    h = (q @ k.transpose(-2, -1) * weights) @ v
    if chunks > 1:
        h = h + torch.exp(scale - largest)[..., None] * (q @ memory)
    h, total = h[..., :-1], h[..., -1]
    one = torch.exp((-decay - largest).clamp(max=_LARGEST_EXPONENT))
    return h / (torch.maximum(total.abs(), one) + _EPSILON)[..., None]


def _memory_before(k: Tensor, v: Tensor, decay: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """The memory C and n (v has a column of ones for it) before each chunk, (B, H, n, d, d + 1), divided by the
    exponential of the second result (B, H, n, 1). `decay` (B, H, n) is that of a whole chunk."""
    source = source + decay[..., None]
    largest = source.amax(dim=-1, keepdim=True)
    added = (k * torch.exp(source - largest)[..., None]).transpose(-2, -1) @ v
    memory, scale = torch.zeros_like(added[:, :, 0]), torch.full_like(largest[:, :, 0], -math.inf)
    memories, scales = [memory], [scale]
    steps = zip(decay[..., None].unbind(2), largest.unbind(2), added.unbind(2), strict=True)
    for decay_k, largest_k, added_k in list(steps)[:-1]:
        kept = decay_k + scale
        scale = torch.maximum(kept, largest_k)
        memory = torch.exp(kept - scale)[..., None] * memory + torch.exp(largest_k - scale)[..., None] * added_k
        memories.append(memory)
        scales.append(scale)
    return torch.stack(memories, dim=2), torch.stack(scales, dim=2)
