"""VM-UNet (Ruan and Xiang 2024, arXiv 2402.02491): a U-Net of VMamba's visual state space blocks, two-dimensional.

A 4 x 4 patch embedding, stages of `VSSBlock` with patch merging between them, the same upwards with patch expanding,
skip connections by addition, a last expansion by 4 and a 1 x 1 convolution. `VSSM` has the layout, the names and the
defaults that the authors published; `VMUNet` around it is what nnU-Net trains.

The authors repeat a grey image to three channels; `VMUNet` embeds the channels there are. They end with a sigmoid
where there is one class; logits leave this one.

Letters: B batch, H and W rows and columns of the feature map, C channels. Maps are channels last, (B, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from dynamic_network_architectures.building_blocks.regularization import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.networks.base import AnySize, drop_path_rates
from nnunet_echo.ops.linear import Linear
from nnunet_echo.ops.selective_scan import traceable


class ChannelsLastPatchEmbed(nn.Module):
    """Image (B, channels, H, W) to tokens (B, H / patch, W / patch, dim)."""

    def __init__(self, patch_size: int, channels: int, dim: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).permute(0, 2, 3, 1)
        return x if self.norm is None else self.norm(x)


class PatchMerging(nn.Module):
    """Four neighbours to one token of twice the channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # of the four, the one below comes before the one to the right
        return self.reduction(self.norm(x))


class PatchExpand(nn.Module):
    """One token to `scale` x `scale` tokens: (B, H, W, C) -> (B, scale * H, scale * W, C / scale)."""

    def __init__(self, dim: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = Linear(dim, scale * dim, bias=False)
        self.norm = nn.LayerNorm(dim // scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(-1, (self.scale, self.scale, -1))
        return self.norm(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class VSSBlock(nn.Module):
    """Residual block of the four-direction scan: ``x + SS2D(norm(x))``, (B, H, W, C)."""

    def __init__(self, dim: int, d_state: int, dropout: float, drop_path_rate: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state=d_state, dropout=dropout)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class VSSLayer(nn.Module):
    """The blocks of one resolution, between an optional expansion in front and an optional merging behind.

    `drop_path_rates` has one entry per block. `use_checkpoint` recomputes the blocks in the backward pass: less
    memory.
    """

    def __init__(
        self,
        dim: int,
        drop_path_rates: Sequence[float],
        d_state: int,
        dropout: float,
        use_checkpoint: bool,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.upsample = PatchExpand(2 * dim, scale=2) if upsample else None
        self.blocks = nn.ModuleList(VSSBlock(dim, d_state, dropout, rate) for rate in drop_path_rates)
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample is not None:
            x = self.upsample(x)
        use_checkpoint = self.use_checkpoint and not traceable.checkpoints_refused()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if use_checkpoint else block(x)
        return x if self.downsample is None else self.downsample(x)


class VSSM(nn.Module):
    """The published network: (B, in_chans, H, W) -> logits (B, num_classes, H, W), H and W multiples of 32.

    Arguments, defaults and parameter names are the published ones. `dims` and `dims_decoder` are the channels of the
    stages in the order in which they run; a single number is doubled from stage to stage. Stochastic depth grows
    linearly to `drop_path_rate` towards the bottleneck and falls again behind it. The last expansion is by 4 whatever
    `patch_size` is, as published: the output has the input's size at 4 only.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        dims: Sequence[int] | int = (96, 192, 384, 768),
        dims_decoder: Sequence[int] = (768, 384, 192, 96),
        d_state: int | None = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(dims, int):
            dims = [dims * 2**stage for stage in range(len(depths))]
        _check_stages(depths, depths_decoder, dims, dims_decoder)
        if d_state is None:
            d_state = math.ceil(dims[0] / 6)
        layer = partial(VSSLayer, d_state=d_state, dropout=attn_drop_rate, use_checkpoint=use_checkpoint)
        down = _split(drop_path_rates(drop_path_rate, sum(depths)), depths)
        up = _split(drop_path_rates(drop_path_rate, sum(depths_decoder))[::-1], depths_decoder)
        last = len(depths) - 1

        self.patch_embed = ChannelsLastPatchEmbed(patch_size, in_chans, dims[0], patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList(
            layer(dim, rates, downsample=stage < last)
            for stage, (dim, rates) in enumerate(zip(dims, down, strict=True))
        )
        self.layers_up = nn.ModuleList(
            layer(dim, rates, upsample=stage > 0)
            for stage, (dim, rates) in enumerate(zip(dims_decoder, up, strict=True))
        )
        self.final_up = PatchExpand(dims_decoder[-1], scale=4)
        self.final_conv: nn.Module = nn.Conv2d(dims_decoder[-1] // 4, num_classes, 1)
        for module in self.modules():  # the scans' stacked projections are not nn.Linear and keep theirs
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_drop(self.patch_embed(x))
        skips = []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        x = self.layers_up[0](x)
        for layer in self.layers_up[1:]:
            x = layer(x + skips.pop())
        return self.final_conv(self.final_up(x).permute(0, 3, 1, 2))


class VMUNet(AnySize):
    """VM-UNet for nnU-Net: (B, in_channels, H, W) of any size -> logits (B, num_classes, H, W).

    `depths`, `depths_decoder` and `drop_path_rate` default to the values that the authors train with; `dims` is the
    number of channels of the first stage, or one number per stage. 27.43 M parameters for 3 channels and one class.
    """

    deep_supervision_strides = ((1, 1),)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depths: Sequence[int] = (2, 2, 2, 2),
        depths_decoder: Sequence[int] = (2, 2, 2, 1),
        dims: Sequence[int] | int = 96,
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        use_checkpoint: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(dims, int):
            dims = [dims * 2**stage for stage in range(len(depths))]
        self.vmunet = VSSM(
            in_chans=in_channels,
            num_classes=num_classes,
            depths=depths,
            depths_decoder=depths_decoder,
            dims=dims,
            dims_decoder=dims[::-1],
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            use_checkpoint=use_checkpoint,
        )
        self.decoder = FullResolutionOutput(self.vmunet.final_conv, deep_supervision)
        self.vmunet.final_conv = nn.Identity()
        self.register_load_state_dict_pre_hook(_rename_last_layer)
        self.size_multiple = (4 * 2 ** (len(depths) - 1),) * 2

    @classmethod
    def from_plan(
        cls,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        architecture: dict[str, Any],
        deep_supervision: bool,
        **options: Any,
    ) -> VMUNet:
        """The network of a 2d configuration; it needs nothing of `architecture`. `options` go to the constructor."""
        return cls(in_channels, num_classes, deep_supervision=deep_supervision, **options)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.vmunet(x))


class FullResolutionOutput(nn.Module):
    """The last layer, as what nnU-Net toggles as `network.decoder`: with deep supervision on, logits leave as a list of
    one. nnU-Net leaves out what is called `seg_layers` where it loads weights for other classes."""

    def __init__(self, head: nn.Module, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleList([head])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        logits = self.seg_layers[0](x)
        return [logits] if self.deep_supervision else logits


def _rename_last_layer(network: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Checkpoints of version 0.1.0 have the last layer under its published name."""
    for name in ("weight", "bias"):
        old = f"{prefix}vmunet.final_conv.{name}"
        if old in state_dict:
            state_dict.setdefault(f"{prefix}decoder.seg_layers.0.{name}", state_dict.pop(old))


def _split(values: Sequence[float], counts: Sequence[int]) -> list[Sequence[float]]:
    """`values` in consecutive pieces of the lengths `counts`."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _check_stages(
    depths: Sequence[int], depths_decoder: Sequence[int], dims: Sequence[int], dims_decoder: Sequence[int]
) -> None:
    stages = {len(depths), len(depths_decoder), len(dims), len(dims_decoder)}
    if len(stages) > 1:
        raise ValueError(
            f"depths={tuple(depths)}, depths_decoder={tuple(depths_decoder)}, dims={tuple(dims)}, "
            f"dims_decoder={tuple(dims_decoder)}: expected one entry per stage in each."
        )
    if any(wide != 2 * narrow for narrow, wide in zip(dims, dims[1:], strict=False)):
        raise ValueError(f"dims={tuple(dims)}: merging doubles the channels, so each has to be twice the one before.")
    if dims[0] % 4:
        raise ValueError(f"dims={tuple(dims)}: the last expansion is by 4, so the first has to be a multiple of 4.")
    if tuple(dims_decoder) != tuple(dims[::-1]):
        raise ValueError(f"dims_decoder={tuple(dims_decoder)} has to be dims reversed, {tuple(dims[::-1])}.")
