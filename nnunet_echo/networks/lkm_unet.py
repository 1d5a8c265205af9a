"""LKM-UNet (Wang et al. 2024, arXiv 2403.07332): residual U-Net with large-kernel bidirectional Mamba in its encoder.

Behind every encoder stage stand, each with a residual connection:

- PiM, the pixel-level SSM: the map is cut into windows ("kernels"), Mamba scans the pixels of each window;
- PaM, the patch-level SSM: the map is pooled, Mamba scans the pooled pixels, the result is spread over its patch again.

Both scan in two directions (BiM). With q = 2**((n_stages - s + 1) // 2 - 1) at stage s of n_stages the windows are 5 q
wide in 2D, which for 7 stages is the paper's 40, 20, 20, 10, 10, 5, 5, and (5 q, 7 q, 6 q) in 3D.

Where the paper and the published code differ, `window_mode` decides:

==========  ==============================================  ====================================================
            "paper" (default)                               "released"
==========  ==============================================  ====================================================
PiM         windows of neighbouring pixels; windows larger  every (5 q)-th pixel is one sequence (a dilated grid);
            than the map are clipped to it, the last ones   where the map is not a multiple of 5 q, one sequence
            are padded with zeros                           over the whole map
PaM         one token per window of PiM; patches at the     patches of q pixels; where the map is no multiple of
            border average the pixels they have             q, no pooling
==========  ==============================================  ====================================================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_residual_decoder import UNetResDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunet_echo.layers.mamba import BiMamba
from nnunet_echo.layers.windows import crop_to, merge_windows, partition_windows, to_image, to_tokens
from nnunet_echo.networks.base import MixedEncoder, UNet
from nnunet_echo.networks.plan import UNetShape

WINDOW_MODES = ("paper", "released")


class LKMUNet(UNet):
    """LKM-UNet, 2D or 3D as `shape` says; the module's docstring has the details.

    `window_sizes` sets the windows of PiM per stage, finest first, each an int or one int per axis (None: the paper's);
    `pixel_level`, `patch_level` and `bidirectional` switch PiM, PaM and the second direction off for ablations.
    """

    def __init__(
        self,
        shape: UNetShape,
        deep_supervision: bool = False,
        window_mode: str = "paper",
        window_sizes: Sequence[int | Sequence[int]] | None = None,
        pixel_level: bool = True,
        patch_level: bool = True,
        bidirectional: bool = True,
    ) -> None:
        if window_mode not in WINDOW_MODES:
            raise ValueError(f"window_mode={window_mode!r}: expected one of {WINDOW_MODES}.")
        windows = windows_of(shape, window_sizes, shape.n_stages)
        released = window_mode == "released"
        mixers = []
        for s, (features, window) in enumerate(zip(shape.features_per_stage, windows, strict=True)):
            patch = (_scale(shape.n_stages, s),) * shape.dim if released else window
            levels: OrderedDict[str, nn.Module] = OrderedDict()
            if pixel_level:
                levels["pim"] = PixelLevelSSM(features, window, released, bidirectional)
            if patch_level:
                levels["pam"] = PatchLevelSSM(features, patch, released, bidirectional)
            mixers.append(nn.Sequential(levels))
        convolutions = ResidualEncoder(
            shape.in_channels,
            shape.n_stages,
            shape.features_per_stage,
            kernel_sizes=shape.kernel_sizes,
            strides=shape.strides,
            n_blocks_per_stage=shape.n_conv_per_stage,
            **shape.block_arguments(),
        )
        decoder = UNetResDecoder(convolutions, shape.num_classes, shape.n_conv_per_stage_decoder, deep_supervision)
        del decoder.encoder  # it keeps the encoder it was built for, which would list its weights twice
        super().__init__(MixedEncoder(convolutions.stem, convolutions.stages, mixers), decoder, shape.strides)
        # No residual branch starts at zero, as nnU-Net's residual encoders do: with residual blocks in the decoder too,
        # nothing but 1x1 convolutions would be left at the start, and learning begins hundreds of iterations later.
        self.apply(InitWeights_He(1e-2))


class PixelLevelSSM(BiMamba):
    """PiM: (B, C, *S) plus Mamba over the pixels of each window, (B, C, *S)."""

    def __init__(self, dim: int, window: Sequence[int], released: bool = False, bidirectional: bool = True) -> None:
        super().__init__(dim, bidirectional=bidirectional)
        self.norm = nn.LayerNorm(dim)
        self.window = tuple(window)
        self.released = released

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        window = tuple(min(w, n) for w, n in zip(self.window, size, strict=True))
        if self.released:
            divisible = not any(n % w for n, w in zip(size, self.window, strict=True))
            window = self.window if divisible else (1,) * len(size)
        windows = partition_windows(x, window, strided=self.released)
        tokens = super().forward(self.norm(to_tokens(windows)))
        return x + merge_windows(to_image(tokens, windows.shape[2:]), size, strided=self.released)


class PatchLevelSSM(BiMamba):
    """PaM: (B, C, *S) plus Mamba over the averages of its patches, spread over each patch, (B, C, *S)."""

    def __init__(self, dim: int, patch: Sequence[int], released: bool = False, bidirectional: bool = True) -> None:
        super().__init__(dim, bidirectional=bidirectional)
        self.norm = nn.LayerNorm(dim)
        self.patch = tuple(patch)
        self.released = released

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        patch = tuple(min(p, n) for p, n in zip(self.patch, size, strict=True))
        if self.released and any(n % p for n, p in zip(size, self.patch, strict=True)):
            patch = (1,) * len(size)
        pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
        # There is no padding to count, but told to, torch.compile makes wrong gradients (pytorch/pytorch#198119).
        pooled = pool(x, patch, patch, ceil_mode=True, count_include_pad=False)
        tokens = super().forward(self.norm(to_tokens(pooled)))
        spread = to_image(tokens, pooled.shape[2:])
        for axis, n in enumerate(patch, start=2):
            spread = spread.repeat_interleave(n, dim=axis)
        return x + crop_to(spread, size)


def _scale(n_stages: int, stage: int) -> int:
    """q of the module's docstring."""
    return 2 ** ((n_stages - stage + 1) // 2 - 1)


def windows_of(
    shape: UNetShape, window_sizes: Sequence[int | Sequence[int]] | None, stages: int
) -> list[tuple[int, ...]]:
    """Window per stage, one int per axis, of the finest `stages`: as asked for, None for those of PiM in the paper."""
    if window_sizes is None:
        unit = (5, 5) if shape.dim == 2 else (5, 7, 6)
        return [tuple(n * _scale(shape.n_stages, s) for n in unit) for s in range(stages)]
    windows = [(k,) * shape.dim if isinstance(k, int) else tuple(k) for k in window_sizes]
    if len(windows) != stages or any(len(w) != shape.dim or min(w) < 1 for w in windows):
        raise ValueError(
            f"window_sizes={window_sizes}: expected {stages} windows, one per stage, each a positive int "
            f"or {shape.dim} of them."
        )
    return windows
