"""U-Mamba with a Mamba block at the bottleneck (Ma et al. 2024, arXiv 2401.04722), trained like nnU-Net's U-Net."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerUMambaBot(EchoTrainer):
    network_path = "nnunet_echo.networks.u_mamba:UMambaBot"


__getattr__ = other_lengths(nnUNetTrainerUMambaBot)
