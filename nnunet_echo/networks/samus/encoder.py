"""SAM's image encoder (Kirillov et al. 2023, arXiv 2304.02643) and SAMUS's (Lin et al. 2023, arXiv 2309.06824).

Windowed blocks and attention with relative positions are timm's, which compute what Meta's do. Around SAM's tokens
SAMUS puts adapters and a branch of convolutions that its global blocks look at. The order of operations is that of the
released code; parameter names too, but for `mlp.fc1` and `mlp.fc2`, which are `mlp.lin1` and `mlp.lin2` there.

Letters: B images, H and W their size, h and w the grid of tokens, D channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import Attention, Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_echo.networks.samus.adapters import (
    SAM_EPS,
    Adapter,
    CNNBranch,
    CrossBranchAttention,
    LayerNorm2d,
    PositionAdapter,
    RefineAdapter,
)
from nnunet_echo.ops.selective_scan import traceable

SAM_POSITIONS = 64  # a side, of 1024 pixels in patches of 16
PATCH = 16  # pixels a side of SAM's patch embedding
STRIDE = 8  # between its patches in SAMUS


class SamPatchEmbed(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, h, w, D)."""

    def __init__(self, patch_size: int, stride: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


def neck(dim: int, out_channels: int) -> nn.Sequential:
    """Tokens' channels to those of the decoder: (B, D, h, w) -> (B, out_channels, h, w)."""
    return nn.Sequential(
        nn.Conv2d(dim, out_channels, 1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


class SAMEncoder(nn.Module):
    """SAM's own: (B, 3, img_size, img_size) -> (B, out_chans, img_size / patch_size, ...).

    Blocks with an index in `global_attn_indexes` attend to all tokens, the others inside windows of `window_size`.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.patch_embed = SamPatchEmbed(patch_size, patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, embed_dim))
        block = partial(sam_block, embed_dim, num_heads, mlp_ratio, (side, side))
        self.blocks = nn.ModuleList(block(0 if i in global_attn_indexes else window_size) for i in range(depth))
        self.neck = neck(embed_dim, out_chans)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class SAMLayerNorm(nn.LayerNorm):
    """With SAM's eps: timm's own default is another one."""

    def __init__(self, dim: int, **place: Any) -> None:  # device and dtype
        super().__init__(dim, eps=SAM_EPS, **place)


class _Attention(Attention):
    """timm's; where PyTorch exports it is computed in plain steps, since ONNX has no form for the fused one."""

    @property  # type: ignore[misc]
    def fused_attn(self) -> bool:
        return self.__dict__["fused_attn"] and not traceable.wanted()


class SAMBlock(Block):
    """timm's block with SAM's attention: tokens (B, h, w, D) to tokens of the same shape."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.attn.__class__ = _Attention  # a block cannot be told which to build


def sam_block(
    dim: int, num_heads: int, mlp_ratio: float, grid: tuple[int, int], window_size: int, kind: type[SAMBlock] = SAMBlock
) -> SAMBlock:
    """One of SAM's blocks, with attention in windows of `window_size`, or to all of the `grid` where that is 0."""
    return kind(
        dim, num_heads, mlp_ratio, norm_layer=SAMLayerNorm, use_rel_pos=True, window_size=window_size, input_size=grid
    )


class GlobalBlock(SAMBlock):
    """A block that attends to all tokens and to the branch: tokens x and branch c, both (B, h, w, D), give new ones.

    The branch enters the attention's input alone, not the residual stream, and is refined after it was looked at.
    """

    def __init__(self, dim: int, num_heads: int, *args: Any, **options: Any) -> None:
        super().__init__(dim, num_heads, *args, **options)
        self.MLP_Adapter = Adapter(dim, skip=False)
        self.Space_Adapter = CrossBranchAttention(dim, num_heads)
        self.refine_Adapter = RefineAdapter(dim)

    def forward(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        normed = self.norm1(x)
        normed = normed + self.Space_Adapter(normed, branch)
        x = x + self.attn(normed)
        normed = self.norm2(x)
        return x + self.mlp(normed) + 0.5 * self.MLP_Adapter(normed), self.refine_Adapter(branch)


class SAMUSEncoder(nn.Module):
    """SAMUS's: (B, 3, H, W), or (B, 1, H, W) in grey, -> (B, out_chans, h, w).

    As published, `img_size` is 32 times `patch_size` and the grid is 32 x 32: images are of that size. Here any size
    that is a multiple of `patch_size` goes through, with a grid of H / patch_size x W / patch_size; then the tables of
    relative positions are built for `grid`, positions are computed for 32 x 32 tokens and resized (ours).

    `forward` takes `mixers`, one callable for each global block, which the branch's tokens pass first. With
    `use_checkpoint` branch and blocks are computed again in the backward pass instead of being kept: less memory, more
    time.
    """

    def __init__(
        self,
        img_size: int = 256,
        patch_size: int = 8,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        grid: tuple[int, int] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check(img_size, patch_size, embed_dim, depth, num_heads, global_attn_indexes)
        tokens = img_size // patch_size
        self.patch_size = patch_size
        self.use_checkpoint = use_checkpoint
        self.global_attn_indexes = tuple(global_attn_indexes)
        self.patch_embed = SamPatchEmbed(PATCH, STRIDE, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, SAM_POSITIONS, SAM_POSITIONS, embed_dim))
        self.cnn_embed = CNNBranch(patch_size, embed_dim)
        self.input_Adapter = Adapter(embed_dim, skip=True)
        self.post_pos_embed = PositionAdapter(embed_dim, (SAM_POSITIONS // tokens).bit_length() - 1)
        block = partial(sam_block, embed_dim, num_heads, mlp_ratio, grid or (tokens, tokens))
        self.blocks = nn.ModuleList(
            block(0, GlobalBlock) if i in global_attn_indexes else block(window_size) for i in range(depth)
        )
        self.neck = neck(embed_dim, out_chans)
        self._positions: tuple[tuple, Tensor] | None = None
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor, mixers: Sequence[Callable[[Tensor], Tensor]] = ()) -> Tensor:
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        run = runner(self.use_checkpoint)
        branch = run(self.cnn_embed, x)
        h, w = branch.shape[1:3]
        size = (STRIDE * (h - 1) + PATCH, STRIDE * (w - 1) + PATCH)
        x = self.patch_embed(F.interpolate(x, size, mode="bilinear", align_corners=False))
        x = self.input_Adapter(x) + self.positions(h, w)
        remaining = iter(mixers)
        for block in self.blocks:
            if isinstance(block, GlobalBlock):
                mixer = next(remaining, None)
                branch = branch if mixer is None else mixer(branch)
                x, branch = run(block, x, branch)
            else:
                x = run(block, x)
        return self.neck((x + 0.5 * branch).permute(0, 3, 1, 2))

    def positions(self, h: int, w: int) -> Tensor:
        """(1, h, w, D). They do not depend on the image: in eval without gradients they are computed once."""
        weights = (self.pos_embed, *self.post_pos_embed.parameters())
        if (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or traceable.wanted()
            or any(weight.is_inference() for weight in weights)
        ):
            return self._compute_positions(h, w)
        versions = [(weight.data_ptr(), weight._version, weight.dtype) for weight in weights]
        key = (h, w, torch.is_autocast_enabled(self.pos_embed.device.type), *versions)
        if self._positions is None or self._positions[0] != key:
            self._positions = key, self._compute_positions(h, w)
        return self._positions[1]

    def _compute_positions(self, h: int, w: int) -> Tensor:
        # Without gradients as no parameter: PyTorch's counters of FLOPs look for the gradient of what a module gets.
        counted = not torch.is_grad_enabled() and not traceable.exporting()
        positions = self.post_pos_embed(self.pos_embed.detach() if counted else self.pos_embed)
        if positions.shape[1:3] == (h, w):
            return positions
        resized = F.interpolate(positions.permute(0, 3, 1, 2), (h, w), mode="bilinear", align_corners=False)
        return resized.permute(0, 2, 3, 1)

    def train(self, mode: bool = True) -> SAMUSEncoder:
        self._positions = None  # also after changes that PyTorch does not count, such as those of `.data`
        return super().train(mode)


def runner(use_checkpoint: bool) -> Callable[..., Any]:
    """What calls a function with its arguments, with `use_checkpoint` so that the backward pass computes it again."""
    if use_checkpoint and torch.is_grad_enabled() and not traceable.wanted():  # which know nothing of checkpoints
        return partial(checkpoint, use_reentrant=False)
    return lambda function, *inputs: function(*inputs)


def _check(
    img_size: int, patch_size: int, embed_dim: int, depth: int, num_heads: int, global_attn_indexes: Sequence[int]
) -> None:
    if patch_size < 2 or patch_size & (patch_size - 1):
        raise ValueError(f"patch_size={patch_size}: expected a power of 2, since the branch halves the image.")
    tokens = img_size // patch_size
    if img_size % patch_size or not 1 <= tokens <= SAM_POSITIONS:
        raise ValueError(
            f"img_size={img_size}: expected a multiple of patch_size={patch_size}, at most {SAM_POSITIONS} times it."
        )
    if embed_dim % num_heads or embed_dim % 4:
        raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads} and of 4.")
    wrong = [i for i in global_attn_indexes if not 0 <= i < depth]
    if wrong or not global_attn_indexes:
        raise ValueError(
            f"global_attn_indexes={tuple(global_attn_indexes)}: expected numbers of blocks, from 0 to {depth - 1}."
        )
