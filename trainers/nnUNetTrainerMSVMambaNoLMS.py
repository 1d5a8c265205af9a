"""The unofficial reconstruction of MSV-Mamba (Yang et al. 2025, arXiv 2501.07120) without the large-window blocks of
its decoder, scans and all.

Ablation: what they add is the difference to nnUNetTrainerMSVMamba.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerMSVMambaNoLMS(EchoTrainer):
    network_path = "msv_mamba"
    network_options = {"lms": False}


__getattr__ = other_lengths(nnUNetTrainerMSVMambaNoLMS)
