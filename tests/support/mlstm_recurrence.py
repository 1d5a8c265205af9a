"""The mLSTM cell as the paper defines it, token by token: what `mlstm` has to compute."""

from __future__ import annotations

import torch


def recurrence(q, k, v, input_gate, forget_gate):
    """xLSTM, section 2.3, token by token, with its stabiliser m: memory C (B, H, d, d) and normaliser n (B, H, d) are
    exp(m) times smaller than defined. The published 1e-6 is added to the denominator."""
    k = k / q.shape[-1] ** 0.5
    log_f = torch.nn.functional.logsigmoid(forget_gate)
    C, n, m = 0.0, 0.0, torch.full_like(log_f[..., 0], -torch.inf)
    h = []
    for t in range(q.shape[-2]):
        previous, m = m, torch.maximum(log_f[..., t] + m, input_gate[..., t])
        f, i = torch.exp(log_f[..., t] + previous - m)[..., None], torch.exp(input_gate[..., t] - m)[..., None]
        C = f[..., None] * C + i[..., None] * v[..., t, :, None] * k[..., t, None, :]
        n = f * n + i * k[..., t, :]
        denominator = torch.maximum((n * q[..., t, :]).sum(-1).abs(), torch.exp(-m)) + 1e-6
        h.append((C @ q[..., t, :, None]).squeeze(-1) / denominator[..., None])
    return torch.stack(h, dim=-2)
