"""Vision-LSTM, version 1 (Alkin et al. 2024, arXiv 2406.04303), as encoder of a U-Net; see `TokenTrainer`."""

from nnunet_echo.training.trainer import TokenTrainer, other_lengths


class nnUNetTrainerViL(TokenTrainer):
    network_path = "vil"


__getattr__ = other_lengths(nnUNetTrainerViL)
