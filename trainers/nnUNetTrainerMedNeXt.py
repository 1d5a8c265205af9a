"""MedNeXt S (Roy et al. 2023, arXiv 2303.09975), trained as its authors' released code: AdamW 1e-3, eps 1e-4 for mixed
precision, weight decay 3e-5, polynomial decay, deep supervision at five resolutions, the coarsest included.
"""

from nnunet_echo.training.adam_trainer import AdamTrainer, other_lengths, polynomial


class nnUNetTrainerMedNeXt(AdamTrainer):
    network_path = "mednext"
    initial_lr = 1e-3
    weight_decay = 3e-5
    epsilon = 1e-4
    rates = polynomial()


__getattr__ = other_lengths(nnUNetTrainerMedNeXt)
