"""The sLSTM cell as the paper writes it, one token at a time: the definition of correct, slow on purpose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GATES = ("i", "f", "z", "o")
STATES = ("y", "c", "n", "m")


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """None: plain PyTorch runs everywhere."""
    return None


def slstm(x: Tensor, R: Tensor, b: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, S, D) and last states (4, B, H * D). Gradients come from autograd."""
    heads, size = R.shape[0], R.shape[-1]
    x = x.unflatten(-1, (len(GATES), heads, size)) + b
    if initial_state is None:
        y = c = n = m = torch.zeros_like(x[:, :0].sum((1, 2)))  # (B, H, D), of what kind x is
        nothing = None
    else:
        y, c, n, m = initial_state.unflatten(-1, (heads, size)).unbind(0)
        nothing = (n == 0).all()
    outputs = []
    for t, token in enumerate(x.unbind(1)):  # a slice for each would cost a gradient of all tokens each
        i, f, z, o = (token + torch.einsum("hgoi,bhi->bgho", R, y)).unbind(1)
        l = m + F.logsigmoid(f)
        m = torch.maximum(i, l)
        if t == 0:
            m = i if nothing is None else torch.where(nothing, i, m)
        # At the first token l may be above m. Not by `clamp`: its gradient is 0 where the two are equal.
        input_gate, forget_gate = torch.exp(i - m), torch.exp(torch.where(l > m, 0.0, l - m))
        c = forget_gate * c + input_gate * torch.tanh(z)
        n = forget_gate * n + input_gate
        y = torch.sigmoid(o) * (c / n)
        outputs.append(y)
    y_of_all = torch.stack(outputs, dim=2) if outputs else y.new_zeros(*y.shape[:2], 0, size)
    return y_of_all, torch.stack((y, c, n, m)).flatten(2)
