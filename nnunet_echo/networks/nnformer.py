"""nnFormer (Zhou et al. 2021, arXiv 2109.03201): a U-Net of attention in local windows, three-dimensional.

Convolutions embed patches of (2, 4, 4) voxels; four stages of attention in windows (Swin Transformer, Liu et al. 2021,
arXiv 2103.14030), every second block in windows shifted by half their size, with strided convolutions between them; the
same upwards, where the first block of a stage takes its queries from below, keys and values from the skip connection,
and all others are shifted. Three outputs, at strides 1, 2 and 4, all of which count in the loss.

The published code looks the bias of a pair of voxels up by an index that mixes up its factors: with windows of 4, 343
offsets share 115 of the entries. Every published weight was trained so. `relative_index="released"` computes that,
"correct" what Swin Transformer and the paper mean.

Ours: the published network takes one size of image. Here windows are those for the plan's patch, and images of other
sizes go through it too.

Letters: B batch, Z, Y, X axes of the map, C channels. Maps are channels last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.regularization import DropPath
from torch import Tensor, nn

from nnunet_echo.layers.window_attention import WindowAttention
from nnunet_echo.networks.base import AnySize, drop_path_rates, halving_weights
from nnunet_echo.ops.linear import Linear

TOKEN = (2, 4, 4)  # voxels of a token: what the published strides of the two embedding steps make
RELATIVE_INDICES = ("correct", "released")


class NNFormer(AnySize):
    """(B, in_channels, Z, Y, X) of any size to logits (B, num_classes, Z, Y, X), or three with deep supervision.

    `patch_size` (Z, Y, X) is what the windows are made for. `dim` is the number of channels of the first stage, doubled
    from stage to stage; `depths`, `num_heads` and `window_sizes` have one entry per stage, by default those published
    for abdominal CT. A stage whose map is not larger than its window along the shortest axis has windows of that length
    and shifts none.

    >>> import torch
    >>> network = NNFormer(1, 4, (16, 32, 32), dim=16, num_heads=(1, 2, 4, 8), depths=(1, 1, 1, 1))
    >>> network(torch.zeros(1, 1, 10, 40, 30)).shape
    torch.Size([1, 4, 10, 40, 30])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        dim: int = 192,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        window_sizes: Sequence[int] = (4, 4, 8, 4),
        relative_index: str = "correct",
        drop_path_rate: float = 0.2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        stages = len(depths)
        if {len(num_heads), len(window_sizes)} != {stages} or stages < 2:
            raise ValueError(
                f"depths={tuple(depths)}, num_heads={tuple(num_heads)}, window_sizes={tuple(window_sizes)}: expected "
                "one entry per stage in each, for at least two stages."
            )
        if not all(isinstance(window, int | np.integer) for window in window_sizes):
            raise ValueError(
                f"window_sizes={tuple(window_sizes)}: expected one whole number per stage. Windows that "
                "differ by axis, as in the published file for ACDC, are not offered."
            )
        if dim % 2:
            raise ValueError(f"dim={dim}: expected an even number, of which the first convolutions have half.")
        if any(dim * 2**stage % heads for stage, heads in enumerate(num_heads)):
            raise ValueError(
                f"num_heads={tuple(num_heads)}: expected divisors of dim={dim}, doubled from stage to stage."
            )
        if relative_index not in RELATIVE_INDICES:
            raise ValueError(f"relative_index={relative_index!r}: expected one of {RELATIVE_INDICES}.")
        self.size_multiple = tuple(n * 2 ** (stages - 1) for n in TOKEN)
        self.deep_supervision_strides = tuple((2**stage,) * 3 for stage in range(stages - 1))
        self.deep_supervision_weights = halving_weights(stages - 1)
        coarsest = min(-(-n // m) for n, m in zip(patch_size, self.size_multiple, strict=True))
        blocks = []
        for stage, (heads, window) in enumerate(zip(num_heads, window_sizes, strict=True)):
            shortest = coarsest * 2 ** (stages - 1 - stage)  # axis of the map of a padded patch
            window, shift = (window, window // 2) if shortest > window else (shortest, 0)
            blocks.append((dim * 2**stage, heads, window, shift, relative_index == "released"))
        rates = drop_path_rates(drop_path_rate, sum(depths))
        rates_of = [rates[sum(depths[:stage]) :][: depths[stage]] for stage in range(stages)]
        self.patch_embed = PatchEmbed(in_channels, dim)
        self.encoder = nn.ModuleList(
            EncoderStage(*block, rates_of[stage], downsample=stage < stages - 1) for stage, block in enumerate(blocks)
        )
        levels = [DecoderStage(*block, rates_of[stage]) for stage, block in enumerate(blocks[:-1])]
        heads_of = [nn.ConvTranspose3d(block[0], num_classes, TOKEN, TOKEN) for block in blocks[:-1]]
        self.decoder = Decoder(levels, heads_of, deep_supervision)
        self.apply(_initialise)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = self.patch_embed(x)
        skips = []
        for stage in self.encoder:
            skip, x = stage(x)
            skips.append(skip)
        return self.decoder(skips)


class PatchEmbed(nn.Module):
    """Image (B, channels, Z, Y, X) to tokens (B, Z / 2, Y / 4, X / 4, dim), by four convolutions."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        half = dim // 2
        steps = [(channels, half, (2, 2, 2)), (half, half, (1, 1, 1)), (half, dim, (1, 2, 2)), (dim, dim, (1, 1, 1))]
        self.convolutions = nn.ModuleList(nn.Conv3d(n, m, 3, stride, padding=1) for n, m, stride in steps)
        self.norms = nn.ModuleList(nn.LayerNorm(n) for n in (half, half, dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.norms) - 1
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(x)
            x = norm((x if i == last else F.gelu(x)).permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return x.permute(0, 2, 3, 4, 1)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``, (B, Z, Y, X, C).

    With `cross` the attention's queries are the norm of `below`, keys and values come from the norm of `skip`.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, released: bool, rate: float, cross: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shift, released, cross)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(Linear(dim, 4 * dim), nn.GELU(), Linear(4 * dim, dim))
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor, below: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        y = self.attn(self.norm1(x)) if skip is None else self.attn(self.norm1(below), self.norm1(skip))
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class EncoderStage(nn.Module):
    """Map (B, Z, Y, X, C) to the skip connection, normed, and the map of the next stage, (B, Z / 2, Y / 2, X / 2, 2 C).

    The last stage gives the first of them twice.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, released: bool, rates: Sequence[float], downsample: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, window, shift if i % 2 else 0, released, rate) for i, rate in enumerate(rates)
        )
        self.norm = nn.LayerNorm(dim)
        self.down_norm = nn.LayerNorm(dim) if downsample else None
        self.down = nn.Conv3d(dim, 2 * dim, 3, 2, padding=1) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        skip = self.norm(x)
        if self.down is None or self.down_norm is None:
            return skip, skip
        x = self.down(self.down_norm(F.gelu(x)).permute(0, 4, 1, 2, 3))
        return skip, x.permute(0, 2, 3, 4, 1)


class DecoderStage(nn.Module):
    """The map below (B, Z / 2, Y / 2, X / 2, 2 C) and the skip connection (B, Z, Y, X, C) to (B, Z, Y, X, C)."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, released: bool, rates: Sequence[float]) -> None:
        super().__init__()
        self.up_norm = nn.LayerNorm(2 * dim)
        self.up = nn.ConvTranspose3d(2 * dim, dim, 2, 2)
        self.blocks = nn.ModuleList(
            Block(dim, heads, window, shift if i else 0, released, rate, cross=i == 0) for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        below = self.up(self.up_norm(x).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        x = self.blocks[0](below + skip, below, skip)
        for block in self.blocks[1:]:
            x = block(x)
        return x


class Decoder(nn.Module):
    """From the skip connections, finest first, to logits; nnU-Net toggles `deep_supervision`."""

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module], deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        x, logits = skips[-1], []
        for level in reversed(range(len(self.stages))):
            x = self.stages[level](x, skips[level])
            if self.deep_supervision or level == 0:
                logits.append(self.seg_layers[level](x.permute(0, 4, 1, 2, 3)))
        return logits[::-1] if self.deep_supervision else logits[0]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
