"""SAMUS (Lin et al. 2023, arXiv 2309.06824) without clicks: AdamW, 1e-4, a warm-up and a cosine.

With ``-pretrained_weights`` of ``nnunet-echo weights`` SAM's own parts stay as they are; without, everything trains.
"""

from nnunet_echo.training.pretrained import PretrainedTrainer
from nnunet_echo.training.trainer import other_lengths


class nnUNetTrainerSAMUS(PretrainedTrainer):
    network_path = "samus"
    enable_deep_supervision = False  # the network has one output
    initial_lr = 1e-4


__getattr__ = other_lengths(nnUNetTrainerSAMUS)
