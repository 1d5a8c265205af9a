"""sLSTM blocks among those of Vision-LSTM."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_echo.layers.slstm import SLSTMBlock
from nnunet_echo.layers.vil import CausalConv1d, TokenConv2d
from nnunet_echo.networks import NETWORKS, create_network
from nnunet_echo.networks.vil.encoder import BOTTOM_RIGHT, TOP_LEFT, VisionLSTM, VisionLSTM2

SMALL = {"dim": 16, "input_shape": (1, 32, 32), "patch_size": 8}


def kinds(blocks: nn.ModuleList) -> list[bool]:
    return [isinstance(block, SLSTMBlock) for block in blocks]


@pytest.mark.parametrize("slstm_at", [None, [0], (1, 3), range(4)])
def test_any_order_of_blocks(slstm_at) -> None:
    encoder = VisionLSTM(**SMALL, depth=4, slstm_at=slstm_at)
    assert kinds(encoder.blocks) == [i in (slstm_at or ()) for i in range(4)]
    assert [block.layer.reverse for block in encoder.blocks] == [False, True, False, True]
    assert encoder(torch.randn(2, 1, 32, 32)).shape == (2, 16, 16)


def test_other_blocks_keep_their_names() -> None:
    without, some = VisionLSTM(**SMALL, depth=2), VisionLSTM(**SMALL, depth=2, slstm_at=[1])
    shared = {key for key in without.state_dict() if not key.startswith("blocks.1.")}
    assert shared <= some.state_dict().keys()


def test_depth_sets_the_forgetting() -> None:
    first, last = (VisionLSTM(**SMALL, depth=4, slstm_at=[0, 3]).blocks[i].layer.bias.view(4, 4, 4)[1] for i in (0, 3))
    assert (last[:, 1:3] > first[:, 1:3]).all()


def test_convolutions() -> None:
    def conv(encoder: VisionLSTM) -> nn.Module:
        return encoder.blocks[1].layer.conv1d

    causal = conv(VisionLSTM(**SMALL, depth=2, slstm_at=[1]))
    assert isinstance(causal, CausalConv1d) and causal.conv.kernel_size == (4,)
    flat = conv(VisionLSTM(**SMALL, depth=2, slstm_at=[1], slstm_conv="2d"))
    assert isinstance(flat, TokenConv2d) and flat.kernel_size == (3, 3)
    assert kinds(VisionLSTM2(**SMALL, depth=1, slstm_at=[0]).blocks[0].values()) == [True, False]


def test_version_2_counts_single_blocks_in_the_order_in_which_they_run() -> None:
    def where(**options) -> list[list[str]]:
        encoder = VisionLSTM2(**SMALL, depth=2, **options)
        assert encoder(torch.randn(1, 1, 32, 32)).shape == (1, 16, 4, 4)
        return [[name for name, block in pair.items() if isinstance(block, SLSTMBlock)] for pair in encoder.blocks]

    assert where(slstm_at=[1, 2]) == [[BOTTOM_RIGHT], [TOP_LEFT]]
    assert where(slstm_at=[1, 2], directions=(BOTTOM_RIGHT, TOP_LEFT)) == [[TOP_LEFT], [BOTTOM_RIGHT]]
    assert isinstance(
        VisionLSTM2(**SMALL, depth=1, slstm_at=[0], conv_kernel_size=5).blocks[0][TOP_LEFT].layer.conv1d, TokenConv2d
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slstm_at": [4]}, r"slstm_at=\[4\]: expected numbers of blocks from 0 to 3"),
        ({"slstm_at": [-1]}, r"slstm_at=\[-1\]: vil expects numbers of blocks, counted from 0"),
        ({"slstm_at": 3}, "slstm_at=3: vil expects numbers of blocks"),
        ({"slstm_at": [1.5]}, r"slstm_at=\[1.5\]: vil expects"),
        ({"slstm_at": [1], "slstm_conv": "3d"}, "slstm_conv='3d': expected '2d' or 'causal1d'"),
    ],
)
def test_numbers_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_network("vil", 1, 2, (32, 32), **{**NETWORKS["vil"].toy, **options})


def test_no_block_is_an_order_too() -> None:
    plain = create_network("vil", 1, 2, (32, 32), **NETWORKS["vil"].toy)
    none = create_network("vil", 1, 2, (32, 32), **NETWORKS["vil"].toy, slstm_at=[])
    assert none.state_dict().keys() == plain.state_dict().keys()
