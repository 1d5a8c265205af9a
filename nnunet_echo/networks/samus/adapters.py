"""What SAMUS adds to SAM's image encoder (Lin et al. 2023, arXiv 2309.06824, section 3): a branch of convolutions,
adapters, and the attention from the one to the other. Parameter names are those of the released code.

Letters: B batch, h and w rows and columns of the grid of tokens, D channels of a token. Tokens are channels last,
(B, h, w, D), maps channels first, (B, D, h, w).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAM_EPS = 1e-6  # of every norm of SAM's image encoder


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a map (B, D, h, w), in 32 bits whatever the input's type."""

    def __init__(self, channels: int, eps: float = SAM_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Written out: over two or four channels, of which SAM has some, rounding shows, and this rounds as SAM does.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred = wide - wide.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + self.eps).sqrt()
        return (self.weight[:, None, None] * normed + self.bias[:, None, None]).to(x.dtype)


class Adapter(nn.Module):
    """Bottleneck of a quarter of the width, tokens to tokens; with `skip` it is added to its input."""

    def __init__(self, dim: int, skip: bool) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(dim, dim // 4)
        self.D_fc2 = nn.Linear(dim // 4, dim)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.D_fc2(F.gelu(self.D_fc1(x)))
        return x + out if self.skip else out


class CrossBranchAttention(nn.Module):
    """Queries from SAM's tokens, keys and values from the tokens of the convolutions: two times (B, h, w, D) -> one."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        def heads(tokens: Tensor) -> Tensor:
            return tokens.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        out = F.scaled_dot_product_attention(heads(self.q(x)), heads(self.k(branch)), heads(self.v(branch)))
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class ConvNormGELU(nn.Module):
    """3 x 3 convolution without bias, LayerNorm over channels, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Down(nn.Module):
    """Maximum over 2 x 2, then as `ConvNormGELU`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class RefineAdapter(nn.Module):
    """The branch's tokens behind each cross attention: convolution, norm, GELU on (B, h, w, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNormGELU(dim, dim).conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class CNNBranch(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, H / patch_size, W / patch_size, D); 64, 128, ... channels and D at the end."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        steps = patch_size.bit_length() - 1
        widths = [64 * 2**step for step in range(steps)] + [dim]
        self.inc = ConvNormGELU(3, widths[0])
        self.downs = nn.ModuleList(Down(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inc(x)
        for down in self.downs:
            x = down(x)
        return x.permute(0, 2, 3, 1)


class PositionAdapter(nn.Module):
    """SAM's positions (1, 64, 64, D), halved as often as it takes to come down to a grid of `tokens` a side."""

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList(Down(dim, dim) for _ in range(steps))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        for down in self.downs:
            x = down(x)
        return x.permute(0, 2, 3, 1)
