"""xLSTM-UNet (Chen et al. 2024, arXiv 2407.01530), Bot and Enc: U-Mamba's U-Net with Vision-LSTM blocks for Mamba.

The block is one of Vision-LSTM, version 1, that reads from the top left: an mLSTM; the released networks contain no
sLSTM. Bot has one behind the coarsest stage. Enc has, as released, one behind every second stage in 2D, the last
included, and behind every stage from the fourth on in 3D, and a residual block of convolutions instead behind the
second stage in 2D and the first three in 3D. So there is none at all with two stages in 2D, or three in 3D. As in
U-Mamba, channels are the tokens where a stage has no more pixels than channels, and such a layer is built for one map
size.

The blocks of queries, keys and values have 4 channels and the mLSTM 4 heads, 2 of either where the tokens' number of
channels is no multiple of 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import Tensor, nn

from nnunet_echo.layers.vil import EXPANSION, HEADS, CausalConv1d, ViLLayer
from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.networks.u_mamba import UMamba, map_sizes, mix_channels, mix_pixels
from nnunet_echo.networks.vil.encoder import ViLBlock
from nnunet_echo.ops.precision import autocast_off


class XLSTMUNetBot(UMamba):
    """xLSTM-UNet with one Vision-LSTM block, behind the coarsest stage.

    >>> import torch
    >>> network = XLSTMUNetBot(UNetShape(1, 4, (4, 8), 3, ((1, 1), (2, 2)), 1, 1))
    >>> network(torch.zeros(1, 1, 30, 40)).shape
    torch.Size([1, 4, 30, 40])
    """

    def __init__(self, shape: UNetShape, deep_supervision: bool = False) -> None:
        mixers = [nn.Identity() for _ in shape.strides[1:]]
        super().__init__(shape, [*mixers, ViLTokens(shape.features_per_stage[-1])], deep_supervision)


class XLSTMUNetEnc(UMamba):
    """xLSTM-UNet with blocks through the encoder; `patch_size` (*S) decides where channels become tokens.

    >>> network = XLSTMUNetEnc(UNetShape(1, 4, 8, 3, ((1, 1), (2, 2), (2, 2)), 1, 1), patch_size=(32, 48))
    >>> [type(mixer).__name__ for mixer in network.encoder.mixers]
    ['Identity', 'BasicBlockD', 'ViLTokens']
    """

    takes_patch_size = True

    def __init__(self, shape: UNetShape, deep_supervision: bool = False, *, patch_size: Sequence[int]) -> None:
        mixers: list[nn.Module] = []
        for s, (features, size) in enumerate(zip(shape.features_per_stage, map_sizes(shape, patch_size), strict=True)):
            if s == 1 if shape.dim == 2 else s < 3:
                arguments = shape.block_arguments()
                conv_op = arguments.pop("conv_op")
                mixers.append(BasicBlockD(conv_op, features, features, shape.kernel_sizes[s], 1, **arguments))
            elif shape.dim == 2 and (s == 0 or (shape.n_stages - 1 - s) % 2):
                mixers.append(nn.Identity())
            else:
                mixers.append(ViLTokens(features, size if math.prod(size) <= features else None))
        super().__init__(shape, mixers, deep_supervision)


class ViLTokens(nn.Module):
    """(B, C, *S) to the same shape: a Vision-LSTM block over the pixels, or, with the `size` of a map, over the
    channels, each described by its pixels. In float32, whatever autocast says."""

    def __init__(self, features: int, size: Sequence[int] | None = None) -> None:
        super().__init__()
        self.size = None if size is None else tuple(size)
        dim = features if size is None else math.prod(size)
        heads = HEADS if dim % HEADS == 0 else 2
        conv = CausalConv1d(EXPANSION * dim, kernel_size=4)
        layer = ViLLayer(dim, False, conv, "conv1d", proj_bias=False, norm_bias=False, heads=heads)
        self.vil = ViLBlock(layer, dim, norm_bias=False, drop_path_rate=0.0)

    def forward(self, x: Tensor) -> Tensor:
        with autocast_off(x.device):
            x = x.to(self.vil.norm.weight.dtype)
            return mix_pixels(x, self._mix) if self.size is None else mix_channels(x, self.size, self._mix)

    def _mix(self, tokens: Tensor) -> Tensor:
        return self.vil(tokens, (1, tokens.shape[1]))
