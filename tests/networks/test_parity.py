"""Published networks, from published weights: outputs, input gradient and every parameter's gradient norm agree.

The tensors were made with the authors' code; tests/goldens/README.md says how. More of them are used where a folder
`shared` beside the repository has them. Tolerance: 1e-4 relative.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import SHARED, shared
from torch import Tensor

from nnunet_echo.layers.mamba import Mamba
from nnunet_echo.networks import NETWORKS as TABLE
from nnunet_echo.networks import from_upstream, list_networks
from nnunet_echo.ops.selective_scan import selective_scan

pytestmark = pytest.mark.parity
load_file = pytest.importorskip("safetensors.torch").load_file

TOLERANCE = 1e-4
OURS = Path(__file__).resolve().parents[1] / "goldens"
MANIFESTS = [folder / "manifest.json" for folder in (SHARED / "goldens", OURS)]
GOLDENS = {name: entry for file in MANIFESTS if file.exists() for name, entry in json.loads(file.read_text()).items()}
SCANS = [name for name in GOLDENS if name.startswith("selective_scan")]
NETWORKS = [name for name in GOLDENS if name not in SCANS]


def load(name: str) -> dict[str, Tensor]:
    file = OURS / f"{name}.safetensors"
    return load_file(file if file.exists() else shared("goldens", f"{name}.safetensors"))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).norm() / theirs.norm().clamp_min(torch.finfo(theirs.dtype).tiny)).item()


def build(name: str, state: dict[str, Tensor]) -> torch.nn.Module:
    kwargs = dict(GOLDENS[name]["kwargs"])
    if name == "mamba_block":
        block = Mamba(**kwargs)
        block.load_state_dict(state)
        return block
    if "input_size" in GOLDENS[name]:
        kwargs["input_size"] = GOLDENS[name]["input_size"]
    families = ("lkm_unet", "umamba_bot", "umamba_enc", "vm_unet", "vil2", "vil")
    return from_upstream(next(f for f in families if name.startswith(f)), kwargs, state)


def test_every_network_has_a_golden_in_the_repository() -> None:
    here = {file.stem for file in OURS.glob("*.safetensors")}
    assert here == set(json.loads((OURS / "manifest.json").read_text()))
    theirs = {name for name, row in TABLE.items() if row.extra}  # what others compute is theirs to test
    samus = {name for name in list_networks() if name.startswith("samus")}  # in test_samus_parity
    published = {*list_networks()} - theirs - samus - {"no_mamba", "msv_mamba"}  # of which nothing is published
    everywhere = {file.stem for file in OURS.rglob("*.safetensors")}
    assert all(any(name.startswith(network) for name in everywhere) for network in published), published
    assert sum(file.stat().st_size for file in OURS.rglob("*")) < 10e6


def test_all_goldens_are_used() -> None:
    shared("goldens")
    assert len(NETWORKS) >= 11
    assert len(SCANS) >= 3


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    golden = load(name)
    network = build(name, {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}).eval()
    assert sum(p.numel() for p in network.parameters()) == GOLDENS[name]["num_parameters"]
    x = golden["input"].requires_grad_()
    outputs = network(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert len(outputs) == sum(key.startswith("output.") for key in golden)
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f"output.{i}"]) < TOLERANCE
    sum((output * golden[f"output_weight.{i}"]).mean() for i, output in enumerate(outputs)).backward()
    assert relative_error(x.grad, golden["input_grad"]) < TOLERANCE
    compare_gradient_norms(GOLDENS[name]["param_grad_norm"], network, golden)


def compare_gradient_norms(
    theirs: dict[str, float | None], network: torch.nn.Module, golden: dict[str, Tensor]
) -> None:
    """By value: published keys are renamed, but each published tensor is one of ours, bit for bit."""
    largest = max(norm for norm in theirs.values() if norm is not None)
    ours = dict(network.named_parameters())
    unmatched = set(ours)
    for key, norm in theirs.items():
        value = golden[f"state.{key}"]
        same = [k for k in unmatched if ours[k].shape == value.shape and torch.equal(ours[k], value)]
        grads = [0.0 if ours[k].grad is None else ours[k].grad.norm().item() for k in same]
        # A bias in front of a normalisation has no gradient but rounding: compared with the largest norm there is.
        close = [math.isclose(g, norm or 0.0, rel_tol=TOLERANCE, abs_tol=1e-6 * largest) for g in grads]
        assert any(close), f"{key}: gradient norm {grads}, published {norm}"
        unmatched.discard(same[close.index(True)])
    assert not unmatched


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_scan(name: str, backend: str) -> None:
    golden = load(name)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    inputs = {n: golden[n].requires_grad_() for n in names if n in golden}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    assert relative_error(y, golden["output"]) < TOLERANCE
    assert relative_error(last, golden["last_state"]) < TOLERANCE
    (y * golden["output_weight"]).mean().backward()
    for n, tensor in inputs.items():
        assert relative_error(tensor.grad, golden[f"grad.{n}"]) < TOLERANCE


def test_weights_that_do_not_fit_are_named() -> None:
    golden = load("vil")
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    first, second, *_ = state
    state["extra.weight"] = state.pop(first)
    state[second] = state[second][..., :1]
    with pytest.raises(ValueError, match="1 missing.*1 unexpected.*extra.weight.*1 wrongly shaped"):
        from_upstream("vil", GOLDENS["vil"]["kwargs"], state)


@pytest.mark.parametrize("name", ["lkm_unet", "vm_unet", "vil"])
def test_unknown_arguments_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"kwargs of .*windows"):
        from_upstream(name, {"windows": 3}, {})
    with pytest.raises(ValueError, match="name='swin'.*expected one of lkm_unet"):
        from_upstream("swin", {}, {})
