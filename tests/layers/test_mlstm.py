"""The mLSTM cell against the recurrence of the paper, and the layer around it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nnunet_echo.layers.vil import HEADS, CausalConv1d, MatrixLSTMCell, TokenConv2d, ViLLayer, mlstm


def recurrence(q, k, v, input_gate, forget_gate):
    """xLSTM, section 2.3, token by token, with its stabiliser m: memory C (B, H, d, d) and normaliser n (B, H, d) are
    exp(m) times smaller than defined. The published 1e-6 is added to the denominator."""
    k = k / q.shape[-1] ** 0.5
    log_f = torch.nn.functional.logsigmoid(forget_gate)
    C, n, m = 0.0, 0.0, torch.full_like(log_f[..., 0], -torch.inf)
    h = []
    for t in range(q.shape[-2]):
        previous, m = m, torch.maximum(log_f[..., t] + m, input_gate[..., t])
        f, i = torch.exp(log_f[..., t] + previous - m)[..., None], torch.exp(input_gate[..., t] - m)[..., None]
        C = f[..., None] * C + i[..., None] * v[..., t, :, None] * k[..., t, None, :]
        n = f * n + i * k[..., t, :]
        denominator = torch.maximum((n * q[..., t, :]).sum(-1).abs(), torch.exp(-m)) + 1e-6
        h.append((C @ q[..., t, :, None]).squeeze(-1) / denominator[..., None])
    return torch.stack(h, dim=-2)


def random_inputs(length: int, dtype=torch.float64, heads: int = 2, channels: int = 5, gate_offset: float = 0.0):
    """q, k, v, input gate, forget gate, with gradients."""
    generator = torch.Generator().manual_seed(length)
    shape = (2, heads, length)
    qkv = [torch.randn(*shape, channels, generator=generator, dtype=dtype) for _ in range(3)]
    gates = [2 * torch.randn(*shape, generator=generator, dtype=dtype) + offset for offset in (gate_offset, 2.0)]
    return [t.requires_grad_() for t in (*qkv, *gates)]


def gradients(function, inputs, weight):
    return torch.autograd.grad((function(*inputs) * weight).sum(), inputs)


def relative_error(actual, expected) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("chunk", [None, 1, 16, 64])
@pytest.mark.parametrize("length", [1, 2, 7, 63, 197])
@pytest.mark.parametrize("gate_offset", [-3.0, 0.0, 8.0])  # the 1 in the denominator decides, neither, the sum decides
def test_it_is_the_recurrence(length, gate_offset, chunk):
    inputs = random_inputs(length, gate_offset=gate_offset)
    weight = torch.randn_like(inputs[0])
    form = partial(mlstm, chunk=chunk)
    assert relative_error(form(*inputs), recurrence(*inputs)) < 1e-10
    for actual, expected in zip(gradients(form, inputs, weight), gradients(recurrence, inputs, weight), strict=True):
        if expected.norm() > 0:  # with one token the forget gate has no effect
            assert relative_error(actual, expected) < 1e-8


def test_float32_agrees_with_float64():
    inputs = random_inputs(131)
    single = [t.detach().float().requires_grad_() for t in inputs]
    weight = torch.randn_like(inputs[0])
    assert relative_error(mlstm(*single).double(), mlstm(*inputs)) < 1e-5
    found = gradients(mlstm, single, weight.float())
    for actual, expected in zip(found, gradients(mlstm, inputs, weight), strict=True):
        assert relative_error(actual.double(), expected) < 1e-4


def test_many_tokens_are_cut_into_chunks():
    """In float32, the precision of training, it is nearer to float64 than one chunk is; and its memory is linear."""
    inputs = random_inputs(1500, channels=48)
    single = [t.detach().float().requires_grad_() for t in inputs]
    weight = torch.randn_like(inputs[0])
    one_chunk = partial(mlstm, chunk=1500)
    assert relative_error(mlstm(*single).double(), one_chunk(*inputs)) < 1e-5
    exact = gradients(one_chunk, inputs, weight)
    for ours, parallel, truth in zip(
        gradients(mlstm, single, weight.float()), gradients(one_chunk, single, weight.float()), exact, strict=True
    ):
        assert relative_error(ours.double(), truth) < min(1e-4, relative_error(parallel.double(), truth))
    assert kept_for_the_backward(4096) < 2.1 * kept_for_the_backward(2048)


def kept_for_the_backward(length: int) -> int:
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        mlstm(*random_inputs(length))
    return sum(kept)


def test_gradcheck():
    assert torch.autograd.gradcheck(mlstm, random_inputs(5, heads=1, channels=3))
    assert torch.autograd.gradcheck(partial(mlstm, chunk=2), random_inputs(5, heads=1, channels=3))


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize("input_gate", [-300.0, 300.0])
def test_extreme_gates_stay_finite(input_gate, chunk):
    q, k, v, i, f = random_inputs(33, torch.float32)
    i = torch.full_like(i, input_gate).requires_grad_()
    h = mlstm(q, k, v, i, (30 * f).detach().requires_grad_(), chunk)
    assert h.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(h.square().sum(), [q, k, v, i]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_change_it(dtype):
    inputs = random_inputs(33, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        inside = mlstm(*inputs)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, mlstm(*inputs))


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
