"""The unofficial reconstruction of MSV-Mamba (Yang et al. 2025, arXiv 2501.07120) with plain skip connections.

Ablation: what their fusion adds is the difference to nnUNetTrainerMSVMamba.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerMSVMambaNoMSAA(EchoTrainer):
    network_path = "msv_mamba"
    network_options = {"msaa": False}


__getattr__ = other_lengths(nnUNetTrainerMSVMambaNoMSAA)
