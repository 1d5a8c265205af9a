"""What asks SAM's decoder for the classes, in place of clicks: no prompt, one channel of logits for each class.

Both are the last layers of a network, under names that nnU-Net leaves out when it loads weights for other classes.

Letters: N images, K classes, background included, D channels of the image embedding, h and w its grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_echo.layers.weight_decay import spare_from_weight_decay
from nnunet_echo.networks.samus.decoder import MaskDecoder, masks_of
from nnunet_echo.networks.samus.prompts import BACKGROUND, FOREGROUND, PromptEncoder


class Head(nn.Module):
    """Image embedding (N, D, h, w) -> logits (N, K, 4 h, 4 w); what nnU-Net toggles as `network.decoder`."""

    unused: tuple[str, ...]  # prefixes of parameters of prompt encoder and mask decoder that it has no use for
    trains_decoder: bool  # whether the mask decoder is trained where SAM's weights are there

    def __init__(self, classes: int, dim: int, deep_supervision: bool) -> None:
        super().__init__()
        self.classes = classes
        self.deep_supervision = deep_supervision
        self.seg_layers = self._layers(classes, dim)

    def _layers(self, classes: int, dim: int) -> nn.Module:
        raise NotImplementedError

    def logits(self, embedding: Tensor, prompts: PromptEncoder, masks: MaskDecoder) -> Tensor:
        raise NotImplementedError


class ClassTokens(Head):
    """A learned token for each class takes the place of a click's, through SAM's decoder as it is. Ours.

    A token is SAM's embedding of a click, on the background for the first of several classes and on an object for the
    others, plus what is learned, in place of where the click is. The first of SAM's masks is the class's logits.
    """

    unused: tuple[str, ...] = (
        "prompt_encoder.point_embeddings.2.",
        "prompt_encoder.point_embeddings.3.",
        "prompt_encoder.not_a_point_embed.",
        "prompt_encoder.mask_downscaling.",
        "mask_decoder.iou_prediction_head.",
        "mask_decoder.output_hypernetworks_mlps.1.",
        "mask_decoder.output_hypernetworks_mlps.2.",
        "mask_decoder.output_hypernetworks_mlps.3.",
    )
    trains_decoder = False

    def __init__(self, classes: int, dim: int, deep_supervision: bool) -> None:
        super().__init__(classes, dim, deep_supervision)
        if classes == 1:
            self.unused += (f"prompt_encoder.point_embeddings.{BACKGROUND}.",)

    def _layers(self, classes: int, dim: int) -> nn.Module:
        return _Offsets(classes, dim)

    def tokens(self, prompts: PromptEncoder) -> Tensor:
        """(K, D)."""
        background, foreground = (prompts.point_embedding(kind) for kind in (BACKGROUND, FOREGROUND))
        clicks = [foreground] if self.classes == 1 else [background, foreground.expand(self.classes - 1, -1)]
        return self.seg_layers(torch.cat(clicks))

    def logits(self, embedding: Tensor, prompts: PromptEncoder, masks: MaskDecoder) -> Tensor:
        images, classes = embedding.shape[0], self.classes
        outputs = masks.output_tokens()[None].expand(classes, -1, -1)
        tokens = torch.cat([outputs, self.tokens(prompts)[:, None]], dim=1)  # (K, n, D)
        out, image = masks.attend(
            embedding[:, None].expand(-1, classes, -1, -1, -1).flatten(0, 1),
            prompts.pe_layer(*embedding.shape[2:]),
            tokens[None].expand(images, -1, -1, -1).flatten(0, 1),
            prompts.no_mask(1, embedding.shape[2:]),
        )
        weights = masks.output_hypernetworks_mlps[0](out[:, 1:2])
        return masks_of(weights, image).reshape(images, classes, *image.shape[2:])


class _Offsets(nn.Module):
    """What is learned of each class's token, (K, D)."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        # As far apart as clicks at different places: sines and cosines, of mean square 1/2. Objects that start alike
        # are given the same mask, and 600 steps of training hardly part them.
        self.offsets = nn.Parameter(0.5**0.5 * torch.randn(classes, dim))
        spare_from_weight_decay(self.offsets)  # zero is no place of rest for a token

    def forward(self, clicks: Tensor) -> Tensor:
        return clicks + self.offsets


class ClassMasks(Head):
    """A mask token and a network behind it for each class, and no prompt, as SAMed (Zhang and Liu 2023, arXiv
    2304.13785). They replace SAM's four; the rest of the decoder is trained."""

    unused = (
        "prompt_encoder.point_embeddings.",
        "prompt_encoder.not_a_point_embed.",
        "prompt_encoder.mask_downscaling.",
        "mask_decoder.mask_tokens.",
        "mask_decoder.iou_prediction_head.",
        "mask_decoder.output_hypernetworks_mlps.",
    )
    trains_decoder = True

    def _layers(self, classes: int, dim: int) -> nn.Module:
        return _MaskTokens(classes, dim)

    def logits(self, embedding: Tensor, prompts: PromptEncoder, masks: MaskDecoder) -> Tensor:
        assert isinstance(self.seg_layers, _MaskTokens)
        tokens = torch.cat([masks.iou_token.weight, self.seg_layers.mask_tokens])
        out, image = masks.attend(
            embedding,
            prompts.pe_layer(*embedding.shape[2:]),
            tokens[None].expand(embedding.shape[0], -1, -1),
            prompts.no_mask(1, embedding.shape[2:]),
        )
        return masks_of(self.seg_layers(out[:, 1:]), image)


class _MaskTokens(nn.Module):
    """A token for each class, and three layers for each behind the transformer: (N, K, D) -> (N, K, D / 8).

    The layers of all classes are one, so that names are the same for any number of classes.
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.mask_tokens = nn.Parameter(torch.randn(classes, dim))
        spare_from_weight_decay(self.mask_tokens)
        self.layers = nn.ModuleList(_LinearOfEach(classes, dim, width) for width in (dim, dim, dim // 8))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(first(x).relu()).relu())


class _LinearOfEach(nn.Module):
    """A linear layer for each class: (N, K, D) -> (N, K, out)."""

    def __init__(self, classes: int, dim: int, out: int) -> None:
        super().__init__()
        bound = dim**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(classes, dim, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(classes, 1, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return (x.transpose(0, 1) @ self.weight + self.bias).transpose(0, 1)


HEADS = {"class_tokens": ClassTokens, "class_masks": ClassMasks}
