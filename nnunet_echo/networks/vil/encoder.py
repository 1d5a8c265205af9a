"""Vision-LSTM (Alkin et al. 2024, arXiv 2406.04303), versions 1 and 2, as published: image encoders of mLSTM blocks.

The image becomes tokens, one for each patch, plus a positional embedding; mLSTM blocks read them row by row, in turns
from the top left and from the bottom right. Version 1 (`VisionLSTM`) has a causal convolution along the sequence and
no biases; version 2 (`VisionLSTM2`) a 3 x 3 convolution on the tokens' grid, biases, and blocks in pairs of both
directions. Parameter names are the published ones. The networks around them are in `unet`.

Ours: `slstm_at` replaces blocks by sLSTM blocks, in the notation of the xLSTM paper, which mixes the two (Beck et al.
2024, arXiv 2405.04517, section 2.4). No released Vision-LSTM has them.

Letters: B batch, H and W rows and columns of tokens, S = H * W tokens, dim channels of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.regularization import DropPath
from torch import Tensor, nn

from nnunet_echo.layers.slstm import GatedFeedForward, SLSTMBlock, SLSTMLayer
from nnunet_echo.layers.vil import EXPANSION, CausalConv1d, ResidualLayerNorm, TokenConv2d, ViLLayer
from nnunet_echo.layers.weight_decay import spare_from_weight_decay
from nnunet_echo.layers.windows import to_image, to_tokens
from nnunet_echo.networks.base import drop_path_rates
from nnunet_echo.ops.precision import autocast_off

TOP_LEFT = "rowwise_from_top_left"
BOTTOM_RIGHT = "rowwise_from_bot_right"
DIRECTIONS = (TOP_LEFT, BOTTOM_RIGHT)
CONV_KINDS = ("2d", "causal1d")


class PatchEmbed(nn.Module):
    """Image (B, channels, *size) to a map of tokens (B, dim, H, W), in float32: one sum runs over a whole patch."""

    def __init__(self, channels: int, dim: int, patch_size: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, stride)
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        with autocast_off(x.device):
            return self.proj(x.to(self.proj.weight.dtype))


class PositionEmbed(nn.Module):
    """Adds learned positions to a map of tokens (B, dim, H, W), bicubically resampled where the map is not `grid`."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.empty(1, *grid, dim))
        spare_from_weight_decay(self.embed)
        nn.init.trunc_normal_(self.embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        embed = self.embed.permute(0, 3, 1, 2)
        if embed.shape[2:] != x.shape[2:]:
            embed = F.interpolate(embed, x.shape[2:], mode="bicubic")
        return x + embed


class ViLBlock(nn.Module):
    """``x + layer(norm(x))`` for tokens (B, S, dim)."""

    def __init__(self, layer: ViLLayer, dim: int, norm_bias: bool, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = ResidualLayerNorm(dim, bias=norm_bias)
        self.layer = layer
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return x + self.drop_path(self.layer(self.norm(x), grid))


class ViLBlockPair(nn.ModuleDict):
    """A block for each of `DIRECTIONS`, run in the order of `directions`."""

    def __init__(self, blocks: Mapping[str, ViLBlock | SLSTMBlock], directions: Sequence[str]) -> None:
        super().__init__(blocks)
        self.directions = tuple(directions)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        for direction in self.directions:
            x = self[direction](x, grid)
        return x


class _Encoder(nn.Module):
    """What both versions share; they add `blocks`, and a `norm` behind the last one."""

    blocks: nn.ModuleList

    def __init__(
        self, dim: int, input_shape: Sequence[int], patch_size: int | Sequence[int], stride: int | Sequence[int] | None
    ) -> None:
        super().__init__()
        channels, *size = input_shape
        if len(size) != 2:
            raise ValueError(f"input_shape={tuple(input_shape)}: expected (channels, height, width).")
        self.patch_size = _pair(patch_size)
        if any(n % p for n, p in zip(size, self.patch_size, strict=True)):
            raise ValueError(f"input_shape={tuple(input_shape)}: patches of {self.patch_size} do not divide the image.")
        stride = self.patch_size if stride is None else _pair(stride)
        grid = (size[0] // self.patch_size[0], size[1] // self.patch_size[1])
        self.patch_embed = PatchEmbed(channels, dim, self.patch_size, stride)
        self.pos_embed = PositionEmbed(grid, dim)

    def final_norm(self, tokens: Tensor) -> Tensor:
        """The norms behind the last block."""
        raise NotImplementedError

    def features(self, image: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Maps (B, dim, H, W) after the blocks numbered `depths`, counted from 1, each normalised over its channels.

        The sum of all blocks so far grows with the depth and would leave the range of float16 in the decoder.
        """
        x = self.pos_embed(self.patch_embed(image))
        grid = x.shape[2:]
        x = to_tokens(x)
        features = []
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x, grid)
            if depth in depths:
                last = depth == len(self.blocks)
                features.append(to_image(self.final_norm(x) if last else F.layer_norm(x, x.shape[-1:]), grid))
        return features


class VisionLSTM(_Encoder):
    """Version 1: (B, channels, *size) -> (B, S, dim). Arguments and defaults as published, without those of the head.

    `input_shape` is (channels, height, width); images of another size get resampled positions. The `stride` of the
    patches is their size by default. `drop_path_decay` lets the rate of stochastic depth grow from 0 to
    `drop_path_rate`. `directions` repeats along the blocks: both in turns as published, one of them alone, or any
    other order. The blocks numbered `slstm_at`, counted from 0, are sLSTM blocks, whose convolution is `slstm_conv`,
    "causal1d" of 4 tokens or "2d" of 3 x 3.
    """

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int | Sequence[int] = 16,
        depth: int = 24,
        drop_path_rate: float = 0.0,
        stride: int | Sequence[int] | None = None,
        drop_path_decay: bool = False,
        legacy_norm: bool = False,
        directions: Sequence[str] = DIRECTIONS,
        slstm_at: Sequence[int] | None = None,
        slstm_conv: str = "causal1d",
    ) -> None:
        super().__init__(dim, input_shape, patch_size, stride)
        if not directions or not set(directions) <= set(DIRECTIONS):
            raise ValueError(f"directions={directions!r}: expected a sequence of {TOP_LEFT!r} and {BOTTOM_RIGHT!r}.")
        if slstm_conv not in CONV_KINDS:
            raise ValueError(f"slstm_conv={slstm_conv!r}: expected '2d' or 'causal1d'.")
        scalar = _blocks_at(slstm_at, depth)
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth, drop_path_decay)):
            reverse = directions[i % len(directions)] == BOTTOM_RIGHT
            if i in scalar:
                conv = _convolution(slstm_conv, dim, 3 if slstm_conv == "2d" else 4)
                self.blocks.append(_slstm_block(dim, reverse, conv, rate, i, depth))
                continue
            conv = CausalConv1d(EXPANSION * dim, kernel_size=4)
            layer = ViLLayer(dim, reverse, conv, "conv1d", proj_bias=False, norm_bias=False)
            self.blocks.append(ViLBlock(layer, dim, norm_bias=False, drop_path_rate=rate))
        self.legacy_norm = ResidualLayerNorm(dim, bias=False) if legacy_norm else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    @classmethod
    def from_published(cls, kwargs: dict[str, Any]) -> VisionLSTM:
        """The encoder that the published class builds from `kwargs`; a head or pooling is a ValueError."""
        only = {"mode": None, "pooling": None, "output_shape": None, "alternation": "bidirectional"}
        return cls(**_without_head(kwargs, only))

    def final_norm(self, tokens: Tensor) -> Tensor:
        return self.norm(self.legacy_norm(tokens))

    def forward(self, image: Tensor) -> Tensor:
        return to_tokens(self.features(image, [len(self.blocks)])[0])


class VisionLSTM2(_Encoder):
    """Version 2: (B, channels, *size) -> (B, dim, H, W). `depth` counts pairs of blocks.

    Arguments as of `VisionLSTM`, and: `conv_kind` "2d", or "causal1d" for version 1's, with `conv_kernel_size`;
    `proj_bias` and `norm_bias` keep or drop the biases; `directions` is the order within a pair. `slstm_at` counts
    single blocks in the order in which they run, so up to ``2 * depth - 1``; sLSTM blocks have the same convolution.
    """

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int | Sequence[int] = 16,
        depth: int = 12,
        drop_path_rate: float = 0.0,
        drop_path_decay: bool = False,
        stride: int | Sequence[int] | None = None,
        legacy_norm: bool = False,
        conv_kind: str = "2d",
        conv_kernel_size: int = 3,
        proj_bias: bool = True,
        norm_bias: bool = True,
        directions: Sequence[str] = DIRECTIONS,
        slstm_at: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dim, input_shape, patch_size, stride)
        if sorted(directions) != sorted(DIRECTIONS):
            raise ValueError(f"directions={directions!r}: expected {TOP_LEFT!r} and {BOTTOM_RIGHT!r}, in either order.")
        if conv_kind not in CONV_KINDS:
            raise ValueError(f"conv_kind={conv_kind!r}: expected '2d' or 'causal1d'.")
        if conv_kind == "2d" and conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size={conv_kernel_size} has to be odd with conv_kind='2d'.")
        scalar = _blocks_at(slstm_at, 2 * depth)

        def block(pair: int, direction: str, rate: float) -> ViLBlock | SLSTMBlock:
            number, reverse = 2 * pair + list(directions).index(direction), direction == BOTTOM_RIGHT
            if number in scalar:
                conv = _convolution(conv_kind, dim, conv_kernel_size)
                return _slstm_block(dim, reverse, conv, rate, number, 2 * depth)
            conv = _convolution(conv_kind, EXPANSION * dim, conv_kernel_size)
            layer = ViLLayer(dim, reverse, conv, "conv", proj_bias, norm_bias)
            return ViLBlock(layer, dim, norm_bias, rate)

        self.blocks = nn.ModuleList(
            ViLBlockPair({direction: block(pair, direction, rate) for direction in DIRECTIONS}, directions)
            for pair, rate in enumerate(drop_path_rates(drop_path_rate, depth, drop_path_decay))
        )
        self.norm = ResidualLayerNorm(dim, bias=norm_bias, eps=1e-6)
        self.legacy_norm = nn.LayerNorm(dim) if legacy_norm else nn.Identity()

    @classmethod
    def from_published(cls, kwargs: dict[str, Any]) -> VisionLSTM2:
        """The encoder that the published class builds from `kwargs`; a head or pooling of tokens is a ValueError."""
        kwargs = _without_head(kwargs, {"mode": "features", "pooling": "to_image"})
        # No effect on the published features: the kernel size is not handed on to the blocks, which all keep 3, and the
        # other two are for a head and for weights that are about to be replaced.
        ignored = {"conv_kernel_size", "output_shape", "init_weights"}
        return cls(**{key: value for key, value in kwargs.items() if key not in ignored})

    def final_norm(self, tokens: Tensor) -> Tensor:
        return self.legacy_norm(self.norm(tokens))

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image, [len(self.blocks)])[0]


def _blocks_at(slstm_at: Sequence[int] | None, blocks: int) -> set[int]:
    chosen = set(() if slstm_at is None else slstm_at)
    if not chosen <= set(range(blocks)):
        raise ValueError(f"slstm_at={slstm_at}: expected numbers of blocks from 0 to {blocks - 1}.")
    return chosen


def _convolution(kind: str, channels: int, kernel_size: int) -> nn.Module:
    return (TokenConv2d if kind == "2d" else CausalConv1d)(channels, kernel_size)


def _slstm_block(dim: int, reverse: bool, conv: nn.Module, rate: float, block: int, blocks: int) -> SLSTMBlock:
    layer = SLSTMLayer(dim, conv=conv, reverse=reverse, block=block, blocks=blocks)
    return SLSTMBlock(layer, GatedFeedForward(dim, blocks=blocks), dim, rate)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return height, width


def _without_head(kwargs: dict[str, Any], only: dict[str, Any]) -> dict[str, Any]:
    """`kwargs` less the arguments in `only`, which may have no other value than there."""
    for name, value in only.items():
        if kwargs.get(name, value) != value:
            raise ValueError(
                f"{name}={kwargs[name]!r}: only the feature extractor is offered. Give {value!r}, or leave it out."
            )
    return {key: value for key, value in kwargs.items() if key not in only}
