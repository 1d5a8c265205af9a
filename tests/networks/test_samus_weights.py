"""Weights of SAM and SAMUS into our networks: a checkpoint of the true names and shapes, and small ones with values."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import shared
from torch import Tensor, nn

from nnunet_echo.networks import NETWORKS, create_network, load_pretrained
from nnunet_echo.networks import pretrained as module
from nnunet_echo.networks.layouts import Layout
from nnunet_echo.networks.samus.weights import resize_table

TOY = {**NETWORKS["samus"].toy, "grid": "fixed", "img_size": 64, "decoder_dim": 32}
ADDED = re.compile(r"image_encoder\.(cnn_embed|post_pos_embed)\.|Adapter\.")  # by SAMUS
PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


def small(name: str = "samus", **options) -> nn.Module:
    return create_network(name, 1, 4, (32, 48), **{**TOY, **options})


def published(network: nn.Module, side: int = 64, samus: bool = False, blocks: tuple[int, ...] = (1, 2)) -> dict:
    """What a released file holds for a network of this size, with other values; `side` of SAM's grid of tokens."""
    state = {}
    for key, value in network.state_dict().items():
        if key.startswith(PARTS) and (samus or not ADDED.search(key)):
            name = re.sub(r"(blocks\.\d+\.mlp)\.fc", r"\1.lin", key)
            shape = list(value.shape)
            if re.fullmatch(rf"image_encoder\.blocks\.({'|'.join(map(str, blocks))})\.attn\.rel_pos_[hw]", name):
                shape[0] = 2 * side - 1
            meta = value.is_meta  # of the true size: no memory for its values
            state[name] = torch.zeros(1).expand(shape) if meta else torch.randn(shape)
    return state


@pytest.fixture(scope="module")
def vit_b() -> nn.Module:
    """The network of the defaults, without memory for its weights."""
    with torch.device("meta"):
        return create_network("samus", 1, 4, (256, 256))


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_checkpoint_of_sams_vit_b(vit_b: nn.Module, tmp_path: Path) -> None:
    state = published(vit_b, blocks=(2, 5, 8, 11))
    counts = [sum(key.startswith(part) for key in state) for part in PARTS]
    assert counts == [177, 17, 120] and len(state) == 314
    assert state["image_encoder.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert state["image_encoder.blocks.1.attn.rel_pos_h"].shape == (27, 64)
    assert state["image_encoder.blocks.0.mlp.lin1.weight"].shape == (3072, 768)
    assert state["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    assert state["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"].shape == (32, 256)
    assert round(sum(x.numel() for x in state.values()) / 1e6, 2) == 93.74
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "sam_vit_b_01ec64.pth")
    report = load_pretrained(vit_b, tmp_path / "sam_vit_b_01ec64.pth")
    assert (report.layout, report.entry) == ("SAM or SAMUS", "")
    assert report.sha256 == hashlib.sha256((tmp_path / "sam_vit_b_01ec64.pth").read_bytes()).hexdigest()
    assert len(report.taken) == 314 and report.unused == ()
    assert sorted(report.resized) == sorted(
        f"image_encoder.blocks.{i}.attn.rel_pos_{axis}" for i in (2, 5, 8, 11) for axis in "hw"
    )
    of_samus = [key for key in report.untouched if ADDED.search(key)]
    assert len(of_samus) == 79 and set(report.untouched) - set(of_samus) == {"decoder.seg_layers.offsets"}
    assert "314 tensors taken, 8 of them resized; 80 of the network keep their initial values; 0 of" in str(report)


def test_only_what_samus_trains_is_trained_with_weights(vit_b: nn.Module) -> None:
    """As published for ViT-B: 133.32 M parameters, 39.65 of them trained, by a rule of parts of names."""
    ours = {key: p.numel() for key, p in vit_b.named_parameters() if key.startswith(PARTS)}
    rule = ("2.attn.rel_pos", "5.attn.rel_pos", "8.attn.rel_pos", "11.attn.rel_pos", "Adapter", "cnn_embed")
    theirs = {key for key in ours if key.startswith("image_") and any(n in key for n in (*rule, "post_pos_embed"))}
    assert {key for key in ours if not vit_b.is_frozen(key)} == theirs
    assert round(sum(ours.values()) / 1e6, 2) == 133.32
    assert round(sum(ours[key] for key in theirs) / 1e6, 2) == 39.65
    assert not vit_b.is_frozen("decoder.seg_layers.offsets")


@pytest.mark.parametrize("name", ["samus", "samus_tra_lia"])
def test_values_are_taken_and_sams_parts_freeze(name: str) -> None:
    network, other = small(name), small(name)
    assert all(p.requires_grad for key, p in network.named_parameters() if not key.startswith(network.decoder.unused))
    state = published(network)
    report = load_pretrained(network, {"epoch": 3, "model": state})
    assert report.entry == "['model']" and len(report.resized) == 4
    for key, value in network.state_dict().items():
        source = state.get(re.sub(r"(blocks\.\d+\.mlp)\.fc", r"\1.lin", key))
        if key in report.resized:
            length = (len(value), source.shape[1])
            source = F.interpolate(source[None, None], length, mode="bilinear", align_corners=False)[0, 0]
        if source is not None:
            torch.testing.assert_close(value, source, msg=key)
    trained = {key for key, p in network.named_parameters() if p.requires_grad}
    assert trained == {
        key
        for key, _ in network.named_parameters()
        if ADDED.search(key) or not key.startswith(PARTS) or re.search(r"blocks\.[12]\.attn\.rel_pos", key)
    }
    assert any(key.startswith("mixers.") for key in trained) == (name == "samus_tra_lia")
    other.load_state_dict(network.state_dict())  # a checkpoint knows whose weights it goes on with
    assert other.pretrained and {key for key, p in other.named_parameters() if p.requires_grad} == trained
    other.load_state_dict(small(name).state_dict())
    assert not other.pretrained and len(trained) < sum(p.requires_grad for p in other.parameters())


def test_everything_may_train_with_weights_too() -> None:
    network = small(freeze_pretrained=False)
    load_pretrained(network, published(network))
    assert network.pretrained
    assert all(p.requires_grad for key, p in network.named_parameters() if not key.startswith(network.decoder.unused))


def test_the_decoder_trains_where_its_tokens_are_new() -> None:
    network = small(decoder="class_masks")
    load_pretrained(network, published(network))
    trained = {key for key, p in network.named_parameters() if p.requires_grad}
    assert "mask_decoder.transformer.norm_final_attn.weight" in trained
    assert not any(key.startswith(("prompt_encoder.", "mask_decoder.mask_tokens.")) for key in trained)


def test_a_file_of_samus_fills_all_and_of_autosamus_its_generator_is_left() -> None:
    network = small("samus_tra_lia")
    state = published(network, side=32, samus=True)
    report = load_pretrained(network, state)
    assert report.resized == () and len(report.taken) == len(state)
    assert all(key.startswith(("decoder.", "mixers.")) for key in report.untouched)
    auto = {"prompt_generator.object_token": torch.zeros(1, 50, 32), "feature_adapter.0.weight": torch.zeros(1)}
    assert set(load_pretrained(network, {**state, **auto}).unused) == set(auto)


def test_windowed_blocks_keep_their_tables_whatever_their_numbers() -> None:
    """A search for 2, 5, 8 and 11 in names, as released, resizes those of block 12 as well."""
    options = {"depth": 13, "global_attn_indexes": (5,)}
    network = small(**options)
    report = load_pretrained(network, published(network, blocks=(5,)))
    assert set(report.resized) == {f"image_encoder.blocks.5.attn.rel_pos_{axis}" for axis in "hw"}


def test_tables_of_other_grids() -> None:
    network = small(grid="native")
    report = load_pretrained(network, published(network))
    tables = network.image_encoder.blocks[1].attn
    assert (len(tables.rel_pos_h), len(tables.rel_pos_w)) == (7, 11) and len(report.resized) == 4


def test_the_published_tables() -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    golden = load_file(shared("goldens", "sam", "sam_checkpoint_rel_pos.safetensors"))
    tables = {key.removeprefix("sam."): value for key, value in golden.items() if key.startswith("sam.")}
    assert len(tables) == 6
    for key, table in tables.items():
        expected = golden[f"expected.{key}"]
        torch.testing.assert_close(resize_table(table, len(expected)), expected, rtol=1e-4, atol=1e-6)


def without(state: Mapping[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in names}


def test_what_does_not_fit_is_an_error_and_changes_nothing() -> None:
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = published(network)
    cases = [
        (without(state, "mask_decoder.iou_token.weight"), "of no known kind: expected SAM or SAMUS"),
        (without(state, "image_encoder.neck.0.weight"), r"1 names .* are missing \(image_encoder.neck.0.weight\)"),
        ({**state, "image_encoder.neck.9.weight": torch.zeros(1)}, "0 names .* missing, 1 unknown .*neck.9"),
        ({**state, "image_encoder.input_Adapter.D_fc1.weight": torch.zeros(6, 24)}, r"\d+ names of .* are missing"),
        ({**state, "image_encoder.pos_embed": torch.zeros(1, 32, 32, 24)}, r"pos_embed \(1, 32, 32, 24\) does not fit"),
        (published(small(embed_dim=32)), "the file's encoder has 3 blocks of width 32, the network 3 of 24"),
        (published(small(depth=4)), "the file's encoder has 4 blocks of width 24, the network 3"),
        (published(small(window_size=7)), r"rel_pos_h \(13, 12\) does not fit .*rel_pos_h \(7, 12\)"),
        ({"epoch": 3}, "of no known kind.*It holds no tensors by name"),
        ({"a": state, "b": state}, r"several sets of weights: SAM or SAMUS in \['a'\], SAM or SAMUS in \['b'\]"),
    ]
    for weights, message in cases:
        with pytest.raises(ValueError, match=message):
            load_pretrained(network, weights)
    with pytest.raises(ValueError, match="weights of SAM or SAMUS, and the network is VMUNet"):
        load_pretrained(create_network("vm_unet", 1, 4, (32, 48), **NETWORKS["vm_unet"].toy), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not network.pretrained


def test_of_a_model_and_its_average_the_model_is_taken() -> None:
    network = small()
    state, average = published(network), published(network)
    report = load_pretrained(network, {"model_ema": average, "model": state})
    assert report.entry == "['model']"
    assert torch.equal(network.mask_decoder.iou_token.weight, state["mask_decoder.iou_token.weight"])


class Harmful:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('code was run')",)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    network = small()
    with pytest.raises(FileNotFoundError, match=r"none\.pth is not there"):
        load_pretrained(network, tmp_path / "none.pth")
    torch.save({"state": Harmful()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="code.pth was not read: it names .*exec"):
        load_pretrained(network, tmp_path / "code.pth")
    torch.save(published(network), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.pth is not a whole file of weights"):
        load_pretrained(network, tmp_path / "cut.pth")


def test_a_layout_that_moves_a_tensor_nowhere_or_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = nn.Linear(2, 2), torch.zeros(2)
    for moves, message in (
        ([("bias", "b", x), ("bias", "b", x)], "b would become bias, twice"),
        ([("none", "b", x)], "b would become none, but the network has none of that name"),
    ):
        layout = Layout("toy", lambda weights: "b" in weights, lambda *_, moves=moves: [module.Move(*m) for m in moves])
        monkeypatch.setattr(module, "LAYOUTS", (layout,))
        with pytest.raises(ValueError, match=f"toy: {message}"):
            load_pretrained(network, {"b": x})
