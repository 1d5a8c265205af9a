"""The sLSTM cell in C against the plain recurrence in float64, and the recurrence against its equations."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from test_scan_cpu import WIDTHS, compiled, width  # noqa: F401
from torch import Tensor

from nnunet_echo.ops import slstm as package
from nnunet_echo.ops.selective_scan import cpu as scan
from nnunet_echo.ops.slstm import choose_backend, cpu, reference, slstm


def cell_inputs(
    batch: int = 2, length: int = 9, heads: int = 3, size: int = 5, state: bool = False, scale: float = 1.0
) -> dict[str, Tensor]:
    """x, R, b and with `state` an initial one, in float64, with gradients."""
    generator = torch.Generator().manual_seed(length)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": scale * random(batch, length, 4 * heads * size),
        "R": size**-0.5 * random(heads, 4, size, size),
        "b": random(4, heads, size),
    }
    if state:
        inputs["initial_state"] = random(4, batch, heads * size)
        inputs["initial_state"][2] = inputs["initial_state"][2].abs() + 0.1
    return {name: x.requires_grad_() for name, x in inputs.items()}


def run(inputs: dict[str, Tensor], backend: str) -> list[Tensor]:
    """Output, last state and gradients of a weighted sum of both."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y, last = slstm(**leaves, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in (y, last)]
    loss = (y * weights[0]).sum() + (last * weights[1]).sum()
    return [y, last, *torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)]


def check(inputs: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    single = {name: x.detach().float() for name, x in inputs.items()}
    for ours, truth in zip(run(single, "cpu"), run(inputs, "reference"), strict=True):
        assert ours.dtype == torch.float32
        assert (ours.double() - truth).norm() <= tolerance * truth.norm() + 1e-7


def test_examples() -> None:
    assert doctest.testmod(package).attempted >= 2
    assert doctest.testmod(package).failed == 0


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=compiled)])
def test_two_tokens_by_hand(backend: str) -> None:
    """One head of one channel, with the exponentials as the paper has them, which are small here."""
    i, f, z, o = [0.3, -0.5], [9.0, 0.7], [0.8, -1.1], [0.2, 1.3]
    R, b = [0.5, -0.4, 0.9, 0.6], [0.1, 0.2, -0.3, -0.1]
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    y = c = n = 0.0
    expected = []
    for t in range(2):
        at = [gate[t] + r * y + bias for gate, r, bias in zip((i, f, z, o), R, b, strict=True)]
        c = sigmoid(at[1]) * c + math.exp(at[0]) * math.tanh(at[2])
        n = sigmoid(at[1]) * n + math.exp(at[0])
        y = sigmoid(at[3]) * c / n
        expected.append(y)
    x = torch.tensor([i, f, z, o]).T.reshape(1, 2, 4)
    found, last = slstm(x, torch.tensor(R).view(1, 4, 1, 1), torch.tensor(b).view(4, 1, 1), backend=backend)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert (last[1:3] * last[3].exp()).flatten().tolist() == pytest.approx([c, n], rel=1e-5)  # both are divided by e**m


def test_second_derivatives_by_finite_differences() -> None:
    inputs = cell_inputs(batch=1, length=3, heads=2, size=2, state=True)
    assert torch.autograd.gradcheck(slstm, tuple(inputs.values()))
    assert torch.autograd.gradgradcheck(slstm, tuple(inputs.values()))


@compiled
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("length", [1, 2, 131])
def test_it_is_the_recurrence(width: int, length: int, state: bool) -> None:  # noqa: F811
    check(cell_inputs(length=length, state=state))


@compiled
@pytest.mark.parametrize("size", [1, 4, 16, 17, 48, 67])
def test_any_number_of_channels(width: int, size: int) -> None:  # noqa: F811
    check(cell_inputs(size=size, heads=2, state=True))


@compiled
@pytest.mark.parametrize("scale", [1e-3, 5.0, 40.0])
def test_gates_near_zero_and_far_from_it(width: int, scale: float) -> None:  # noqa: F811
    check(cell_inputs(scale=scale), 3e-5)


@compiled
def test_small_inputs_keep_their_digits(width: int) -> None:  # noqa: F811
    """tanh of 1e-6 is 1e-6, not a difference of numbers near 1."""
    inputs = cell_inputs(scale=1e-6)
    for name in ("R", "b"):
        inputs[name] = torch.zeros_like(inputs[name]).requires_grad_()
    single = {name: x.detach().float() for name, x in inputs.items()}
    ours, truth = run(single, "cpu")[0], run(inputs, "reference")[0]
    assert (ours.double() - truth).norm() < 1e-5 * truth.norm()


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=compiled)])
def test_a_first_token_forgets_nothing_where_no_n_is_more_than_0(backend: str) -> None:
    """Else its stabiliser would be log sigmoid(f), and exp(i - m) zero: the output would be 0 / 0."""
    inputs = {name: x.detach().float() for name, x in cell_inputs(length=2).items()}
    inputs["x"][:, :, :15] = -200.0
    zeros = torch.zeros(4, 2, 15)
    for state in ({}, {"initial_state": zeros}):
        assert all(x.isfinite().all() for x in run({**inputs, **state}, backend))
    one = zeros.clone()
    one[2, 0, 0] = 1.0  # of the whole batch
    y, _ = slstm(**inputs, initial_state=one, backend=backend)
    assert y[0, 0, 0, 0] == 0
    assert y[1, 0, 0].isnan().all()


@compiled
def test_gradients_where_the_two_gates_are_equal() -> None:
    """log sigmoid(1000) is 0: the maximum of every token has two equal arguments, and y depends on both."""
    inputs = {name: torch.zeros_like(x) for name, x in cell_inputs(2, 6, 3, 5).items()}
    gates = torch.randn(2, 6, 4, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gates[:, :, 0], gates[:, :, 1] = 0, 1000
    inputs["x"] = gates.flatten(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: slstm(x, inputs["R"], inputs["b"], backend="reference")[0], inputs["x"])
    gradients = []
    for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
        leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in inputs.items()}
        y, _ = slstm(**leaves, backend=backend)
        gradients.append(torch.autograd.grad(y.square().sum(), list(leaves.values())))
    for truth, ours in zip(*gradients, strict=True):
        assert (ours.double() - truth).norm() <= 1e-5 * truth.norm()


@compiled
def test_gradients_where_a_memory_has_no_norm() -> None:
    memory = cell_inputs(length=1, state=True)
    state = memory["initial_state"].detach()
    state[2] = 0.0
    check({**memory, "initial_state": state})


@compiled
def test_nan_is_not_hidden(width: int) -> None:  # noqa: F811
    for name in ("x", "R", "b", "initial_state"):
        inputs = {key: x.detach().float() for key, x in cell_inputs(state=True).items()}
        inputs[name] = torch.full_like(inputs[name], torch.nan)
        assert slstm(**inputs, backend="cpu")[0].isnan().all(), name


@compiled
def test_every_element_is_written(width: int) -> None:  # noqa: F811
    torch.use_deterministic_algorithms(True)  # new tensors are full of NaN then
    try:
        check(cell_inputs(state=True))
    finally:
        torch.use_deterministic_algorithms(False)


@compiled
@pytest.mark.parametrize("threads_of", ["PyTorch", "the library"])
def test_threads_do_not_change_a_bit(threads_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads_of == "the library":
        monkeypatch.setattr(scan, "_parallel", lambda: None)
    single = {name: x.detach().float() for name, x in cell_inputs(batch=3, length=40, state=True).items()}
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(run(single, "cpu")[:3])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


@compiled
@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0)])
def test_no_tokens_or_no_sequences(batch: int, length: int) -> None:
    inputs = cell_inputs(batch=batch, length=length, state=True)
    single = {name: x.detach().float() for name, x in inputs.items()}
    for ours, truth in zip(run(single, "cpu"), run(inputs, "reference"), strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-6)


@compiled
def test_a_state_carries_on() -> None:
    inputs = {name: x.detach().float() for name, x in cell_inputs(length=12).items()}
    x = inputs.pop("x")
    y, last = slstm(x, **inputs)
    first, state = slstm(x[:, :5], **inputs)
    second, end = slstm(x[:, 5:], **inputs, initial_state=state)
    torch.testing.assert_close(torch.cat((first, second), dim=2), y)
    torch.testing.assert_close(end, last)


@compiled
@pytest.mark.parametrize("state", [False, True])
def test_it_compiles_into_one_graph(state: bool) -> None:
    single = {name: x.detach().float() for name, x in cell_inputs(state=state).items()}
    torch.compiler.reset()
    leaves = [x.clone().requires_grad_() for x in single.values()]
    y, last = torch.compile(slstm, fullgraph=True, backend="aot_eager")(*leaves)
    gradients = torch.autograd.grad(y.sum() + last.sum(), leaves)
    expected = slstm(*leaves)
    torch.testing.assert_close((y, last), expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected[0].sum() + expected[1].sum(), leaves))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_outside_are_32_inside(dtype: torch.dtype) -> None:
    inputs = {name: x.detach().to(dtype) for name, x in cell_inputs().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, last = slstm(**inputs)
    assert y.dtype == last.dtype == torch.float32
    expected, _ = slstm(**{name: x.float() for name, x in inputs.items()})
    assert torch.equal(y, expected)


def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    monkeypatch.delenv("NNUNET_ECHO_SCAN", raising=False)
    if cpu.why_not(device, torch.float32) is None:
        assert choose_backend(device) == "cpu"
    assert choose_backend(device, torch.float64) == choose_backend(torch.device("meta")) == "reference"
    assert reference.why_not(device, torch.float64) is None
    monkeypatch.setenv("NNUNET_ECHO_SCAN", "reference")
    assert choose_backend(device) == "reference"
    with pytest.raises(ValueError, match="backend='cuda': expected 'auto' or one of 'cpu', 'reference'"):
        choose_backend(device, backend="cuda")
    with pytest.raises(
        RuntimeError, match="backend='cpu' cannot run on cpu with torch.float64: the C scan computes in fl"
    ):
        slstm(**cell_inputs(), backend="cpu")
    monkeypatch.setattr(scan, "_library", lambda: None)
    assert "install nnunet-echo again" in cpu.why_not(device, torch.float32)
    monkeypatch.setenv("NNUNET_ECHO_SCAN", "auto")
    assert choose_backend(device) == "reference"


@compiled
def test_a_library_of_another_version_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_KEPT", 8)
    monkeypatch.setattr(cpu, "_Cell", type("_Cell", (cpu.ctypes.Structure,), {"_fields_": cpu._Cell._fields_[:-1]}))
    assert "another version" in cpu.why_not(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 9, 61), r"x has shape \(2, 9, 61\): expected \(batch, tokens, 60\), 4 gates of 3 heads of 5"),
        ("x", (9, 60), r"x has shape"),
        ("R", (3, 4, 5, 6), r"R has shape .*: expected \(heads, 4, D, D\)"),
        ("R", (3, 20, 5), r"R has shape"),
        ("b", (3, 4, 5), r"b has shape \(3, 4, 5\): expected \(4, 3, 5\)"),
        ("initial_state", (4, 1, 15), r"initial_state has shape \(4, 1, 15\): expected \(4, 2, 15\)"),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slstm(**{**cell_inputs(), name: torch.zeros(shape)})


@pytest.mark.parametrize("name", ["x", "R", "b", "initial_state"])
def test_complex_numbers_are_refused(name: str) -> None:
    inputs = {"initial_state": torch.zeros(4, 2, 15), **cell_inputs()}
    with pytest.raises(ValueError, match=f"{name} is torch.complex64: expected real numbers"):
        slstm(**{**inputs, name: inputs[name].to(torch.complex64)})
