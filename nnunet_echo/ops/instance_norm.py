"""Instance norm (Ulyanov et al. 2016, arXiv 1607.08022), on a CPU as the group norm of one channel a group that it is.

PyTorch computes `F.instance_norm` with its batch norm, which takes three to six times as long on a CPU as
`F.group_norm` (docs/records/performance.md). That only where no gradient is wanted: the gradient of the group norm is a
difference of large sums where a map varies little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.ops.selective_scan.traceable import exporting


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """`torch.nn.InstanceNorm2d` or 3d without running statistics: (B, C, *S) to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        # A trace has to be the same with gradients and without: PyTorch compares.
        if x.device.type != "cpu" or torch.is_grad_enabled() or exporting():
            return super().forward(x)
        # Contiguous: where channels are neighbours in memory, the variance too is a difference of large sums.
        return F.group_norm(x.contiguous(), self.num_features, self.weight, self.bias, self.eps)


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` without running statistics: (B, C, H, W) to the same shape.

    >>> norm = InstanceNorm2d(2, affine=True)
    >>> with torch.no_grad():
    ...     y = norm(torch.arange(8.0).view(1, 2, 2, 2))
    >>> bool(y.mean(dim=(2, 3)).abs().max() < 1e-5)
    True
    """


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` without running statistics: (B, C, Z, H, W) to the same shape.

    >>> InstanceNorm3d(4)(torch.randn(1, 4, 2, 8, 8)).shape
    torch.Size([1, 4, 2, 8, 8])
    """
