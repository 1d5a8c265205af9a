"""The scan in Triton, without a GPU: in Triton's interpreter against the plain recurrence.

The interpreter has to be on when Triton is first imported, so the tests that compute run in a process of their own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import partial

import pytest
import torch
from test_scan import OPTIONAL, assert_close, check, outputs_and_gradients, run, scan_by_flipping, scan_inputs
from test_scan_cpu import lay_out
from torch import Tensor

from nnunet_echo.ops.selective_scan import choose_backend, selective_scan, triton
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
installed = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the process that test_in_the_interpreter starts")
pytestmark = pytest.mark.triton

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@installed
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
@pytest.mark.parametrize(
    ("chosen", "tests"), [("test_reversed or test_second_derivatives", 5), pytest.param("", 50, marks=pytest.mark.slow)]
)
def test_in_the_interpreter(chosen: str, tests: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= tests


@pytest.fixture(params=[1, 1000], ids=["small GPU", "large GPU"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiprocessors to fill: a small GPU walks over the chunks where there is more than one block of channels, and
    has several blocks in a program of the backward; a large one has all chunks and blocks in programs of their own."""
    monkeypatch.setattr(triton, "why_not", lambda *_: None)
    monkeypatch.setattr(triton, "_multiprocessors", lambda _: request.param)
    monkeypatch.setattr(triton, "_PROGRAMS", 2)
    monkeypatch.setattr(triton, "_ROWS", 2)
    monkeypatch.setattr(triton, "_CHUNKS", 4)


# For what does not depend on how the work is shared out.
one_gpu = pytest.mark.parametrize("gpu", [1000], indirect=True, ids=["large GPU"])
small = partial(scan_inputs, batch=1, channels=4, states=2)


@interpreted
@pytest.mark.parametrize(("length", "groups"), [(1, 2), (32, 1), (63, 2), (197, 1)])
def test_it_is_the_recurrence(gpu: None, length: int, groups: int) -> None:
    check("triton", small(length=length, groups=groups), delta_softplus=True)


@interpreted
@pytest.mark.parametrize(("states", "channels"), [(1, 1), (3, 3)])
def test_any_number_of_states_and_channels(gpu: None, states: int, channels: int) -> None:
    check("triton", small(batch=2, channels=channels, length=35, states=states), delta_softplus=True)


@interpreted
def test_three_blocks_of_channels(gpu: None) -> None:
    """On the small GPU the backward has two programs for them, the second of which finds its last block empty."""
    check("triton", small(channels=5, length=20), delta_softplus=True)


@interpreted
@pytest.mark.parametrize("without", [*[(name,) for name in OPTIONAL], OPTIONAL])
def test_optional_inputs(gpu: None, without: tuple[str, ...]) -> None:
    inputs = small(length=40, without=without)
    softplus = without != OPTIONAL
    if not softplus:  # then the step has to be positive itself
        inputs["delta"] = inputs["delta"].detach().abs()
    check("triton", inputs, delta_softplus=softplus)


@interpreted
@one_gpu
def test_second_derivatives_and_forward_mode(gpu: None) -> None:
    inputs = small(length=35, groups=2)

    def penalty(backend: str, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs.values()]
        scan = partial(selective_scan, delta_softplus=True, backend=backend, reverse=(True, False))
        gradients = torch.autograd.grad(scan(*leaves).sum(), leaves, create_graph=True)
        tangent = torch.func.jvp(scan, tuple(leaves), tuple(torch.ones_like(x) for x in leaves))[1]
        return [*torch.autograd.grad(sum(g.sin().sum() for g in gradients), leaves, allow_unused=True)[:5], tangent]

    for ours, truth in zip(penalty("triton", torch.float32), penalty("reference", torch.float64), strict=True):
        assert (ours - truth).norm() < 1e-4 * truth.norm()

    def bare(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return triton.selective_scan(ScanInputs(*tensors, delta_softplus=True), (True, False))

    tensors = tuple(x.detach().float() for x in inputs.values())
    with pytest.raises(RuntimeError, match="Triton scan has no forward-mode derivative"):
        torch.func.jvp(bare, tensors, tensors)


@interpreted
@one_gpu
@pytest.mark.parametrize("length", [1, 63, 197])
@pytest.mark.parametrize("exponent", [1e-6, 1.0, 80.0])
def test_decay_from_almost_one_to_nothing(gpu: None, exponent: float, length: int) -> None:
    inputs = small(length=length, states=4, without=("delta_bias",))
    inputs["delta"] = (0.5 + torch.rand_like(inputs["delta"])).detach()
    inputs["A"] = (-exponent * (0.5 + torch.rand_like(inputs["A"]))).detach()
    check("triton", inputs)


@interpreted
def test_strong_and_weak_decay_side_by_side(gpu: None) -> None:
    inputs = small(length=70, without=("delta_bias",))
    steps = torch.where(torch.rand_like(inputs["delta"]) < 0.2, 80.0, 1e-3)
    inputs["delta"] = (steps * (0.5 + torch.rand_like(steps))).detach()
    check("triton", inputs)


@interpreted
@one_gpu
@pytest.mark.parametrize("shift", [-20.0, -10.0, 10.0, 60.0])
def test_softplus_and_gate_far_from_zero(gpu: None, shift: float) -> None:
    inputs = small(length=40)
    for name in ("delta_bias", "z"):
        inputs[name] = (inputs[name] + shift).detach()
    check("triton", inputs, delta_softplus=True)


@interpreted
@pytest.mark.parametrize(("reverse", "length"), [((False, True), 70), ((True, False, False, True), 31)])
def test_reversed_groups_begin_at_the_last_token(gpu: None, reverse: tuple[bool, ...], length: int) -> None:
    inputs = small(channels=8, length=length, groups=len(reverse))
    truth = outputs_and_gradients(partial(scan_by_flipping, reverse), inputs)
    ours = run({name: x.float() for name, x in inputs.items()}, "triton", delta_softplus=True, reverse=reverse)
    assert_close(ours, truth, 1e-5)


@interpreted
def test_a_state_that_has_decayed_is_zero_and_nan_is_not_hidden(gpu: None) -> None:
    ones = torch.ones(1, 1, 2)
    u = torch.tensor([[[1.0, 0.0]]])
    for exponent in (200.0, 1e4, 1e30):
        A = torch.full((1, 1), -exponent)
        _, last = selective_scan(u, ones, A, ones, ones, return_last_state=True, backend="triton")
        assert last.item() == 0
    for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias"):
        inputs = small(length=5, dtype=torch.float32)
        inputs[name] = torch.full_like(inputs[name], torch.nan)
        assert selective_scan(**inputs, delta_softplus=True, backend="triton").isnan().all(), name


@interpreted
def test_every_element_is_written(gpu: None) -> None:
    torch.use_deterministic_algorithms(True)  # new tensors are full of NaN then
    try:
        assert torch.empty(3).isnan().all()
        check("triton", small(channels=6, length=40, groups=2), delta_softplus=True)
    finally:
        torch.use_deterministic_algorithms(False)


@interpreted
@one_gpu
@pytest.mark.parametrize("layout", ["token by token", "every second"])
def test_any_layout_in_memory(gpu: None, layout: str) -> None:
    inputs = {k: x.detach().float() for k, x in small(length=40, groups=2).items()}
    views = {k: lay_out(x, layout).requires_grad_() for k, x in inputs.items()}
    assert not any(x.is_contiguous() for x in views.values() if x.ndim > 1)
    y = selective_scan(**views, delta_softplus=True, backend="triton")
    y.sum().backward()  # the gradient at y is an expanded scalar
    assert y.is_contiguous()
    leaves = {k: x.requires_grad_() for k, x in inputs.items()}
    truth = selective_scan(**leaves, delta_softplus=True, backend="triton")
    truth.sum().backward()
    assert torch.equal(y, truth)
    assert all(torch.equal(x.grad, views[k].grad) for k, x in leaves.items())


@interpreted
@pytest.mark.parametrize("shape", [(1, 4, 0), (0, 4, 5)])
def test_nothing_to_scan(gpu: None, shape: tuple[int, int, int]) -> None:
    batch, channels, length = shape
    inputs = small(batch=batch, channels=channels, length=length, dtype=torch.float32)
    ours = run(inputs, "triton")
    assert ours["y"].shape == shape
    assert not any(x.any() for x in ours.values())


@interpreted
@one_gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_operator_is_registered_well(gpu: None) -> None:
    inputs = [x.detach().float().requires_grad_() for x in small(length=20).values()]
    torch.library.opcheck(triton._scan, (*inputs, True, [True]), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(triton._scan, (*inputs[:5], None, None, None, False, [False]))


@interpreted
@one_gpu
def test_torch_compile_passes_over_it(gpu: None) -> None:
    inputs = {name: lay_out(x.detach().float(), "token by token") for name, x in small(length=40).items()}

    def scan(**tensors: Tensor) -> Tensor:
        return selective_scan(**tensors, delta_softplus=True, backend="triton")

    results = []
    for function in (scan, torch.compile(scan, fullgraph=True, backend="aot_eager")):
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        y = function(**leaves)
        y.square().sum().backward()
        results.append([y, *(x.grad for x in leaves.values())])
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@interpreted
@one_gpu
def test_the_probe_compares(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    triton._probe.cache_clear()
    assert triton._probe(CPU) is None
    triton._probe.cache_clear()
    right = triton.selective_scan
    monkeypatch.setattr(triton, "selective_scan", lambda *x: tuple(1.001 * y for y in right(*x)))
    with pytest.warns(RuntimeWarning, match="does not work here .*relative error 1.0e-03"):
        reason = triton._probe(CPU)
    assert triton._probe(CPU) == reason  # cached: no second warning
    triton._probe.cache_clear()


def test_it_says_what_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA devices only" in triton.why_not(CPU, torch.float32)
    assert "float32, not in torch.float64" in triton.why_not(GPU, torch.float64)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    if importlib.util.find_spec("triton"):
        assert "has 6.1" in triton.why_not(GPU, torch.float32)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "not installed" in triton.why_not(GPU, torch.float32)


def test_auto_is_not_triton_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNUNET_ECHO_SCAN", raising=False)
    assert choose_backend(CPU, torch.float32) != "triton"
