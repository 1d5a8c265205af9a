"""Vision-LSTM, version 2 (Alkin et al. 2024, arXiv 2406.04303), as encoder of a U-Net; see `TokenTrainer`."""

from nnunet_echo.training.trainer import TokenTrainer, other_lengths


class nnUNetTrainerViL2(TokenTrainer):
    network_path = "vil2"


__getattr__ = other_lengths(nnUNetTrainerViL2)
