"""xLSTM-UNet with one Vision-LSTM block, at the bottleneck (Chen et al. 2024, arXiv 2407.01530).

The released trainer has a rate of its own and 4000 epochs; here it is trained like nnU-Net's U-Net, as U-Mamba is.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerXLSTMUNetBot(EchoTrainer):
    network_path = "xlstm_unet_bot"


__getattr__ = other_lengths(nnUNetTrainerXLSTMUNetBot)
