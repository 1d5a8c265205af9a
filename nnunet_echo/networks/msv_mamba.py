"""MSV-Mamba (Yang et al. 2025, arXiv 2501.07120), two-dimensional: an unofficial reconstruction.

No code is public, and no page that states layers or sizes. Established, from the abstract and a summary of the paper:
a U-shape, an encoder of residual blocks, "large-window multiscale Mamba" (LMS) blocks in the decoder, "multiscale
attention aggregation" over channels and space, an auxiliary loss for each decoder layer. Those are the parts of CM-UNet
(Liu et al. 2024, arXiv 2405.10530) with windows as in LKM-UNet (arXiv 2403.07332), so the rest follows these two:

- encoder: nnU-Net's residual encoder with the plan's stages;
- skip connections: CM-UNet's aggregation, here over the three levels nearest to each (`layers.msaa`); the deepest map
  stays as it is;
- decoder stage: transposed convolution, concatenation, 1 x 1 convolution, `layers.lms.LMSBlock`, residual convolutions;
- windows: LKM-UNet's, 40 to 5 tokens from the finest stage to the coarsest;
- auxiliary losses: nnU-Net's deep supervision, or CM-UNet's (`aux_mode="cm_unet"`): logits of every stage brought to
  full size, weight 0.4 each.

The published scores belong to the authors' network. None is claimed for this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, cat, nn

from nnunet_echo.layers.lms import SCANS, LMSBlock
from nnunet_echo.layers.msaa import SkipFusion, resize
from nnunet_echo.networks.base import UNet
from nnunet_echo.networks.lkm_unet import windows_of
from nnunet_echo.networks.plan import UNetShape

AUX_MODES = ("deep_supervision", "cm_unet", "none")
AUX_WEIGHT = 0.4  # of each auxiliary loss with "cm_unet"


class MSVMamba(UNet):
    """An unofficial reconstruction of MSV-Mamba; the module's docstring has what is established and what is not.

    `lms`, `msaa` switch the scan's blocks and the fusion of skip connections off for ablations, `aux_mode` the
    auxiliary losses ("deep_supervision", "cm_unet" or "none"). `window_sizes` sets the windows per decoder stage,
    finest first, each an int or one int per axis (None: LKM-UNet's); `scales`, `scan` ("ss2d" or "bi") and `csm_gate`
    are those of `layers.lms.LMS`. With ``lms=False`` these count for nothing.

    >>> import torch
    >>> network = MSVMamba(UNetShape(1, 4, (8, 16), 3, ((1, 1), (2, 2)), 1, 1), window_sizes=(5,))
    >>> network(torch.zeros(1, 1, 30, 40)).shape
    torch.Size([1, 4, 30, 40])
    """

    def __init__(
        self,
        shape: UNetShape,
        deep_supervision: bool = False,
        lms: bool = True,
        msaa: bool = True,
        aux_mode: str = "deep_supervision",
        window_sizes: Sequence[int | Sequence[int]] | None = None,
        scales: Sequence[int] = (1, 2, 4),
        scan: str = "ss2d",
        csm_gate: bool = True,
        d_state: int = 16,
    ) -> None:
        if shape.dim != 2:
            raise ValueError(f"strides={shape.strides}: MSV-Mamba is 2D.")
        for name, value, known in (("aux_mode", aux_mode, AUX_MODES), ("scan", scan, tuple(SCANS))):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected one of {known}.")
        if not isinstance(scales, Sequence) or not scales or any(isinstance(r, Sequence) for r in scales):
            raise ValueError(f"scales={scales!r}: expected the factors that the map is pooled by, such as (1, 2, 4).")
        encoder = ResidualEncoder(
            shape.in_channels,
            shape.n_stages,
            shape.features_per_stage,
            kernel_sizes=shape.kernel_sizes,
            strides=shape.strides,
            n_blocks_per_stage=shape.n_conv_per_stage,
            return_skips=True,
            **shape.block_arguments(),
        )
        options = {"scales": scales, "scan": scan, "csm_gate": csm_gate, "d_state": d_state}
        windows = windows_of(shape, window_sizes, shape.n_stages - 1) if lms else None
        super().__init__(encoder, Decoder(shape, deep_supervision, msaa, aux_mode, windows, options), shape.strides)
        if aux_mode == "cm_unet":
            stages = shape.n_stages - 1
            self.deep_supervision_strides = ((1, 1),) * stages
            self.deep_supervision_weights = (1.0, *(AUX_WEIGHT,) * (stages - 1))
        elif aux_mode == "none":
            self.deep_supervision_strides = ((1, 1),)
        self.apply(InitWeights_He(1e-2))


class Decoder(nn.Module):
    """From the encoder's maps to logits; nnU-Net toggles `deep_supervision`."""

    def __init__(
        self,
        shape: UNetShape,
        deep_supervision: bool,
        msaa: bool,
        aux_mode: str,
        windows: Sequence[Sequence[int]] | None,
        options: dict[str, object],
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.full_size = aux_mode == "cm_unet"
        features = shape.features_per_stage
        self.fusion = SkipFusion(features[:-1]) if msaa else nn.Identity()
        self.stages = nn.ModuleList()
        for s in reversed(range(shape.n_stages - 1)):
            block = nn.Identity() if windows is None else LMSBlock(features[s], windows[s], **options)
            self.stages.append(DecoderStage(shape, s, block))
        # Auxiliary heads always, whatever the flag says, so that the keys do not depend on it.
        with_head = range(len(self.stages)) if aux_mode != "none" else [len(self.stages) - 1]
        self.seg_layers = nn.ModuleList(nn.Conv2d(features[-2 - k], shape.num_classes, 1) for k in with_head)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        x, skips, outputs = maps[-1], self.fusion(maps[:-1]), []
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
            outputs.append(x)
        if not self.deep_supervision:
            return self.seg_layers[-1](x)
        logits = [head(y) for head, y in zip(self.seg_layers, outputs[-len(self.seg_layers) :], strict=True)][::-1]
        return [resize(y, x.shape[2:]) for y in logits] if self.full_size else logits


class DecoderStage(nn.Module):
    """Up to the resolution of encoder stage `stage`, with its skip connection, the `block` of the scan, convolutions.

    The plan's number of convolutions makes half as many residual blocks, at least one.
    """

    def __init__(self, shape: UNetShape, stage: int, block: nn.Module) -> None:
        super().__init__()
        here, below = shape.features_per_stage[stage : stage + 2]
        height, width = shape.strides[stage + 1]
        stride = (height, width)
        self.up = nn.ConvTranspose2d(below, here, stride, stride)
        self.merge = nn.Conv2d(2 * here, here, 1)
        self.block = block
        arguments = shape.block_arguments()
        conv_op = arguments.pop("conv_op")
        blocks = max(1, shape.n_conv_per_stage_decoder[-1 - stage] // 2)
        kernel = shape.kernel_sizes[stage]
        self.convolutions = nn.Sequential(
            *(BasicBlockD(conv_op, here, here, kernel, 1, **arguments) for _ in range(blocks))
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(self.block(self.merge(cat((self.up(x), skip), dim=1))))
