"""The sLSTM layer and block: what each gate sees, heads, directions, initial values. Parity is in networks/."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nnunet_echo.layers.slstm import GatedFeedForward, SLSTMBlock, SLSTMLayer, initial_bias
from nnunet_echo.layers.vil import CausalConv1d, TokenConv2d


def layer(**options: object) -> SLSTMLayer:
    return lively(SLSTMLayer(12, 3, **options))


def lively(module: nn.Module) -> nn.Module:
    """With weights where it starts with zeros."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


def touched(module: nn.Module, x: Tensor, token: int, channel: int) -> Tensor:
    """(S, dim): what a change of one number of the input changes."""
    changed = x.clone()
    changed[0, token, channel] += 1
    return (module(changed, (2, 4)) != module(x, (2, 4)))[0]


def test_heads_do_not_mix_and_the_past_stays() -> None:
    for conv in (None, CausalConv1d(12, 4)):
        found = touched(layer(conv=conv), torch.randn(1, 8, 12), token=3, channel=5)
        assert found[3:, 4:8].all()
        assert found.sum() == 5 * 4


def test_reverse_reads_from_the_last_token_to_the_first() -> None:
    forward, backward = layer(conv=CausalConv1d(12, 4)), layer(conv=CausalConv1d(12, 4), reverse=True)
    backward.load_state_dict(forward.state_dict())
    x = torch.randn(2, 8, 12)
    assert torch.equal(backward(x), forward(x.flip(1)).flip(1))


def test_a_convolution_on_the_grid_sees_its_neighbours() -> None:
    """Of a token in the second row the first row knows, which reads before it."""
    assert touched(layer(conv=TokenConv2d(12, 3)), torch.randn(1, 8, 12), token=4, channel=0)[1:4].any()
    assert not touched(layer(conv=CausalConv1d(12, 3)), torch.randn(1, 8, 12), token=4, channel=0)[:4].any()


def test_only_i_and_f_see_the_convolution() -> None:
    module, x = layer(conv=CausalConv1d(12, 4)), torch.randn(1, 8, 12)
    before = module(x)
    nn.init.zeros_(module.conv1d.conv.weight)
    nn.init.zeros_(module.conv1d.conv.bias)
    without = module(x)
    assert not torch.equal(before, without)
    nn.init.normal_(module.input_gate.weight)
    nn.init.normal_(module.forget_gate.weight)
    assert torch.equal(module(x), without)  # these two see zeros now
    nn.init.normal_(module.cell_input.weight)
    assert not torch.equal(module(x), without)


def test_block_is_two_residual_branches() -> None:
    block = SLSTMBlock(layer(), GatedFeedForward(12), 12)
    x = torch.randn(2, 8, 12)
    nn.init.zeros_(block.ffn.proj_down.weight)
    torch.testing.assert_close(block(x), x + block.layer(block.norm(x)))
    nn.init.constant_(block.layer.group_norm.weight, -1.0)  # the scale is 1 + weight
    assert torch.equal(block(x), x)


def test_widths_of_the_feed_forward_network() -> None:
    assert [GatedFeedForward(dim, f).proj_down.in_features for dim, f in [(16, 1.3), (192, 1.3), (64, 2.0)]] == [
        64,
        256,
        128,
    ]
    assert GatedFeedForward(192).proj_up.out_features == 2 * 256


def test_initial_values() -> None:
    module = SLSTMLayer(64, 2, block=3, blocks=4)
    assert not module.recurrent_kernel.any()
    bias = module.bias.view(4, 2, 32)
    assert not bias[[0, 2, 3]].any()
    assert bias[1, 0, 0] == 5 and bias[1, 1, -1] == -7
    assert bias[1, 0, 16].item() == pytest.approx(5 - 12 * (16 / 31) ** 1.6)
    assert initial_bias(1, 3)[4].item() == pytest.approx(5 - 12 * 0.5**0.3)
    assert module.input_gate.weight.std().item() == pytest.approx(math.sqrt(2 / 320), rel=0.1)
    ffn = GatedFeedForward(64, blocks=4)
    assert ffn.proj_down.weight.std().item() == pytest.approx(2 / 4 / 8, rel=0.05)
    assert ffn.proj_up.weight.std().item() == pytest.approx(math.sqrt(2 / 320), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_the_cell_in_32_bits(dtype: torch.dtype) -> None:
    module, x = layer(conv=CausalConv1d(12, 4)), torch.randn(2, 8, 12)
    nn.init.constant_(module.bias, 200.0)  # exp of it is no number of 16 bits, nor of 32
    with torch.autocast("cpu", dtype=dtype):
        y = module(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y.float(), module(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("dim", "heads"), [(10, 4), (4, 4)])
def test_heads_that_do_not_divide_the_channels(dim: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"dim={dim} has to be a multiple of heads={heads}, with 2 channels or more"):
        SLSTMLayer(dim, heads)
