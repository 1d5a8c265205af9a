"""The mLSTM cell against the recurrence of the paper."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from mlstm_recurrence import recurrence

from nnunet_echo.ops.mlstm import mlstm


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
