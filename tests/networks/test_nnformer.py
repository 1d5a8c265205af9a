"""nnFormer: windows, shifts, the index of the biases. Parity is in test_parity_networks2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunet_echo.layers.window_attention import WindowAttention, relative_position_index
from nnunet_echo.networks import create_network, from_upstream
from nnunet_echo.networks.nnformer import Block, NNFormer

PATCH = (16, 32, 32)
SMALL = {"dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_sizes": (4, 3)}


def attention(window: int = 2, shift: int = 0, cross: bool = False) -> WindowAttention:
    return WindowAttention(4, 2, window, shift, released=False, cross=cross).double()


def touched(layer: nn.Module, size: tuple[int, ...], voxel: tuple[int, ...]) -> Tensor:
    x = torch.randn(1, *size, 4, dtype=torch.float64)
    changed = x.clone()
    changed[(0, *voxel)] += torch.randn(4, dtype=torch.float64)
    return (layer(changed) != layer(x)).any(-1)[0]


def test_a_voxel_stays_in_its_window() -> None:
    found = touched(attention(), (4, 4, 6), (3, 1, 4))
    assert found[2:, :2, 4:].all() and found.sum() == 8


def test_shifted_windows_begin_half_a_window_later_and_do_not_wrap() -> None:
    layer = attention(window=4, shift=2)
    inside = touched(layer, (8, 8, 8), (3, 4, 5))
    assert inside[2:6, 2:6, 2:6].all() and inside.sum() == 64
    corner = touched(layer, (8, 8, 8), (0, 7, 1))  # its window wraps around all three axes
    assert corner[:2, 6:, :2].all() and corner.sum() == 8


def test_maps_are_padded_to_windows() -> None:
    assert attention(window=4)(torch.randn(2, 5, 3, 6, 4, dtype=torch.float64)).shape == (2, 5, 3, 6, 4)
    found = touched(attention(window=4, shift=2), (5, 6, 7), (4, 5, 6))
    assert found[4, 2:, 6].all() and not found[:2].any()


def test_windows_are_put_back() -> None:
    layer = attention(window=2, shift=1)
    x = torch.randn(2, 4, 6, 8, 4, dtype=torch.float64)
    assert torch.equal(layer._map(layer._windows(x, (4, 6, 8)), (4, 6, 8)), x)


def test_attention_by_hand() -> None:
    """One window, one pair of voxels of which each sees both, by the offset's own bias."""
    layer = attention(window=2)
    bias = layer.relative_position_bias_table[layer.relative_position_index].permute(2, 0, 1)
    x = torch.randn(1, 2, 2, 2, 4, dtype=torch.float64)
    q, k, v = (t.view(8, 2, 2).transpose(0, 1) for t in layer.qkv(x.view(8, 4)).chunk(3, -1))
    expected = layer.proj((((q @ k.mT) / 2**0.5 + bias).softmax(-1) @ v).transpose(0, 1).reshape(8, 4))
    torch.testing.assert_close(layer(x).view(8, 4), expected)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_each_offset_has_an_entry_of_its_own_but_for_the_released_index(window: int) -> None:
    axes = torch.stack(torch.meshgrid(*[torch.arange(window)] * 3, indexing="ij")).flatten(1)
    offsets = (axes[:, :, None] - axes[:, None]).flatten(1).T
    side = 2 * window - 1
    for released, distinct in {False: side**3, True: {1: 1, 2: 19, 4: 115}[window]}.items():
        index = relative_position_index(window, released).flatten()
        assert len(index.unique()) == distinct and int(index.max()) < side**3
        pairs = torch.cat((offsets, index[:, None]), dim=1).unique(dim=0)
        assert len(pairs) == side**3  # equal offsets have one entry


def test_the_two_indices_are_two_networks_of_the_same_weights() -> None:
    correct, released = (
        NNFormer(1, 2, (16, 32, 32), **SMALL, relative_index=i).eval() for i in ("correct", "released")
    )
    for name, parameter in correct.named_parameters():
        released.get_parameter(name).data.copy_(nn.init.normal_(parameter.data, std=0.2))
    x = torch.randn(1, 1, 16, 32, 32)
    assert not torch.allclose(correct(x), released(x), rtol=1e-3)
    assert correct.state_dict().keys() == released.state_dict().keys()


def test_windows_follow_the_patch() -> None:
    def windows(patch: tuple[int, ...]) -> list[tuple[int, int]]:
        network = NNFormer(1, 2, patch, dim=8, num_heads=(1, 1, 1, 1), depths=(2, 2, 2, 2), window_sizes=(4, 4, 2, 2))
        return [(stage.blocks[1].attn.window, stage.blocks[1].attn.shift) for stage in network.encoder]

    assert windows((16, 32, 32)) == [(4, 2), (4, 0), (2, 0), (1, 0)]
    assert windows((64, 128, 128)) == [(4, 2), (4, 2), (2, 1), (2, 1)]
    assert windows((10, 256, 256)) == [(4, 2), (4, 0), (2, 0), (1, 0)]  # padded to 16


def test_which_blocks_are_shifted_and_which_take_the_skip_connection() -> None:
    network = NNFormer(1, 2, (64, 128, 128), dim=8, num_heads=(1, 1), depths=(4, 3), window_sizes=(4, 4))
    assert [[block.attn.shift for block in stage.blocks] for stage in network.encoder] == [[0, 2, 0, 2], [0, 2, 0]]
    assert [block.attn.shift for block in network.decoder.stages[0].blocks] == [0, 2, 2, 2]
    assert [hasattr(block.attn, "kv") for block in network.decoder.stages[0].blocks] == [True, False, False, False]


def test_queries_come_from_below_keys_and_values_from_the_skip_connection() -> None:
    block = Block(4, 2, 2, 0, False, 0.0, cross=True).double()
    x, below, skip = (torch.randn(1, 2, 2, 2, 4, dtype=torch.float64) for _ in range(3))
    nn.init.zeros_(block.mlp[2].weight)
    nn.init.zeros_(block.mlp[2].bias)
    nn.init.normal_(block.attn.kv.weight)
    expected = x + block.attn(block.norm1(below), block.norm1(skip))
    torch.testing.assert_close(block(x, below, skip), expected)
    nn.init.zeros_(block.attn.kv.weight.data[:4])  # all keys alike: the mean of the values
    nn.init.zeros_(block.attn.relative_position_bias_table)
    value = block.attn.kv(block.norm1(skip)).chunk(2, -1)[1]
    torch.testing.assert_close(block(x, below, skip), x + block.attn.proj(value.mean((1, 2, 3), keepdim=True)))


def test_embedding_has_tokens_of_two_by_four_by_four_voxels() -> None:
    network = NNFormer(1, 2, (16, 32, 32), **SMALL)
    assert network.patch_embed(torch.randn(1, 1, 16, 32, 32)).shape == (1, 8, 8, 8, 16)
    assert network.size_multiple == (4, 8, 8)
    assert network.deep_supervision_strides == ((1, 1, 1),)


def test_every_output_counts_in_the_loss() -> None:
    """As in the released training for abdominal CT; nnU-Net's own weights leave the coarsest out."""
    assert NNFormer(1, 2, PATCH, dim=16, num_heads=(1, 2, 4, 8)).deep_supervision_weights == (4 / 7, 2 / 7, 1 / 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_sizes": ((3, 5, 5), 4)}, r"window_sizes=\(\(3, 5, 5\), 4\): expected one whole number per stage"),
        ({"relative_index": "swin"}, r"relative_index='swin': expected one of \('correct', 'released'\)"),
        ({"num_heads": (3, 4)}, r"num_heads=\(3, 4\): expected divisors of dim=16"),
        ({"dim": 15}, "dim=15: expected an even number"),
        ({"depths": (2, 2, 2)}, "depths=.*expected one entry per stage in each"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_network("nnformer", 1, 2, (16, 32, 32), **{**SMALL, **options})


def test_published_arguments() -> None:
    kwargs = {
        "crop_size": [16, 32, 32],
        "embedding_dim": 16,
        "input_channels": 1,
        "num_classes": 2,
        "window_size": [4, 3],
        "num_heads": [2, 4],
        "depths": [2, 2],
    }
    with pytest.raises(ValueError, match="patch_size=.*only .2, 4, 4. is offered"):
        from_upstream("nnformer", {**kwargs, "patch_size": [1, 4, 4]}, {})
    with pytest.raises(ValueError, match="deep_supervision=False: only True"):
        from_upstream("nnformer", {**kwargs, "deep_supervision": False}, {})
    for given in [{}, {"crop_size": np.array([16, 32, 32]), "patch_size": np.array([2, 4, 4])}]:
        with pytest.raises(ValueError, match="no weights of nnformer: state_dict holds no tensors"):
            from_upstream("nnformer", {**kwargs, **given}, {})
