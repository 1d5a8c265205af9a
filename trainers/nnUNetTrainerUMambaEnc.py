"""U-Mamba with Mamba blocks in the encoder (Ma et al. 2024, arXiv 2401.04722), trained like nnU-Net's U-Net."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerUMambaEnc(EchoTrainer):
    network_path = "umamba_enc"


__getattr__ = other_lengths(nnUNetTrainerUMambaEnc)
