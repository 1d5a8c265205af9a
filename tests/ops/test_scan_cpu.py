"""The scan in C: against the plain recurrence in float64, every instruction set, threads, memory, installs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path

import pytest
import torch
from test_scan import OPTIONAL, assert_close, check, outputs_and_gradients, run, scan_by_flipping, scan_inputs
from torch import Tensor

from nnunet_echo.ops.selective_scan import choose_backend, cpu, selective_scan

REASON = cpu.why_not(torch.device("cpu"), torch.float32)
compiled = pytest.mark.skipif(REASON is not None, reason=str(REASON))
WIDTHS = (4, 8, 16)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every instruction set that this processor has: floats in a vector."""
    if request.param > cpu.widest_vector():
        pytest.skip(f"this processor has no vectors of {request.param} floats")
    monkeypatch.setattr(cpu, "vector_width", request.param)
    return request.param


def test_a_compiler_means_a_library() -> None:
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("no compiler here")
    if sys.platform == "win32":
        pytest.skip("Microsoft's compiler cannot build the C scan")
    assert REASON is None


def test_it_says_what_it_cannot() -> None:
    assert "CPUs only" in cpu.why_not(torch.device("meta"), torch.float32)
    assert "float32" in cpu.why_not(torch.device("cpu"), torch.float64)


@compiled
def test_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNUNET_ECHO_SCAN", raising=False)
    assert choose_backend(torch.device("cpu"), torch.float32) == "cpu"


@compiled
@pytest.mark.parametrize("length", [1, 63, 64, 197])
@pytest.mark.parametrize("groups", [1, 4])
def test_it_is_the_recurrence(width: int, length: int, groups: int) -> None:
    check("cpu", scan_inputs(length=length, groups=groups), delta_softplus=True)


@compiled
@pytest.mark.parametrize("layout", ["channel by channel", "token by token"])
@pytest.mark.parametrize("length", [63, 64, 197])
def test_reversed_groups_begin_at_the_last_token(width: int, length: int, layout: str) -> None:
    reverse = (False, True)
    inputs = scan_inputs(channels=72, length=length, groups=2)
    truth = outputs_and_gradients(partial(scan_by_flipping, reverse), inputs)
    single = {k: lay_out(x.detach().float(), layout) for k, x in inputs.items()}
    assert_close(run(single, "cpu", delta_softplus=True, reverse=reverse), truth, 1e-5)


@compiled
@pytest.mark.parametrize("states", [1, 5, 17, 256])
@pytest.mark.parametrize("channels", [1, 37, 70])
def test_any_number_of_states_and_channels(width: int, states: int, channels: int) -> None:
    check("cpu", scan_inputs(batch=1, channels=channels, length=67, states=states), delta_softplus=True)


@compiled
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("without", [*[(name,) for name in OPTIONAL], OPTIONAL])
def test_optional_inputs(width: int, without: tuple[str, ...], softplus: bool) -> None:
    inputs = scan_inputs(without=without)
    if not softplus:  # then the step has to be positive itself
        inputs["delta"] = inputs["delta"].detach().abs()
        inputs.pop("delta_bias", None)
    check("cpu", inputs, delta_softplus=softplus)


@compiled
@pytest.mark.parametrize("length", [1, 63, 197])
@pytest.mark.parametrize("exponent", [1e-6, 1e-2, 1.0, 80.0])
def test_decay_from_almost_one_to_nothing(width: int, exponent: float, length: int) -> None:
    inputs = scan_inputs(length=length, without=("delta_bias",))
    inputs["delta"] = (0.5 + torch.rand_like(inputs["delta"])).detach()
    inputs["A"] = (-exponent * (0.5 + torch.rand_like(inputs["A"]))).detach()
    check("cpu", inputs)


@compiled
@pytest.mark.parametrize("seed", [18, 189])
def test_gradient_of_A_that_cancels(width: int, seed: int) -> None:
    """Sums of few terms near exp(-80): exponents rounded token by token made these 1.1e-5 and 6.8e-5 wrong."""
    torch.manual_seed(seed)
    inputs = scan_inputs(batch=1, channels=4, states=2, without=("delta_bias",))
    inputs["delta"] = (0.5 + 0.5 * torch.rand_like(inputs["delta"])).detach()
    inputs["A"] = (-40 * (1 + torch.rand_like(inputs["A"]))).detach()
    check("cpu", inputs)


@compiled
@pytest.mark.parametrize("shift", [-20.0, -10.0, 0.0, 10.0, 60.0])
def test_softplus_and_gate_far_from_zero(width: int, shift: float) -> None:
    inputs = scan_inputs(length=40)
    for name in ("delta_bias", "z"):
        inputs[name] = (inputs[name] + shift).detach()
    check("cpu", inputs, delta_softplus=True)


@compiled
def test_a_state_that_has_decayed_is_zero_and_nan_is_not_hidden(width: int) -> None:
    ones = torch.ones(1, 1, 2)
    u = torch.tensor([[[1.0, 0.0]]])
    for exponent in (100.0, 1e4, 1e30):
        A = torch.full((1, 1), -exponent)
        _, last = selective_scan(u, ones, A, ones, ones, return_last_state=True, backend="cpu")
        assert last.item() == 0
    for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias"):
        inputs = scan_inputs(dtype=torch.float32)
        inputs[name] = torch.full_like(inputs[name], torch.nan)
        assert selective_scan(**inputs, delta_softplus=True, backend="cpu").isnan().all(), name


@compiled
def test_every_element_is_written(width: int) -> None:
    torch.use_deterministic_algorithms(True)  # new tensors are full of NaN then
    try:
        assert torch.empty(3).isnan().all()
        check("cpu", scan_inputs(channels=37, length=197), delta_softplus=True)
    finally:
        torch.use_deterministic_algorithms(False)


@compiled
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("threads_of", ["PyTorch", "the library"])
def test_threads_do_not_change_a_bit(threads_of: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if threads_of == "the library":
        monkeypatch.setattr(cpu, "_parallel", lambda: None)
    inputs = scan_inputs(batch=3, channels=150, length=300, groups=groups, dtype=torch.float32)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(inputs, "cpu", delta_softplus=True))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, other[name]) for name, x in results[0].items())


@compiled
@pytest.mark.parametrize("length", [63, 128])
@pytest.mark.parametrize("layout", ["token by token", "every second", "expanded"])
def test_any_layout_in_memory(width: int, layout: str, length: int) -> None:
    inputs = {k: x.detach().float() for k, x in scan_inputs(channels=38, length=length, groups=2).items()}
    if layout == "expanded":
        inputs = {k: x[..., :1].expand_as(x) for k, x in inputs.items()}
    views = {k: x if layout == "expanded" else lay_out(x, layout) for k, x in inputs.items()}
    assert all(torch.equal(x, views[k]) and not views[k].is_contiguous() for k, x in inputs.items() if x.ndim > 1)
    ours = run_views(views, delta_softplus=True)
    truth = run_views({k: x.contiguous() for k, x in inputs.items()}, delta_softplus=True)
    assert all(torch.equal(x, ours[k]) for k, x in truth.items())


def lay_out(x: Tensor, layout: str) -> Tensor:
    """A view equal to x: its last two axes swapped in memory, or elements that have strangers as neighbours."""
    if layout == "every second":
        return torch.stack([x, torch.full_like(x, torch.nan)], dim=-1)[..., 0]
    return x.mT.contiguous().mT if layout == "token by token" and x.ndim > 1 else x


def run_views(inputs: dict[str, Tensor], **options: bool) -> dict[str, Tensor]:
    """Like `run`, without the copies that would make the inputs contiguous; the gradient at y is an expanded scalar."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    y = selective_scan(**leaves, backend="cpu", **options)
    y.sum().backward()
    return {"y": y, **{name: x.grad for name, x in leaves.items()}}


@compiled
def test_results_lie_like_what_they_belong_to() -> None:
    inputs = {k: lay_out(x.detach().float(), "token by token") for k, x in scan_inputs().items()}
    results = run_views(inputs, delta_softplus=True)
    assert results["y"].stride() == inputs["u"].stride()
    assert all(results[name].stride() == inputs[name].stride() for name in ("u", "delta", "B", "C", "z"))


@compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_operator_is_registered_well() -> None:
    inputs = [x.detach().float().requires_grad_() for x in scan_inputs(length=20).values()]
    torch.library.opcheck(cpu._scan, (*inputs, True, [True]), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(cpu._scan, (*inputs[:5], None, None, None, False, [False]))


@compiled
def test_torch_compile_passes_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNUNET_ECHO_SCAN", raising=False)
    inputs = {name: x.detach().float() for name, x in scan_inputs(length=70).items()}

    def scan(**tensors: Tensor) -> Tensor:
        return selective_scan(**tensors, delta_softplus=True)

    torch.compiler.reset()
    compiled_scan = torch.compile(scan, fullgraph=True, backend="aot_eager")
    results = []
    for function in (scan, compiled_scan):
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        y = function(**leaves)
        y.square().sum().backward()
        results.append([y, *(x.grad for x in leaves.values())])
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


MEMORY = """
import resource, torch
from nnunet_echo.ops.selective_scan import selective_scan

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def once(length):
    row, state = (1, 64, length), (1, 16, length)
    u, delta, z = (torch.randn(row).requires_grad_() for _ in range(3))
    B, C = (torch.randn(state).requires_grad_() for _ in range(2))
    A = -torch.rand(64, 16)
    gradient, start = torch.randn(row), peak()
    y = selective_scan(u, delta, A, B, C, None, z, delta_softplus=True, backend="cpu")
    y.backward(gradient)
    tensors = (u, delta, z, B, C, gradient, y, u.grad, delta.grad, z.grad, B.grad, C.grad)
    outputs = tensors[6:]
    size = sum(4 * x.numel() for x in tensors)
    return (peak() - start - sum(4 * x.numel() for x in outputs)) / size

once(64)
print(once(1 << 17))
"""


@compiled
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory in bytes is read as Linux gives it")
def test_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # of inputs and outputs; the states of all tokens would be 16 / 7 of them


@pytest.mark.slow
def test_install_without_a_compiler(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "*.so", ".*_cache", "__pycache__")
    shutil.copytree(root, source, ignore=ignored)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "CC": "no-such-compiler"}
    subprocess.run([python, "-m", "pip", "install", "-q", "setuptools>=77"], check=True)
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", source]
    subprocess.run(install, check=True, env=environment)
    find = "import importlib.util as u; print(u.find_spec('nnunet_echo').submodule_search_locations[0])"
    done = subprocess.run([python, "-c", find], check=True, capture_output=True, text=True, cwd=tmp_path)
    scan = Path(done.stdout.strip()) / "ops" / "selective_scan"
    assert (scan / "cpu.py").exists()
    assert not list(scan.glob("_cpu_scan*.so"))
