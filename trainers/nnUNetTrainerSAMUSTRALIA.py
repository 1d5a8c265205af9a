"""SAMUS with relations between frames and local attention, for images (2d) and clips (3d_fullres), trained as SAMUS.

With ``-pretrained_weights`` of ``nnunet-echo weights`` SAM's own parts stay as they are; without, everything trains.
"""

from nnunet_echo.training.pretrained import PretrainedTrainer
from nnunet_echo.training.trainer import other_lengths


class nnUNetTrainerSAMUSTRALIA(PretrainedTrainer):
    network_path = "samus_tra_lia"
    enable_deep_supervision = False  # the network has one output
    initial_lr = 1e-4


__getattr__ = other_lengths(nnUNetTrainerSAMUSTRALIA)
