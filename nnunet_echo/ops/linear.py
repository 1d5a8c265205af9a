"""Linear maps of tokens, on a CPU as the convolution with a 1 x 1 kernel that they are.

PyTorch gives `F.linear` to MKL and convolutions to oneDNN, which on some processors is twice as fast, forward and
backward (docs/records/performance.md). Tokens of C channels one after the other are an image of C channels, one row,
channels last, so that nothing is copied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.ops.selective_scan.traceable import exporting

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_FEWEST_NUMBERS = 20480  # PyTorch does not give convolutions of a smaller image to oneDNN


class Linear(nn.Linear):
    """`torch.nn.Linear`: (..., in_features) to (..., out_features).

    >>> Linear(16, 4)(torch.zeros(2, 100, 16)).shape  # tokens (B, L, D)
    torch.Size([2, 100, 4])
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` of tokens: x (..., in), weight (out, in) and bias (out) to (..., out).

    >>> tokens, weight = torch.ones(1, 3, 2), torch.tensor([[1.0, 2.0]])
    >>> linear(tokens, weight, torch.tensor([0.5])).tolist()
    [[[3.5], [3.5], [3.5]]]
    """
    in_single = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (_HAS_ONEDNN and in_single and not exporting() and x.numel() > _FEWEST_NUMBERS):
        return F.linear(x, weight, bias)
    image = x.reshape(1, 1, -1, x.shape[-1]).contiguous().permute(0, 3, 1, 2)
    return F.conv2d(image, weight[..., None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
