"""VM-UNet and the Vision-LSTM networks in toy sizes. It asserts nothing: PYTEST_DONT_REWRITE."""

from __future__ import annotations

from torch import nn

from nnunet_echo.networks.vil.encoder import VisionLSTM, VisionLSTM2

TOY_VM_UNET = {"depths": (1, 1), "depths_decoder": (1, 1), "dims": 8, "d_state": 4}
TOY_VIL = {"patch_size": (32, 48), "dim": 16, "depth": 4, "features": (4, 4, 4, 4)}


def vary(network: nn.Module) -> nn.Module:
    """Random values for the parameters that start at zero, so that they take part."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def vil(**arguments) -> VisionLSTM:
    return vary(VisionLSTM(dim=16, input_shape=(1, 32, 32), patch_size=8, depth=2, **arguments))


def vil2(**arguments) -> VisionLSTM2:
    return vary(VisionLSTM2(**{"dim": 16, "input_shape": (1, 32, 32), "patch_size": 8, "depth": 1, **arguments}))
