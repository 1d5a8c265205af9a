"""The table of networks: `NETWORKS` has one row for each. Without PyTorch until a row's class is loaded."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_echo.networks.base import AnySize


@dataclass(frozen=True)
class Network:
    """One row of the table.

    `path` is ``module:Class``; `title` the name in print; `paper` its number on arXiv; `trainer` the trainer that comes
    with it; `dims` the numbers of axes of space that it has a form for; `scan` whether it has a selective scan; `toy`
    options that make it small enough for a test with patches of (32, 48) or (4, 32, 32). `variants` are more trainers
    of it, with other options, each with what is different.

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

    @property
    def trainers(self) -> dict[str, str]:
        """All trainers that come with it, each with its title in print."""
        return {self.trainer: self.title, **{name: f"{self.title}, {what}" for name, what in self.variants.items()}}

    def load(self) -> type[AnySize]:
        """The class. Its module, and PyTorch, are imported now."""
        return pkgutil.resolve_name(self.path)


_TOY_U_NET = {"features_per_stage": (6, 8, 12, 100), "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}
_TOY_VM_UNET = {"dims": 16, "depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1), "drop_path_rate": 0.0}
_TOY_NNFORMER = {
    "dim": 16,
    "depths": (2, 2, 2),
    "num_heads": (2, 4, 4),
    "window_sizes": (4, 3, 2),
    "drop_path_rate": 0.0,
}
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

NETWORKS: dict[str, Network] = {
    "lkm_unet": Network(
        "nnunet_echo.networks.lkm_unet:LKMUNet",
        "LKM-UNet",
        "2403.07332",
        "nnUNetTrainerLKMUNet",
        dims=(2, 3),
        scan=True,
        toy={**_TOY_U_NET, "window_sizes": (5, 5, 3, 3)},
    ),
    "umamba_bot": Network(
        "nnunet_echo.networks.u_mamba:UMambaBot",
        "U-Mamba Bot",
        "2401.04722",
        "nnUNetTrainerUMambaBot",
        dims=(2, 3),
        scan=True,
        toy=_TOY_U_NET,
    ),
    "umamba_enc": Network(
        "nnunet_echo.networks.u_mamba:UMambaEnc",
        "U-Mamba Enc",
        "2401.04722",
        "nnUNetTrainerUMambaEnc",
        dims=(2, 3),
        scan=True,
        toy=_TOY_U_NET,
    ),
    "no_mamba": Network(
        "nnunet_echo.networks.u_mamba:NoMamba",
        "U-Mamba without its Mamba layers",
        "2404.09556",
        "nnUNetTrainerNoMamba",
        dims=(2, 3),
        toy=_TOY_U_NET,
    ),
    "xlstm_unet_bot": Network(
        "nnunet_echo.networks.xlstm_unet:XLSTMUNetBot",
        "xLSTM-UNet Bot",
        "2407.01530",
        "nnUNetTrainerXLSTMUNetBot",
        dims=(2, 3),
        toy=_TOY_U_NET,
    ),
    "xlstm_unet_enc": Network(
        "nnunet_echo.networks.xlstm_unet:XLSTMUNetEnc",
        "xLSTM-UNet Enc",
        "2407.01530",
        "nnUNetTrainerXLSTMUNetEnc",
        dims=(2, 3),
        toy=_TOY_U_NET,
    ),
    "msv_mamba": Network(
        "nnunet_echo.networks.msv_mamba:MSVMamba",
        "MSV-Mamba (unofficial reconstruction)",
        "2501.07120",
        "nnUNetTrainerMSVMamba",
        scan=True,
        toy={**_TOY_U_NET, "features_per_stage": (32, 32, 48, 64), "window_sizes": (5, 5, 3), "d_state": 4},
        variants={
            "nnUNetTrainerMSVMambaNoLMS": "without its scans",
            "nnUNetTrainerMSVMambaNoMSAA": "without the fusion of skip connections",
            "nnUNetTrainerMSVMambaNoAux": "without auxiliary losses",
        },
    ),
    "nnformer": Network(
        "nnunet_echo.networks.nnformer:NNFormer",
        "nnFormer",
        "2109.03201",
        "nnUNetTrainerNNFormer",
        dims=(3,),
        toy=_TOY_NNFORMER,
    ),
    "vm_unet": Network(
        "nnunet_echo.networks.vm_unet:VMUNet",
        "VM-UNet",
        "2402.02491",
        "nnUNetTrainerVMUNet",
        scan=True,
        toy=_TOY_VM_UNET,
    ),
    "vil": Network(
        "nnunet_echo.networks.vil.unet:ViLUNet",
        "Vision-LSTM 1",
        "2406.04303",
        "nnUNetTrainerViL",
        toy=_TOY_VIL,
        variants={"nnUNetTrainerViLsLSTM": "three of its blocks sLSTM"},
    ),
    "vil2": Network(
        "nnunet_echo.networks.vil.unet:ViL2UNet", "Vision-LSTM 2", "2406.04303", "nnUNetTrainerViL2", toy=_TOY_VIL
    ),
    "samus": Network(
        "nnunet_echo.networks.samus.network:SAMUS", "SAMUS", "2309.06824", "nnUNetTrainerSAMUS", toy=_TOY_SAMUS
    ),
    "samus_tra_lia": Network(
        "nnunet_echo.networks.samus.tra_lia:SAMUSTRALIA",
        "SAMUS with TRA and LIA",
        "2309.06824",
        "nnUNetTrainerSAMUSTRALIA",
        dims=(2, 3),
        toy=_TOY_SAMUS,
    ),
}


def title_of(trainer: str) -> str:
    """What a trainer that comes with a network trains, in print; "" for one that does not. Its length does not matter.

    >>> title_of("nnUNetTrainerMSVMamba_50epochs")
    'MSV-Mamba (unofficial reconstruction)'
    """
    name = trainer.partition("_")[0]
    return next((row.trainers[name] for row in NETWORKS.values() if name in row.trainers), "")
