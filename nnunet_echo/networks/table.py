"""The table of networks: `NETWORKS` has one row for each. Without PyTorch until a row's class is loaded."""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_echo.networks.base import AnySize

EXTRAS = {"baselines": "monai"}  # of the package: what it installs


def why_no_extra(extra: str) -> str | None:
    """Why what an extra installs cannot be used here, to be said after a name; None if it can, and without an extra.

    >>> why_no_extra("")
    """
    package = EXTRAS.get(extra)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"needs {package}, which is not installed: pip install 'nnunet-echo[{extra}]'"


@dataclass(frozen=True)
class Network:
    """One row of the table.

    `path` is ``module:Class``; `title` the name in print; `paper` its number on arXiv; `trainer` the trainer that comes
    with it; `dims` the numbers of axes of space that it has a form for; `scan` whether it has a selective scan; `toy`
    options that make it small enough for a test with patches of (32, 48) or (4, 32, 32). `variants` are more trainers
    of it, with other options, each with what is different; `extra` is the extra of this package that it needs. For the
    table of networks in the documentation: `follows` says what it computes, the paper, the released code or something
    of ours; `code` is that code, in a repository on GitHub, `licence` its licence, and `pretrained` the released
    weights that `load_pretrained` reads.

    >>> NETWORKS["lkm_unet"].title, NETWORKS["lkm_unet"].dims
    ('LKM-UNet', (2, 3))
    >>> NETWORKS["lkm_unet"].load().__name__
    'LKMUNet'
    """

    path: str
    title: str
    paper: str
    trainer: str
    dims: tuple[int, ...] = (2,)
    scan: bool = False
    toy: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    extra: str = ""
    follows: str = ""
    code: str = ""
    licence: str = ""
    pretrained: str = ""

    @property
    def trainers(self) -> dict[str, str]:
        """All trainers that come with it, each with its title in print."""
        return {self.trainer: self.title, **{name: f"{self.title}, {what}" for name, what in self.variants.items()}}

    def why_not(self) -> str | None:
        """Why it cannot be built here, to be said after its name; None if it can."""
        return why_no_extra(self.extra)

    def load(self) -> type[AnySize]:
        """The class. Its module, and PyTorch, are imported now."""
        return pkgutil.resolve_name(self.path)


_TOY_U_NET = {"features_per_stage": (6, 8, 12, 100), "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}
_TOY_VM_UNET = {"dims": 16, "depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1), "drop_path_rate": 0.0}
_TOY_NNFORMER = {"dim": 16, "depths": (2, 2, 2), "num_heads": (2, 4, 4), "window_sizes": (4, 3, 2), "drop_path_rate": 0}
_TOY_VIL = {"dim": 32, "depth": 4, "features": (8, 8, 16, 16)}
_TOY_SAMUS = {
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
    "global_attn_indexes": (1, 2),
    "window_size": 4,
    "decoder_dim": 32,
    "decoder_mlp_dim": 48,
    "grid": "native",
}

# What a network follows, for rows that have it in common.
_RELEASED: dict[str, Any] = {"follows": "the released code"}
_UMAMBA: dict[str, Any] = {"code": "bowang-lab/U-Mamba", "licence": "Apache-2.0"}
_XLSTM_UNET: dict[str, Any] = {"code": "tianrun-chen/xLSTM-UNet-PyTorch", "licence": "Apache-2.0, a part AGPL-3.0"}
_VIL: dict[str, Any] = {
    "follows": "the released code as encoder; the decoder is ours",
    "code": "NX-AI/vision-lstm",
    "licence": "MIT, parts Apache-2.0",
    "pretrained": "its own, of ImageNet",
}
_SAMUS: dict[str, Any] = {"code": "xianlin7/SAMUS", "licence": "MIT, parts Apache-2.0", "pretrained": "SAM's, SAMUS's"}
_MONAI: dict[str, Any] = {
    "dims": (2, 3),
    "extra": "baselines",
    "follows": "MONAI's, by import",
    "code": "Project-MONAI/MONAI",
    "licence": "Apache-2.0",
}

NETWORKS: dict[str, Network] = {
    "lkm_unet": Network(
        "nnunet_echo.networks.lkm_unet:LKMUNet",
        "LKM-UNet",
        "2403.07332",
        "nnUNetTrainerLKMUNet",
        dims=(2, 3),
        scan=True,
        toy={**_TOY_U_NET, "window_sizes": (5, 5, 3, 3)},
        follows="the paper; with `window_mode` the released code",
        code="wjh892521292/LKM-UNet",
        licence="Apache-2.0",
    ),
    "umamba_bot": Network(
        "nnunet_echo.networks.u_mamba:UMambaBot",
        "U-Mamba Bot",
        "2401.04722",
        "nnUNetTrainerUMambaBot",
        dims=(2, 3),
        scan=True,
        toy=_TOY_U_NET,
        **_RELEASED,
        **_UMAMBA,
    ),
    "umamba_enc": Network(
        "nnunet_echo.networks.u_mamba:UMambaEnc",
        "U-Mamba Enc",
        "2401.04722",
        "nnUNetTrainerUMambaEnc",
        dims=(2, 3),
        scan=True,
        toy=_TOY_U_NET,
        **_RELEASED,
        **_UMAMBA,
    ),
    "no_mamba": Network(
        "nnunet_echo.networks.u_mamba:NoMamba",
        "U-Mamba without its Mamba layers",
        "2404.09556",
        "nnUNetTrainerNoMamba",
        dims=(2, 3),
        toy=_TOY_U_NET,
        follows="U-Mamba's released code, without its Mamba layers",
        **_UMAMBA,
    ),
    "xlstm_unet_bot": Network(
        "nnunet_echo.networks.xlstm_unet:XLSTMUNetBot",
        "xLSTM-UNet Bot",
        "2407.01530",
        "nnUNetTrainerXLSTMUNetBot",
        dims=(2, 3),
        toy=_TOY_U_NET,
        **_RELEASED,
        **_XLSTM_UNET,
    ),
    "xlstm_unet_enc": Network(
        "nnunet_echo.networks.xlstm_unet:XLSTMUNetEnc",
        "xLSTM-UNet Enc",
        "2407.01530",
        "nnUNetTrainerXLSTMUNetEnc",
        dims=(2, 3),
        toy=_TOY_U_NET,
        **_RELEASED,
        **_XLSTM_UNET,
    ),
    "msv_mamba": Network(
        "nnunet_echo.networks.msv_mamba:MSVMamba",
        "MSV-Mamba (unofficial reconstruction)",
        "2501.07120",
        "nnUNetTrainerMSVMamba",
        scan=True,
        toy={**_TOY_U_NET, "features_per_stage": (32, 32, 48, 64), "window_sizes": (5, 5, 3), "d_state": 4},
        variants={
            "nnUNetTrainerMSVMambaNoLMS": "without its large-window blocks",
            "nnUNetTrainerMSVMambaNoMSAA": "without the fusion of skip connections",
            "nnUNetTrainerMSVMambaNoAux": "without auxiliary losses",
        },
        follows="an abstract; the rest is inferred, with parts of CM-UNet",
        code="XiaoBuL/CM-UNet",
        licence="GPL-3.0; of MSV-Mamba no code is public",
    ),
    "nnformer": Network(
        "nnunet_echo.networks.nnformer:NNFormer",
        "nnFormer",
        "2109.03201",
        "nnUNetTrainerNNFormer",
        dims=(3,),
        toy=_TOY_NNFORMER,
        follows="the paper; with `relative_index` the released code",
        code="282857341/nnFormer",
        licence="MIT",
    ),
    "vm_unet": Network(
        "nnunet_echo.networks.vm_unet:VMUNet",
        "VM-UNet",
        "2402.02491",
        "nnUNetTrainerVMUNet",
        scan=True,
        toy=_TOY_VM_UNET,
        **_RELEASED,
        code="JCruan519/VM-UNet",
        licence="Apache-2.0",
        pretrained="VMamba's v0, of ImageNet",
    ),
    "vil": Network(
        "nnunet_echo.networks.vil.unet:ViLUNet",
        "Vision-LSTM 1",
        "2406.04303",
        "nnUNetTrainerViL",
        toy=_TOY_VIL,
        variants={"nnUNetTrainerViLsLSTM": "three of its blocks sLSTM"},
        **_VIL,
    ),
    "vil2": Network(
        "nnunet_echo.networks.vil.unet:ViL2UNet",
        "Vision-LSTM 2",
        "2406.04303",
        "nnUNetTrainerViL2",
        toy=_TOY_VIL,
        **_VIL,
    ),
    "samus": Network(
        "nnunet_echo.networks.samus.network:SAMUS",
        "SAMUS",
        "2309.06824",
        "nnUNetTrainerSAMUS",
        toy=_TOY_SAMUS,
        follows="the released code, with a learned token in place of the click",
        **_SAMUS,
    ),
    "samus_tra_lia": Network(
        "nnunet_echo.networks.samus.tra_lia:SAMUSTRALIA",
        "SAMUS with TRA and LIA",
        "2309.06824",
        "nnUNetTrainerSAMUSTRALIA",
        dims=(2, 3),
        toy=_TOY_SAMUS,
        follows="SAMUS; TRA and LIA are inferred from the paper",
        **_SAMUS,
    ),
    "segresnet": Network(
        "nnunet_echo.networks.monai:SegResNet",
        "SegResNet",
        "1810.11654",
        "nnUNetTrainerSegResNet",
        toy={"init_filters": 16, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)},
        **_MONAI,
    ),
    "segresnet_ds": Network(
        "nnunet_echo.networks.monai:SegResNetDS",
        "SegResNetDS",
        "1810.11654",
        "nnUNetTrainerSegResNetDS",
        toy={"init_filters": 8, "blocks_down": (1, 1, 1)},
        **_MONAI,
    ),
    "unetr": Network(
        "nnunet_echo.networks.monai:UNETR",
        "UNETR",
        "2103.10504",
        "nnUNetTrainerUNETR",
        toy={"feature_size": 8, "hidden_size": 48, "mlp_dim": 48, "num_heads": 2},
        **_MONAI,
    ),
    "swin_unetr": Network(
        "nnunet_echo.networks.monai:SwinUNETR",
        "SwinUNETR",
        "2201.01266",
        "nnUNetTrainerSwinUNETR",
        toy={"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 4},
        **_MONAI,
    ),
    "mednext": Network(
        "nnunet_echo.networks.monai:MedNeXt",
        "MedNeXt",
        "2303.09975",
        "nnUNetTrainerMedNeXt",
        toy={"init_filters": 4},
        **_MONAI,
    ),
}


def title_of(trainer: str) -> str:
    """What a trainer that comes with a network trains, in print; "" for one that does not. Its length does not matter.

    >>> title_of("nnUNetTrainerMSVMamba_50epochs")
    'MSV-Mamba (unofficial reconstruction)'
    """
    name = trainer.partition("_")[0]
    return next((row.trainers[name] for row in NETWORKS.values() if name in row.trainers), "")
