"""SAMUS that sees clips: relations between frames (TRA) and attention along rows and columns (LIA) in its branch.

The seed, an abstract of a method for echo whose code was never released, names two modules: TRA, "convolution gathers
temporal information, then attention", in its ablation "L-MHRA", before the attention from ViT to CNN; and LIA, an
encoding along height and width. Read here as UniFormerV2's local MHRA and as coordinate attention. Where LIA stands is
not said; that it starts as the identity, so that pretrained weights keep their meaning, is ours.

Letters: B clips, C channels, T frames, H and W their size, K classes, D channels of a token, h and w the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from nnunet_echo.networks.samus.network import SAMUS
from nnunet_echo.networks.samus.temporal import CoordinateAttention, LocalMHRA, STAdapter, TemporalAttention

TEMPORAL = ("local_mhra", "st_adapter", "attention", "none")
PLACES = ("branch", "neck", "none")


class GatedCoordinateAttention(nn.Module):
    """x + gamma (CA(x) - x) on maps (N, D, h, w). Gamma starts at 0, for CA at its start leaves a quarter of a map."""

    def __init__(self, dim: int, norm: str) -> None:
        super().__init__()
        self.attention = CoordinateAttention(dim, dim, norm_kind=norm)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * (self.attention(x) - x)


class Mixer(nn.Module):
    """What the branch's tokens (B * frames, h, w, D) pass before a global block looks at them."""

    def __init__(self, dim: int, num_heads: int, temporal: str, lia: bool, norm: str) -> None:
        super().__init__()
        self.tra: nn.Module | None = None
        if temporal == "local_mhra":
            self.tra = LocalMHRA(dim, norm_kind=norm)
        elif temporal == "st_adapter":
            self.tra = STAdapter(dim, max(1, dim // 2))
        elif temporal == "attention":
            self.tra = TemporalAttention(dim, num_heads)
        self.lia = GatedCoordinateAttention(dim, norm) if lia else None

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        if self.tra is not None:
            clips = tokens.unflatten(0, (-1, frames))
            if isinstance(self.tra, LocalMHRA):
                related = self.tra(clips.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
            else:
                related = self.tra(clips)
            tokens = tokens + related.flatten(0, 1)
        if self.lia is not None:
            tokens = self.lia(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return tokens


class SAMUSTRALIA(SAMUS):
    """(B, in_channels, T, H, W), or (B, in_channels, H, W) as one frame -> logits of the same size. Any T, also 1.

    Before it is trained it computes what `SAMUS` does on each frame, bit for bit, whose weights it takes. Weights are
    the same for images and clips, for any number of frames.

    - `temporal`: ``local_mhra``, the seed's TRA; its alternatives ``st_adapter`` and ``attention``; ``none``.
    - `lia`: coordinate attention in the ``branch``, behind TRA, or behind the ``neck``, or ``none``.
    - `norm`: in both, over the ``batch`` as published, or over a ``group`` of channels.

    Further options are those of `SAMUS`.
    """

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
        temporal: str = "local_mhra",
        lia: str = "branch",
        norm: str = "batch",
        deep_supervision: bool = False,
    ) -> None:
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal={temporal!r}: expected one of {TEMPORAL}.")
        if lia not in PLACES:
            raise ValueError(f"lia={lia!r}: expected one of {PLACES}.")
        super().__init__(
            in_channels,
            num_classes,
            patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            window_size=window_size,
            global_attn_indexes=global_attn_indexes,
            decoder_dim=decoder_dim,
            decoder_mlp_dim=decoder_mlp_dim,
            img_size=img_size,
            grid=grid,
            decoder=decoder,
            unit_range=unit_range,
            use_checkpoint=use_checkpoint,
            freeze_pretrained=freeze_pretrained,
            deep_supervision=deep_supervision,
        )
        axes = len(patch_size)
        self.size_multiple = (1,) * axes
        self.deep_supervision_strides = ((1,) * axes,)
        # Behind everything that SAMUS has, so that one seed gives both the same weights.
        self.mixers = nn.ModuleList(
            Mixer(embed_dim, num_heads, temporal, lia == "branch", norm) for _ in global_attn_indexes
        )
        self.neck_attention = GatedCoordinateAttention(decoder_dim, norm) if lia == "neck" else None

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if x.ndim == 4:
            return self._out(self.segment(x, [partial(mixer, frames=1) for mixer in self.mixers]))
        frames = x.shape[2]
        mixers = [partial(mixer, frames=frames) for mixer in self.mixers]
        logits = self.segment(x.transpose(1, 2).flatten(0, 1), mixers)
        return self._out(logits.unflatten(0, (-1, frames)).transpose(1, 2))

    def _encode(self, x: Tensor, mixers: Sequence) -> Tensor:
        embedding = super()._encode(x, mixers)
        return embedding if self.neck_attention is None else self.neck_attention(embedding)
