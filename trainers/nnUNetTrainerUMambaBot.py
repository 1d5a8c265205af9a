"""U-Mamba with a Mamba block at the bottleneck (Ma et al. 2024, arXiv 2401.04722), trained like nnU-Net's U-Net."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerUMambaBot(EchoTrainer):
    network_path = "umamba_bot"


__getattr__ = other_lengths(nnUNetTrainerUMambaBot)
