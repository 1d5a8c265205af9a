"""Released ImageNet weights: VMamba's for VM-UNet, Vision-LSTM's for both versions of it.

Parity: where a folder `shared` beside the repository has the reference tensors, and names and shapes of the released
files. The rest makes small files of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared
from imagenet_files import VIL, VMAMBA, fake, layouts, refused, vil_file, vmamba_file
from test_parity import TOLERANCE, relative_error
from torch import nn

from nnunet_echo.networks import create_network, from_upstream, load_pretrained
from nnunet_echo.networks.vil.encoder import VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vm_unet import VSSM, VMUNet
from nnunet_echo.networks.vm_unet_weights import for_channels

# Parity


@pytest.mark.parity
@pytest.mark.parametrize("name", ["import_vmamba_vmunet", "import_vil1", "import_vil2", "import_vil2_same_size"])
def test_as_the_published_loader(name: str) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    golden = load_file(shared("goldens", "networks2", f"{name}.safetensors"))
    entry = json.loads(shared("goldens", "networks2", "manifest.json").read_text())[name]
    of = {
        kind: {k.removeprefix(kind): v for k, v in golden.items() if k.startswith(kind)}
        for kind in ("checkpoint.", "state.")
    }
    file = {"model" if name == "import_vmamba_vmunet" else "state_dict": of["checkpoint."], "epoch": 3}
    if name == "import_vmamba_vmunet":
        network = VSSM(**entry["kwargs"]).eval()
        initial = {key: of["state."][key] for key in entry["untouched"]}
        network.load_state_dict(initial, strict=False)
        state = {**initial, **{key: of["checkpoint."][source] for key, source in entry["key_map"].items()}}
    else:
        network = (VisionLSTM if "vil1" in name else VisionLSTM2).from_published(entry["kwargs"]).eval()
        state = of["state."]
    report = load_pretrained(network, file)
    if name == "import_vmamba_vmunet":
        assert sorted(report.untouched) == entry["untouched"] and sorted(report.unused) == entry["unused"]
        assert sorted(report.taken) == sorted(entry["key_map"])
    for key, value in state.items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    x = golden["input"].requires_grad_()
    output = network(x)
    assert relative_error(output, golden["output.0"]) < TOLERANCE
    if "input_grad" in golden:
        (output * golden["output_weight.0"]).mean().backward()
        assert relative_error(x.grad, golden["input_grad"]) < TOLERANCE
    kind = {"import_vmamba_vmunet": "vm_unet", "import_vil1": "vil"}.get(name, "vil2")
    again = load_pretrained(from_upstream(kind, entry["kwargs"], network.state_dict()), file)
    assert again.taken == report.taken


@pytest.mark.parametrize("name", ["vmamba_v0_tiny", "vmamba_v0_small"])
def test_the_released_files_of_vmamba_fit_the_default_network(name: str) -> None:
    network = create_network("vm_unet", 1, 4, (256, 256))
    report = load_pretrained(network, {"model": fake(name)})
    assert (report.layout, report.entry) == ("VMamba v0", "['model']")
    up = [key for key in report.taken if ".layers_up." in key]
    assert (len(report.taken) - len(up), len(up)) == (117, 91)
    assert report.resized == ("vmunet.patch_embed.proj.weight",)
    kinds = {re.sub(r"\d+", "N", key) for key in report.unused}
    assert {re.sub(r"\..*", "", key) for key in kinds} == {"layers", "norm", "head"}
    assert sum(key.startswith("layers.2.") for key in report.unused) == 13 * (layouts()[name]["depths"][2] - 2)
    assert all(".upsample." in k or k.startswith(("vmunet.final_up.", "decoder.seg_layers.")) for k in report.untouched)


@pytest.mark.parametrize("name", ["vmamba_v2_tiny_s1l8", "vmamba_v2_tiny", "vmamba_v2_small"])
def test_later_files_of_vmamba_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"VMamba v1 or v2, another network.*Take the first release \(v0\): vmamba_tiny"
    ):
        load_pretrained(VMUNet(1, 2, **VMAMBA), {"model": fake(name)})


@pytest.mark.parametrize(("name", "dim"), [("tiny", 192), ("small", 384)])
@pytest.mark.parametrize("version", [1, 2])
def test_the_released_files_of_vision_lstm_fit(version: int, name: str, dim: int) -> None:
    network = create_network("vil" if version == 1 else "vil2", 1, 4, (512, 640), dim=dim, legacy_norm=True)
    report = load_pretrained(network, {"state_dict": fake(f"vil{version}_{name}")})
    assert report.layout == f"Vision-LSTM {version}"
    assert set(report.resized) == {"encoder.patch_embed.proj.weight", "encoder.pos_embed.embed"}
    assert not [key for key in report.untouched if key.startswith("encoder.") and "legacy_norm" not in key]
    assert set(report.unused) == {"head.1.weight", "head.1.bias"} | (
        {"head.0.weight", "head.0.bias"} if version == 2 else set()
    )


# VMamba


@pytest.mark.parametrize("again", [False, True])
def test_encoder_and_decoder_are_filled(again: bool) -> None:
    file = vmamba_file(again=again)
    first = list(vmamba_file().keys())
    names = dict(zip(first, file, strict=True))
    network = VMUNet(3, 2, **VMAMBA)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = load_pretrained(network, file)
    state = network.state_dict()
    for ours, theirs in {
        "layers.1.blocks.0.self_attention.A_logs": "layers.1.blocks.0.self_attention.A_logs",
        "layers_up.0.blocks.0.self_attention.in_proj.weight": "layers.1.blocks.0.self_attention.in_proj.weight",
        "layers_up.1.blocks.0.ln_1.weight": "layers.0.blocks.0.ln_1.weight",
        "layers_up.1.blocks.1.self_attention.Ds": "layers.0.blocks.1.self_attention.Ds",
        "layers.0.downsample.reduction.weight": "layers.0.downsample.reduction.weight",
        "patch_embed.proj.weight": "patch_embed.proj.weight",
        "patch_embed.norm.bias": "patch_embed.norm.bias",
    }.items():
        assert torch.equal(state[f"vmunet.{ours}"], file[names[theirs]]), ours
        assert f"vmunet.{ours}" in report.taken
    assert all(torch.equal(state[key], before[key]) for key in report.untouched)
    assert set(report.taken) | set(report.untouched) == set(state)
    assert {key.split(".")[0] for key in report.unused} <= {"norm", "head", "classifier", "layers"}
    assert not report.resized


def test_one_grey_channel_is_the_three_summed() -> None:
    file = vmamba_file()
    grey, colours = VMUNet(1, 2, **VMAMBA).eval(), VMUNet(3, 2, **VMAMBA).eval()
    colours.load_state_dict({**grey.state_dict(), "vmunet.patch_embed.proj.weight": torch.zeros(16, 3, 4, 4)})
    load_pretrained(grey, file)
    load_pretrained(colours, file)
    x = torch.randn(1, 1, 16, 24)
    torch.testing.assert_close(grey(x), colours(x.expand(1, 3, 16, 24)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="in_channels=2: the file is for 3 channels, and fits 1 by their sum"):
        for_channels(torch.zeros(4, 3, 2, 2), torch.zeros(4, 2, 2, 2))


@pytest.mark.parametrize("averaged", [False, True])
def test_which_of_two_sets_is_taken_is_said(averaged: bool) -> None:
    file = {"model": vmamba_file(), "model_ema": vmamba_file()}
    network = VMUNet(3, 2, **VMAMBA)
    report = load_pretrained(network, {"model_ema": file["model_ema"]} if averaged else file)
    entry = "model_ema" if averaged else "model"
    assert report.entry == f"['{entry}']" and f"in ['{entry}']" in str(report)
    key = "layers.0.blocks.0.self_attention.Ds"
    assert torch.equal(network.state_dict()[f"vmunet.{key}"], file[entry][key])


def test_files_of_vmamba_that_do_not_fit() -> None:
    network = VMUNet(3, 2, **VMAMBA)
    file = vmamba_file()
    refused(
        VMUNet(3, 2, **{**VMAMBA, "depths": (1, 4)}), file, "does not fill 13 tensors of the encoder: layers.1.blocks.3"
    )
    refused(VMUNet(3, 2, **{**VMAMBA, "dims": (32, 64)}), file, "does not fit vmunet.*Build the network with the width")
    refused(
        network,
        {**file, "layers.0.blocks.0.mlp_norm": torch.zeros(1)},
        "1 names are none of VMamba's: layers.0.blocks.0.ml",
    )
    refused(network, {f"my_{k}" if "Ds" in k else k: v for k, v in file.items()}, "are none of VMamba's: my_layers.0")
    refused(
        create_network("vil", 1, 2, (32, 32)),
        file,
        "weights of VMamba, and the network is ViLUNet: they are for vm_unet",
    )
    one_state = {k: v[..., :1] if k.endswith("A_logs") else v for k, v in file.items()}
    refused(network, one_state, "VMamba v1 or v2")
    scan = "layers.0.blocks.0.self_attention.Ds"
    refused(network, {k: v for k, v in file.items() if k != scan}, f"not fill 1 tensors.* {scan}. It is not whole")
    refused(network, {k: v for k, v in file.items() if "embed.norm.b" not in k}, "not fill 1 tensors.* It is not whole")
    refused(
        network,
        {**file, (twice := "layers.0.blocks.0.op.Ds"): file[scan]},
        f"{scan} and {twice} are the same tensor under two names",
    )
    refused(network, {**file, "layers.0.blocks.0.mlp.fc1.weight": torch.zeros(1)}, "VMamba v1 or v2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (100 * x).to(torch.int8), r"is torch.int8, vmunet.* torch.float32. Take the file before"),
        (lambda x: x + 1j * x, "is torch.complex64, vmunet"),
        (lambda x: x * float("nan"), "has NaN or infinite values. Take another"),
        (lambda x: x / 0.0, "has NaN or infinite values"),
        (lambda x: x.to_sparse(), "holds no plain numbers. Save"),
        (lambda x: x.to("meta"), "holds no plain numbers"),
        (lambda x: x.sum(), "a tensor has other axes than its name says"),
    ],
)
def test_tensors_that_are_no_plain_finite_numbers_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    file = vmamba_file()
    refused(VMUNet(3, 2, **VMAMBA), {**file, (key := next(iter(file))): change(file[key])}, message)


# Vision-LSTM


@pytest.mark.parametrize("version", [1, 2])
def test_all_of_the_encoder_is_filled(version: int) -> None:
    file = vil_file(version)
    kwargs = {**VIL, "depth": 2 if version == 1 else 1}
    network = (VisionLSTM if version == 1 else VisionLSTM2)(**kwargs)
    report = load_pretrained(network, {"state_dict": file})
    state = network.state_dict()
    second = "blocks.1." if version == 1 else "blocks.0.rowwise_from_bot_right."
    conv = "conv1d.conv" if version == 1 else "conv"
    assert torch.equal(
        state[f"{second}layer.mlstm_cell.fgate.bias"], file["xlstm.blocks.1.xlstm.mlstm_cell.fgate.bias"]
    )
    theirs = "conv1d.conv" if version == 1 else "conv1d"
    assert torch.equal(state[f"{second}layer.{conv}.weight"], file[f"xlstm.blocks.1.xlstm.{theirs}.weight"])
    assert torch.equal(state[f"{second}norm.weight"], file["xlstm.blocks.1.xlstm_norm.weight"])
    assert torch.equal(state["pos_embed.embed"], file["pos_embed.embed"])
    if version == 1:
        assert torch.equal(state["norm.bias"], file["head.0.bias"])
        assert torch.equal(state["legacy_norm.weight"], file["xlstm.post_blocks_norm.weight"])
        assert not report.untouched
    else:
        assert torch.equal(state["norm.bias"], file["xlstm.post_blocks_norm.bias"])
        assert sorted(report.untouched) == ["legacy_norm.bias", "legacy_norm.weight"]
        assert (state["legacy_norm.weight"] == 1).all() and not state["legacy_norm.bias"].any()


def test_positions_are_resampled_to_the_grid() -> None:
    file = vil_file(1, size=(4, 4))
    network = VisionLSTM(**VIL, depth=2)
    report = load_pretrained(network, file)
    assert report.resized == ("pos_embed.embed",)
    expected = nn.functional.interpolate(file["pos_embed.embed"].permute(0, 3, 1, 2), (4, 6), mode="bicubic")
    torch.testing.assert_close(network.pos_embed.embed.detach(), expected.permute(0, 2, 3, 1))


def test_networks_take_them_too_without_the_norm_that_they_lack() -> None:
    toy = {"dim": 16, "depth": 4, "token_size": 8, "features": (4, 4, 4)}
    network = create_network("vil", 1, 2, (32, 48), **toy)
    report = load_pretrained(network, vil_file(1, depth=4))
    assert "xlstm.post_blocks_norm.weight" in report.unused
    assert all(not key.startswith("encoder.") for key in report.untouched)
    whole = create_network("vil", 1, 2, (32, 48), **toy, legacy_norm=True)
    assert "encoder.legacy_norm.weight" in load_pretrained(whole, vil_file(1, depth=4)).taken
    file = {k: v for k, v in vil_file(1, depth=4).items() if "post_blocks_norm" not in k}
    refused(whole, file, "the file lacks 1 tensors: legacy_norm.weight")
    assert "encoder.legacy_norm.weight" in create_network("vil2", 1, 2, (32, 48), **toy, legacy_norm=True).state_dict()


def test_slstm_blocks_keep_their_values() -> None:
    network = VisionLSTM(**VIL, depth=2, slstm_at=[1])
    report = load_pretrained(network, vil_file(1))
    assert {key.split(".")[1] for key in report.untouched} == {"1"}
    assert all(key.startswith(("xlstm.blocks.1.", "head.1.")) for key in report.unused)


def test_files_of_vision_lstm_that_do_not_fit() -> None:
    network = VisionLSTM(**VIL, depth=2)
    file = vil_file(1)
    refused(VisionLSTM(**VIL, depth=4), file, "the file has 2 blocks, the network 4. Build it with depth=2")
    refused(VisionLSTM2(**VIL, depth=2), vil_file(2), "the file has 2 blocks, the network 4. Build it with depth=1")
    refused(
        VisionLSTM2(**VIL, depth=1), file, "weights of Vision-LSTM 1, and the network is VisionLSTM2: they are for vil"
    )
    refused(network, vil_file(2), "weights of Vision-LSTM 2, and the network is VisionLSTM: they are for vil2")
    refused(
        network,
        {**file, "xlstm.blocks.0.xlstm.gate.weight": torch.zeros(2)},
        "1 names are not Vision-LSTM's: xlstm.blocks.0",
    )
    refused(
        network,
        {k: v for k, v in file.items() if k != "head.0.bias"},
        "the file lacks 1 tensors: norm.bias. It is not whole",
    )
    refused(network, vil_file(1, size=(27, 27)), "positions of 27 x 27 tokens, as those of stride 8 have")
    gap = {k: v for k, v in vil_file(1, depth=3).items() if "blocks.1." not in k}
    refused(network, gap, "the file lacks block 1 of 3. It is not whole")
    refused(VisionLSTM(**{**VIL, "dim": 32}, depth=2), file, "does not fit .*Build the network with the width")


@pytest.mark.parametrize("source", [None, 3, [torch.zeros(1)], nn.Linear(1, 1)])
def test_what_is_neither_file_nor_state(source: Any) -> None:
    with pytest.raises(ValueError, match=rf"source is a {type(source).__name__}: expected a file, or the dict"):
        load_pretrained(VisionLSTM(**VIL, depth=2), source)


def test_a_file_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "vil.th"
    torch.save({"state_dict": vil_file(1)}, path)
    report = load_pretrained(VisionLSTM(**VIL, depth=2), path)
    assert len(report.sha256) == 64
    with pytest.raises(FileNotFoundError, match="nosuch.th is not there"):
        load_pretrained(VisionLSTM(**VIL, depth=2), tmp_path / "nosuch.th")
