"""SAM, SAMUS, AutoSAMUS and the temporal modules as the released code builds them: rows of `from_upstream`.

Sources: xianlin7/SAMUS, facebookresearch/segment-anything, OpenGVLab/UniFormerV2, houqb/CoordAttention,
linziyi96/st-adapter. Arguments and parameter names are theirs; every parameter is trainable.

Letters: B images, P sets of prompts, N clicks in each, K classes, D channels of the image embedding, h and w its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.networks.samus.decoder import MaskDecoder
from nnunet_echo.networks.samus.encoder import SAMEncoder, SAMUSEncoder
from nnunet_echo.networks.samus.prompt_generator import PromptGenerator, feature_adapter
from nnunet_echo.networks.samus.prompts import PromptEncoder
from nnunet_echo.networks.samus.temporal import CoordinateAttention, LocalMHRA, STAdapter

MASK_SIZE = (256, 256)  # of SAMUS's masks, whatever the image's size is


class SAMDecoder(nn.Module):
    """SAM behind its image encoder: one image embedding and prompts to masks, their IoU, and the prompts' embeddings.

    `forward(image_embedding, points, labels, boxes, masks, sparse, multimask_output)`: (1, D, h, w) and prompts as in
    `PromptEncoder`, or `sparse` tokens (P, n, D) in place of clicks and boxes. Returns masks (P, M, 4 h, 4 w), IoU
    (P, M), sparse (P, n, D), and of `masks` their map (P, D, h, w); without masks the positions (1, D, h, w).
    """

    def __init__(self, prompt_encoder: Mapping[str, Any], mask_decoder: Mapping[str, Any]) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(**prompt_encoder)
        self.mask_decoder = MaskDecoder(**mask_decoder)

    def forward(
        self,
        image_embedding: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        sparse: Tensor | None = None,
        multimask_output: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        given = sparse
        sparse, dense = self.prompt_encoder(points, labels, boxes, masks)
        if given is not None:
            sparse, dense = given, dense if masks is not None else self.prompt_encoder.no_mask(given.shape[0])
        positions = self.prompt_encoder.get_dense_pe()
        logits, iou = self.mask_decoder(image_embedding, positions, sparse, dense, multimask_output)
        return logits, iou, sparse, positions if masks is None else dense


class PublishedSAMUS(nn.Module):
    """SAMUS: images (B, 1 or 3, H, W) and one click for each to logits (B, 1, 4 h, 4 w) and masks (B, 1, 256, 256).

    `points` (B, N, 2) as x, y in pixels with `labels` (B, N), or for several classes (B, K, N, 2) and (B, K, N): one
    pass of the decoder for each, and K channels.
    """

    def __init__(
        self, image_encoder: Mapping[str, Any], prompt_encoder: Mapping[str, Any], mask_decoder: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.image_encoder = SAMUSEncoder(**image_encoder)
        self.prompt_encoder = PromptEncoder(**prompt_encoder)
        self.mask_decoder = MaskDecoder(**mask_decoder)

    def forward(self, images: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.image_encoder(images)
        classes = zip(points.unbind(1), labels.unbind(1), strict=True) if points.ndim == 4 else [(points, labels)]
        logits = torch.cat([self._decode(embedding, *self.prompt_encoder(*click)) for click in classes], dim=1)
        return logits, _full_size(logits)

    def _decode(self, embedding: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        positions = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder(embedding, positions, sparse, dense, multimask_output=False)[0]


class PublishedAutoSAMUS(PublishedSAMUS):
    """AutoSAMUS: images (B, 1 or 3, H, W) to logits (B, 1, 4 h, 4 w) and masks (B, 1, 256, 256), without a click."""

    def __init__(
        self,
        image_encoder: Mapping[str, Any],
        prompt_encoder: Mapping[str, Any],
        mask_decoder: Mapping[str, Any],
        prompt_generator: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_encoder, prompt_encoder, mask_decoder)
        self.prompt_generator = PromptGenerator(**(prompt_generator or {}))
        self.feature_adapter = feature_adapter(self.prompt_encoder.no_mask_embed.embedding_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        embedding = self.image_encoder(images)
        outputs = self.mask_decoder.output_tokens().expand(images.shape[0], -1, -1)
        changed, sparse, _ = self.prompt_generator(embedding, outputs)
        logits = self._decode(changed, sparse, self.feature_adapter(changed))
        return logits, _full_size(logits)


class PublishedSTAdapter(STAdapter):
    """Tokens (B * frames, 1 + h w, C), B slowest, on a square grid; the first is a class token, which passes by."""

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        side = int((x.shape[1] - 1) ** 0.5)
        grid = x[:, 1:].unflatten(0, (-1, frames)).unflatten(2, (side, side))
        out = super().forward(grid).flatten(2, 3).flatten(0, 1)
        return torch.cat([x[:, :1], x[:, 1:] + out], dim=1)


def _full_size(logits: Tensor) -> Tensor:
    return F.interpolate(logits, MASK_SIZE, mode="bilinear", align_corners=False)


MLP_NAMES = [(r"(^|\.)(blocks\.\d+\.mlp)\.lin([12])\.", r"\1\2.fc\3.")]  # timm has other names than Meta

BUILDERS: dict[str, tuple[Callable[[dict[str, Any]], nn.Module], list[tuple[str, str]]]] = {
    "samus": (lambda kwargs: PublishedSAMUS(**kwargs), MLP_NAMES),
    "autosamus": (lambda kwargs: PublishedAutoSAMUS(**kwargs), MLP_NAMES),
    "samus_image_encoder": (lambda kwargs: SAMUSEncoder(**kwargs), MLP_NAMES),
    "sam_image_encoder": (lambda kwargs: SAMEncoder(**kwargs), MLP_NAMES),
    "sam_decoder": (lambda kwargs: SAMDecoder(**kwargs), []),
    "autosamus_prompt_generator": (lambda kwargs: PromptGenerator(**kwargs), []),
    "local_mhra": (lambda kwargs: LocalMHRA(**kwargs), []),
    "coord_att": (lambda kwargs: CoordinateAttention(**kwargs), []),
    "st_adapter": (lambda kwargs: PublishedSTAdapter(**kwargs), []),
}
