"""Files as VMamba and Vision-LSTM were released: fake ones of the true names and shapes, and small ones."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
import torch
from conftest import shared
from torch import Tensor, nn

from nnunet_echo.networks import load_pretrained
from nnunet_echo.networks.vil.encoder import VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vm_unet import VSSM

VMAMBA = {"depths": (1, 1), "depths_decoder": (1, 2), "dims": (16, 32), "d_state": 3}
TOY_VSSM = {**VMAMBA, "in_chans": 3, "num_classes": 2, "dims_decoder": (32, 16)}
VIL = {"dim": 16, "input_shape": (3, 32, 48), "patch_size": 8, "legacy_norm": True}


@cache
def layouts() -> dict:
    return json.loads(shared("goldens", "networks2", "layouts.json").read_text())


def fake(name: str) -> dict[str, Tensor]:
    """Weights with the names and shapes of a released file; the same numbers in each, to be quick."""
    return {key: torch.zeros(1).expand(shape) for key, shape in layouts()[name]["keys"].items()}


def vmamba_file(depths: tuple[int, ...] = (2, 3), again: bool = False) -> dict[str, Tensor]:
    """A file of the first release, small; `again` as later code saves it."""
    network = VSSM(**{**TOY_VSSM, "depths": depths, "depths_decoder": (1, 1)})
    weights = {key: torch.randn_like(value) for key, value in network.state_dict().items()}
    weights = {key: value for key, value in weights.items() if not key.startswith(("layers_up", "final"))}
    weights |= {"norm.weight": torch.randn(32), "norm.bias": torch.randn(32)}
    weights |= {"head.weight": torch.randn(7, 32), "head.bias": torch.randn(7)}
    if again:
        renames = [("patch_embed.proj", "patch_embed.0"), ("patch_embed.norm", "patch_embed.2"), (".ln_1.", ".norm.")]
        renames += [(".self_attention.", ".op.")]
        for old, new in renames:
            weights = {key.replace(old, new): value for key, value in weights.items()}
        weights = {re.sub(r"^(norm|head)\.", r"classifier.\1.", key): value for key, value in weights.items()}
    return weights


def vil_file(version: int, depth: int = 2, size: tuple[int, int] = (4, 6)) -> dict[str, Tensor]:
    """A file of either version; `depth` counts single blocks."""
    encoder = VisionLSTM(**VIL, depth=depth) if version == 1 else VisionLSTM2(**VIL, depth=depth // 2)
    weights = {}
    for key, value in encoder.state_dict().items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(?:(rowwise_from_\w+)\.)?(.*)", key):
            number = int(match[1]) if version == 1 else 2 * int(match[1]) + match[2].endswith("bot_right")
            part = match[3].replace("norm.", "xlstm_norm.", 1) if match[3].startswith("norm.") else match[3]
            part = part.replace("layer.conv.", "layer.conv1d.").replace("layer.", "xlstm.", 1)
            key = f"xlstm.blocks.{number}.{part}"
        weights[key] = torch.randn_like(value)
    norms = {1: ("xlstm.post_blocks_norm", "head.0"), 2: ("head.0", "xlstm.post_blocks_norm")}[version]
    for ours, theirs in zip(("legacy_norm", "norm"), norms, strict=True):
        for end in ("weight", "bias"):
            if f"{ours}.{end}" in weights:
                weights[f"{theirs}.{end}"] = weights.pop(f"{ours}.{end}")
    if version == 2:
        weights |= {f"head.0.{end}": torch.randn(32) for end in ("weight", "bias")}  # over two tokens
    weights["pos_embed.embed"] = torch.randn(1, *size, 16)
    return {**weights, "head.1.weight": torch.randn(5, 16), "head.1.bias": torch.randn(5)}


def refused(network: nn.Module, file: dict[str, Tensor], message: str) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_pretrained(network, file)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
