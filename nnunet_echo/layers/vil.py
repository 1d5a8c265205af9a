"""The layer that Vision-LSTM (Alkin et al. 2024, arXiv 2406.04303) builds around the mLSTM cell of ops/mlstm.py.

Letters: B batch, S tokens, H heads, d channels of one head, D = H * d channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.layers.windows import to_image, to_tokens
from nnunet_echo.ops.linear import Linear
from nnunet_echo.ops.mlstm import mlstm
from nnunet_echo.ops.precision import autocast_off

HEADS = 4
QKV_BLOCK = 4
EXPANSION = 2


class ResidualLayerNorm(nn.Module):
    """Layer norm over the last axis of (..., dim) whose scale is ``1 + weight``, so that weight decay pulls it to 1.

    >>> norm = ResidualLayerNorm(4, bias=False)
    >>> norm.weight.tolist()
    [0.0, 0.0, 0.0, 0.0]
    >>> [round(n, 3) for n in norm(torch.tensor([1.0, 1.0, 3.0, 3.0])).tolist()]
    [-1.0, -1.0, 1.0, 1.0]
    """

    def __init__(self, dim: int, bias: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, 1.0 + self.weight, self.bias, self.eps)


class HeadNorm(ResidualLayerNorm):
    """`ResidualLayerNorm` of D channels with mean and variance of each head by itself: (B, H, S, d) -> (B, S, D).

    >>> HeadNorm(32, bias=True)(torch.randn(2, 4, 10, 8)).shape
    torch.Size([2, 10, 32])
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x, x.shape[-1:], eps=self.eps).transpose(1, 2).flatten(2) * (1.0 + self.weight)
        return x if self.bias is None else x + self.bias


class BlockLinear(nn.Module):
    """Linear map with a block-diagonal matrix: `dim / block` blocks of `block` channels. (..., dim) -> (..., dim).

    >>> layer = BlockLinear(dim=8, block=4, bias=True)
    >>> layer.weight.shape
    torch.Size([2, 4, 4])
    """

    def __init__(self, dim: int, block: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim // block, block, block))  # block, out, in
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.unflatten(-1, self.weight.shape[:2])
        x = torch.einsum("...bi,boi->...bo", blocks, self.weight).flatten(-2)
        return x if self.bias is None else x + self.bias


class MatrixLSTMCell(nn.Module):
    """Gates, `mlstm`, norm of every head. q, k, v (B, S, D) -> (B, S, D) in the dtype of q.

    >>> cell = MatrixLSTMCell(dim=32, norm_bias=True)
    >>> q, k, v = torch.randn(3, 2, 10, 32)
    >>> cell(q, k, v).shape
    torch.Size([2, 10, 32])
    """

    def __init__(self, dim: int, norm_bias: bool, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.igate = Linear(3 * dim, heads)
        self.fgate = Linear(3 * dim, heads)
        self.outnorm = HeadNorm(dim, bias=norm_bias)
        # Gates start independent of the input, with memories of 20 to 400 tokens.
        for gate in (self.igate, self.fgate):
            nn.init.zeros_(gate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        with torch.no_grad():
            self.fgate.bias.copy_(torch.linspace(3.0, 6.0, heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with autocast_off(q.device):
            # In 16 bits a gate of 3 D terms overflows to infinity, and infinity minus infinity is where NaN begins.
            qkv = torch.cat((q, k, v), dim=-1).to(self.igate.weight.dtype)
            gates = [gate(qkv).transpose(1, 2) for gate in (self.igate, self.fgate)]
            h = mlstm(*(t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v)), *gates)
            return self.outnorm(h).to(q.dtype)


class CausalConv1d(nn.Module):
    """Depthwise convolution along the sequence that sees the current and earlier tokens. (B, S, D) -> (B, S, D).

    >>> CausalConv1d(8, kernel_size=4)(torch.randn(2, 12, 8), grid=(3, 4)).shape
    torch.Size([2, 12, 8])
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size - 1, groups=dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


class TokenConv2d(nn.Conv2d):
    """Depthwise convolution on the tokens' grid of rows and columns. (B, S, D) -> (B, S, D), S = rows * columns.

    >>> TokenConv2d(8, kernel_size=3)(torch.randn(2, 12, 8), grid=(3, 4)).shape
    torch.Size([2, 12, 8])
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]  # tokens need their grid
        return to_tokens(super().forward(to_image(x, grid)))


class ViLLayer(nn.Module):
    """Vision-LSTM's mLSTM layer (arXiv 2406.04303, figure 1): (B, S, dim) -> (B, S, dim), without the residual.

    `reverse` reads the tokens from the bottom right to the top left. `conv`, a `CausalConv1d` or `TokenConv2d` of
    ``EXPANSION * dim`` channels, precedes queries and keys; it is registered as `conv_name` (published: conv1d in
    version 1, conv in version 2). `heads` is also the number of channels of a block of queries, keys and values. Raises
    ValueError unless `dim` is a multiple of that of Vision-LSTM, `QKV_BLOCK`.

    >>> layer = ViLLayer(16, False, TokenConv2d(32, 3), "conv", proj_bias=True, norm_bias=True)
    >>> layer(torch.randn(2, 12, 16), grid=(3, 4)).shape
    torch.Size([2, 12, 16])
    """

    def __init__(
        self,
        dim: int,
        reverse: bool,
        conv: nn.Module,
        conv_name: str,
        proj_bias: bool,
        norm_bias: bool,
        heads: int = HEADS,
    ) -> None:
        super().__init__()
        if heads == QKV_BLOCK and dim % QKV_BLOCK:
            raise ValueError(f"dim={dim} has to be a multiple of {QKV_BLOCK}, the blocks of queries, keys and values.")
        inner = EXPANSION * dim
        self.reverse = reverse
        self.conv_name = conv_name
        self.proj_up = Linear(dim, 2 * inner, bias=proj_bias)
        self.q_proj = BlockLinear(inner, heads, bias=proj_bias)
        self.k_proj = BlockLinear(inner, heads, bias=proj_bias)
        self.v_proj = BlockLinear(inner, heads, bias=proj_bias)
        self.add_module(conv_name, conv)
        self.mlstm_cell = MatrixLSTMCell(inner, norm_bias, heads)
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_down = Linear(inner, dim, bias=proj_bias)
        self._initialise(dim)

    def _initialise(self, dim: int) -> None:
        """Small initialisation (Nguyen and Salazar 2019), and that of Wang and Komatsuzaki 2021 for the way out."""
        for linear in (self.proj_up, self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / (5 * dim)))
        nn.init.normal_(self.proj_down.weight, std=2 / math.sqrt(dim))
        for linear in (self.proj_up, self.proj_down):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.reverse:
            x = x.flip(1)
        x, z = self.proj_up(x).chunk(2, dim=-1)
        local = F.silu(self.get_submodule(self.conv_name)(x, grid))
        h = self.mlstm_cell(self.q_proj(local), self.k_proj(local), self.v_proj(x))
        x = self.proj_down((h + self.learnable_skip * local) * F.silu(z))
        return x.flip(1) if self.reverse else x
