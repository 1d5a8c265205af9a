"""One battery that every row of the table passes, and what is special to LKM-UNet and U-Mamba."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor, nn

from nnunet_echo.layers import mamba
from nnunet_echo.layers.windows import merge_windows, partition_windows
from nnunet_echo.networks import NETWORKS, create_network
from nnunet_echo.networks.lkm_unet import LKMUNet, PatchLevelSSM, PixelLevelSSM
from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.networks.u_mamba import ChannelTokens

PATCHES = {2: (32, 48), 3: (4, 32, 32)}
# Case: a row of the table, its options, the patch.
CASES = {f"{name}-{n}d": (name, row.toy, PATCHES[n]) for name, row in NETWORKS.items() for n in row.dims}
CASES["lkm_unet-released"] = ("lkm_unet", {**NETWORKS["lkm_unet"].toy, "window_mode": "released"}, PATCHES[2])
CASES["umamba_enc-anisotropic"] = (
    "umamba_enc",
    {
        **NETWORKS["umamba_enc"].toy,
        "features_per_stage": [6, 8, 130],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    },
    PATCHES[3],
)
every_network = pytest.mark.parametrize("name", CASES)


def slow_but_for(quick: str) -> pytest.MarkDecorator:
    """Every network, all but one with `-m slow` only."""
    others = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != quick]
    return pytest.mark.parametrize("name", [quick, *others])


def build(name: str, channels: int = 1, classes: int = 4, deep_supervision: bool = False) -> nn.Module:
    network, options, patch = CASES[name]
    return create_network(network, channels, classes, patch, deep_supervision=deep_supervision, **options)


def image(name: str, channels: int = 1, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, *CASES[name][2])


def sizes(output: Tensor | list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in (output if isinstance(output, list) else [output])]


@every_network
@pytest.mark.parametrize(("channels", "classes"), [(1, 4), (3, 2)])
def test_shapes(name: str, channels: int, classes: int) -> None:
    patch = CASES[name][2]
    network = build(name, channels, classes, deep_supervision=True)
    strides = network.deep_supervision_strides
    assert set(strides[0]) == {1}
    x = image(name, channels, batch=2)
    expected = [(2, classes, *(n // s for n, s in zip(patch, stride, strict=True))) for stride in strides]
    assert sizes(network(x)) == expected
    network.decoder.deep_supervision = False
    full = network(x)
    assert isinstance(full, Tensor)
    assert sizes(full) == expected[:1]
    network.decoder.deep_supervision = True
    assert sizes(network(x)) == expected


@every_network
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 37, 53), (7, 50, 29)])
def test_sizes_that_no_stride_divides(name: str, size: tuple[int, ...]) -> None:
    network = build(name, deep_supervision=True)
    size = size[-len(CASES[name][2]) :]
    expected = [
        (1, 4, *(-(-n // s) for n, s in zip(size, stride, strict=True))) for stride in network.deep_supervision_strides
    ]
    output = network(torch.randn(1, 1, *size))
    assert sizes(output) == expected
    assert all(x.isfinite().all() for x in output)


@every_network
def test_a_wrong_number_of_axes_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="input has shape .* expected"):
        build(name)(image(name)[None])


@every_network
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name, deep_supervision=True)
    for module in network.modules():  # zero at the start by design (last norm of a residual block, gates of the mLSTM)
        for parameter in module.parameters(recurse=False):
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    output = network(image(name, batch=2))
    sum(x.square().mean() for x in output).backward()
    dead = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_lkm_unet_learns_everywhere_from_the_first_step() -> None:
    """Residual branches that start at zero, as in the released code, made its training on CAMUS far too slow."""
    network = build("lkm_unet-2d", deep_supervision=True)
    outputs_and_gradients(network, image("lkm_unet-2d", batch=2))
    assert all(p.grad.any() for key, p in network.named_parameters() if ".conv" in key and key.endswith("conv.weight"))


@every_network
def test_state_dict_round_trip(name: str) -> None:
    one, other = build(name, deep_supervision=True).eval(), build(name, deep_supervision=False).eval()
    other.load_state_dict(one.state_dict(), strict=True)
    x = image(name)
    torch.testing.assert_close(one(x)[0], other(x), rtol=0, atol=0)


def outputs_and_gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    network.zero_grad()
    output = network(x)
    sum(logits.square().mean() for logits in output).backward()
    return [*output, *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


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


@slow_but_for("umamba_enc-2d")
def test_training_is_deterministic(name: str) -> None:
    """Bit by bit, with as many threads as PyTorch takes."""
    x = image(name, batch=2)
    weights = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            torch.manual_seed(1)
            network = build(name, deep_supervision=True)
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99, nesterov=True)
            for _ in range(3):
                outputs_and_gradients(network, x)
                optimizer.step()
            weights.append(network.state_dict())
    finally:
        torch.set_num_threads(before)
    assert all(x.isfinite().all() for x in weights[0].values())  # NaN equals nothing
    assert all(torch.equal(x, weights[1][key]) for key, x in weights[0].items())


@every_network
def test_a_few_steps_overfit_one_image(name: str) -> None:
    patch = CASES[name][2]
    network = build(name)
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in patch), indexing="ij"))
    target = (grid.square().sum(0) < 0.5).long() + (grid[-1] > 0.3).long()[None]  # an ellipse, and a side of the image
    x = torch.randn(1, 1, *patch) + target
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0], losses[::8]


@every_network
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_stays_finite(name: str, dtype: torch.dtype) -> None:
    network = build(name)
    x = 100 * image(name)  # nnU-Net's z-scored images stay within about 10
    with torch.autocast("cpu", dtype=dtype):
        output = network(x)
        loss = F.cross_entropy(output.float(), torch.zeros(1, *x.shape[2:], dtype=torch.long))
    assert output.isfinite().all()
    loss.backward()
    # PyTorch 2.15 leaves parts of the weight gradient of a 3D convolution in bfloat16 unwritten on a CPU.
    skip = 5 if dtype == torch.bfloat16 else None
    grads = [p.grad for p in network.parameters() if p.grad is not None and p.ndim != skip]  # unused heads have none
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def test_windows_hold_neighbours_and_the_released_ones_a_dilated_grid() -> None:
    pixels = torch.arange(24.0).view(1, 1, 4, 6)
    assert partition_windows(pixels, (2, 3))[1, 0].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert partition_windows(pixels, (2, 3), strided=True)[1, 0].tolist() == [[1, 4], [13, 16]]


@pytest.mark.parametrize(("size", "window"), [((10, 7), (4, 3)), ((6, 9, 5), (2, 4, 5)), ((4, 4), (4, 4))])
def test_windows_are_put_back(size: tuple[int, ...], window: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    assert torch.equal(merge_windows(partition_windows(x, window), size), x)


def test_strided_windows_are_put_back_and_refuse_a_rest() -> None:
    x = torch.randn(2, 3, 6, 8)
    assert torch.equal(merge_windows(partition_windows(x, (3, 2), strided=True), (6, 8), strided=True), x)
    with pytest.raises(ValueError, match="multiple of the stride"):
        partition_windows(x, (4, 2), strided=True)


def test_pixel_level_ssm_stays_in_its_window() -> None:
    """A pixel changes the output inside its window alone, in both directions: the paper's mode."""
    layer = PixelLevelSSM(4, (4, 4)).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 5, 1] += 1  # one channel: LayerNorm takes out what is added to all
    touched = (layer(changed) != layer(x)).any(1)[0]
    assert touched[4:, :4].all()
    assert touched.sum() == 16


def test_lkm_unet_windows_are_the_papers() -> None:
    shape = UNetShape(1, 2, [4] * 7, [[3, 3]] * 7, [[1, 1], *[[2, 2]] * 6], 1, 1)
    mixers = LKMUNet(shape).encoder.mixers
    assert [m.pim.window[0] for m in mixers] == [40, 20, 20, 10, 10, 5, 5]
    assert [m.pam.patch for m in mixers] == [m.pim.window for m in mixers]
    assert [m.pam.patch[0] for m in LKMUNet(shape, window_mode="released").encoder.mixers] == [8, 4, 4, 2, 2, 1, 1]


def test_lkm_unet_ablations() -> None:
    def ablated(**options) -> nn.Module:
        return create_network("lkm_unet", 1, 4, PATCHES[2], **{**NETWORKS["lkm_unet"].toy, **options})

    x = torch.randn(1, 1, *PATCHES[2])
    full = ablated()
    parameters = {sum(p.numel() for p in full.parameters())}
    for switches in ({"pixel_level": False}, {"patch_level": False}, {"bidirectional": False}):
        network = ablated(**switches)
        assert network(x).shape == (1, 4, *PATCHES[2])
        parameters.add(sum(p.numel() for p in network.parameters()))
    assert len(parameters) == 3  # PiM and PaM are of the same size
    other = ablated(window_sizes=[7, (3, 5), 2, 3])
    other.load_state_dict(full.state_dict())
    assert not torch.allclose(other.eval()(x), full.eval()(x))


def test_channel_tokens_take_other_sizes_in_tiles() -> None:
    layer = ChannelTokens((3, 4)).eval()
    x = torch.randn(1, 5, 6, 4)
    torch.testing.assert_close(layer(x)[:, :, 3:], layer(x[:, :, 3:]))
    assert layer(x[:, :, :2, :3]).shape == (1, 5, 2, 3)


def test_umamba_enc_takes_channels_as_tokens_where_they_outnumber_pixels() -> None:
    mixers = build("umamba_enc-2d").encoder.mixers
    assert [type(m).__name__ for m in mixers] == ["Identity", "PixelTokens", "Identity", "ChannelTokens"]
    assert mixers[3].size == (4, 6)


def test_no_mamba_is_u_mamba_without_the_mixers() -> None:
    control, mamba = build("no_mamba-2d"), build("umamba_bot-2d")
    keys = {key for key in mamba.state_dict() if ".mixers." not in key}
    assert set(control.state_dict()) == keys


def test_many_windows_are_recomputed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build("lkm_unet-2d", deep_supervision=True).double(), image("lkm_unet-2d", batch=3).double()
    whole, kept = outputs_and_gradients(network, x), kept_for_the_backward(network, x)
    monkeypatch.setattr(mamba, "_LARGEST_MAP", 5000)
    for ours, expected in zip(outputs_and_gradients(network, x), whole, strict=True):
        torch.testing.assert_close(ours, expected)
    assert kept_for_the_backward(network, x) < 0.6 * kept


def kept_for_the_backward(network: nn.Module, x: Tensor) -> int:
    """Bytes of all tensors that autograd keeps, parameters among them."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    return sum(kept.values())


@every_network
def test_weights_of_other_classes_are_taken_over_but_for_the_last_layers(name: str, tmp_path: Path) -> None:
    """By nnU-Net's own loader, as `nnUNetv2_train -pretrained_weights` has it."""
    four, two = build(name, classes=4), build(name, classes=2)
    before = {key: value.clone() for key, value in two.state_dict().items()}
    torch.save({"network_weights": four.state_dict()}, tmp_path / "four.pth")
    load_pretrained_weights(two, str(tmp_path / "four.pth"))
    other = {key for key, value in four.state_dict().items() if value.shape != before[key].shape}
    assert other and all(".seg_layers." in key for key in other)
    for key, value in two.state_dict().items():
        expected = before[key] if ".seg_layers." in key else four.state_dict()[key]
        assert torch.equal(value, expected), key


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
    [(f"{name}-2d", name not in ("umamba_enc", "no_mamba")) for name in NETWORKS if name not in ("lkm_unet", "vil")],
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


@every_network
def test_a_copy_is_the_same_network(name: str) -> None:
    network, x = build(name).eval(), image(name)
    with torch.no_grad():
        assert torch.equal(deepcopy(network)(x), network(x))


@pytest.mark.parametrize("name", ["lkm_unet-2d", "vm_unet-2d", "vil-2d"])
def test_forward_mode_of_a_network(name: str) -> None:
    """Against finite differences in float64; `use_checkpoint` and large maps compute the same."""
    network, x = build(name).double().eval(), image(name).double()
    t = torch.randn_like(x)
    _, tangent = torch.func.jvp(network, (x,), (t,))
    with torch.no_grad():
        expected = (network(x + 1e-7 * t) - network(x - 1e-7 * t)) / 2e-7  # no activation crosses its kink
    assert (tangent - expected).norm() < 1e-3 * expected.norm()
