"""A model that stays loaded: frames of a clip in any size, its checkpoint, and what it refuses."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cine_models import dataset_json, frame, plans, write_images, write_model

from nnunet_echo.cine.clips.clip import clip_of
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.steps import edge_entropy
from nnunet_echo.cli.main import main

SPACING = (0.7, 0.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> CineModel:
    return CineModel.load(folder, workers=2)


def test_frames_of_a_clip_are_those_of_predict(folder: Path, model: CineModel, tmp_path: Path) -> None:
    from cine_models import pixels

    images = write_images(tmp_path / "images", [(60, 70), (45, 90)], SPACING)
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(folder)]) == 0
    frames = [pixels(file) for file in sorted(images.iterdir())]
    for n, result in enumerate(model.stream(frames, spacing_mm=SPACING)):
        np.testing.assert_array_equal(result.mask, pixels(tmp_path / "out" / f"c{n}.nii.gz"))
        assert result.mask.dtype == np.uint8 and result.entropy is None
    clip = clip_of(np.stack([frames[0]] * 3), spacing_mm=SPACING)
    masks = [result.mask for result in model.stream(clip)]
    assert len(masks) == 3 and all((mask == pixels(tmp_path / "out" / "c0.nii.gz")).all() for mask in masks)


def test_only_the_region_is_looked_at(model: CineModel) -> None:
    picture = frame((60, 70), 0)
    screen = np.full((90, 100), 255, np.uint8)
    screen[10:70, 20:90] = picture
    clip = replace(clip_of(screen[None], spacing_mm=SPACING), region=(10, 70, 20, 90))
    (mask,) = (result.mask for result in model.stream(clip))
    (inside,) = (result.mask for result in model.stream([picture], spacing_mm=SPACING))
    np.testing.assert_array_equal(mask[10:70, 20:90], inside)
    outside = mask.copy()
    outside[10:70, 20:90] = 0
    assert mask.shape == (90, 100) and inside.any() and not outside.any()


def test_without_a_spacing_the_frame_fits_the_training(model: CineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.assumed_spacing((80, 104)) == (0.5, 0.5)  # the median image has 40 x 52 pixels of 1 mm
    assert model.assumed_spacing((400, 52)) == (0.1, 0.1)
    configurations = model.steps.manager.plans["configurations"]
    monkeypatch.setitem(configurations, "base", dict(configurations["2d"], spacing=[3.0, 3.0]))
    monkeypatch.setitem(configurations, "2d", {"inherits_from": "base", "spacing": [1.0, 1.0]})
    assert model.assumed_spacing((80, 104)) == (1.5, 1.5)  # its own are pixels of 3 mm
    monkeypatch.undo()
    picture = frame((80, 104), 1)
    (assumed,) = (result.mask for result in model.stream(clip_of(picture[None])))
    (given,) = (result.mask for result in model.stream([picture], spacing_mm=(0.5, 0.5)))
    np.testing.assert_array_equal(assumed, given)
    monkeypatch.delitem(configurations["2d"], "median_image_size_in_voxels")
    with pytest.raises(ValueError, match="Give the size of a pixel with --spacing"):
        model.assumed_spacing((80, 104))


def test_entropy_along_an_edge(model: CineModel) -> None:
    results = list(model.stream([frame((60, 70), n) for n in range(3)], spacing_mm=SPACING, edge_of="LV"))
    assert all(result.entropy is None or 0 <= result.entropy <= 1 for result in results)
    assert any(result.entropy is not None for result in results)
    logits = torch.zeros(2, 9, 9)
    logits[0] = 20.0
    logits[:, 2:7, 2:7] = torch.tensor([0.0, 20.0])[:, None, None]
    assert edge_entropy(logits, 1) == pytest.approx(0, abs=1e-6)
    logits[0, 3:6, 3:6] = 20 - 1e-3  # unsure, but inside
    assert edge_entropy(logits, 1) == pytest.approx(0, abs=1e-6)
    logits[0, 2, 2:7] = 20 - 1e-3  # a side of five of the sixteen pixels of the edge
    assert edge_entropy(logits, 1) == pytest.approx(5 / 16, abs=1e-3)
    logits[1] = -9
    assert edge_entropy(logits, 1) is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(model: CineModel) -> None:
    """At most the frames under way are alive, of any number."""
    alive: set[int] = set()
    most = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for n in range(40):
            picture = frame((20, 24), n)
            alive.add(n)
            weakref.finalize(picture, alive.discard, n)
            most = max(most, len(alive))
            yield picture

    for _ in model.stream(frames(), spacing_mm=(1.0, 1.0)):
        gc.collect()
    assert 2 <= most <= 8, most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing_mm": (0.0, 1.0)}, "spacing_mm="),
        ({"spacing_mm": (float("nan"), 1.0)}, "spacing_mm="),
        ({"edge_of": "RV"}, "edge_of='RV': expected one of LV, MYO, LA"),
    ],
)
def test_bad_arguments_of_stream(model: CineModel, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.stream([], **options)


def test_frames_that_are_none(model: CineModel) -> None:
    for bad in (np.zeros((3, 4, 3), np.uint8), np.zeros((0, 4), np.uint8), np.array([["a"]])):
        with pytest.raises(ValueError, match="expected grey numbers"):
            list(model.stream([bad], spacing_mm=SPACING))


class Calls:
    """Unpickled, it would run."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("was_run"),))


def copied(folder: Path, out: Path, **changes: object) -> Path:
    """A copy whose checkpoint has other entries; None removes one."""
    target = Path(shutil.copytree(folder, out / folder.name))
    file = target / "fold_0" / "checkpoint_final.pth"
    content = {**torch.load(file, weights_only=False), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, file)
    return target


def test_checkpoints_that_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="anything else could run code"):
        CineModel.load(copied(folder, tmp_path / "code", logging=Calls()))
    assert not (tmp_path / "was_run").exists()
    with pytest.raises(ValueError, match="has no 'trainer_name'"):
        CineModel.load(copied(folder, tmp_path / "unnamed", trainer_name=None))
    with pytest.raises(ValueError, match="its weights do not fit nnUNetTrainer"):
        CineModel.load(copied(folder, tmp_path / "weights", network_weights={"a": torch.zeros(1)}))
    with pytest.raises(ValueError, match="mirror_axes="):
        CineModel.load(copied(folder, tmp_path / "axes", inference_allowed_mirroring_axes=(2,)))
    with pytest.raises(ValueError, match="configuration='3d'"):
        CineModel.load(copied(folder, tmp_path / "configuration", init_args={"configuration": "3d"}))
    cut = copied(folder, tmp_path / "cut") / "fold_0" / "checkpoint_final.pth"
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        CineModel.load(cut.parents[1])
    cut.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint_final\.pth is not a complete checkpoint \(\w+.*\): its writer"):
        CineModel.load(cut.parents[1])


def test_models_that_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError, match=r"fold_3.*There are fold_0/checkpoint_final\.pth"):
        CineModel.load(folder, folds=(3,))
    with pytest.raises(FileNotFoundError, match=r"plans\.json: there is no such file"):
        CineModel.load(tmp_path)
    with pytest.raises(ValueError, match="step_size=0"):
        CineModel.load(folder, step_size=0)
    with pytest.raises(RuntimeError, match="Expected one of cpu"):
        CineModel.load(folder, device="toaster")
    with pytest.raises(ValueError, match="workers=0"):
        CineModel.load(folder, workers=0)
    for change, message in (
        ({"patch_size": [8, 32, 48]}, "is 3D, and this .*nnUNetv2_predict -i IMAGES -o MASKS -d DATASET -c 2d"),
        ({"previous_stage": "3d_lowres"}, "is a cascade behind 3d_lowres.*-prev_stage_predictions"),
    ):
        bad = copied(folder, tmp_path / next(iter(change)))
        content = json.loads((bad / "plans.json").read_text())
        content["configurations"]["2d"].update(change)
        (bad / "plans.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            CineModel.load(bad)
    calls = copied(folder, tmp_path / "calls")
    content = json.loads((calls / "plans.json").read_text())
    content["configurations"]["2d"]["architecture"]["network_class_name"] = "os.system"
    (calls / "plans.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"the plan names 'os\.system'"):
        CineModel.load(calls)
    without_background = json.dumps({**dataset_json(), "labels": {"LV": 1, "MYO": 2, "LA": 3}})
    for name, text, message in (
        ("plans.json", "{", "is not JSON"),
        ("plans.json", "[]", "holds a list"),
        ("plans.json", "{}", "do not describe a model"),
        ("dataset.json", "{}", "do not describe a model"),
        ("dataset.json", without_background, rf"^{tmp_path}.*dataset\.json do not describe a model \(Background label"),
    ):
        bad = copied(folder, tmp_path / f"{name}{text[:4]}")
        (bad / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            CineModel.load(bad)
    assert main(["predict", "-i", "x", "-o", "y", "-m", str(tmp_path / "nowhere")]) == 2
    assert "there is no such model" in capsys.readouterr().err


def test_regions_and_channels(tmp_path: Path) -> None:
    regions = CineModel.load(write_model(tmp_path / "a", dataset=dataset_json(regions=True)))
    assert regions.labels == {"heart": 1, "wall": 2, "LA": 3}
    with pytest.raises(ValueError, match="no regions"):
        regions.stream([], edge_of="LA")
    two = plans(normalization_schemes=["ZScoreNormalization"] * 2, use_mask_for_norm=[False] * 2)
    with pytest.raises(ValueError, match="takes 2 channels"):
        CineModel.load(write_model(tmp_path / "b", content=two, dataset=dataset_json(channels=2))).stream([])


def test_a_trainer_may_be_imported_if_that_is_allowed(tmp_path: Path) -> None:
    """nnU-Net's trainer with batch normalisation changes the plan's network in code."""
    folder = write_model(tmp_path, "nnUNetTrainerBN")
    with pytest.raises(ValueError, match="--import-trainer"):
        CineModel.load(folder)
    model = CineModel.load(folder, import_trainer=True)
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.networks[0].modules())


def test_all_folds_by_default_of_the_command(tmp_path: Path) -> None:
    folder = write_model(tmp_path, folds=(0, 2, "all"))
    assert CineModel.load(folder, None).folds == (0, 2)
    with pytest.raises(FileNotFoundError, match="Train a fold"):
        CineModel.load(folder, None, checkpoint="checkpoint_best.pth")


def test_random_state_is_left_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    CineModel.load(folder)
    assert torch.equal(torch.rand(2), expected)
