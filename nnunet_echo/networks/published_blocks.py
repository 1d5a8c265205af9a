"""Layers and blocks as published code builds them, for `from_upstream`: of NX-AI/xlstm and XiaoBuL/CM-UNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from nnunet_echo.layers.msaa import MSAA, REDUCTION, SkipFusion
from nnunet_echo.layers.slstm import GatedFeedForward, SLSTMBlock, SLSTMLayer
from nnunet_echo.layers.vil import CausalConv1d

_KERNEL = "recurrent_kernel"


def slstm_layer(
    embedding_dim: int,
    num_heads: int = 4,
    conv1d_kernel_size: int = 4,
    dropout: float = 0.0,
    group_norm_weight: bool = True,
    _block_idx: int = 0,
    _num_blocks: int = 1,
) -> SLSTMLayer:
    """sLSTMLayer of NX-AI/xlstm, from its configuration."""
    only("group_norm_weight", group_norm_weight, True)
    conv = CausalConv1d(embedding_dim, conv1d_kernel_size) if conv1d_kernel_size else None
    return SLSTMLayer(embedding_dim, num_heads, conv, dropout=dropout, block=_block_idx, blocks=_num_blocks)


def slstm_block(
    embedding_dim: int, feedforward: Mapping[str, Any], _block_idx: int = 0, _num_blocks: int = 1, **layer: Any
) -> SLSTMBlock:
    """sLSTMBlock of NX-AI/xlstm: the arguments of `slstm_layer`, and ``feedforward``'s configuration."""
    options = dict(feedforward)
    factor = options.pop("proj_factor", 1.3)
    for name, value in {"act_fn": "gelu", "bias": False}.items():
        only(name, options.pop(name, value), value)
    if options:
        raise ValueError(f"feedforward: {', '.join(options)} is not offered. Take proj_factor, act_fn, bias.")
    cell = slstm_layer(embedding_dim, _block_idx=_block_idx, _num_blocks=_num_blocks, **layer)
    return SLSTMBlock(cell, GatedFeedForward(embedding_dim, factor, _num_blocks), embedding_dim)


class PublishedMSAA(MSAA):
    """CM-UNet's, which has a second convolution `down_2` that it never calls."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.down_2 = nn.Conv2d(in_channels, self.down.out_channels, 1)


class PublishedFusion(nn.Module):
    """CM-UNet's skip connections: maps (B, n * `base_dims`, H, W) of n = 1, 2, 4, and 8, which stays as it is and is no
    output."""

    def __init__(self, base_dims: int) -> None:
        features = [base_dims * n for n in (1, 2, 4)]
        super().__init__()
        self.skips = SkipFusion(features)
        self.skips.fuse = nn.ModuleList(PublishedMSAA(sum(features) // REDUCTION, n) for n in features)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return self.skips(maps[:3])


def only(name: str, value: Any, expected: Any) -> None:
    """An argument of the published constructor that may have no other value here; lists and arrays are one to it."""
    if not np.array_equal(value, expected):
        raise ValueError(f"{name}={value!r}: only {expected!r} is offered, or left out.")


def in_plain_layout(weights: dict[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cells of the sLSTM that were trained with xlstm's CUDA backend, which keeps them in another order.

    Its recurrent kernels are (head, in, gate and out), its biases (head, gate, out), where the plain backend has (head,
    gate and out, in) and (gate, head, out). The first differ in shape, so they tell.
    """
    found = dict(weights)
    for key, kernel in weights.items():
        if not key.endswith(_KERNEL) or key not in ours or kernel.shape == ours[key].shape:
            continue
        bias = key.removesuffix(_KERNEL) + "bias"
        heads, gates_and_out, size = ours[key].shape
        if kernel.shape == (heads, size, gates_and_out) and weights.get(bias, kernel).shape == ours[bias].shape:
            found[key] = kernel.reshape(heads, size, 4, size).permute(0, 2, 3, 1).reshape(ours[key].shape)
            found[bias] = weights[bias].reshape(heads, 4, size).transpose(0, 1).reshape(ours[bias].shape)
    return found


# The published fgate makes the input gate, igate the forget gate.
_LAYER_NAMES = [
    (r"(^|\.)fgate\.", r"\1input_gate."),
    (r"(^|\.)igate\.", r"\1forget_gate."),
    (r"(^|\.)zgate\.", r"\1cell_input."),
    (r"(^|\.)ogate\.", r"\1output_gate."),
    (r"(^|\.)slstm_cell\._recurrent_kernel_$", rf"\1{_KERNEL}"),
    (r"(^|\.)slstm_cell\._bias_$", r"\1bias"),
]

_MSAA_NAMES = [(r"(^|\.)fusion_conv\.", r"\1"), (r"(^|\.)spatial_attention\.conv1\.", r"\1spatial_attention.conv.")]

# As `_BUILDERS` of `published`.
BUILDERS: dict[str, tuple[Callable[[dict[str, Any]], nn.Module], list[tuple[str, str]]]] = {
    "slstm_layer": (lambda kwargs: slstm_layer(**kwargs), _LAYER_NAMES),
    "slstm_block": (
        lambda kwargs: slstm_block(**kwargs),
        [*_LAYER_NAMES, (r"^xlstm\.", "layer."), (r"^xlstm_norm\.", "norm.")],
    ),
    "msaa": (lambda kwargs: PublishedMSAA(**kwargs), _MSAA_NAMES),
    "msaa_fusion": (
        lambda kwargs: PublishedFusion(**kwargs),
        [*_MSAA_NAMES, (r"^AFFs\.", "skips.fuse."), (r"^transfer\.", "skips.reduce.")],
    ),
}
