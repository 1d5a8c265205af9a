"""The sLSTM layer and block of xLSTM (Beck et al. 2024, arXiv 2405.04517, figure 10): post-up-projection.

The recurrence is in ops/slstm. The gates i and f see a causal convolution of the tokens, z and o the tokens themselves;
each head has matrices of its own. Behind the cell stands a norm of every head, and no projection: that is what the
block's feed-forward network is for.

In the published code (NX-AI/xlstm) the layer that makes the input gate is called fgate, and the forget gate's igate.
Here each is called by what it does; `from_upstream` knows.

Letters: B batch, S tokens, H heads, D channels of a head, dim = H * D.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.regularization import DropPath
from torch import Tensor, nn

from nnunet_echo.layers.vil import BlockLinear, HeadNorm, ResidualLayerNorm
from nnunet_echo.ops.linear import Linear
from nnunet_echo.ops.precision import autocast_off
from nnunet_echo.ops.slstm import GATES, slstm

_LINE = 64  # the hidden width of a feed-forward network is a multiple of it


class SLSTMLayer(nn.Module):
    """(B, S, dim) -> (B, S, dim), without the residual; the cell is in float32, whatever autocast says.

    `conv` precedes the gates i and f, a `CausalConv1d` or `TokenConv2d` of `dim` channels, None for none; `reverse`
    reads the tokens from the last to the first. `block` and `blocks`, the layer's number in its network and how many
    there are, set how fast its channels forget at first.

    >>> SLSTMLayer(16)(torch.randn(2, 12, 16)).shape
    torch.Size([2, 12, 16])
    """

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        conv: nn.Module | None = None,
        reverse: bool = False,
        dropout: float = 0.0,
        block: int = 0,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if dim % heads or dim < 2 * heads:
            raise ValueError(f"dim={dim} has to be a multiple of heads={heads}, with 2 channels or more for each head.")
        size = dim // heads
        self.reverse = reverse
        self.conv1d = conv
        self.input_gate, self.forget_gate, self.cell_input, self.output_gate = (
            BlockLinear(dim, size, bias=False) for _ in GATES
        )
        self.recurrent_kernel = nn.Parameter(torch.zeros(heads, len(GATES) * size, size))  # head, (gate, out), in
        self.bias = nn.Parameter(initial_bias(heads, size, block, blocks))
        self.dropout = nn.Dropout(dropout)
        self.group_norm = HeadNorm(dim, bias=False)
        for gate in (self.input_gate, self.forget_gate, self.cell_input, self.output_gate):
            nn.init.normal_(gate.weight, std=math.sqrt(2 / (5 * dim)))

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """`grid` (rows, columns) is where the tokens lie, which a convolution on the grid needs."""
        if self.reverse:
            x = x.flip(1)
        local = x if self.conv1d is None else F.silu(self.conv1d(x, grid))
        gates = (self.input_gate(local), self.forget_gate(local), self.cell_input(x), self.output_gate(x))
        heads, size = len(self.recurrent_kernel), self.recurrent_kernel.shape[-1]
        with autocast_off(x.device):
            y, _ = slstm(
                torch.cat(gates, dim=-1).to(self.bias.dtype),
                self.recurrent_kernel.unflatten(1, (len(GATES), size)),
                self.bias.view(len(GATES), heads, size),
            )
            y = self.group_norm(self.dropout(y)).to(x.dtype)
        return y.flip(1) if self.reverse else y


class GatedFeedForward(nn.Module):
    """(..., dim) -> (..., dim): one half of a projection, through GELU, times the other, projected back.

    The hidden width is `factor` * dim, up to the next multiple of 64.

    >>> GatedFeedForward(16).proj_down.weight.shape, GatedFeedForward(16)(torch.randn(2, 12, 16)).shape
    (torch.Size([16, 64]), torch.Size([2, 12, 16]))
    """

    def __init__(self, dim: int, factor: float = 1.3, blocks: int = 1) -> None:
        super().__init__()
        hidden = math.ceil(factor * dim / _LINE) * _LINE
        self.proj_up = Linear(dim, 2 * hidden, bias=False)
        self.proj_down = Linear(hidden, dim, bias=False)
        nn.init.normal_(self.proj_up.weight, std=math.sqrt(2 / (5 * dim)))
        nn.init.normal_(self.proj_down.weight, std=2 / blocks / math.sqrt(dim))

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.proj_up(x).chunk(2, dim=-1)
        return self.proj_down(F.gelu(gate) * x)


class SLSTMBlock(nn.Module):
    """``x + layer(norm(x))``, then ``x + ffn(norm(x))`` for tokens (B, S, dim).

    >>> SLSTMBlock(SLSTMLayer(16), GatedFeedForward(16), 16)(torch.randn(2, 12, 16)).shape
    torch.Size([2, 12, 16])
    """

    def __init__(self, layer: SLSTMLayer, ffn: GatedFeedForward, dim: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.norm = ResidualLayerNorm(dim, bias=False)
        self.layer = layer
        self.ffn_norm = ResidualLayerNorm(dim, bias=False)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        x = x + self.drop_path(self.layer(self.norm(x), grid))
        return x + self.drop_path(self.ffn(self.ffn_norm(x)))


def initial_bias(heads: int, size: int, block: int = 0, blocks: int = 1) -> Tensor:
    """Biases (4 * H * D) of the gates at the start: 0, but for the forget gate 5 down to -7 along the channels of a
    head, falling the later the deeper the block (0, ..., blocks - 1) is.

    >>> initial_bias(heads=1, size=2)  # gates i, f, z, o
    tensor([ 0.,  0.,  5., -7.,  0.,  0.,  0.,  0.])
    """
    depth = block / (blocks - 1) if blocks > 1 else 0.0
    bias = torch.zeros(len(GATES), heads, size)
    bias[GATES.index("f")] = 5 - 12 * torch.linspace(0, 1, size) ** (0.3 + 1.3 * depth)
    return bias.flatten()
