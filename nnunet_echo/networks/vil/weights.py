"""ImageNet weights of Vision-LSTM, versions 1 and 2 (``vil_tiny16_e800_in1k.th``, ``vil2_tiny16_e800_in1k.th``, ...).

They fill the encoder: all blocks, the embedding of patches, the positions, which are resampled to the network's grid,
and the norms behind the last block. The two versions give the names of these norms each other's meaning. Version 2's
file has its second norm over two tokens at once, for its classifier: of no use for features, where it stays 1 and 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch.nn.functional as F
from torch import nn

from nnunet_echo.layers.slstm import SLSTMBlock
from nnunet_echo.networks.layouts import KEYS_SHOWN, Move, Weights
from nnunet_echo.networks.vil.encoder import BOTTOM_RIGHT, TOP_LEFT, VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vil.unet import TokenUNet
from nnunet_echo.networks.vm_unet_weights import for_channels

_CONVOLUTION = {1: "xlstm.blocks.0.xlstm.conv1d.conv.weight", 2: "xlstm.blocks.0.xlstm.conv1d.weight"}
_ENCODER = {1: VisionLSTM, 2: VisionLSTM2}
_NETWORK = {1: "vil", 2: "vil2"}
_BLOCK = re.compile(
    r"xlstm\.blocks\.(\d+)\.(xlstm_norm\.(?:weight|bias)|xlstm\.(?:learnable_skip|(?:proj_up|proj_down|q_proj|k_proj|"
    r"v_proj|conv1d|conv1d\.conv|mlstm_cell\.(?:igate|fgate|outnorm))\.(?:weight|bias)))"
)
_POSITIONS, _IMAGE = "pos_embed.embed", "patch_embed.proj.weight"
_SAME = {_POSITIONS, _IMAGE, "patch_embed.proj.bias"}
_NORMS = {  # version: names of norms, and ours; None for what is of the classifier
    1: {
        "xlstm.post_blocks_norm.weight": "legacy_norm.weight",
        "head.0.weight": "norm.weight",
        "head.0.bias": "norm.bias",
    },
    2: {"xlstm.post_blocks_norm.weight": "norm.weight", "xlstm.post_blocks_norm.bias": "norm.bias"},
}
_GRIDS_OF_STRIDE_8 = ((27, 27), (28, 28))  # of 224 pixels, without and with padding: patches of 16 overlap
_CLASSIFIER = re.compile(r"head\.[01]\.(?:weight|bias)")


def recognise_1(weights: Weights) -> bool:
    """Whether these are of version 1, whose convolution is along the sequence."""
    return _CONVOLUTION[1] in weights


def recognise_2(weights: Weights) -> bool:
    """Whether these are of version 2, whose convolution is on the grid."""
    return _CONVOLUTION[2] in weights


def moves_1(weights: Weights, network: nn.Module) -> Iterator[Move]:
    """To the encoder of `vil`, see `moves`."""
    return moves(1, weights, network)


def moves_2(weights: Weights, network: nn.Module) -> Iterator[Move]:
    """To the encoder of `vil2`, see `moves`."""
    return moves(2, weights, network)


def moves(version: int, weights: Weights, network: nn.Module) -> Iterator[Move]:
    """To the encoder. ValueError for another network, another depth, and for names that are none of Vision-LSTM's.

    Where the network has an sLSTM block, that block keeps its initial values.
    """
    encoder, prefix = (network.encoder, "encoder.") if isinstance(network, TokenUNet) else (network, "")
    if not isinstance(encoder, _ENCODER[version]):
        raise ValueError(
            f"these are weights of Vision-LSTM {version}, and the network is {type(network).__name__}: they are for "
            f"{_NETWORK[version]}."
        )
    of_encoder = [key for key in weights if not _CLASSIFIER.fullmatch(key) or key in _NORMS[version]]
    names = {key: _our_name(version, key) for key in of_encoder}
    if unknown := [key for key, name in names.items() if not name]:
        raise ValueError(
            f"{len(unknown)} names are not Vision-LSTM's: {', '.join(unknown[:KEYS_SHOWN])}. Pass its weights alone."
        )
    numbers = {int(match[1]) for match in map(_BLOCK.fullmatch, weights) if match}
    blocks = max(numbers) + 1
    if gaps := sorted(set(range(blocks)) - numbers):
        raise ValueError(f"the file lacks block {gaps[0]} of {blocks}. It is not whole. Take another.")
    ours = encoder.state_dict()
    depth = len({key.split(".")[1] for key in ours if key.startswith("blocks.")}) * version  # pairs in version 2
    if blocks != depth:
        raise ValueError(f"the file has {blocks} blocks, the network {depth}. Build it with depth={blocks // version}.")
    scalar = tuple(f"{name}." for name, module in encoder.named_modules() if isinstance(module, SLSTMBlock))
    # The last norm of version 2's files is over two tokens side by side, for the classifier alone.
    kept = (*scalar, "legacy_norm.") if version == 2 else scalar
    needed = {key for key in ours if not key.startswith(kept)}
    if missing := sorted(needed - set(names.values())):
        raise ValueError(
            f"the file lacks {len(missing)} tensors: {', '.join(missing[:KEYS_SHOWN])}. It is not whole. Take another."
        )
    for key, name in names.items():
        if name.startswith(scalar) or name not in ours and name.startswith("legacy_norm."):
            continue
        tensor = weights[key]
        if key == _IMAGE:
            tensor = for_channels(tensor, ours[name])
        elif key == _POSITIONS and tensor.shape[:3] != ours[name].shape[:3]:
            size = ours[name].shape[1:3]
            if tensor.shape[1:3] in _GRIDS_OF_STRIDE_8:
                raise ValueError(
                    f"the file has positions of {tensor.shape[1]} x {tensor.shape[2]} tokens, as those of stride 8 "
                    "have, and the tokens of this network do not overlap. Take the file without _stride8 in its name."
                )
            tensor = F.interpolate(tensor.permute(0, 3, 1, 2), size, mode="bicubic").permute(0, 2, 3, 1).contiguous()
        yield Move(prefix + name, key, tensor)


def _our_name(version: int, key: str) -> str:
    """The name in the encoder; "" for one that is none of Vision-LSTM's."""
    if key in _SAME:
        return key
    block = _BLOCK.fullmatch(key)
    if block is None:
        return _NORMS[version].get(key, "")
    number = int(block[1])
    place = f"{number}" if version == 1 else f"{number // 2}.{BOTTOM_RIGHT if number % 2 else TOP_LEFT}"
    part = re.sub(r"^xlstm_norm\.", "norm.", re.sub(r"^xlstm\.", "layer.", block[2]))
    return f"blocks.{place}." + (part if version == 1 else part.replace("layer.conv1d.", "layer.conv."))
