"""Segmentation with Vision-LSTM: one of its encoders and a convolutional decoder, two-dimensional.

The decoder is that of UNETR (Hatamizadeh et al. 2021, arXiv 2103.10504, figure 1). The encoder keeps one resolution,
the token's. Its features from evenly spaced depths are brought to the resolutions of a U-Net, the shallowest to the
finest: strides 2, 4, 8 and 16 for tokens of 16 pixels. A convolutional stem sees the image itself (stride 1), and a
U-Net decoder fuses them from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunet_echo.networks.base import AnySize
from nnunet_echo.networks.vil.encoder import DIRECTIONS, VisionLSTM, VisionLSTM2
from nnunet_echo.ops.instance_norm import InstanceNorm2d

TOKEN_SIZE = 16
_CONVOLUTION = {  # as in nnU-Net's plans
    "conv_op": nn.Conv2d,
    "conv_bias": True,
    "norm_op": InstanceNorm2d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


class TokenUNet(AnySize):
    """An encoder of tokens and the decoder: images (B, in_channels, H, W) to logits (B, num_classes, H, W).

    `features` are the decoder's channels at strides 1, 2, 4, ... up to half a token, four for tokens of 16 pixels;
    the encoder then needs at least four blocks.
    """

    def __init__(
        self,
        encoder: VisionLSTM | VisionLSTM2,
        dim: int,
        in_channels: int,
        num_classes: int,
        features: Sequence[int],
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        levels, depth = len(features), len(encoder.blocks)
        if depth < levels:
            raise ValueError(
                f"depth={depth}: the decoder takes features from {levels} depths and needs as many blocks."
            )
        self.depths = [(i + 1) * depth // levels for i in range(levels)]
        self.size_multiple = encoder.patch_size
        self.deep_supervision_strides = tuple((2**level, 2**level) for level in range(levels))
        self.encoder = encoder
        self.pyramid = TokenPyramid(in_channels, dim, features)
        # What the decoder reads from an encoder. Handed the encoder itself, it would list its parameters a second time.
        shape = SimpleNamespace(
            output_channels=[*features, dim],
            strides=[1] + [2] * levels,
            kernel_sizes=[3] * (levels + 1),
            **_CONVOLUTION,
        )
        self.decoder = UNetDecoder(shape, num_classes, n_conv_per_stage=2, deep_supervision=deep_supervision)
        for module in (self.pyramid, self.decoder):
            module.apply(InitWeights_He())

    @classmethod
    def from_plan(
        cls,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        architecture: dict[str, Any],
        deep_supervision: bool,
        **options: Any,
    ) -> TokenUNet:
        """The network of a 2d configuration: from the plan's `architecture` it takes the decoder's features, unless
        `options` has them. `options` are arguments of the constructor."""
        levels = _levels(options.get("token_size", TOKEN_SIZE))
        planned = list(architecture["features_per_stage"])
        features = (planned + planned[-1:] * levels)[:levels]
        arguments = {"features": features, "deep_supervision": deep_supervision, **options}
        build: Callable[..., TokenUNet] = cls  # a subclass makes the encoder
        return build(in_channels, num_classes, patch_size, **arguments)

    def padded_forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.pyramid(x, self.encoder.features(x, self.depths)))


class ViLUNet(TokenUNet):
    """Vision-LSTM, version 1, as the encoder.

    `patch_size` (height, width) is the patch that the positions are learned for; other sizes get them resampled. A
    token is `token_size` x `token_size` pixels, a power of two. `dim`, `depth` and `directions` are the width, the
    number and the order of the blocks; `slstm_at` and `slstm_conv` make some of them sLSTM blocks (`VisionLSTM`).
    `legacy_norm` adds the norm that the ImageNet files have behind the last block.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        features: Sequence[int] = (32, 64, 128, 256),
        token_size: int = TOKEN_SIZE,
        dim: int = 192,
        depth: int = 24,
        directions: Sequence[str] = DIRECTIONS,
        slstm_at: Sequence[int] | None = None,
        slstm_conv: str = "causal1d",
        drop_path_rate: float = 0.0,
        legacy_norm: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        input_shape = _input_shape(in_channels, patch_size, token_size, features)
        encoder = VisionLSTM(
            dim,
            input_shape,
            token_size,
            depth,
            drop_path_rate,
            directions=directions,
            slstm_at=slstm_at,
            slstm_conv=slstm_conv,
            legacy_norm=legacy_norm,
        )
        super().__init__(encoder, dim, in_channels, num_classes, features, deep_supervision)


class ViL2UNet(TokenUNet):
    """Vision-LSTM, version 2, as the encoder.

    Arguments as of `ViLUNet`; `depth` counts pairs of blocks, `directions` is the order within a pair, `conv_kind`,
    `conv_kernel_size` and `slstm_at` are those of `VisionLSTM2`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        features: Sequence[int] = (32, 64, 128, 256),
        token_size: int = TOKEN_SIZE,
        dim: int = 192,
        depth: int = 12,
        directions: Sequence[str] = DIRECTIONS,
        conv_kind: str = "2d",
        conv_kernel_size: int = 3,
        slstm_at: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        legacy_norm: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        input_shape = _input_shape(in_channels, patch_size, token_size, features)
        encoder = VisionLSTM2(
            dim,
            input_shape,
            token_size,
            depth,
            drop_path_rate,
            conv_kind=conv_kind,
            conv_kernel_size=conv_kernel_size,
            directions=directions,
            slstm_at=slstm_at,
            legacy_norm=legacy_norm,
        )
        super().__init__(encoder, dim, in_channels, num_classes, features, deep_supervision)


class TokenPyramid(nn.Module):
    """Image and maps of tokens to the skip connections of a U-Net.

    The image (B, channels, H, W) and L maps of tokens (B, dim, H / 2**L, W / 2**L), shallowest first, become L + 1
    maps at strides 1, 2, ..., 2**L with the channels of `features`, finest first; the last is the deepest map of
    tokens itself.
    """

    def __init__(self, channels: int, dim: int, features: Sequence[int]) -> None:
        super().__init__()
        levels = len(features)
        self.stem = nn.Sequential(_convolution(channels, features[0]), _convolution(features[0], features[0]))
        self.lateral = nn.ModuleList()
        for level, width in enumerate(features[1:], start=1):
            steps = levels - level  # a step doubles the resolution
            self.lateral.append(nn.Sequential(*(_double(n, width) for n in [dim] + [width] * (steps - 1))))

    def forward(self, image: Tensor, tokens: Sequence[Tensor]) -> list[Tensor]:
        lateral = [layer(x) for layer, x in zip(self.lateral, tokens[:-1], strict=True)]
        return [self.stem(image), *lateral, tokens[-1]]


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return ConvDropoutNormReLU(input_channels=inputs, output_channels=outputs, kernel_size=3, stride=1, **_CONVOLUTION)


def _double(inputs: int, outputs: int) -> nn.Module:
    """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W)."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, 2), _convolution(outputs, outputs))


def _levels(token_size: int) -> int:
    """log2 of `token_size`, the number of resolutions above the tokens'."""
    if token_size < 2 or token_size & (token_size - 1):
        raise ValueError(
            f"token_size={token_size} has to be a power of two: the decoder doubles the resolution per step."
        )
    return token_size.bit_length() - 1


def _input_shape(
    channels: int, patch_size: Sequence[int], token_size: int, features: Sequence[int]
) -> tuple[int, int, int]:
    """(channels, height, width) of the padded input; checks the arguments that have to fit each other."""
    if len(features) != _levels(token_size):
        raise ValueError(
            f"features={tuple(features)}: token_size={token_size} needs {_levels(token_size)} numbers of channels, "
            "one for each of the strides 1, 2, 4, ... up to half a token."
        )
    height, width = (-(-n // token_size) * token_size for n in patch_size)
    return channels, height, width
