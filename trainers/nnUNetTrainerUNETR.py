"""UNETR (Hatamizadeh et al. 2021, arXiv 2103.10504): AdamW 1e-4, weight decay 0.01, linear decay.

As in U-Mamba's comparison (arXiv 2401.04722, released code), but with mixed precision on a GPU.
"""

from nnunet_echo.training.adam_trainer import AdamTrainer, other_lengths, polynomial


class nnUNetTrainerUNETR(AdamTrainer):
    network_path = "unetr"
    enable_deep_supervision = False  # the network has one output
    initial_lr = 1e-4
    weight_decay = 1e-2
    epsilon = 1e-5
    rates = polynomial(1.0)


__getattr__ = other_lengths(nnUNetTrainerUNETR)
