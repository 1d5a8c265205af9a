"""Causal depthwise convolution and SiLU, which a Mamba block has in front of its scan, in one pass where C can.

Letters as in `nnunet_echo.ops.selective_scan`; W is the number of weights of a channel, d_conv.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nnunet_echo.ops.selective_scan import choose_backend, cpu, traceable


def causal_conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: Sequence[bool]) -> Tensor:
    """silu(bias + convolution) of u (B, D, L) in any layout with weight (D, 1, W), as `torch.nn.Conv1d` has it.

    A token sees itself and the W - 1 tokens that are read before it: `reverse` has one bool for each of its groups of
    neighbouring channels, whether it reads from the last token to the first. Computes on a CPU in C, where that is the
    backend that a scan of u would get. Returns (B, D, L), contiguous.

    >>> import torch
    >>> u, weight = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), torch.ones(1, 1, 3)
    >>> (causal_conv_silu(u, weight, torch.zeros(1), [False]) > 0).int().tolist()  # the token and two behind it
    [[[0, 0, 1, 1, 1]]]
    >>> (causal_conv_silu(u, weight, torch.zeros(1), [True]) > 0).int().tolist()
    [[[1, 1, 1, 0, 0]]]
    """
    in_c = weight.shape[-1] <= cpu.MOST_WEIGHTS and choose_backend(u.device, u.dtype) == "cpu"
    convolve = cpu.causal_conv_silu if in_c and not traceable.wanted() else traceable.causal_conv_silu
    return convolve(u, weight.squeeze(1), bias, tuple(reverse))
