"""SAM, SAMUS, AutoSAMUS and the temporal modules against the released code, through `from_upstream`.

The tensors were made with the authors' code; tests/goldens/README.md says how. More of them are used where a folder
`shared` beside the repository has them. Tolerance: 1e-4 relative; gradients below 1e-7 are zero up to rounding.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED, shared
from test_parity import relative_error
from torch import Tensor, nn

from nnunet_echo.networks import from_upstream
from nnunet_echo.networks.samus.adapters import LayerNorm2d
from nnunet_echo.networks.samus.encoder import SAMEncoder, SAMUSEncoder
from nnunet_echo.networks.samus.temporal import LocalMHRA

pytestmark = pytest.mark.parity
load_file = pytest.importorskip("safetensors.torch").load_file

TOLERANCE, FLOOR = 1e-4, 1e-7
OURS = Path(__file__).resolve().parents[1] / "goldens" / "sam"
MANIFESTS = [folder / "manifest.json" for folder in (SHARED / "goldens" / "sam", OURS)]
GOLDENS = {name: entry for file in MANIFESTS if file.exists() for name, entry in json.loads(file.read_text()).items()}
FAMILIES = (
    "autosamus_prompt_generator",
    "autosamus",
    "samus_image_encoder",
    "samus",
    "sam_image_encoder",
    "sam_decoder",
    "local_mhra",
    "coord_att",
    "st_adapter",
)
OTHERS = ("samus_loss", "sam_checkpoint_rel_pos", "uniformerv2_block")  # have no door of their own
NAMES = [name for name in GOLDENS if name not in OTHERS]


def load(name: str) -> dict[str, Tensor]:
    file = OURS / f"{name}.safetensors"
    return load_file(file if file.exists() else shared("goldens", "sam", f"{name}.safetensors"))


def part(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def build(name: str, golden: dict[str, Tensor]) -> nn.Module:
    family = next(family for family in FAMILIES if name.startswith(family))
    return from_upstream(family, GOLDENS[name]["kwargs"], part(golden, "state."))


def run(name: str, network: nn.Module, golden: dict[str, Tensor]) -> list[Tensor]:
    named = part(golden, "input.")
    for key, tensor in named.items():
        tensor.requires_grad_(f"input_grad.{key}" in golden)
    options = {"multimask_output": GOLDENS[name]["multimask_output"]} if "multimask_output" in GOLDENS[name] else {}
    if "T" in GOLDENS[name]:
        options["frames"] = GOLDENS[name]["T"]
    first = [golden["input"].requires_grad_()] if "input" in golden else []
    outputs = network(*first, **named, **options)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return outputs[: len(part(golden, "output."))]  # a file may hold the first ones only


def test_every_kind_has_a_golden_in_the_repository() -> None:
    here = {file.stem for file in OURS.glob("*.safetensors")}
    assert here == set(json.loads((OURS / "manifest.json").read_text()))
    # AutoSAMUS holds SAMUS's encoder and SAM's decoder, UniFormerV2's block the local MHRA.
    assert here == {"autosamus", "coord_att", "uniformerv2_block"}


def test_all_goldens_are_used() -> None:
    shared("goldens", "sam")
    assert len(NAMES) + len(OTHERS) >= 14
    assert {next(f for f in FAMILIES if name.startswith(f)) for name in NAMES} == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_network(name: str) -> None:
    golden = load(name)
    network = build(name, golden).eval()
    assert sum(p.numel() for p in network.parameters()) == GOLDENS[name]["num_parameters"]
    assert all(parameter.requires_grad for parameter in network.parameters())
    outputs = run(name, network, golden)
    for i, output in enumerate(outputs):
        assert relative_error(output, golden[f"output.{i}"]) < TOLERANCE
    loss_of(outputs, golden).backward()
    for key, gradient in part(golden, "input_grad").items():
        assert relative_error(golden[f"input{key}"].grad, gradient) < TOLERANCE
    norms = GOLDENS[name]["param_grad_norm"]
    ours = {re.sub(r"(blocks\.\d+\.mlp)\.fc", r"\1.lin", key): p.grad for key, p in network.named_parameters()}
    assert ours.keys() == norms.keys()
    for key, norm in norms.items():
        assert (ours[key] is None) == (norm is None), key
        if norm is not None:
            assert math.isclose(ours[key].norm().item(), norm, rel_tol=TOLERANCE, abs_tol=FLOOR), key


def loss_of(outputs: list[Tensor], golden: dict[str, Tensor]) -> Tensor:
    return sum((output * golden[f"output_weight.{i}"]).mean() for i, output in enumerate(outputs))


@pytest.mark.parametrize("name", ["local_mhra", "coord_att"])
def test_batch_statistics(name: str) -> None:
    golden = load(name)
    network = build(name, golden).train()
    outputs = run(name, network, golden)
    assert relative_error(outputs[0], golden["train_mode_output.0"]) < TOLERANCE
    loss_of(outputs, golden).backward()
    assert relative_error(golden["input"].grad, golden["train_mode_input_grad"]) < TOLERANCE


class UniFormerV2Block(nn.Module):
    """The block that `LocalMHRA` is from: it is added to the patch tokens, before attention and before the MLP."""

    def __init__(self, d_model: int, n_head: int, dw_reduction: float, double_lmhra: bool) -> None:
        super().__init__()
        assert double_lmhra
        self.lmhra1, self.lmhra2 = (LocalMHRA(d_model, dw_reduction) for _ in range(2))
        self.ln_1, self.ln_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attn = nn.MultiheadAttention(d_model, n_head)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(d_model, 4 * d_model), "c_proj": nn.Linear(4 * d_model, d_model)})

    def local(self, module: LocalMHRA, x: Tensor, frames: int) -> Tensor:
        side = math.isqrt(len(x) - 1)
        clips = x[1:].unflatten(0, (side, side)).unflatten(2, (-1, frames)).permute(2, 4, 3, 0, 1)
        related = module(clips).permute(3, 4, 0, 2, 1).flatten(2, 3).flatten(0, 1)
        return torch.cat([x[:1], x[1:] + related])

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.local(self.lmhra1, x, frames)
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        x = self.local(self.lmhra2, x, frames)
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * (1.702 * hidden).sigmoid())


@pytest.mark.parametrize("mode", ["", "train_mode_"])
def test_the_block_that_local_mhra_is_from(mode: str) -> None:
    golden = load("uniformerv2_block")
    block = UniFormerV2Block(**GOLDENS["uniformerv2_block"]["kwargs"])
    keys = block.load_state_dict({k.removeprefix("b."): v for k, v in part(golden, "state.").items()}, strict=False)
    assert not keys.unexpected_keys and all(key.endswith("num_batches_tracked") for key in keys.missing_keys)
    x = golden["input"].requires_grad_()
    output = block.train(bool(mode))(x, GOLDENS["uniformerv2_block"]["T"])
    assert relative_error(output, golden[f"{mode}output.0"]) < TOLERANCE
    loss_of([output], golden).backward()
    assert relative_error(x.grad, golden[f"{mode}input_grad"]) < TOLERANCE


@pytest.mark.parametrize("encoder", [SAMEncoder, SAMUSEncoder])
def test_norms_have_sams_eps_which_no_golden_sees(encoder: type[nn.Module]) -> None:
    """timm's default is 1e-5: 4e-6 off, far below any tolerance."""
    kwargs = {"img_size": 64, "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,)}
    blocks = encoder(**kwargs).blocks
    assert {norm.eps for block in blocks for norm in (block.norm1, block.norm2)} == {1e-6}
    norms = [module for module in encoder(**kwargs).modules() if isinstance(module, nn.LayerNorm | LayerNorm2d)]
    assert len(norms) == 4 + (2 if encoder is SAMEncoder else 6) and {norm.eps for norm in norms} == {1e-6}


def test_the_decoders_norms_have_another_eps() -> None:
    golden = load("sam_decoder_box_mask")
    decoder = build("sam_decoder_box_mask", golden).mask_decoder
    assert {m.eps for m in decoder.transformer.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    assert decoder.output_upscaling[1].eps == 1e-6


def test_clicks_on_several_classes_are_one_pass_each() -> None:
    golden = load("autosamus")
    kwargs = {key: value for key, value in GOLDENS["autosamus"]["kwargs"].items() if key != "prompt_generator"}
    state = {k: v for k, v in part(golden, "state.").items() if not k.startswith(("prompt_generator.", "feature_ad"))}
    samus = from_upstream("samus", kwargs, state).eval()
    images = golden["input"].expand(2, -1, -1, -1)
    points, labels = torch.rand(2, 3, 1, 2) * 64, torch.tensor([[[1], [0], [1]], [[1], [1], [1]]])
    with torch.no_grad():
        logits, masks = samus(images, points, labels)
        assert logits.shape == (2, 3, 128, 128) and masks.shape == (2, 3, 256, 256)
        for k in range(3):
            torch.testing.assert_close(samus(images, points[:, k], labels[:, k])[0], logits[:, k : k + 1])
    torch.testing.assert_close(masks, F.interpolate(logits, (256, 256), mode="bilinear", align_corners=False))


def test_arguments_and_weights_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"kwargs of local_mhra: .*heads"):
        from_upstream("local_mhra", {"d_model": 4, "heads": 2}, {})
    state = part(load("coord_att"), "state.")
    with pytest.raises(ValueError, match="the weights do not fit coord_att.*1 missing: bn1.running_var"):
        from_upstream("coord_att", {"inp": 24, "oup": 24}, {k: v for k, v in state.items() if k != "bn1.running_var"})
