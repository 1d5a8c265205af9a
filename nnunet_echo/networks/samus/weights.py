"""Files of weights of SAM (``sam_vit_b_01ec64.pth``) and SAMUS, for `SAMUS` and `SAMUSTRALIA`.

A file of SAM's ViT-B holds 314 tensors, flat, all of which have their place; one of SAMUS 79 more. All fit as they are
but the tables of relative positions of the global blocks, which are for 64 tokens a side in SAM and resized to the
grid's. Positions stay 64 x 64, windowed blocks keep their tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.networks.layouts import KEYS_SHOWN, Move, Weights
from nnunet_echo.networks.samus.network import SAMUS

_OF_SAM = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
_OF_AUTOSAMUS = ("prompt_generator.", "feature_adapter.")  # its place is taken by the class tokens
_OF_SAMUS = re.compile(r"image_encoder\.(cnn_embed\.|post_pos_embed\.|(.*\.)?\w+_Adapter\.)")
_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")


def recognise(weights: Weights) -> bool:
    """Whether these are SAM's, with a plain ViT, or SAMUS's."""
    return {"image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight"} <= weights.keys()


def moves(weights: Weights, network: nn.Module) -> Iterator[Move]:
    """All of the file's tensors to those of the same name. ValueError where one has no place, or one is missing."""
    if not isinstance(network, SAMUS):
        raise ValueError(
            f"these are weights of SAM or SAMUS, and the network is {type(network).__name__}. They are for samus and "
            "samus_tra_lia."
        )
    _check_size(weights, network)
    ours = {key: value for key, value in network.state_dict().items() if key.startswith(_OF_SAM)}
    names = {key: _our_name(key) for key in weights if not key.startswith(_OF_AUTOSAMUS)}
    of_sam = not any(map(_OF_SAMUS.match, names))  # a file of SAM, to which SAMUS adds its own
    missing = sorted(key for key in ours.keys() - set(names.values()) if not (of_sam and _OF_SAMUS.match(key)))
    unknown = sorted(key for key, name in names.items() if name not in ours)
    if missing or unknown:
        raise ValueError(
            "the file is not complete, or of another network: "
            f"{len(missing)} names of {len(ours)} are missing{_some(missing)}, {len(unknown)} unknown{_some(unknown)}."
        )
    blocks = "|".join(map(str, network.image_encoder.global_attn_indexes))
    table = re.compile(rf"image_encoder\.blocks\.({blocks})\.attn\.rel_pos_[hw]")
    for key, name in names.items():
        tensor = weights[key]
        yield Move(name, key, resize_table(tensor, len(ours[name])) if table.fullmatch(name) else tensor)


def resize_table(table: Tensor, length: int) -> Tensor:
    """Relative positions (2 n - 1, D) of n tokens for another number: (length, D), linear between the rows."""
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], length, mode="linear", align_corners=False)[0].T.contiguous()


def _our_name(key: str) -> str:
    return re.sub(r"^(image_encoder\.blocks\.\d+\.mlp)\.lin([12])\.", r"\1.fc\2.", key)


def _check_size(weights: Weights, network: SAMUS) -> None:
    def size(keys: Weights) -> tuple[int, int]:
        blocks = {match[1] for match in map(_BLOCK.match, keys) if match}
        return len(keys["image_encoder.blocks.0.attn.qkv.weight"]) // 3, len(blocks)

    theirs, ours = size(weights), size(network.state_dict())
    if theirs != ours:
        raise ValueError(
            f"the file's encoder has {theirs[1]} blocks of width {theirs[0]}, the network {ours[1]} of {ours[0]}. "
            f"Build it with embed_dim={theirs[0]}, depth={theirs[1]} and the num_heads and global_attn_indexes of the "
            "file's, or take a file of SAM's ViT-B for the defaults."
        )


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:KEYS_SHOWN])}{', ...' if len(names) > KEYS_SHOWN else ''})" if names else ""
