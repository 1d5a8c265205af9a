"""Networks as the published code builds them, with the published weights loaded.

Where the layouts come from: wjh892521292/LKM-UNet, bowang-lab/U-Mamba, JCruan519/VM-UNet, NX-AI/vision-lstm,
tianrun-chen/xLSTM-UNet-PyTorch, 282857341/nnFormer, NX-AI/xlstm, XiaoBuL/CM-UNet; those of SAM's family are in
`samus.published`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_echo.networks.layouts import KEYS_SHOWN
from nnunet_echo.networks.lkm_unet import LKMUNet
from nnunet_echo.networks.nnformer import TOKEN, NNFormer
from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.networks.published_blocks import BUILDERS as BLOCK_BUILDERS
from nnunet_echo.networks.published_blocks import in_plain_layout, only
from nnunet_echo.networks.samus.published import BUILDERS as SAM_BUILDERS
from nnunet_echo.networks.u_mamba import UMambaBot, UMambaEnc
from nnunet_echo.networks.vil.encoder import VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vm_unet import VSSM
from nnunet_echo.networks.wrapped_weights import (
    common_prefix,
    is_computed_from,
    matching_names,
    sets_of_weights,
    without_wrapping,
)
from nnunet_echo.networks.xlstm_unet import ViLTokens, XLSTMUNetBot, XLSTMUNetEnc


def from_upstream(name: str, kwargs: Mapping[str, Any], state_dict: Mapping[str, Any]) -> nn.Module:
    """The network that the published code builds from its constructor arguments, `kwargs`, with its weights loaded.

    `name` is one of ``lkm_unet, umamba_bot, umamba_enc, xlstm_unet_bot, xlstm_unet_enc, nnformer, vm_unet, vil, vil2``,
    of a part one of ``slstm_layer, slstm_block, msaa, msaa_fusion``, and of SAM's family one of ``samus, autosamus,
    samus_image_encoder, sam_image_encoder, sam_decoder, autosamus_prompt_generator, local_mhra, coord_att,
    st_adapter``, which the classes in `samus.published` describe. For the U-Nets 2D or 3D follows from
    `kernel_sizes`, the classes of convolution, norm and activation are fixed and left out, ``umamba_enc`` and
    ``xlstm_unet_enc`` need `input_size`. The module returns what the published one does: the U-Nets and ``nnformer`` a
    list of logits, finest first (deep supervision is on); ``vm_unet`` logits (B, K, H, W); ``vil`` features (B, S,
    dim); ``vil2`` features (B, dim, H, W).

    `state_dict` may be a checkpoint that holds one, under any key, a module, or of numpy's arrays; prefixes of wrappers
    (``module.``, ``_orig_mod.``, one that all keys share) and thop's counts are taken off. Raises ValueError for an
    unknown name or argument, where several sets of weights fit, and when keys are missing, unexpected, of another shape
    or no plain numbers, with their number and names.

    >>> arguments = dict(in_chans=1, num_classes=2, depths=[1, 1], depths_decoder=[1, 1], d_state=2,
    ...                  dims=[4, 8], dims_decoder=[8, 4])
    >>> checkpoint = {"epoch": 9, "model": VSSM(**arguments).state_dict()}  # as torch.load would give
    >>> network = from_upstream("vm_unet", arguments, checkpoint).eval()
    >>> network(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 2, 32, 32])
    """
    if not isinstance(name, str) or name not in _BUILDERS:
        raise ValueError(f"name={name!r}: expected one of {', '.join(_BUILDERS)}.")
    build, renames = _BUILDERS[name]
    try:
        network = build(dict(kwargs))
    except Exception as error:  # of layers of several packages, which raise what they like for what they cannot be
        reason = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"kwargs of {name}: {reason.rstrip('.')}. Pass the arguments of the published constructor."
        ) from error
    coarsest = len(kwargs.get("strides", ())) - 1
    ours = network.state_dict()

    def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for key, tensor in weights.items():
            if key.startswith("decoder.encoder."):
                continue  # the published decoder lists the encoder's weights a second time
            for pattern, replacement in renames:
                key = re.sub(pattern, replacement.format(coarsest=coarsest), key)
            renamed[key] = tensor
        made = {key: x for key, x in ours.items() if key.endswith((".num_batches_tracked", ".relative_position_index"))}
        return in_plain_layout({**made, **renamed}, ours)  # files may leave out what is no weight

    found = [
        (f" in state_dict{where}" if where else "", matching_names(without_wrapping(weights, where), rename, set(ours)))
        for where, weights in sets_of_weights(state_dict)
    ]
    fitting = [(where, weights) for where, weights in found if not _problems(ours, weights)]
    if len(fitting) > 1:
        raise ValueError(
            f"several sets of weights fit {name}: {', '.join(where.strip() for where, _ in fitting)}. Pass one of them."
        )
    if not fitting:
        _raise_misfit(ours, found, name)
    network.load_state_dict(fitting[0][1])
    return network


def _raise_misfit(ours: Mapping[str, Tensor], found: list[tuple[str, dict[str, Tensor]]], name: str) -> NoReturn:
    """Tell what is wrong with the set of weights that has most in common with ours."""
    if not found:
        raise ValueError(f"no weights of {name}: state_dict holds no tensors by name, nor does anything in it.")
    where, weights = max(found, key=lambda item: len(ours.keys() & item[1].keys()))
    prefix = common_prefix(weights, set(ours))
    remedy = "Check that kwargs are those that the weights were trained with."
    if prefix is not None:
        others = sorted(key for key in weights if not key.startswith(prefix))
        remedy = (
            f"They are under {prefix!r}, beside {len(others)} others ({', '.join(others[:KEYS_SHOWN])}). Pass those "
            "alone, without the prefix."
        )
    elif any(map(is_computed_from, weights)):
        remedy = (
            "Some are what weights are computed from, by pruning, weight_norm or another parametrisation. Save them "
            "again after prune.remove, remove_weight_norm or parametrize.remove_parametrizations of torch.nn.utils."
        )
    raise ValueError(
        f"the weights{where} do not fit {name} with these arguments ({len(ours)} keys). By the names they have here: "
        f"{'; '.join(_problems(ours, weights))}. {remedy}"
    )


def _problems(ours: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> list[str]:
    wrong = {
        "missing": sorted(ours.keys() - state_dict.keys()),
        "unexpected": sorted(state_dict.keys() - ours.keys()),
        "wrongly shaped": [
            f"{key} {tuple(state_dict[key].shape)} instead of {tuple(ours[key].shape)}"
            for key in ours
            if key in state_dict and state_dict[key].shape != ours[key].shape
        ],
        "not of plain numbers": [
            f"{key} ({x.dtype}, {x.layout}, on {x.device})"
            for key, x in state_dict.items()
            if key in ours
            and (x.is_meta or x.layout != torch.strided or x.is_floating_point() != ours[key].is_floating_point())
        ],
        "with NaN or infinite values": [
            key
            for key, x in state_dict.items()
            if key in ours and not x.is_meta and x.layout == torch.strided and not torch.isfinite(x).all()
        ],
    }
    return [
        f"{len(keys)} {kind}: {', '.join(keys[:KEYS_SHOWN])}{', ...' if len(keys) > KEYS_SHOWN else ''}"
        for kind, keys in wrong.items()
        if keys
    ]


def _u_net(
    network: type[nn.Module], own: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> Callable[[dict[str, Any]], nn.Module]:
    """Builder of a U-Net; `own` are its published arguments besides the shape, with their names here, `options` what
    the published code hard-codes."""
    shape_arguments = {"input_channels" if f.name == "in_channels" else f.name: f.name for f in fields(UNetShape)}

    def build(kwargs: dict[str, Any]) -> nn.Module:
        stages = kwargs.pop("n_stages", None)
        expected = {*shape_arguments, *own}
        if kwargs.keys() != expected:
            missing, unknown = sorted(expected - kwargs.keys()), sorted(kwargs.keys() - expected)
            raise ValueError(f"missing {missing}, unknown {unknown}.")
        if stages is not None and stages != len(kwargs["strides"]):
            raise ValueError(f"n_stages={stages}: strides has {len(kwargs['strides'])} entries.")
        shape, mine = ({ours: kwargs[key] for key, ours in names.items()} for names in (shape_arguments, own))
        return network(UNetShape(**shape), deep_supervision=True, **mine, **options)

    return build


def _with_idle_norms(build: Callable[[dict[str, Any]], nn.Module]) -> Callable[[dict[str, Any]], nn.Module]:
    """The published wrapper of a Vision-LSTM block has a norm that it never calls."""

    def with_norms(kwargs: dict[str, Any]) -> nn.Module:
        network = build(kwargs)
        for module in network.modules():
            if isinstance(module, ViLTokens):
                module.norm = nn.LayerNorm(len(module.vil.norm.weight))
        return network

    return with_norms


def _nnformer(kwargs: dict[str, Any]) -> nn.Module:
    """nnFormer from its constructor's arguments, with the index that every published weight was trained with."""
    for name, value in {"patch_size": TOKEN, "deep_supervision": True}.items():
        only(name, kwargs.pop(name, value), value)
    size: Any = kwargs.get("crop_size")
    if np.shape(size) != (len(TOKEN),):
        raise ValueError(f"crop_size={size!r}: expected the patch along z, y and x, such as (64, 128, 128).")
    names = {
        "crop_size": "patch_size",
        "input_channels": "in_channels",
        "embedding_dim": "dim",
        "window_size": "window_sizes",
    }
    arguments = {names.get(name, name): value for name, value in kwargs.items()}
    return NNFormer(relative_index="released", deep_supervision=True, **arguments)


# Name: how to build the network, and (pattern, replacement) from published keys to ours; {coarsest} is the last stage.
_BUILDERS: dict[str, tuple[Callable[[dict[str, Any]], nn.Module], list[tuple[str, str]]]] = {
    "lkm_unet": (
        _u_net(LKMUNet, window_mode="released"),
        [
            (r"^encoder\.mamba_layers\.(\d+)\.", r"encoder.mixers.\1.pim."),
            (r"^encoder\.w_mamba_layers\.(\d+)\.", r"encoder.mixers.\1.pam."),
        ],
    ),
    "umamba_bot": (_u_net(UMambaBot), [(r"^mamba_layer\.", "encoder.mixers.{coarsest}.")]),
    "umamba_enc": (_u_net(UMambaEnc, {"input_size": "patch_size"}), [(r"^encoder\.mamba_layers\.", "encoder.mixers.")]),
    "vm_unet": (
        lambda kwargs: VSSM(**kwargs),  # the prefix is in the authors' own checkpoints, the last layer's name in ours
        [(r"^vmunet\.", ""), (r"^decoder\.seg_layers\.0\.", "final_conv.")],
    ),
    "vil": (VisionLSTM.from_published, []),
    "vil2": (VisionLSTM2.from_published, []),
    "xlstm_unet_bot": (_with_idle_norms(_u_net(XLSTMUNetBot)), [(r"^xlstm\.", "encoder.mixers.{coarsest}.")]),
    "xlstm_unet_enc": (
        _with_idle_norms(_u_net(XLSTMUNetEnc, {"input_size": "patch_size"})),
        [(r"^encoder\.xlstm_layers\.", "encoder.mixers.")],
    ),
    "nnformer": (
        _nnformer,
        [
            (r"^model_down\.patch_embed\.proj1\.(conv|norm)1\.", r"patch_embed.\1S.0."),
            (r"^model_down\.patch_embed\.proj1\.(conv|norm)2\.", r"patch_embed.\1S.1."),
            (r"^model_down\.patch_embed\.proj2\.(conv|norm)1\.", r"patch_embed.\1S.2."),
            (r"^model_down\.patch_embed\.proj2\.conv2\.", r"patch_embed.convS.3."),
            (r"^model_down\.patch_embed\.norm\.", r"patch_embed.normS.3."),
            (r"^patch_embed\.convS\.", "patch_embed.convolutions."),
            (r"^patch_embed\.normS\.", "patch_embed.norms."),
            (r"^model_down\.norm(\d+)\.", r"encoder.\1.norm."),
            (r"^model_down\.layers\.(\d+)\.downsample\.norm\.", r"encoder.\1.down_norm."),
            (r"^model_down\.layers\.(\d+)\.downsample\.reduction\.", r"encoder.\1.down."),
            (r"^model_down\.layers\.", "encoder."),
            (r"^decoder\.layers\.(\d+)\.Upsample\.norm\.", r"decoder.stages.\1.up_norm."),
            (r"^decoder\.layers\.(\d+)\.Upsample\.up\.", r"decoder.stages.\1.up."),
            (r"^decoder\.layers\.", "decoder.stages."),
            (r"\.mlp\.fc1\.", ".mlp.0."),
            (r"\.mlp\.fc2\.", ".mlp.2."),
            (r"^final\.(\d+)\.up\.", r"decoder.seg_layers.\1."),
        ],
    ),
    **BLOCK_BUILDERS,
    **SAM_BUILDERS,
}
