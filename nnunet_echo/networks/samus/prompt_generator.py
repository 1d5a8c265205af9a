"""AutoSAMUS (Lin et al. 2023, arXiv 2309.06824, section 3.4): a token in place of a click, made from the image.

Object tokens look at the decoder's output tokens, then the image at both. Parameter names are those of the released
code. As there, the attention's weights are exp(x - max) / (1 + sum of exp(x - max)): neither a softmax nor one with a
one in the denominator, since the one is not shifted.

Letters: B images, N and M tokens, D channels, h and w the grid of the image embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_echo.networks.samus.adapters import LayerNorm2d

OBJECT_TOKENS = 50


def softmax_one(scores: Tensor) -> Tensor:
    """Along the last axis, as released: the weights sum up to less than one."""
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
    return exponentials / (1 + exponentials.sum(-1, keepdim=True))


class CrossAttention(nn.Module):
    """Queries from (B, N, D), keys and values from (B, M, D); projections without bias."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim_head**-0.5
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        q, k, v = (
            tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()
            for tokens in (self.to_q(x), *self.to_kv(other).chunk(2, dim=-1))
        )
        out = softmax_one(q @ k.transpose(-2, -1) * self.scale) @ v
        return self.to_out(out.transpose(1, 2).flatten(2))


class PromptFeedForward(nn.Module):
    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        # The identity stands where the released code drops out with rate 0, and keeps the numbers in the names.
        self.net = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), nn.Identity(), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class NormedPair(nn.Module):
    """`fn` of two normed inputs."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.fn(self.norm1(x), self.norm2(other))


class Normed(nn.Module):
    """`fn` of a normed input."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class CrossLayer(nn.ModuleList):
    """Attention of the one set of tokens to the other and back, then layers for each; both see the other's old ones."""

    def __init__(self, dim: int, heads: int, dim_head: int, mlp_dim: int) -> None:
        attention = [NormedPair(dim, CrossAttention(dim, heads, dim_head)) for _ in range(2)]
        super().__init__([*attention, *(Normed(dim, PromptFeedForward(dim, mlp_dim)) for _ in range(2))])

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        one, other = one + self[0](one, other), other + self[1](other, one)
        return one + self[2](one), other + self[3](other)


class CrossTransformer(nn.Module):
    """Two sets of tokens, (B, N, D) and (B, M, D), that attend to each other in every layer, to new ones of both."""

    def __init__(self, dim: int, depth: int = 2, heads: int = 8, dim_head: int = 64, mlp_dim: int = 1024) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(dim, heads, dim_head, mlp_dim) for _ in range(depth))

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            one, other = layer(one, other)
        return one, other


class PromptGenerator(nn.Module):
    """Image embedding (B, D, h, w) and output tokens (B, M, D) to a new embedding, one object token (B, 1, D), and the
    other tokens, which nothing uses."""

    def __init__(self, out_dim: int = 256, cross: dict[str, int] | None = None) -> None:
        super().__init__()
        self.object_token = nn.Parameter(torch.randn(1, OBJECT_TOKENS, out_dim))
        self.cross_token_token = CrossTransformer(out_dim, **(cross or {}))
        self.token_proj = nn.Linear(out_dim, out_dim)
        self.cross_image_token = CrossTransformer(out_dim, **(cross or {}))

    def forward(self, image_embedding: Tensor, output_token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        objects = self.object_token.expand(image_embedding.shape[0], -1, -1)
        objects = objects + self.token_proj(self.cross_token_token(objects, output_token)[0])
        tokens = torch.cat([objects, output_token], dim=1)
        image, tokens = self.cross_image_token(image_embedding.flatten(2).transpose(1, 2), tokens)
        return image.transpose(1, 2).reshape(image_embedding.shape), tokens[:, :1], tokens[:, 1:]


def feature_adapter(dim: int) -> nn.Sequential:
    """The new embedding to the dense prompt, (B, D, h, w): four times convolution, norm and GELU."""
    narrow = dim // 4
    layers: list[nn.Module] = []
    for a, b in ((dim, narrow), (narrow, narrow), (narrow, narrow), (narrow, dim)):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), LayerNorm2d(b), nn.GELU()]
    return nn.Sequential(*layers)
