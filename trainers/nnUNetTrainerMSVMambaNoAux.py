"""The unofficial reconstruction of MSV-Mamba (Yang et al. 2025, arXiv 2501.07120) without auxiliary losses.

Ablation: what they add is the difference to nnUNetTrainerMSVMamba.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerMSVMambaNoAux(EchoTrainer):
    network_path = "msv_mamba"
    network_options = {"aux_mode": "none"}
    enable_deep_supervision = False


__getattr__ = other_lengths(nnUNetTrainerMSVMambaNoAux)
