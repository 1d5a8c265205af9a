"""LKM-UNet (Wang et al. 2024, arXiv 2403.07332), trained like nnU-Net's U-Net."""

from nnunet_echo.training.trainer import EchoTrainer, other_lengths


class nnUNetTrainerLKMUNet(EchoTrainer):
    network_path = "lkm_unet"


__getattr__ = other_lengths(nnUNetTrainerLKMUNet)
