"""SAM's mask decoder (Kirillov et al. 2023, arXiv 2304.02643, appendix A): a transformer between tokens and the image.

Parameter names are those of the released code. Letters: P sets of prompts, n tokens of each, D channels, h and w the
grid of the image embedding, M masks of each set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.networks.samus.adapters import LayerNorm2d


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Attention(nn.Module):
    """Attention of q (P, n, D) to k and v (P, m, D), inside `downsample_rate` times narrower."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner = dim // downsample_rate
        if inner % num_heads:
            raise ValueError(f"embedding_dim={dim}: expected a multiple of {num_heads * downsample_rate}.")
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        # Tokens are few, so the matrix is small; a fused attention rounds more.
        q, k, v = heads(self.q_proj(q)), heads(self.k_proj(k)), heads(self.v_proj(v))
        out = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them, of the transformer."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, layers, image to tokens; norms behind. `first`: the tokens have no
    position and no residual yet."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, num_heads)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.mlp = FeedForward(dim, mlp_dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Image (P, h w, D) and tokens (P, n, D) to new ones of both; the tokens as given are their own positions."""

    def __init__(self, depth: int = 2, embedding_dim: int = 256, num_heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(embedding_dim, num_heads, mlp_dim, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        out = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + out), image


class MaskDecoder(nn.Module):
    """Image embedding and prompts to masks of four times the grid.

    `transformer` are the arguments of `TwoWayTransformer`. One mask for an unambiguous prompt is the first,
    `num_multimask_outputs` for others come behind it.
    """

    def __init__(
        self,
        transformer_dim: int = 256,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        transformer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        dim, masks = transformer_dim, num_multimask_outputs + 1
        self.transformer = TwoWayTransformer(**(transformer or {"embedding_dim": dim}))
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(masks, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(masks))
        self.iou_prediction_head = MLP(dim, iou_head_hidden_dim, masks, iou_head_depth)

    def output_tokens(self) -> Tensor:
        """Those that masks and their quality are read from, (1 + M, D)."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Masks (P, M, 4 h, 4 w), logits, and their predicted IoU (P, M).

        `image_embedding` (B, D, h, w), B = P or one image for all prompts; `image_pe` (1, D, h, w); `sparse` (P, n, D)
        and `dense` (P or 1, D, h, w) of the prompt encoder.
        """
        outputs = self.output_tokens().expand(sparse.shape[0], -1, -1)
        tokens, upscaled = self.attend(image_embedding, image_pe, torch.cat([outputs, sparse], dim=1), dense)
        kept = slice(1, None) if multimask_output else slice(0, 1)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return masks_of(weights, upscaled)[:, kept], self.iou_prediction_head(tokens[:, 0])[:, kept]

    def attend(self, image_embedding: Tensor, image_pe: Tensor, tokens: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (P, n, D) behind the transformer, and the image (P, D / 8, 4 h, 4 w)."""
        prompts, images = tokens.shape[0], image_embedding.shape[0]
        if images not in (1, prompts):
            raise ValueError(f"image_embedding has {images} images: expected one, or {prompts}, as there are prompts.")
        image = (image_embedding + dense).expand(prompts, -1, -1, -1)
        tokens, out = self.transformer(image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens)
        return tokens, self.output_upscaling(out.transpose(1, 2).reshape(image.shape))


def masks_of(weights: Tensor, image: Tensor) -> Tensor:
    """Weights (P, M, C) times the image (P, C, H, W) -> masks (P, M, H, W)."""
    return (weights @ image.flatten(2)).unflatten(-1, image.shape[2:])
