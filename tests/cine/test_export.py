"""A model as one file: the same masks without the folder, nothing of the training in it, nothing run from it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cine_models import dataset_json, different, frame, plans, write_images, write_model

from nnunet_echo.cine.export import programs
from nnunet_echo.cine.export.archive import export_model
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cli.main import main
from nnunet_echo.networks import NETWORKS, create_network

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, mirrored."""
    return write_model(tmp_path_factory.mktemp("model"), folds=(0, 1), mirror_axes=(1,))


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.zip"
    assert main(["export", str(folder), "-f", "0", "1", "-o", str(out)]) == 0
    return out


def changed(source: Path, out: Path, name: str, content: bytes, hash_too: bool = True) -> Path:
    """A copy with one other member, and its hash in cine.json."""
    import hashlib

    with zipfile.ZipFile(source) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    members[name] = content
    about = json.loads(members["cine.json"])
    if hash_too and name != "cine.json":
        about["sha256"][name] = hashlib.sha256(content).hexdigest()
        members["cine.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(out, "w") as archive:
        for entry, data in members.items():
            archive.writestr(entry, data)
    return out


def test_masks_of_the_file_are_those_of_the_folder(folder: Path, exported: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    for model, out in ((folder, "a"), (exported, "b")):
        assert main(["predict", "-i", str(images), "-o", str(tmp_path / out), "-m", str(model), "--workers", "1"]) == 0
    assert set(different(tmp_path / "a", tmp_path / "b").values()) <= {0, 1}  # a tie may fall the other way
    model = CineModel.load(exported)
    assert model.folds == (0, 1) and model.steps.mirror_axes == (1,) and model.engine == "torch"
    assert model.labels == {"LV": 1, "MYO": 2, "LA": 3}
    test = model.self_test()
    assert test.pixels > 10_000 and test.different <= 2
    assert CineModel.load(exported, mirroring=False).steps.mirror_axes is None


def test_a_configuration_that_inherits_from_another(tmp_path: Path) -> None:
    """As `nnunet-echo plan` makes them: the median image is inherited in pixels, of which the spacing is another."""
    content = plans(spacing=(0.5, 0.5))
    content["configurations"]["2d_small"] = {"inherits_from": "2d", "spacing": [0.8, 0.8]}
    folder = write_model(tmp_path, content=content, configuration="2d_small")
    out = tmp_path / "model.zip"
    assert main(["export", str(folder), "-o", str(out)]) == 0
    model, expected = CineModel.load(out), CineModel.load(folder)
    assert model.steps.configuration == "2d_small" and model.steps.plan.spacing == [0.8, 0.8]
    assert expected.assumed_spacing((100, 130)) == pytest.approx((0.2, 0.2))  # 40 x 52 pixels of 0.5 mm
    assert model.assumed_spacing((100, 130)) == pytest.approx(expected.assumed_spacing((100, 130)))
    with zipfile.ZipFile(out) as archive:
        about = json.loads(archive.read("cine.json"))
    assert list(about["plans"]["configurations"]) == ["2d_small"] and "inherits_from" not in json.dumps(about)


def test_what_cannot_be_read_back_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_echo.cine.export.archive.FORMATS", {"pt2": ".other"})
    monkeypatch.setattr("nnunet_echo.cine.export.archive.to_program", lambda *_: b"x")
    with pytest.raises(RuntimeError, match="what was exported cannot be read back, and was not written") as caught:
        export_model(folder, tmp_path / "model.zip", "pt2")
    assert str(folder) in str(caught.value) and not list(tmp_path.iterdir())


def test_nothing_of_the_training_is_in_it(exported: Path, folder: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        assert sorted(archive.namelist()) == ["cine.json", "fold_0.pt2", "fold_1.pt2", "self_test.npz"]
        about = json.loads(archive.read("cine.json"))
    text = json.dumps(about)
    for secret in ("Dataset751_CAMUS", str(folder), "numTraining", str(Path.home())):
        assert secret not in text
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0] and len(about["weights_sha256"]) == 64


def test_a_self_test_tells_of_other_weights(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        other = archive.read("fold_1.pt2")
    mixed = changed(exported, tmp_path / "mixed.zip", "fold_0.pt2", other)
    assert CineModel.load(mixed).self_test().different > 100


def test_onnx(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for module in programs.ONNX_PACKAGES:
        pytest.importorskip(module)
    out = tmp_path / "model.zip"
    assert main(["export", str(folder), "-f", "0", "-o", str(out), "--format", "onnx"]) == 0
    assert "labels of the self-test differ" in capsys.readouterr().out
    model = CineModel.load(out)
    assert model.engine == "onnxruntime" and model.self_test().different <= 2
    grey = frame((60, 70), 0)
    ours = next(iter(model.stream([grey], spacing_mm=(1.0, 1.0)))).mask
    expected = next(iter(CineModel.load(folder).stream([grey], spacing_mm=(1.0, 1.0)))).mask
    assert (ours != expected).mean() < 0.01
    images = write_images(tmp_path / "images", [(40, 50)])
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "masks"), "-m", str(out)]) == 0
    assert "onnxruntime: " in capsys.readouterr().out


# To unroll a scan for ONNX takes minutes.
SOON_IN_ONNX = ("no_mamba", "vil", "vil2", "segresnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"),
    [(name, "pt2") for name, row in NETWORKS.items() if 2 in row.dims] + [(name, "onnx") for name in SOON_IN_ONNX],
)
def test_every_network_exports(name: str, format: str) -> None:
    """With a batch other than that it was exported with; ONNX may refuse a network, and says why."""
    if programs.why_not(format):
        pytest.skip(str(programs.why_not(format)))
    network = create_network(name, 1, 4, (32, 48), **NETWORKS[name].toy).eval().requires_grad_(False)
    try:
        content = programs.to_program(network, (1, 32, 48), format)
    except RuntimeError as error:
        assert format == "onnx" and "Export it as pt2." in str(error), error
        pytest.skip(str(error)[:200])
    forward = {"pt2": programs.from_pt2, "onnx": programs.from_onnx}[format](content, "model")
    for batch in (1, 3):
        x = torch.randn(batch, 1, 32, 48)
        with torch.no_grad():
            torch.testing.assert_close(forward(x), network(x), rtol=1e-3, atol=1e-4)


def test_the_scan_stays_in_c_and_the_batch_open() -> None:
    """LKM-UNet's layer decides on checkpoints by the number of sequences, which an exporter would fix."""
    from nnunet_echo.layers.mamba import BiMamba
    from nnunet_echo.ops.selective_scan import choose_backend, traceable

    layer = BiMamba(8).eval()
    batch = ({0: torch.export.Dim("batch", min=1, max=8)},)
    with traceable.operators_kept(), torch.no_grad():
        program = torch.export.export(layer, (torch.randn(2, 10, 8),), dynamic_shapes=batch)
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    own = {str(node.target) for graph in graphs for node in graph.nodes if "nnunet_echo" in str(node.target)}
    assert bool(own) == (choose_backend(torch.device("cpu")) == "cpu")
    x = torch.randn(5, 10, 8)
    torch.testing.assert_close(program.module()(x), layer(x))
    assert not traceable._operators_kept


def test_what_is_refused_before_work(
    folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for out, message in ((exported, "is there already"), (tmp_path / "none" / "model.zip", "no such folder")):
        assert main(["export", str(folder), "-o", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert main(["export", str(exported), "-o", str(tmp_path / "again.zip")]) == 2
    assert "only folders of nnUNet_results" in capsys.readouterr().err
    with pytest.raises(ValueError, match="format='pb'"):
        export_model(folder, tmp_path / "model.zip", "pb")
    monkeypatch.setattr(programs, "ONNX_PACKAGES", ("onnx", "a_package_that_is_not_there"))
    with pytest.raises(RuntimeError, match=r"a_package_that_is_not_there\. Install.*nnunet-echo\[onnx\]"):
        export_model(folder, tmp_path / "model.zip", "onnx")
    assert not list(tmp_path.glob("*.zip"))


def test_what_cannot_be_exported_says_why(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deciding(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError, match="Deciding cannot be exported as pt2"):
        programs.to_program(Deciding().eval(), (1, 8, 8), "pt2")


class Calls:
    """Unpickled, it would run."""

    def __reduce__(self) -> tuple:
        return (Path("was_run").touch, ())


def damaged_program(exported: Path, **replace: bytes) -> bytes:
    """The program of fold 0 with other bytes in members whose names contain the keys."""
    with zipfile.ZipFile(exported) as archive:
        program = zipfile.ZipFile(io.BytesIO(archive.read("fold_0.pt2")))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in program.namelist():
            content = program.read(name)
            for key, (old, new) in replace.items():
                if key in name:
                    assert old in content
                    content = content.replace(old, new)
            archive.writestr(name, content)
    return file.getvalue()


def test_programs_that_could_run_code(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls = damaged_program(exported, models=(b"torch.ops.aten.conv2d.default", b"torch.hub.load"))
    with pytest.raises(ValueError, match="it calls torch.hub.load, which could run code"):
        programs.from_pt2(calls, "model")
    pickled = damaged_program(exported, weights_config=(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(ValueError, match="pickled values, which could run code"):
        programs.from_pt2(pickled, "model")
    with zipfile.ZipFile(exported) as archive:
        program = io.BytesIO(archive.read("fold_0.pt2"))
    with zipfile.ZipFile(program, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/data/constants/custom_obj_0", pickle.dumps(Calls()))
    with pytest.raises(ValueError, match="custom_obj_0, which could run code"):
        programs.from_pt2(program.getvalue(), "model")
    strings = dict(programs._strings({"a": [{"expr_str": "s0 * 2"}, {"target": "torch.ops.aten.add.Tensor"}]}))
    assert strings == {"expr_str": "s0 * 2", "target": "torch.ops.aten.add.Tensor"}
    for harmless in ("Max(1, s77//2) + 3", "Mul(Integer(2), Symbol('s77', positive=True, integer=True))"):
        assert programs._EXPRESSION.fullmatch(harmless)
    for harmful in (
        "__import__('os')",
        "Symbol.__class__",
        "exec('x')",
        "open('x')",
        "Symbol('a b')",
        "getattr(1, 'x')",
    ):
        assert not programs._EXPRESSION.fullmatch(harmful)
    assert not (tmp_path / "was_run").exists()


def test_files_that_are_none(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    cases = {"cut": content[: len(content) // 2], "empty": b"", "other": b"PK" + bytes(100)}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="is no model of nnunet-echo export, or is damaged"):
            CineModel.load(tmp_path / name)
    wrong = changed(exported, tmp_path / "changed.zip", "fold_0.pt2", b"x", hash_too=False)
    with pytest.raises(ValueError, match=r"fold_0\.pt2 was changed"):
        CineModel.load(wrong)
    with pytest.raises(ValueError, match="is no program of PyTorch"):
        CineModel.load(changed(exported, tmp_path / "no_program.zip", "fold_0.pt2", b"x"))
    with zipfile.ZipFile(exported) as archive:
        about = json.loads(archive.read("cine.json"))
    later = changed(exported, tmp_path / "later.zip", "cine.json", json.dumps({**about, "format": 2}).encode())
    with pytest.raises(ValueError, match="format 2 is not that of this version"):
        CineModel.load(later)
    for name, change, reason in (
        ("folds", {"folds": [7]}, r"it has no 'fold_7\.pt2'"),
        ("no_folds", {"folds": []}, "it has no folds"),
        ("network", {"network": None}, "it has no 'network'"),
        ("format", {"network_format": "onnx"}, r"it has no 'fold_0\.onnx'"),
        ("labels", {"dataset_json": {**about["dataset_json"], "labels": {"LV": 1}}}, "Background label"),
        ("list", [], "list indices"),
    ):
        other = {key: value for key, value in {**about, **change}.items() if value is not None} if change else []
        edited = changed(exported, tmp_path / f"{name}.zip", "cine.json", json.dumps(other).encode())
        with pytest.raises(ValueError, match=rf"{name}\.zip: is no model .*\({reason}.*Export it again\."):
            CineModel.load(edited)
    for start in (60, 200, 400):  # within cine.json, which is compressed
        (tmp_path / "overwritten.zip").write_bytes(content[:start] + bytes(range(1, 200)) + content[start + 199 :])
        with pytest.raises(ValueError, match=r"overwritten\.zip: is no model of nnunet-echo export, or is damaged"):
            CineModel.load(tmp_path / "overwritten.zip")
    with pytest.raises(ValueError, match="^step_size=5: must be above 0"):
        CineModel.load(exported, step_size=5)
    with pytest.raises(ValueError, match="exported for the CPU"):
        CineModel.load(exported, device="cuda")
    with pytest.raises(ValueError, match="only exported models"):
        CineModel.load(write_model(tmp_path / "plain")).self_test()


def test_pictures_and_channels_go_through(tmp_path: Path) -> None:
    content = plans(
        reader="NaturalImage2DIO", normalization_schemes=["ZScoreNormalization"] * 3, use_mask_for_norm=[False] * 3
    )
    folder = write_model(tmp_path, content=content, dataset=dataset_json(channels=3, ending=".png"))
    test = export_model(folder, tmp_path / "model.zip", "pt2")
    assert test.pixels > 10_000 and test.different <= 2
    model = CineModel.load(tmp_path / "model.zip")
    assert np.unique(model.test_frame[2]).size > 1
    with pytest.raises(ValueError, match="takes 3 channels, but frames of a clip are grey"):
        model.stream([])
