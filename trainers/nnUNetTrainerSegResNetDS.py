"""SegResNetDS of MONAI's Auto3DSeg, with its AdamW 2e-4 and weight decay 1e-5 and a cosine.

Ours: no warm-up, and nnU-Net's weights of deep supervision. U-Mamba's comparison has only SegResNet.
"""

from nnunet_echo.training.adam_trainer import AdamTrainer, cosine, other_lengths


class nnUNetTrainerSegResNetDS(AdamTrainer):
    network_path = "segresnet_ds"
    initial_lr = 2e-4
    weight_decay = 1e-5
    epsilon = 1e-8
    rates = cosine(0.0)


__getattr__ = other_lengths(nnUNetTrainerSegResNetDS)
