"""SAM's prompt encoder (Kirillov et al. 2023, arXiv 2304.02643): clicks, boxes and masks to tokens and a map.

Parameter names are those of the released code. Letters: P sets of prompts, N clicks in each, D channels of a token,
h and w the grid of the image embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_echo.networks.samus.adapters import LayerNorm2d

BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = range(4)  # the point embeddings
PADDING = -1  # the label of a click that is none


class PositionEmbeddingRandom(nn.Module):
    """Fourier features of positions in [0, 1]: sine and cosine of random directions, fixed with the weights."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def encode(self, positions: Tensor) -> Tensor:
        """(..., 2) as x, y -> (..., 2 * features), in 32 bits at least."""
        matrix = self.positional_encoding_gaussian_matrix
        # A product of two, written out: autocast would take a matrix product down to 16 bits.
        directions = matrix.to(positions.dtype)
        u = 2 * positions - 1
        angles = 2 * math.pi * (u[..., :1] * directions[0] + u[..., 1:] * directions[1])
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, h: int, w: int) -> Tensor:
        """The encoding of every token of a grid, (1, D, h, w)."""
        matrix = self.positional_encoding_gaussian_matrix
        rows, columns = ((torch.arange(n, device=matrix.device, dtype=matrix.dtype) + 0.5) / n for n in (h, w))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return self.encode(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Prompts on images of `input_image_size` (H, W) pixels to sparse tokens (P, n, D) and a dense map (P, D, h, w).

    `mask_in_chans` is the width of the convolutions that masks of (4 h, 4 w) go through.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        image_embedding_size: Sequence[int] = (32, 32),
        input_image_size: Sequence[int] = (256, 256),
        mask_in_chans: int = 16,
    ) -> None:
        super().__init__()
        self.image_embedding_size = tuple(image_embedding_size)
        self.input_image_size = tuple(input_image_size)
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, 2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, 2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, 1),
        )

    def forward(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`points` (P, N, 2) as x, y in pixels, with `labels` (P, N): 1 foreground, 0 background, -1 none; `boxes`
        (P, 4) as x, y of two corners; `masks` (P, 1, 4 h, 4 w) logits. Without boxes clicks get one more of label -1.
        """
        if (points is None) != (labels is None):
            raise ValueError("points and labels: expected both, or neither.")
        sparse = []
        if points is not None and labels is not None:
            sparse.append(self._clicks(points, labels, padded=boxes is None))
        if boxes is not None:
            corners = self._encode_pixels(boxes.reshape(-1, 2, 2))
            ends = [self.point_embedding(i) for i in (TOP_LEFT, BOTTOM_RIGHT)]
            sparse.append(corners + torch.stack(ends, dim=1))
        prompts = next((prompt.shape[0] for prompt in (points, boxes, masks) if prompt is not None), 1)
        none = self.no_mask_embed.weight.new_zeros(prompts, 0, self.no_mask_embed.embedding_dim)
        dense = self.no_mask(prompts) if masks is None else self.mask_downscaling(masks)
        return torch.cat(sparse, dim=1) if sparse else none, dense

    def point_embedding(self, kind: int) -> Tensor:
        """(1, D), of `BACKGROUND`, `FOREGROUND`, `TOP_LEFT` or `BOTTOM_RIGHT`."""
        embedding = self.point_embeddings[kind]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    def no_mask(self, prompts: int, size: Sequence[int] | None = None) -> Tensor:
        """The dense map where there is no mask, (P, D, h, w), for a grid of `size`."""
        return self.no_mask_embed.weight[..., None, None].expand(prompts, -1, *(size or self.image_embedding_size))

    def get_dense_pe(self) -> Tensor:
        """Positions of the image embedding, (1, D, h, w)."""
        return self.pe_layer(*self.image_embedding_size)

    def _encode_pixels(self, positions: Tensor) -> Tensor:
        height, width = self.input_image_size
        return self.pe_layer.encode((positions + 0.5) / positions.new_tensor([width, height]))

    def _clicks(self, points: Tensor, labels: Tensor, padded: bool) -> Tensor:
        tokens = self._encode_pixels(points)
        if padded:
            tokens = torch.cat([tokens, tokens.new_zeros(tokens.shape[0], 1, tokens.shape[-1])], dim=1)
            labels = torch.cat([labels, labels.new_full((labels.shape[0], 1), PADDING)], dim=1)
        labels = labels[..., None]
        tokens = torch.where(labels == PADDING, self.not_a_point_embed.weight, tokens)
        for label in (BACKGROUND, FOREGROUND):
            tokens = tokens + (labels == label) * self.point_embedding(label)
        return tokens
