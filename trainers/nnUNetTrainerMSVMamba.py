"""MSV-Mamba (Yang et al. 2025, arXiv 2501.07120), an unofficial reconstruction.

No code is public; networks/msv_mamba.py says what is established and what is inferred. Trained like nnU-Net's U-Net,
since how the authors trained is unknown: their scores are not claimed.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerMSVMamba(EchoTrainer):
    network_path = "msv_mamba"


__getattr__ = other_lengths(nnUNetTrainerMSVMamba)
