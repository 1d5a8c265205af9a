"""Networks of MONAI (Apache-2.0) as baselines, by import; MONAI comes with the extra ``nnunet-echo[baselines]``.

Each is MONAI's own module, without its last layers, which stand in `decoder` for nnU-Net to find. The input is padded
inside to what the network divides, so that all networks see the same patches, those of the plan. Deep supervision is
where the network has it. Papers: SegResNet 1810.11654, UNETR 2103.10504, SwinUNETR 2201.01266, MedNeXt 2303.09975, all
on arXiv; SegResNetDS is the network of MONAI's Auto3DSeg.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from nnunet_echo.layers.windows import merge_windows, partition_windows
from nnunet_echo.networks.base import AnySize, halving_weights, pad_for_instance_norm
from nnunet_echo.networks.table import why_no_extra


class MonaiNetwork(AnySize):
    """(B, in_channels, *S) of any size -> logits (B, num_classes, *S), or a list of them, finest first.

    `net` is MONAI's module, which returns features, one map or several, finest first, since its last layers are now
    `heads`, one for each map; `strides` are those of the maps, and `multiple` what each axis of its input is a multiple
    of. Maps whose stride does not divide the patch are not supervised: nnU-Net has no target of their size.
    """

    def __init__(
        self,
        net: nn.Module,
        heads: Iterable[nn.Module],
        patch_size: Sequence[int],
        multiple: Sequence[int],
        strides: Sequence[int] = (1,),
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        dividing = [stride for stride in strides if all(n % stride == 0 for n in patch_size)]
        self.decoder = Heads(list(heads)[: len(dividing)], deep_supervision)
        self.size_multiple = tuple(multiple)
        self.deep_supervision_strides = tuple((stride,) * len(patch_size) for stride in dividing)

    def train(self, mode: bool = True) -> MonaiNetwork:
        super().train(mode)
        self.net.training = True  # of that module alone: in evaluation MONAI's would return one map of several
        return self

    def pad(self, x: Tensor) -> Tensor:
        return pad_for_instance_norm(super().pad(x), self.size_multiple)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        features = self.net(x)
        return self.decoder([features] if isinstance(features, Tensor) else features)


class Heads(nn.Module):
    """The last layers: features, finest first, to logits of all, or, without deep supervision, of the finest alone."""

    def __init__(self, heads: Iterable[nn.Module], deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, features: Sequence[Tensor]) -> Tensor | list[Tensor]:
        if not self.deep_supervision:
            return self.seg_layers[0](features[0])
        return [head(x) for head, x in zip(self.seg_layers, features, strict=False)]  # coarser ones may have none


class SegResNet(MonaiNetwork):
    """Residual U-Net with additive skips (Myronenko 2018, arXiv 1810.11654), without its variational branch.

    `init_filters` is a multiple of 8, the number of groups of its norms. 32 of them are those of U-Mamba's comparison.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        init_filters: int = 32,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
        deep_supervision: bool = False,
    ) -> None:
        if len(blocks_up) != len(blocks_down) - 1:
            raise ValueError(
                f"blocks_up={tuple(blocks_up)}: expected {len(blocks_down) - 1} entries, as blocks_down - 1."
            )
        if init_filters % 8:
            raise ValueError(f"init_filters={init_filters}: expected a multiple of 8, the groups of its norms.")
        net = _of_monai("SegResNet")(
            spatial_dims=len(patch_size),
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=num_classes,
            blocks_down=tuple(blocks_down),
            blocks_up=tuple(blocks_up),
        )
        head, net.conv_final[-1] = net.conv_final[-1], nn.Identity()
        multiple = [2 ** (len(blocks_down) - 1)] * len(patch_size)
        super().__init__(net, [head], patch_size, multiple, deep_supervision=deep_supervision)


class SegResNetDS(MonaiNetwork):
    """SegResNet with deep supervision at every resolution of its decoder and learnt upsampling, as in Auto3DSeg.

    With instance norm, as there; MONAI's default is batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        init_filters: int = 32,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        deep_supervision: bool = False,
    ) -> None:
        if len(blocks_down) < 2:
            raise ValueError(f"blocks_down={tuple(blocks_down)}: expected at least 2 resolutions.")
        levels = len(blocks_down) - 1
        net = _of_monai("SegResNetDS")(
            spatial_dims=len(patch_size),
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=num_classes,
            norm="instance",
            blocks_down=tuple(blocks_down),
            dsdepth=levels,
        )
        heads = [level["head"] for level in reversed(net.up_layers)]
        for level in net.up_layers:
            level["head"] = nn.Identity()
        strides = [2**level for level in range(levels)]
        super().__init__(net, heads, patch_size, [2**levels] * len(patch_size), strides, deep_supervision)


class MedNeXt(MonaiNetwork):
    """MedNeXt (Roy et al. 2023, arXiv 2303.09975): ConvNeXt blocks in a U-Net of five resolutions.

    `variant` is S, B, M or L of the paper. `kernel_size` 3 is what the paper trains first; its kernels of 5 start from
    the trained ones of 3, which is not done here. All outputs count in the loss, as in the released training code.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        variant: str = "S",
        kernel_size: int = 3,
        init_filters: int = 32,
        deep_supervision: bool = False,
    ) -> None:
        if variant not in _MEDNEXT:
            raise ValueError(f"variant={variant!r}: expected one of {', '.join(_MEDNEXT)}.")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number, so that maps keep their size.")
        expansion, blocks = _MEDNEXT[variant]
        net = _of_monai("MedNeXt")(
            spatial_dims=len(patch_size),
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=num_classes,
            kernel_size=kernel_size,
            deep_supervision=True,
            use_residual_connection=True,
            encoder_expansion_ratio=expansion[:4],
            bottleneck_expansion_ratio=expansion[4],
            decoder_expansion_ratio=expansion[3::-1],
            blocks_down=blocks[:4],
            blocks_bottleneck=blocks[4],
            blocks_up=blocks[3::-1],
        )
        heads = [net.out_0, *reversed(net.out_blocks)]
        net.out_0 = nn.Identity()
        net.out_blocks = nn.ModuleList(nn.Identity() for _ in net.out_blocks)
        multiple = [2 ** (len(heads) - 1)] * len(patch_size)
        super().__init__(net, heads, patch_size, multiple, [2**level for level in range(len(heads))], deep_supervision)
        self.deep_supervision_weights = halving_weights(len(self.deep_supervision_strides))


# Of a variant: expansion of the channels within a block, and number of blocks; the four resolutions of the encoder and
# the bottleneck. The decoder has those of the encoder, coarsest first (table 1 of the paper).
_MEDNEXT = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


class UNETR(MonaiNetwork):
    """A vision transformer of 12 layers and 16 pixels per token as encoder (Hatamizadeh et al. 2021, arXiv 2103.10504).

    Its positions are those of the patch, padded to a multiple of 16: a larger image goes through in tiles of that size.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        deep_supervision: bool = False,
    ) -> None:
        if hidden_size % num_heads:
            raise ValueError(f"num_heads={num_heads}: expected a divisor of hidden_size={hidden_size}.")
        tile = tuple(-(-int(n) // 16) * 16 for n in patch_size)
        net = _of_monai("UNETR")(
            in_channels=in_channels,
            out_channels=num_classes,
            img_size=tile,
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
            spatial_dims=len(tile),
        )
        for name, parameter in net.named_parameters():
            if "cross_attn" in name:  # MONAI makes norms for an attention that UNETR lacks; DDP waits for gradients
                parameter.requires_grad_(False)
        head, net.out = net.out, nn.Identity()
        super().__init__(net, [head], patch_size, tile, deep_supervision=deep_supervision)

    def pad(self, x: Tensor) -> Tensor:
        return AnySize.pad(self, x)  # no norm is left with a single pixel

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = tuple(x.shape[2:])
        if size == self.size_multiple:
            return super().padded_forward(x)
        features = self.net(partition_windows(x, self.size_multiple))
        return self.decoder([merge_windows(features, size)])


class SwinUNETR(MonaiNetwork):
    """A Swin transformer as encoder of a U-Net (Hatamizadeh et al. 2022, arXiv 2201.01266).

    `feature_size` is a multiple of 12; 48, here as in U-Mamba's comparison, is the size of the paper.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        deep_supervision: bool = False,
    ) -> None:
        if len(depths) != 4 or len(num_heads) != 4:
            raise ValueError(f"depths={tuple(depths)}, num_heads={tuple(num_heads)}: expected 4 entries in each.")
        if feature_size % 12:
            raise ValueError(f"feature_size={feature_size}: expected a multiple of 12, such as 48.")
        features = [feature_size * 2**level for level in range(4)]
        if any(width % heads for width, heads in zip(features, num_heads, strict=True)):
            raise ValueError(f"num_heads={tuple(num_heads)}: expected divisors of {features}, the widths.")
        net = _of_monai("SwinUNETR")(
            in_channels=in_channels,
            out_channels=num_classes,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            spatial_dims=len(patch_size),
        )
        net._check_input_size = _fits  # MONAI's check breaks the graph of torch.compile; what is padded passes it
        head, net.out = net.out, nn.Identity()
        super().__init__(net, [head], patch_size, [32] * len(patch_size), deep_supervision=deep_supervision)


def _fits(shape: Sequence[int]) -> None:
    """Any image does, since `MonaiNetwork` pads it."""


def _of_monai(name: str) -> Callable[..., Any]:
    """A class of MONAI's. Its import takes seconds, so that it waits until a network is built."""
    if reason := why_no_extra("baselines"):
        raise RuntimeError(f"{name} {reason}.")
    return getattr(importlib.import_module("monai.networks.nets"), name)
