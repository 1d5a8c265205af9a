"""Networks in the hands of PyTorch's compilers, exporters and forward mode, and of ONNX."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from network_cases import build, every_network, image, outputs_and_gradients, slow_but_for

from nnunet_echo.networks import list_networks
from nnunet_echo.networks.lkm_unet import PatchLevelSSM


@slow_but_for("umamba_enc-2d")
def test_it_compiles_into_one_graph(name: str) -> None:
    """Forward and backward are captured whole; nothing is generated from the graph, which would take minutes."""
    network = build(name, deep_supervision=True).eval()  # no stochastic depth
    x = image(name, batch=2)
    torch.compiler.reset()
    compiled = outputs_and_gradients(torch.compile(network, fullgraph=True, backend="aot_eager"), x)
    for ours, expected in zip(compiled, outputs_and_gradients(network, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="generated code needs a C++ compiler")
@pytest.mark.slow
def test_generated_code_averages_patches_at_the_border_as_we_do() -> None:
    """PyTorch 2.15 generates a wrong gradient for one way to ask for these averages."""
    network = PatchLevelSSM(4, (4, 4), bidirectional=False)
    x, results = torch.randn(1, 4, 6, 6), []
    torch.compiler.reset()
    for layer in (network, torch.compile(network, fullgraph=True)):
        leaf = x.clone().requires_grad_()
        layer(leaf).square().sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@every_network
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_it_can_be_traced_and_exported(name: str) -> None:
    """With other numbers than those that it is traced with, and an exported one with another number of images."""
    network = build(name, deep_supervision=True).eval()
    x = torch.randn(3, *image(name).shape[1:])[..., :-3]  # is padded
    if name == "umamba_enc-3d":  # norms over a handful of values enlarge float32's rounding a thousandfold
        network, x = network.double(), x.double()
    with torch.no_grad():
        expected = network(x)
    traced = torch.jit.trace(network, x[:1] + 1)  # with PyTorch's own check, which traces again without gradients
    batch = {0: torch.export.Dim("batch", max=8)}
    exported = torch.export.export(network, (x[:2] + 1,), dynamic_shapes=(batch,)).module()
    for k, ours in enumerate(traced(x[:1])):
        torch.testing.assert_close(ours, expected[k][:1], rtol=1e-4, atol=1e-4)
    for ours, logits in zip(exported(x), expected, strict=True):
        torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        (f"{name}-2d", name not in ("umamba_enc", "no_mamba"))
        for name in list_networks(2)
        if name not in ("lkm_unet", "vil")
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_onnx(name: str, dynamo: bool, tmp_path: Path) -> None:
    """Needs onnx, onnxscript and onnxruntime, which the tests' extra does not install."""
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")
    network, x, file = build(name).eval(), image(name), str(tmp_path / "network.onnx")
    torch.onnx.export(network, (x + 1,), file, dynamo=dynamo)
    session = runtime.InferenceSession(file)
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(x).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["lkm_unet-2d", "umamba_bot-2d", "vm_unet-2d"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_can_be_traced(name: str) -> None:
    network, x = build(name).eval(), image(name)
    torch.testing.assert_close(torch.jit.trace(network, x + 1)(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lkm_unet-2d", "vm_unet-2d", "vil-2d"])
def test_forward_mode_of_a_network(name: str) -> None:
    """Against finite differences in float64; `use_checkpoint` and large maps compute the same."""
    network, x = build(name).double().eval(), image(name).double()
    t = torch.randn_like(x)
    _, tangent = torch.func.jvp(network, (x,), (t,))
    with torch.no_grad():
        expected = (network(x + 1e-7 * t) - network(x - 1e-7 * t)) / 2e-7  # no activation crosses its kink
    assert (tangent - expected).norm() < 1e-3 * expected.norm()
