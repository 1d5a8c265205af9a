"""VM-UNet (Ruan et al. 2024, arXiv 2402.02491): AdamW, 1e-3 with a cosine to 1e-5 and weight decay 0.01 as its authors.

Ours: the cosine spans the whole training (theirs has 50 epochs) and the gradient norm is clipped.
"""

from nnunet_echo.training.trainer import TokenTrainer, other_lengths


class nnUNetTrainerVMUNet(TokenTrainer):
    network_path = "vm_unet"
    enable_deep_supervision = False  # the network has one output
    initial_lr = 1e-3
    weight_decay = 1e-2
    schedule = "cosine"
    warm_up = 0.0


__getattr__ = other_lengths(nnUNetTrainerVMUNet)
