"""SwinUNETR (Hatamizadeh et al. 2022, arXiv 2201.01266): AdamW 8e-4, weight decay 0.01, cosine to 1e-6.

As in U-Mamba's comparison (arXiv 2401.04722, released code), but with mixed precision on a GPU.
"""

from nnunet_echo.training.adam_trainer import AdamTrainer, cosine, other_lengths


class nnUNetTrainerSwinUNETR(AdamTrainer):
    network_path = "swin_unetr"
    enable_deep_supervision = False  # the network has one output
    initial_lr = 8e-4
    weight_decay = 1e-2
    epsilon = 1e-5
    rates = cosine(1e-6)


__getattr__ = other_lengths(nnUNetTrainerSwinUNETR)
