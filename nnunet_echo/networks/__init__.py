"""Segmentation networks for nnU-Net: LKM-UNet, U-Mamba, VM-UNet, Vision-LSTM, and their published weights.

Contract of all of them: input (B, C, *S) of any size; output logits (B, K, *S), or, while
``network.decoder.deep_supervision`` is True, a list of logits, finest first, at ``network.deep_supervision_strides``.
The keys of the state_dict do not depend on that flag. ``from_plan`` builds a network from nnU-Net's plan.
"""

from nnunet_echo.networks.published import from_upstream

__all__ = ["from_upstream"]
