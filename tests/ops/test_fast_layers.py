"""Layers that a CPU computes by another operator than PyTorch's layer of that name: against that layer in float64."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from test_scan import assert_close
from torch import Tensor, nn

from nnunet_echo.ops.instance_norm import InstanceNorm2d, InstanceNorm3d
from nnunet_echo.ops.linear import Linear


def outputs_and_gradients(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    layer, x = deepcopy(layer), x.detach().requires_grad_()
    y = layer(x)
    y.backward(torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    return {"y": y, "gradient at x": x.grad, **{f"gradient {i}": p.grad for i, p in enumerate(layer.parameters())}}


def assert_as_in_float64(layer: nn.Module, theirs: nn.Module, x: Tensor, tolerance: float) -> None:
    theirs.load_state_dict(layer.state_dict())
    expected = outputs_and_gradients(theirs.double(), x.double())
    ours = outputs_and_gradients(layer, x)
    assert {value.dtype for value in ours.values()} == {torch.float32}
    assert all(value.shape == expected[name].shape for name, value in ours.items())
    assert_close(ours, expected, tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 700), (1, 997), (2, 25, 30)], ids=str)
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(*shape, 34)
    assert_as_in_float64(Linear(34, 50, bias), nn.Linear(34, 50, bias), x, 1e-6)
    assert_as_in_float64(Linear(34, 50, bias), nn.Linear(34, 50, bias), x.mT.contiguous().mT, 1e-6)


@pytest.mark.parametrize("tokens", [5, 5000])
def test_linear_leaves_other_precisions_to_pytorch(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(F, "conv2d", None)
    layer, x = Linear(34, 50), torch.randn(tokens, 34)
    assert torch.equal(layer.double()(x.double()), nn.Linear.forward(layer, x.double()))
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16 and torch.equal(y, nn.Linear.forward(layer, x))


@pytest.mark.parametrize("tokens", [5, 5000])
def test_linear_compiles_into_one_graph(tokens: int) -> None:
    torch.manual_seed(0)
    layer, x = Linear(34, 50), torch.randn(tokens, 34)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(outputs_and_gradients(compiled, x), outputs_and_gradients(layer, x), 1e-6)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("spatial", [(256, 257), (3, 2), (9, 10, 11)], ids=str)
def test_instance_norm_without_gradients(spatial: tuple[int, ...], channels_last: bool, mean: float) -> None:
    torch.manual_seed(0)
    layer = (InstanceNorm2d if len(spatial) == 2 else InstanceNorm3d)(12, affine=True)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 12, *spatial) + mean
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    with torch.no_grad():
        y, expected = layer(x), F.instance_norm(x.double(), weight=layer.weight.double(), bias=layer.bias.double())
    assert_close({"y": y}, {"y": expected}, 2e-4 if mean else 2e-7)


def test_instance_norm_has_the_gradients_of_pytorch() -> None:
    """Of maps that vary by a thousandth of their mean; the group norm has the weight's 20 times less accurate."""
    torch.manual_seed(0)
    layer = InstanceNorm2d(12, affine=True)
    nn.init.normal_(layer.weight)
    assert_as_in_float64(layer, nn.InstanceNorm2d(12, affine=True), torch.randn(3, 12, 33, 70) + 1000, 2e-4)
