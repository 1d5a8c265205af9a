"""SegResNet (Myronenko 2018, arXiv 1810.11654): Adam 1e-4, weight decay 1e-5, polynomial decay.

As in U-Mamba's comparison (arXiv 2401.04722, released code), but with mixed precision on a GPU.
"""

from nnunet_echo.training.adam_trainer import Adam, AdamTrainer, other_lengths, polynomial


class nnUNetTrainerSegResNet(AdamTrainer):
    network_path = "segresnet"
    enable_deep_supervision = False  # the network has one output
    optimizer_class = Adam
    initial_lr = 1e-4
    weight_decay = 1e-5
    epsilon = 1e-5
    rates = polynomial()


__getattr__ = other_lengths(nnUNetTrainerSegResNet)
