"""Vision-LSTM, version 1, in which three of the 24 blocks are sLSTM blocks; trained as nnUNetTrainerViL.

That is xLSTM[7:1], the mixture of Beck et al. 2024 (arXiv 2405.04517), one sLSTM block in eight. Where they stand is
ours, in the middle of each eight, and in both reading directions: no released Vision-LSTM has any.
"""

from nnunet_echo.training.trainer import TokenTrainer, other_lengths


class nnUNetTrainerViLsLSTM(TokenTrainer):
    network_path = "vil"
    network_options = {"slstm_at": (3, 12, 19)}


__getattr__ = other_lengths(nnUNetTrainerViLsLSTM)
