"""The selective scan: against the plain recurrence in float64, precision, memory, errors, choice of backend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE, choose_backend, chunked, cuda, selective_scan

OPTIONAL = ("D", "z", "delta_bias")


def scan_inputs(
    batch: int = 2,
    channels: int = 8,
    length: int = 63,
    states: int = 16,
    groups: int | None = 1,
    without: tuple[str, ...] = (),
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Random inputs of a scan; `groups` None gives B and C without the axis of groups; `scale` multiplies A."""
    row, state = (batch, channels, length), (batch, groups, states, length)
    if groups is None:
        state = (batch, states, length)
    inputs = {
        "u": torch.randn(row),
        "delta": torch.randn(row),
        "A": -scale * torch.rand(channels, states) - 1e-6,
        "B": torch.randn(state),
        "C": torch.randn(state),
        "D": torch.randn(channels),
        "z": torch.randn(row),
        "delta_bias": torch.randn(channels),
    }
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items() if name not in without}


def run(inputs: dict[str, Tensor], backend: str, **options: object) -> dict[str, Tensor]:
    """`outputs_and_gradients` of a backend."""
    return outputs_and_gradients(partial(selective_scan, return_last_state=True, backend=backend, **options), inputs)


def outputs_and_gradients(scan: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Output, last state, and the gradient of a fixed random functional of both at every input."""
    inputs = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y, last = scan(**inputs)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in (y, last)]
    ((y * weights[0]).sum() + (last * weights[1]).sum()).backward()
    return {"y": y, "last_state": last, **{f"gradient at {name}": x.grad for name, x in inputs.items()}}


def assert_close(ours: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        error, size = (ours[name].double() - expected.double()).norm(), expected.double().norm()
        assert error <= tolerance * size, f"{name}: error {error:.1e} of {size:.1e}"


def check(backend: str, inputs: dict[str, Tensor], **options: object) -> None:
    """A backend in float32: relative error to the reference in float64, 2e-6 of outputs and 1e-5 of gradients."""
    single = {name: x.float() for name, x in inputs.items()}
    truth = run({name: x.double() for name, x in single.items()}, "reference", **options)
    ours = run(single, backend, **options)
    outputs = {"y", "last_state"}
    assert_close({k: ours[k] for k in outputs}, {k: truth[k] for k in outputs}, 2e-6)
    assert_close(ours, truth, 1e-5)


@pytest.mark.parametrize("length", [1, 2, 63, 197, 300])
@pytest.mark.parametrize("groups", [None, 1, 4])
def test_chunked_is_the_recurrence(length: int, groups: int | None) -> None:
    inputs = scan_inputs(length=length, groups=groups)
    assert_close(run(inputs, "chunked", delta_softplus=True), run(inputs, "reference", delta_softplus=True), 1e-12)


@pytest.mark.parametrize("without", [*[(name,) for name in OPTIONAL], OPTIONAL])
def test_optional_inputs(without: tuple[str, ...]) -> None:
    inputs = scan_inputs(without=without)
    inputs["delta"] = inputs["delta"].detach().abs()  # without softplus the step has to be positive itself
    assert_close(run(inputs, "chunked"), run(inputs, "reference"), 1e-12)


def scan_by_flipping(reverse: tuple[bool, ...], **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Every group of channels by itself, with its tokens flipped before and after where `reverse` says so."""
    outputs = []
    for group, turn in enumerate(reverse):
        part = {k: x.chunk(len(reverse), dim=int(x.ndim > 2))[group] for k, x in inputs.items()}
        part = {k: x.flip(-1) if turn and x.ndim > 2 else x for k, x in part.items()}
        y, last = selective_scan(**part, delta_softplus=True, return_last_state=True, backend="reference")
        outputs.append((y.flip(-1) if turn else y, last))
    return tuple(torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))


@pytest.mark.parametrize("reverse", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_reversed_groups_begin_at_the_last_token(backend: str, reverse: tuple[bool, ...]) -> None:
    inputs = scan_inputs(groups=2)
    truth = outputs_and_gradients(partial(scan_by_flipping, reverse), inputs)
    assert_close(run(inputs, backend, delta_softplus=True, reverse=reverse), truth, 1e-12)


def test_many_sequences_are_cut_into_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_ELEMENTS_OF_A_TOKEN", 3 * 16 * 2)  # three sequences of two channels at a time
    inputs = scan_inputs(batch=2, channels=8, groups=4)
    assert_close(run(inputs, "chunked", delta_softplus=True), run(inputs, "reference", delta_softplus=True), 1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 80.0])
@pytest.mark.parametrize("length", [1, 63, 197])
def test_float32_is_near_float64(scale: float, length: int) -> None:
    inputs = scan_inputs(length=length, scale=scale)
    truth = run(inputs, "reference", delta_softplus=True)
    assert_close(run({k: v.float() for k, v in inputs.items()}, "chunked", delta_softplus=True), truth, 5e-6)


def test_gradcheck() -> None:
    inputs = scan_inputs(batch=1, channels=4, length=18, states=3, groups=2)
    names = list(inputs)

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        arguments = dict(zip(names, tensors, strict=True))
        return selective_scan(**arguments, delta_softplus=True, return_last_state=True, backend="chunked")

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


def test_states_are_not_kept_for_the_backward() -> None:
    batch, channels, length, states = 2, 64, 512, 16
    inputs = scan_inputs(batch, channels, length, states, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        selective_scan(**inputs, delta_softplus=True, backend="chunked")
    assert kept
    assert sum(kept) < 0.6 * batch * channels * length * states


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_sixteen_bits_outside_stay_finite(dtype: torch.dtype, backend: str) -> None:
    inputs = scan_inputs(length=197, dtype=torch.float32)
    inputs["u"] = (1e4 * inputs["u"]).detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    assert last.isfinite().all()
    last.sum().backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs.values())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 8), "u has shape"),
        ("delta", (2, 8, 62), "delta has shape"),
        ("A", (7, 16), "A is"),
        ("B", (2, 15, 63), "B has shape"),
        ("C", (2, 3, 16, 63), "C has 3 groups"),
        ("C", (2, 2, 16, 63), "the same number of groups"),
        ("D", (7,), "D has shape"),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    inputs = scan_inputs()
    inputs[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)


def test_reverse_has_one_entry_per_group() -> None:
    with pytest.raises(ValueError, match="one bool for each of the 2 groups"):
        selective_scan(**scan_inputs(groups=2), reverse=(True, False, True))


def test_choice_of_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    assert choose_backend(cpu) != "reference"
    assert choose_backend(cpu, torch.float64) == "chunked"
    assert choose_backend(cpu, backend="reference") == "reference"
    with pytest.raises(RuntimeError, match="'cuda' cannot run on cpu.*CUDA devices only"):
        choose_backend(cpu, backend="cuda")
    with pytest.raises(ValueError, match="expected 'auto' or one of 'cuda'"):
        choose_backend(cpu, backend="fast")
    monkeypatch.setenv(BACKEND_VARIABLE, "reference")
    assert choose_backend(cpu) == "reference"
    assert choose_backend(cpu, backend="chunked") == "chunked"
    monkeypatch.setenv(BACKEND_VARIABLE, "fast")
    with pytest.raises(ValueError, match=f"{BACKEND_VARIABLE}='fast'"):
        choose_backend(cpu)


def test_broken_mamba_ssm_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenWheel:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("mamba_ssm"):
                raise ImportError("undefined symbol: _ZN3c104cuda")

    monkeypatch.setattr(sys, "meta_path", [BrokenWheel(), *sys.meta_path])
    cuda._probe.cache_clear()
    with pytest.warns(RuntimeWarning, match="mamba_ssm is installed but broken .*undefined symbol"):
        reason = cuda._probe(torch.device("cpu"))
    assert "undefined symbol" in reason
    assert cuda._probe(torch.device("cpu")) == reason  # cached: a second warning would fail the test run's -W error
    cuda._probe.cache_clear()
