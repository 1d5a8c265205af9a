"""nnFormer (Zhou et al. 2021, arXiv 2109.03201), 3D, trained like nnU-Net's U-Net.

So do its authors for abdominal CT, with all outputs in the loss, as here. They start from pretrained weights, which
nothing here does by itself.
"""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerNNFormer(EchoTrainer):
    network_path = "nnformer"


__getattr__ = other_lengths(nnUNetTrainerNNFormer)
