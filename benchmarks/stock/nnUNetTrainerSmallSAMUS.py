"""nnUNetTrainerSAMUS with an encoder that two CPU cores carry: 6 blocks of width 96, images resized to 128 x 128.

Random weights: there are none of SAM for this size. 2 M parameters, 6 GFLOPs an image.
"""

from nnunet_echo.trainers.nnUNetTrainerSAMUS import nnUNetTrainerSAMUS
from nnunet_echo.training.trainer import other_lengths


class nnUNetTrainerSmallSAMUS(nnUNetTrainerSAMUS):
    network_options = {
        "embed_dim": 96,
        "depth": 6,
        "num_heads": 6,
        "global_attn_indexes": (2, 5),
        "decoder_dim": 64,
        "decoder_mlp_dim": 256,
        "img_size": 128,
        "use_checkpoint": False,
    }


__getattr__ = other_lengths(nnUNetTrainerSmallSAMUS)
