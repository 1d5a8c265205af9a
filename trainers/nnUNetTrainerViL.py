"""Vision-LSTM, version 1 (Alkin et al. 2024, arXiv 2406.04303), as encoder of a U-Net; see `TokenTrainer`."""

from nnunet_echo.trainer import TokenTrainer, other_lengths


class nnUNetTrainerViL(TokenTrainer):
    network_path = "nnunet_echo.networks.vision_lstm:ViLUNet"


__getattr__ = other_lengths(nnUNetTrainerViL)
