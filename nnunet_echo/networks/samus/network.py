"""SAMUS (Lin et al. 2023, arXiv 2309.06824) for nnU-Net: no click, any number of classes, channels and pixels.

Image encoder, prompt encoder and mask decoder are the published ones, with their names and shapes, so that SAM's and
SAMUS's weights fit. What the published network gets from a click, the classes get from learned tokens (`heads`). Images
are resized to 256 x 256 inside, as they are published to be, and the logits back.

With weights of SAM or SAMUS (`networks.load_pretrained`, ``nnunet-echo weights``) only the parts train that SAMUS's
authors train. Without them all of it trains: a frozen random encoder is of no use.

Letters: B images, N = B, or B times the frames of a clip, C their channels, H and W their size, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.networks.base import AnySize
from nnunet_echo.networks.samus.decoder import MaskDecoder
from nnunet_echo.networks.samus.encoder import STRIDE, SAMUSEncoder, runner
from nnunet_echo.networks.samus.heads import HEADS
from nnunet_echo.networks.samus.prompts import PromptEncoder

GRIDS = ("fixed", "native")
TOKENS = 32  # a side, of the published encoder
DECODER_HEADS = 8


class SAMUS(AnySize):
    """(B, in_channels, H, W) of any size -> logits (B, num_classes, H, W). 133.4 M parameters, 39.7 M trained.

    - `embed_dim`, `depth`, `num_heads`, `window_size`, `global_attn_indexes`: SAM's image encoder; defaults of ViT-B.
    - `decoder_dim`, `decoder_mlp_dim`: width of prompts and decoder, and of its hidden layers.
    - `img_size`: what images are resized to, a multiple of 32. With ``grid="native"`` they keep their size, rounded up
      to a multiple of 8 pixels, one token for each 8 x 8 of them; tables of positions are of `patch_size` (H, W).
    - `decoder`: ``class_tokens``, SAM's decoder with a token for each class, or ``class_masks``, as SAMed.
    - `unit_range`: each image is scaled to [0, 1], which SAMUS's own weights were trained on.
    - `use_checkpoint`: blocks and decoder are computed again in the backward pass: less memory, more time.
    - `freeze_pretrained`: with pretrained weights, train only what SAMUS's authors do.
    """

    pretrained_sha256: Tensor
    deep_supervision_strides: tuple[tuple[int, ...], ...] = ((1, 1),)
    size_multiple: tuple[int, ...] = (1, 1)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        decoder_dim: int = 256,
        decoder_mlp_dim: int = 2048,
        img_size: int = 256,
        grid: str = "fixed",
        decoder: str = "class_tokens",
        unit_range: bool = False,
        use_checkpoint: bool = True,
        freeze_pretrained: bool = True,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if grid not in GRIDS:
            raise ValueError(f"grid={grid!r}: expected one of {GRIDS}.")
        if decoder not in HEADS:
            raise ValueError(f"decoder={decoder!r}: expected one of {tuple(HEADS)}.")
        if decoder_dim % (2 * DECODER_HEADS):
            raise ValueError(f"decoder_dim={decoder_dim}: expected a multiple of {2 * DECODER_HEADS}.")
        if grid == "fixed" and (img_size < 2 * TOKENS or img_size % TOKENS or (img_size // TOKENS).bit_count() > 1):
            raise ValueError(f"img_size={img_size}: expected {TOKENS} times a power of 2, such as 64, 128 or 256.")
        self.img_size = img_size if grid == "fixed" else None
        self.unit_range = unit_range
        self.freeze_pretrained = freeze_pretrained
        height, width = patch_size[-2:]
        self.image_encoder = SAMUSEncoder(
            img_size=img_size if grid == "fixed" else TOKENS * STRIDE,
            patch_size=img_size // TOKENS if grid == "fixed" else STRIDE,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            out_chans=decoder_dim,
            window_size=window_size,
            global_attn_indexes=global_attn_indexes,
            grid=None if grid == "fixed" else (-(-height // STRIDE), -(-width // STRIDE)),
            use_checkpoint=use_checkpoint,
        )
        self.prompt_encoder = PromptEncoder(decoder_dim)
        self.mask_decoder = MaskDecoder(
            decoder_dim,
            transformer={"embedding_dim": decoder_dim, "num_heads": DECODER_HEADS, "mlp_dim": decoder_mlp_dim},
        )
        self.input_conv = nn.Identity() if in_channels in (1, 3) else nn.Conv2d(in_channels, 3, 1)
        self.decoder = HEADS[decoder](num_classes, decoder_dim, deep_supervision)
        # Of the file of the pretrained weights, zeros without: state that checkpoints keep, so that it outlives them.
        self.register_buffer("pretrained_sha256", torch.zeros(32, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_weights_changed)
        self.set_trainable(pretrained=False)

    @property
    def pretrained(self) -> bool:
        """Whether weights that others released are in it: `load_pretrained` notes their hash."""
        return not self.pretrained_sha256.is_meta and bool(self.pretrained_sha256.any())

    def set_trainable(self, pretrained: bool) -> None:
        """Parameters that no output depends on never train; with pretrained weights, only those of SAMUS do."""
        frozen = self.freeze_pretrained and pretrained
        for name, parameter in self.named_parameters():
            used = not name.startswith(self.decoder.unused)
            parameter.requires_grad_(used and not (frozen and self.is_frozen(name)))

    def is_frozen(self, name: str) -> bool:
        """Whether the parameter stays as pretrained: SAM's own, but for the global blocks' tables of positions.

        The released code takes any name with a 2, 5., 8. or 11. in it, which is the same for ViT-B alone.
        """
        if name.startswith("prompt_encoder."):
            return True
        if name.startswith("mask_decoder."):
            return not self.decoder.trains_decoder
        if not name.startswith("image_encoder."):
            return False
        blocks = "|".join(map(str, self.image_encoder.global_attn_indexes))
        trained = rf"image_encoder\.(cnn_embed\.|post_pos_embed\.|.*_Adapter\.|blocks\.({blocks})\.attn\.rel_pos_)"
        return re.match(trained, name) is None

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self._out(self.segment(x))

    def segment(self, x: Tensor, mixers: Sequence[Callable[[Tensor], Tensor]] = ()) -> Tensor:
        """Images (N, C, H, W) to logits (N, K, H, W); `mixers` as in `SAMUSEncoder`."""
        embedding = self._encode(x, mixers)
        run = runner(self.image_encoder.use_checkpoint)
        logits = run(self.decoder.logits, embedding, self.prompt_encoder, self.mask_decoder)
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)

    def segment_at(self, x: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """As SAMUS is published: images (N, C, H, W) and clicks (N, n, 2), x and y in pixels, to logits (N, 1, H, W).

        For comparisons only. A click that is drawn from the ground truth knows class and place of what is to be found.
        """
        embedding = self._encode(x, ())
        width, height = x.shape[3], x.shape[2]
        unit = (points + 0.5) / points.new_tensor([width, height])
        sides = points.new_tensor(self.prompt_encoder.input_image_size[::-1])
        sparse, _ = self.prompt_encoder(unit * sides - 0.5, labels)
        logits, _ = self.mask_decoder(
            embedding,
            self.prompt_encoder.pe_layer(*embedding.shape[2:]),
            sparse,
            self.prompt_encoder.no_mask(1, embedding.shape[2:]),
            multimask_output=False,
        )
        return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)

    def _encode(self, x: Tensor, mixers: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        if self.unit_range:
            low, high = (edge(x.flatten(1), 1)[:, None, None, None] for edge in (torch.amin, torch.amax))
            x = (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)
        x = self.input_conv(x)
        # Two tokens a side at least: a norm over the batch needs more than one.
        native = tuple(max(2, -(-n // STRIDE)) * STRIDE for n in x.shape[2:])
        size = (self.img_size, self.img_size) if self.img_size else native
        if tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return self.image_encoder(x, mixers)

    def _out(self, logits: Tensor) -> Tensor | list[Tensor]:
        return [logits] if self.decoder.deep_supervision else logits


def _weights_changed(network: nn.Module, _keys: object) -> None:
    """A state that was loaded says whether it is of pretrained weights."""
    assert isinstance(network, SAMUS)
    network.set_trainable(network.pretrained)
