"""nnFormer (Zhou et al. 2021, arXiv 2109.03201), 3D, trained like nnU-Net's U-Net, as its authors trained it."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerNNFormer(EchoTrainer):
    network_path = "nnformer"


__getattr__ = other_lengths(nnUNetTrainerNNFormer)
