"""The layer of Vision-LSTM around the mLSTM cell."""

from __future__ import annotations

import pytest
import torch

from nnunet_echo.layers.vil import HEADS, CausalConv1d, MatrixLSTMCell, TokenConv2d, ViLLayer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cell_with_large_16_bit_inputs_is_finite(dtype):
    """Values near the end of float16: their products, sums and gate pre-activations are far outside of it."""
    torch.manual_seed(0)
    cell = MatrixLSTMCell(16, norm_bias=True)
    for gate in (cell.igate, cell.fgate):
        torch.nn.init.normal_(gate.weight)
    q, k, v = ((2e4 * torch.rand(2, 50, 16) - 1e4).to(dtype).requires_grad_() for _ in range(3))
    with torch.autocast("cpu", dtype=dtype):
        h = cell(q, k, v)
    assert h.dtype == dtype
    assert h.isfinite().all()
    h.float().square().mean().backward()
    for tensor in (q, k, v, *cell.parameters()):
        assert tensor.grad.isfinite().all()


def test_gates_start_as_published():
    cell = MatrixLSTMCell(16, norm_bias=False)
    assert torch.equal(cell.fgate.bias, torch.linspace(3.0, 6.0, HEADS))
    assert not cell.fgate.weight.any()
    assert not cell.igate.weight.any()
    assert 0 < cell.igate.bias.abs().max() < 1


def influence(layer, tokens: int, output: int, grid) -> list[int]:
    """The tokens that the output of token number `output` depends on."""
    x = torch.randn(1, tokens, 8, requires_grad=True)
    layer(x, grid)[0, output].sum().backward()
    return torch.nonzero(x.grad[0].abs().sum(-1)).flatten().tolist()


def vil_layer(reverse: bool, conv=None) -> ViLLayer:
    layer = ViLLayer(8, reverse, conv or CausalConv1d(16, 4), "conv", proj_bias=True, norm_bias=True)
    for gate in (layer.mlstm_cell.igate, layer.mlstm_cell.fgate):
        torch.nn.init.normal_(gate.weight, std=0.1)
    return layer


def test_layer_sees_the_tokens_before():
    torch.manual_seed(0)
    assert influence(vil_layer(reverse=False), 12, 5, (3, 4)) == [0, 1, 2, 3, 4, 5]
    assert influence(vil_layer(reverse=True), 12, 5, (3, 4)) == [5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("conv", [CausalConv1d(16, 4), TokenConv2d(16, 3)], ids=["causal1d", "2d"])
def test_reverse_is_the_same_layer_on_reversed_tokens(conv):
    torch.manual_seed(0)
    forward, backward = vil_layer(False, conv), vil_layer(True, conv)
    backward.load_state_dict(forward.state_dict())
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(backward(x.flip(1), (3, 4)).flip(1), forward(x, (3, 4)))
    assert not torch.allclose(backward(x, (3, 4)), forward(x, (3, 4)))


def test_causal_convolution_keeps_the_length_and_looks_back():
    conv = CausalConv1d(8, 4)
    assert influence(conv, 9, 5, (3, 3)) == [2, 3, 4, 5]


def test_2d_convolution_knows_rows_and_columns():
    """On a grid of 3 rows and 4 columns the token at row 1, column 3 has neighbours in rows 0 to 2, columns 2 and 3."""
    assert influence(TokenConv2d(8, 3), 12, 1 * 4 + 3, (3, 4)) == [2, 3, 6, 7, 10, 11]


def test_width_that_the_blocks_do_not_divide_is_an_error():
    with pytest.raises(ValueError, match="dim=6 has to be a multiple of 4"):
        ViLLayer(6, False, CausalConv1d(12, 4), "conv", proj_bias=True, norm_bias=True)
