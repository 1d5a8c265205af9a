"""Every operator of the package under every transform of PyTorch: as plain PyTorch in float64 has it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from mlstm_recurrence import recurrence
from test_scan import scan_inputs
from test_scan_cpu import compiled
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from nnunet_echo.ops.causal_conv import causal_conv_silu
from nnunet_echo.ops.instance_norm import InstanceNorm2d
from nnunet_echo.ops.linear import linear
from nnunet_echo.ops.mlstm import mlstm
from nnunet_echo.ops.selective_scan import cpu, selective_scan, traceable
from nnunet_echo.ops.selective_scan.inputs import ScanInputs
from nnunet_echo.ops.slstm import slstm

TURNED = (False, True)
Function = Callable[..., Tensor]


def scan(backend: str, *tensors: Tensor) -> Tensor:
    y, last = selective_scan(*tensors, delta_softplus=True, return_last_state=True, backend=backend, reverse=TURNED)
    return torch.cat((y, last), dim=2)


def cell(backend: str, *tensors: Tensor) -> Tensor:
    y, last = slstm(*tensors, backend=backend)
    return torch.cat((y.flatten(), last.flatten()))


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return InstanceNorm2d(3)(x) * weight[:, None, None] + bias[:, None, None]


with torch.random.fork_rng(devices=()):  # the same whatever was drawn before: some are too steep for any float32
    torch.manual_seed(0)
    SCAN = tuple(x.detach().float() for x in scan_inputs(batch=1, channels=4, length=5, states=3, groups=2).values())
    CONVOLUTION = (torch.randn(1, 4, 6), torch.randn(4, 1, 3), torch.randn(4))
    CELL = (*(torch.randn(1, 2, 5, 3) for _ in "qkv"), torch.randn(1, 2, 5), torch.randn(1, 2, 5) + 3)
    SCALAR_CELL = (torch.randn(2, 4, 4 * 6), torch.randn(3, 4, 2, 2), torch.randn(4, 3, 2), torch.rand(4, 2, 6) + 0.5)
    LINEAR = (torch.randn(2, 5, 3), torch.randn(4, 3), torch.randn(4))
    NORM = (torch.randn(2, 3, 4, 5).double(), torch.randn(3).double(), torch.randn(3).double())
# Name: function, what it is in plain PyTorch, inputs.
OPERATORS: dict[str, tuple[Function, Function, Sequence[Tensor]]] = {
    "scan-cpu": (partial(scan, "cpu"), partial(scan, "reference"), SCAN),
    "scan-chunked": (partial(scan, "chunked"), partial(scan, "reference"), SCAN),
    "scan-traceable": (partial(scan, "traceable"), partial(scan, "reference"), SCAN),
    "convolution": (
        partial(causal_conv_silu, reverse=TURNED),
        lambda u, weight, bias: traceable.causal_conv_silu(u, weight.squeeze(1), bias, TURNED),
        CONVOLUTION,
    ),
    "mlstm": (lambda *x: mlstm(*x), recurrence, CELL),
    "mlstm-chunks": (partial(mlstm, chunk=2), recurrence, CELL),
    "slstm-cpu": (partial(cell, "cpu"), partial(cell, "reference"), SCALAR_CELL),
    "slstm-cpu-fresh": (partial(cell, "cpu"), partial(cell, "reference"), SCALAR_CELL[:3]),
    "linear": (linear, nn.functional.linear, LINEAR),
    "norm": (norm, lambda x, w, b: nn.functional.instance_norm(x, weight=w, bias=b), NORM),
}


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def directions(tensors: Sequence[Tensor], *shape: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(*shape, *x.shape, generator=generator).to(x.dtype) for x in tensors)


def twice(power: int, f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradient of a gradient penalty, for a loss whose gradient at the output is constant, and one where not."""
    inputs = leaves(tensors)
    y = f(*inputs)
    gradients = torch.autograd.grad(y.pow(power), inputs, directions([y])[0], create_graph=True)
    return torch.autograd.grad(sum(g.sin().sum() for g in gradients), inputs, materialize_grads=True)


def jvp(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.func.jvp(f, tuple(tensors), directions(tensors))


def dual_numbers(requires_grad: bool, f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    tensors = leaves(tensors) if requires_grad else tensors
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(tensors, directions(tensors), strict=True)]
        return list(forward_ad.unpack_dual(f(*duals)))


def forward_over_backward(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """A backward whose incoming gradient carries a tangent, of a forward outside the dual level."""
    inputs = leaves(tensors)
    y = f(*inputs)
    with forward_ad.dual_level():
        grad = forward_ad.make_dual(*directions([y, y]))
        return [forward_ad.unpack_dual(g).tangent for g in torch.autograd.grad(y, inputs, grad)]


def vmap(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [torch.vmap(f)(*directions(tensors, 3))]


def func_grad(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.func.grad(lambda *x: f(*x).sin().sum(), argnums=tuple(range(len(tensors))))(*tensors)


def gradient_of_each_sample(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.vmap(partial(func_grad, f))(directions(tensors, 2))


def hessian(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [torch.func.hessian(lambda x: f(x, *tensors[1:]).sin().sum())(tensors[0])]


def jacobian(derivative: Callable, f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [derivative(lambda x: f(tensors[0], x, *tensors[2:]))(tensors[1])]


def batch_of_gradients(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    inputs = leaves(tensors)
    y = f(*inputs)
    return torch.autograd.grad(y, inputs, directions([y], 3), is_grads_batched=True)


def jit_trace(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(Module(f), tuple(torch.ones_like(x) for x in tensors)), file)
    file.seek(0)
    return [torch.jit.load(file)(*tensors)]


def fx(mode: str, f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [make_fx(f, tracing_mode=mode)(*(torch.ones_like(x) for x in tensors))(*tensors)]


class Module(nn.Module):
    def __init__(self, f: Function) -> None:
        super().__init__()
        self.f = f

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.f(*tensors)


def export(f: Function, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    program = torch.export.export(Module(f), tuple(torch.ones_like(x) for x in tensors))
    assert "nnunet_echo" not in str(program.graph)  # no operator that other machines do not have
    return [program.module()(*tensors)]


TRANSFORMS = {
    "twice-linear": partial(twice, 1),
    "twice": partial(twice, 2),
    "jvp": jvp,
    "dual numbers": partial(dual_numbers, False),
    "dual numbers and gradients": partial(dual_numbers, True),
    "forward over backward": forward_over_backward,
    "vmap": vmap,
    "grad": func_grad,
    "gradient of each sample": gradient_of_each_sample,
    "hessian": hessian,
    "jacrev": partial(jacobian, torch.func.jacrev),
    "jacfwd": partial(jacobian, torch.func.jacfwd),
    "batch of gradients": batch_of_gradients,
    "jit.trace": jit_trace,
    "make_fx": partial(fx, "real"),
    "make_fx-fake": partial(fx, "fake"),
    "export": export,
}


def operators(*names: str) -> pytest.MarkDecorator:
    in_c = ("scan-cpu", "convolution", "slstm-cpu", "slstm-cpu-fresh")
    return pytest.mark.parametrize("operator", [pytest.param(n, marks=compiled if n in in_c else ()) for n in names])


@operators(*OPERATORS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_as_plain_pytorch(operator: str, transform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_echo.ops.linear._FEWEST_NUMBERS", 0)
    function, plain, tensors = OPERATORS[operator]
    try:
        truth = TRANSFORMS[transform](plain, [x.double() for x in tensors])
    except NotImplementedError as error:  # PyTorch has no forward mode of the gradient of SiLU
        with pytest.raises(NotImplementedError, match=str(error)):
            TRANSFORMS[transform](function, tensors)
        return
    ours = TRANSFORMS[transform](function, tensors)
    assert any(x.any() for x in truth)
    for x, expected in zip(ours, truth, strict=True):
        torch.testing.assert_close(x.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=compiled), "chunked"])
def test_a_gradient_with_a_tangent(backend: str) -> None:
    """`forward_over_backward` without the gate, whose gradient PyTorch does not know in forward mode."""
    tensors = (*SCAN[:6], SCAN[7])

    def ungated(name: str, *tensors: Tensor) -> Tensor:
        return scan(name, *tensors[:6], None, tensors[6])

    ours = forward_over_backward(partial(ungated, backend), tensors)
    truth = forward_over_backward(partial(ungated, "reference"), [x.double() for x in tensors])
    for x, expected in zip(ours, truth, strict=True):
        torch.testing.assert_close(x.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@operators("scan-chunked", "scan-traceable", "mlstm", "mlstm-chunks", "linear")
def test_second_derivatives_by_finite_differences(operator: str) -> None:
    function, _, tensors = OPERATORS[operator]
    assert torch.autograd.gradgradcheck(function, leaves([x.double() for x in tensors]))


@operators(*OPERATORS)
@pytest.mark.parametrize("device", ["fake", "meta"])
def test_shapes_without_numbers(operator: str, device: str) -> None:
    function, plain, tensors = OPERATORS[operator]
    if operator.endswith(("-cpu", "-fresh")) and device == "meta":
        with pytest.raises(RuntimeError, match="cannot run on meta.*the C scan runs on CPUs only"):
            function(*(x.to("meta") for x in tensors))
        return
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = [x.to("meta") if device == "meta" else torch.empty_like(x) for x in tensors]
        y = function(*(x.requires_grad_() for x in inputs))
        y.sum().backward()
    assert y.shape == plain(*tensors).shape
    assert [x.grad.shape for x in inputs] == [x.shape for x in tensors]


@compiled
def test_operators_that_count_no_flops_are_not_left_out() -> None:
    """B D N L times 7 for the scan and 20 for its backward; 2 for each weight and token of the convolution."""
    inputs = scan_inputs(batch=2, channels=4, length=5, states=3, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        selective_scan(**inputs, backend="cpu").sum().backward()
    assert counter.get_total_flops() == 27 * 2 * 4 * 3 * 5
    u, weight, bias = leaves((torch.randn(2, 4, 6), torch.randn(4, 1, 3), torch.randn(4)))
    with FlopCounterMode(display=False) as counter:
        causal_conv_silu(u, weight, bias, (False,)).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 4 * 6 * 3
    with FlopCounterMode(display=False) as counter:
        slstm(*leaves(SCALAR_CELL), backend="cpu")[0].sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 4) * (3 * 4 * 2 * 2)  # R y, at y, at R


@compiled
def test_the_bare_operators_refuse_forward_mode() -> None:
    u, weight, bias = CONVOLUTION
    calls = [
        lambda u: torch.ops.nnunet_echo.scan_cpu(u, *SCAN[1:], True, TURNED)[0],
        lambda u: cpu.selective_scan(ScanInputs(u, *SCAN[1:], delta_softplus=True), TURNED)[0],
        lambda u: cpu.causal_conv_silu(u, weight.squeeze(1), bias, TURNED),
        lambda x: torch.ops.nnunet_echo.slstm_cpu(x, *SCALAR_CELL[1:])[0],
    ]
    for call, x in zip(calls, (SCAN[0], SCAN[0], u, SCALAR_CELL[0]), strict=True):
        with pytest.raises(RuntimeError, match="no forward-mode derivative.*NNUNET_ECHO_SCAN=reference"):
            torch.func.jvp(call, (x,), (x,))


@compiled
def test_forward_mode_inside_a_compiled_function() -> None:
    def f(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(partial(scan, "cpu"), tensors, directions_of_scan)

    directions_of_scan = directions(SCAN)
    torch.compiler.reset()
    for x, expected in zip(torch.compile(f, backend="aot_eager")(*SCAN), f(*SCAN), strict=True):
        torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=compiled), "chunked"])
def test_one_tensor_as_two_inputs_is_not_counted_twice(backend: str) -> None:
    def second_derivative(name: str, dtype: torch.dtype) -> Tensor:
        u, delta, A, B, *_ = leaves([x.to(dtype) for x in SCAN])
        y = selective_scan(u, u, A, B, B, delta_softplus=True, backend=name)
        (g,) = torch.autograd.grad(y.pow(2).sum(), u, create_graph=True)
        return torch.autograd.grad(g.pow(2).sum(), B)[0].double()

    truth = second_derivative("reference", torch.float64)
    assert (second_derivative(backend, torch.float32) - truth).norm() < 1e-4 * truth.norm()
