"""ImageNet weights of VMamba for VM-UNet: VMamba's first release ("v0"), as VM-UNet's authors start from.

A file of VMamba-T or -S (``vmamba_tiny_e292.pth``, ``vmamba_small_e238_ema.pth``) has four stages of blocks, merging
between them, a norm and a classifier. Its stages fill VM-UNet's encoder, and, in reverse order, the blocks of its
decoder, as far as there are blocks on both sides; what is new in the decoder keeps its initial values.

Later code of VMamba renames the tensors of an old file: one that it saved again is taken too. Its later networks are
others, and no file of theirs fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn

from nnunet_echo.networks.layouts import KEYS_SHOWN, Move, Weights
from nnunet_echo.networks.vm_unet import VSSM, VMUNet

_FIRST_SCAN = re.compile(r"layers\.0\.blocks\.0\.(self_attention|op)\.A_logs")
_SAVED_AGAIN = [  # names of later code, and those of the first
    (r"^patch_embed\.0\.", "patch_embed.proj."),
    (r"^patch_embed\.2\.", "patch_embed.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.norm\.", r"\1.ln_1."),
    (r"^(layers\.\d+\.blocks\.\d+)\.op\.", r"\1.self_attention."),
    (r"^classifier\.norm\.", "norm."),
    (r"^classifier\.head\.", "head."),
]
_BLOCK = re.compile(
    r"layers\.(\d+)\.blocks\.(\d+)\.(ln_1\.(?:weight|bias)|self_attention\.(?:x_proj_weight|dt_projs_weight|"
    r"dt_projs_bias|A_logs|Ds|(?:in_proj|out_proj|conv2d|out_norm)\.weight|(?:conv2d|out_norm)\.bias))"
)
_ELSEWHERE = re.compile(
    r"patch_embed\.(?:proj|norm)\.(?:weight|bias)|layers\.\d+\.downsample\.(?:norm\.(?:weight|bias)|reduction\.weight)"
)
_UNUSED = re.compile(r"(?:norm|head)\.(?:weight|bias)")
_IMAGE = "patch_embed.proj.weight"


def recognise(weights: Weights) -> bool:
    """Whether these are VMamba's, of the first release, also if saved again under later names."""
    return _is_vmamba(weights) and not _is_later(weights)


def recognise_later(weights: Weights) -> bool:
    """Whether these are of a later VMamba: with an MLP in each block, or one state for each channel."""
    return _is_vmamba(weights) and _is_later(weights)


def refuse_later(weights: Weights, network: nn.Module) -> Iterator[Move]:
    """Always ValueError: no network here has these blocks."""
    raise ValueError(
        "these are weights of VMamba v1 or v2, another network than the one in VM-UNet: its blocks have an MLP, one "
        "state for each channel, no gate. Take the first release (v0): vmamba_tiny_e292.pth, "
        "vmamba_small_e238_ema.pth, which VM-UNet's authors link, or, of VMamba's release v0cls, "
        "vssmtiny_dp01_ckpt_epoch_292.pth or vssmsmall_dp03_ckpt_epoch_238.pth."
    )


def moves(weights: Weights, network: nn.Module) -> Iterator[Move]:
    """Encoder and decoder. ValueError where a block of the encoder stays empty, or a name is none of VMamba's."""
    if not isinstance(network, VSSM | VMUNet):
        name = type(network).__name__
        raise ValueError(f"these are weights of VMamba, and the network is {name}: they are for vm_unet.")
    names: dict[str, str] = {}
    for key in weights:
        if (first := names.setdefault(_first_name(key), key)) != key:
            raise ValueError(f"{first} and {key} are the same tensor under two names. Pass weights of one release.")
    unknown = [key for name, key in names.items() if not any(p.fullmatch(name) for p in (_BLOCK, _ELSEWHERE, _UNUSED))]
    if unknown:
        raise ValueError(
            f"{len(unknown)} names are none of VMamba's: {', '.join(unknown[:KEYS_SHOWN])}. Pass the weights alone."
        )
    prefix = "vmunet." if isinstance(network, VMUNet) else ""
    ours = {key.removeprefix(prefix): value for key, value in network.state_dict().items() if key.startswith(prefix)}
    needed = {key for key in ours if _BLOCK.fullmatch(key) or _ELSEWHERE.fullmatch(key)}
    if missing := sorted(needed - names.keys()):
        blocks = {match.group(1, 2) for match in map(_BLOCK.fullmatch, names) if match}
        remedy = (
            "Build the network with depths of at most those of the file; VMamba-T has 2, 2, 9, 2, VMamba-S 2, 2, 27, 2."
        )
        if any(match is None or match.group(1, 2) in blocks for match in map(_BLOCK.fullmatch, missing)):
            remedy = "It is not whole. Take another."
        raise ValueError(
            f"the file does not fill {len(missing)} tensors of the encoder: {', '.join(missing[:KEYS_SHOWN])}. {remedy}"
        )
    last = max(int(match[1]) for match in map(_BLOCK.fullmatch, names) if match)
    for name, key in names.items():
        tensor = for_channels(weights[key], ours[name]) if name == _IMAGE else weights[key]
        if name in needed:
            yield Move(prefix + name, key, tensor)
        block = _BLOCK.fullmatch(name)
        if block and (up := f"layers_up.{last - int(block[1])}.blocks.{block[2]}.{block[3]}") in ours:
            yield Move(prefix + up, key, tensor)


def for_channels(weight: Tensor, ours: Tensor) -> Tensor:
    """The first convolution of colours (D, 3, ...) for as many channels as `ours` has.

    For one channel it is the sum over the colours, which is exactly what it makes of a grey image given three times.
    """
    if weight.shape[1] == ours.shape[1]:
        return weight
    if ours.shape[1] != 1:
        raise ValueError(
            f"in_channels={ours.shape[1]}: the file is for {weight.shape[1]} channels, and fits 1 by their sum."
        )
    return weight.sum(1, keepdim=True)


def _is_vmamba(weights: Weights) -> bool:
    return any(map(_FIRST_SCAN.fullmatch, weights))


def _is_later(weights: Weights) -> bool:
    states = [value.shape[-1:] for key, value in weights.items() if _FIRST_SCAN.fullmatch(key)]
    return states == [(1,)] or any(".mlp." in key for key in weights)


def _first_name(key: str) -> str:
    for pattern, replacement in _SAVED_AGAIN:
        key = re.sub(pattern, replacement, key)
    return key
