"""sLSTM, MSAA, xLSTM-UNet and nnFormer: as `test_parity`, from tensors of the second part.

A small one of each kind lies in goldens/networks2, others are used where a folder `shared` beside the repository has
them. Tolerance: 1e-4 relative.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHARED, shared
from test_parity import TOLERANCE, compare_gradient_norms, relative_error
from torch import Tensor

from nnunet_echo.layers.slstm import initial_bias
from nnunet_echo.networks import from_upstream
from nnunet_echo.ops.slstm import slstm

pytestmark = pytest.mark.parity
load_file = pytest.importorskip("safetensors.torch").load_file

OURS = Path(__file__).resolve().parents[1] / "goldens" / "networks2"
MANIFESTS = [folder / "manifest.json" for folder in (SHARED / "goldens" / "networks2", OURS)]
GOLDENS = {name: entry for file in MANIFESTS if file.exists() for name, entry in json.loads(file.read_text()).items()}
CELLS = [name for name in GOLDENS if name.startswith("slstm_cell")]
BLOCKS = [name for name in GOLDENS if name.startswith("slstm_block")]
FAMILIES = ("slstm_layer", "slstm_block", "msaa_fusion", "msaa", "xlstm_unet_enc", "xlstm_unet_bot", "nnformer")
NETWORKS = [name for name in GOLDENS if name.startswith(FAMILIES)]
BACKENDS = ["reference", "auto"]


def load(name: str) -> dict[str, Tensor]:
    file = OURS / f"{name}.safetensors"
    return load_file(file if file.exists() else shared("goldens", "networks2", f"{name}.safetensors"))


def state_of(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("state."): value for key, value in golden.items() if key.startswith("state.")}


def test_one_of_each_kind_is_in_the_repository() -> None:
    here = {file.stem for file in OURS.glob("*.safetensors")}
    assert here == set(json.loads((OURS / "manifest.json").read_text()))
    assert all(any(name.startswith(kind) for name in here) for kind in {"slstm_cell", *FAMILIES} - {"msaa_fusion"})


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cell(name: str, backend: str) -> None:
    golden = load(name)
    inputs = {key: golden[key].requires_grad_() for key in ("input", "R", "b", "initial_state") if key in golden}
    y, last = slstm(*inputs.values(), backend=backend)
    assert relative_error(y, golden["output"]) < TOLERANCE
    assert relative_error(last, golden["last_state"]) < TOLERANCE
    ((y * golden["output_weight"]).mean() + (last * golden["last_state_weight"]).mean()).backward()
    for key, tensor in inputs.items():
        assert relative_error(tensor.grad, golden[f"grad.{key}"]) < TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    golden, entry = load(name), GOLDENS[name]
    kwargs = dict(entry["kwargs"])
    if "input_size" in entry and name.startswith("xlstm_unet_enc"):
        kwargs["input_size"] = entry["input_size"]
    network = from_upstream(next(f for f in FAMILIES if name.startswith(f)), kwargs, state_of(golden)).eval()
    assert sum(p.numel() for p in network.parameters()) == entry["num_parameters"]
    names = [key for key in ("input", *(f"input.{i}" for i in range(9))) if key in golden]
    inputs = [golden[key].requires_grad_() for key in names]
    outputs = network(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert len(outputs) == sum(key.startswith("output.") for key in golden)
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f"output.{i}"]) < TOLERANCE
    sum((output * golden[f"output_weight.{i}"]).mean() for i, output in enumerate(outputs)).backward()
    for key, x in zip(names, inputs, strict=True):
        if f"{key}_grad" in golden:
            assert relative_error(x.grad, golden[f"{key}_grad"]) < TOLERANCE
    compare_gradient_norms(entry["param_grad_norm"], network, golden)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith(("slstm_layer", "slstm_block"))])
def test_cells_that_cuda_trained_are_turned_round(name: str) -> None:
    """The same network, from weights in the order of that backend: (head, in, gate, out) and (head, gate, out)."""
    golden, kwargs = load(name), GOLDENS[name]["kwargs"]
    heads, state = kwargs["num_heads"], state_of(golden)
    for key, tensor in state.items():
        if key.endswith("_recurrent_kernel_"):
            state[key] = tensor.unflatten(1, (4, -1)).permute(0, 3, 1, 2).flatten(2).contiguous()
            assert state[key].shape != tensor.shape
        elif key.endswith("_bias_"):
            state[key] = tensor.reshape(4, heads, -1).transpose(0, 1).reshape(tensor.shape)
    network = from_upstream(name[:11], kwargs, state).eval()
    assert relative_error(network(golden["input"]), golden["output.0"]) < TOLERANCE


@pytest.mark.parametrize("name", BLOCKS)
def test_initial_bias(name: str) -> None:
    kwargs, expected = GOLDENS[name]["kwargs"], load(name)["initial_bias"]
    heads = kwargs["num_heads"]
    ours = initial_bias(heads, kwargs["embedding_dim"] // heads, kwargs["_block_idx"], kwargs["_num_blocks"])
    torch.testing.assert_close(ours, expected)


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kwargs of slstm_layer: .*window"):
        from_upstream("slstm_layer", {"embedding_dim": 8, "window": 3}, {})
    with pytest.raises(ValueError, match="act_fn='relu': only 'gelu'"):
        from_upstream("slstm_block", {"embedding_dim": 8, "feedforward": {"act_fn": "relu"}}, {})
    with pytest.raises(ValueError, match="feedforward: depth is not offered"):
        from_upstream("slstm_block", {"embedding_dim": 8, "feedforward": {"depth": 2}}, {})


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("nnformer", {"crop_size": (32, 32)}, r"crop_size=\(32, 32\): expected the patch along z, y and x"),
        ("nnformer", {}, "crop_size=None: expected the patch"),
        ("nnformer", {"crop_size": (8, 32, 32), "input_channels": 1, "num_classes": 2, "num_heads": 0}, "has no len"),
        ("slstm_layer", {"embedding_dim": 8, "num_heads": 0}, "ZeroDivisionError"),
        ("vil", {"dim": 0, "input_shape": (1, 32, 32)}, "RuntimeError"),
        ("umamba_bot", {}, r"missing \['features_per_stage', 'input_channels'"),
    ],
)
def test_arguments_that_cannot_be(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"kwargs of {name}: .*({message}).*Pass the arguments of the published"):
        from_upstream(name, kwargs, {})


def test_a_name_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"name=\['vil'\]: expected one of lkm_unet"):
        from_upstream(["vil"], {}, {})  # type: ignore[arg-type]
