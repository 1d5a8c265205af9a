"""U-Mamba without its Mamba blocks: the control that shows what they add. Trained like nnU-Net's U-Net."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerNoMamba(EchoTrainer):
    network_path = "no_mamba"


__getattr__ = other_lengths(nnUNetTrainerNoMamba)
