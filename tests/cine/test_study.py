"""From files to numbers: every frame through the model once, progress, two views, smoothing, and what is refused."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cine_models import dataset_json, write_model
from cine_results import drawn, flags, refused
from clip_files import phantom_frames, write_folder, write_gif, write_volume
from numpy import ndarray

from nnunet_echo.cine.clips import ClipError, read_clip
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.result import Loop
from nnunet_echo.cine.study import about, check_sources, measure_study
from nnunet_echo.phantom.dicom import write_dicom_cine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CineModel:
    return CineModel.load(write_model(tmp_path_factory.mktemp("model")), workers=2)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few frames: the scraps that random weights see in them take time to measure."""
    path = tmp_path_factory.mktemp("loop") / "loop.dcm"
    write_dicom_cine(path, drawn()[1][:5], spacing_mm=(2.0, 2.0), frame_time_ms=1000 / 30)
    return path


def seen(loop: Loop) -> Iterator[ndarray]:
    """The frames as the network sees them: the sector, and black around it."""
    return (np.where(loop.sector, frame, 0) for frame in loop.clip.frames())


def test_one_clip(model: CineModel, loop: Path) -> None:
    told: list[tuple[int, int]] = []
    result = measure_study(model, [loop], views=["4CH"], progress=lambda done, total: told.append((done, total)))
    clip = read_clip(loop)
    assert told == [(k, clip.count) for k in range(clip.count + 1)]
    [found] = result.loops
    assert found.view == "4CH" and found.unsmoothed is None
    expected = list(model.stream(seen(found), spacing_mm=clip.spacing_mm, edge_of="LV"))
    assert len(found.masks) == len(expected) and len({mask.tobytes() for mask in found.masks}) > 1
    assert all((mask == frame.mask).all() for mask, frame in zip(found.masks, expected, strict=True))
    assert found.curve.entropy == pytest.approx(
        [np.nan if f.entropy is None else f.entropy for f in expected], nan_ok=True
    )
    assert result.model == {
        "hash": model.hash,
        "network": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "trainer": "nnUNetTrainer",
        "configuration": "2d",
        "folds": "0",
        "engine": "torch",
    }


def test_two_clips_are_counted_together(model: CineModel, loop: Path, tmp_path: Path) -> None:
    write_volume(tmp_path / "other.nii.gz", phantom_frames(3))
    told: list[tuple[int, int]] = []
    result = measure_study(
        model,
        [loop, tmp_path / "other.nii.gz"],
        views=["4CH", "2CH"],
        fps=30,
        spacing=(1.0, 2.0),
        progress=lambda done, total: told.append((done, total)),
    )
    total = read_clip(loop).count + 3
    assert told[-1] == (total, total) and len(told) == total + 1
    assert [one.view for one in result.loops] == ["4CH", "2CH"]
    assert (
        {one.clip.time_source for one in result.loops}
        == {one.clip.spacing_source for one in result.loops}
        == {"by the user"}
    )
    assert result.loops[1].clip.spacing_mm == (1.0, 2.0)
    assert "ef_percent_biplane" in {number for numbers in refused(result).values() for number in numbers}


def test_smoothing_is_that_of_the_probabilities(model: CineModel, loop: Path) -> None:
    clip = read_clip(loop)
    result = measure_study(model, [loop], smooth=True)
    pictures = seen(result.loops[0])
    frames = list(model.stream(pictures, spacing_mm=clip.spacing_mm, edge_of="LV", probabilities=True))
    for k in (0, 2, clip.count - 1):
        near = [(2 if j == k else 1) * frames[j].probabilities for j in (k - 1, k, k + 1) if 0 <= j < clip.count]
        assert (result.loops[0].masks[k] == sum(near).argmax(0)).all()
    changed = [int((mask != frame.mask).sum()) for mask, frame in zip(result.loops[0].masks, frames, strict=True)]
    assert sum(changed) > 0
    assert "smoothed" in flags(result) and "ef_percent_unsmoothed" in result.numbers
    plain = measure_study(model, [loop])
    [found] = result.loops
    assert found.unsmoothed is not None
    assert (found.unsmoothed.values["lv_area"] == plain.loops[0].curve.values["lv_area"]).all()
    assert (found.curve.values["lv_area"] != plain.loops[0].curve.values["lv_area"]).any()
    assert found.curve.entropy == pytest.approx(plain.loops[0].curve.entropy, nan_ok=True)


def test_probabilities_beyond_the_region_are_those_of_background(model: CineModel, loop: Path) -> None:
    clip = replace(read_clip(loop), region=(10, 60, 20, 80))
    frame = next(iter(model.stream(clip, probabilities=True)))
    assert frame.probabilities.sum(0) == pytest.approx(np.ones(clip.shape), abs=1e-5)
    assert (frame.probabilities.argmax(0) == frame.mask).all() and frame.mask.any()
    outside = np.ones(clip.shape, bool)
    outside[10:60, 20:80] = False
    assert (frame.probabilities[0][outside] == 1).all()


def test_both_views_are_smoothed(model: CineModel, loop: Path, tmp_path: Path) -> None:
    """And two files that differ, with the same frames, give no biplane numbers."""
    again = pydicom.dcmread(loop)
    again.InstanceNumber = 77
    again.save_as(tmp_path / "again.dcm")
    result = measure_study(model, [loop, tmp_path / "again.dcm"], views=["4CH", "2CH"], smooth=True)
    assert refused(result)["biplane_same"] == {"ef_percent_biplane", "edv_ml_biplane", "esv_ml_biplane"}
    assert all(one.unsmoothed is not None for one in result.loops)
    assert {"ef_percent_unsmoothed", "ef_percent_unsmoothed_second"} <= set(result.numbers)
    areas = [one.curve.values["lv_area"] for one in result.loops]
    assert (areas[0] == areas[1]).all()


def test_a_folder_of_pictures_is_a_clip(model: CineModel, tmp_path: Path) -> None:
    write_folder(tmp_path / "pictures", phantom_frames(3))
    [found] = measure_study(model, [tmp_path / "pictures"], spacing=(1.5, 1.5)).loops
    assert found.clip.count == 3 and found.clip.spacing_mm == (1.5, 1.5)


def test_without_a_scale_the_sector_is_what_the_model_was_trained_on(model: CineModel, tmp_path: Path) -> None:
    """Not the screen around it, which may be of any size."""
    frames = phantom_frames(3)
    write_gif(tmp_path / "loop.gif", np.pad(frames, ((0, 0), (30, 50), (70, 20))))
    [found] = measure_study(model, [tmp_path / "loop.gif"]).loops
    assert found.clip.spacing_mm is None and not found.sector[:29].any() and not found.sector[:, :69].any()
    rows, columns = (np.flatnonzero(found.sector.any(axis)) for axis in (1, 0))
    spacing = model.assumed_spacing((rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    assert spacing[0] > 1.2 * model.assumed_spacing(found.clip.shape)[0]
    expected = [frame.mask for frame in model.stream(seen(found), spacing_mm=spacing)]
    assert all((mask == other).all() for mask, other in zip(found.masks, expected, strict=True))
    write_folder(tmp_path / "still", np.full((3, 40, 50), 90, np.uint8))
    assert measure_study(model, [tmp_path / "still"]).loops[0].clip.count == 3


def test_the_network_sees_the_sector_alone(model: CineModel, tmp_path: Path) -> None:
    """Text around it, however bright, changes no mask."""
    frames = np.pad(phantom_frames(3), ((0, 0), (20, 20), (20, 20)))
    screen = frames.copy()
    screen[:, :12], screen[:, :, :12] = 255, 200
    for name, pictures in (("plain", frames), ("screen", screen)):
        write_folder(tmp_path / name, pictures)
    plain, text = (measure_study(model, [tmp_path / name], spacing=(1.5, 1.5)).loops[0] for name in ("plain", "screen"))
    assert (plain.sector == text.sector).all() and any(mask.any() for mask in plain.masks)
    assert all((one == other).all() for one, other in zip(plain.masks, text.masks, strict=True))


def test_a_model_of_regions(loop: Path, tmp_path: Path) -> None:
    regions = dataset_json(regions=True) | {"labels": {"background": 0, "heart": [1, 2, 3], "LV": [1, 2], "LA": [3]}}
    model = CineModel.load(write_model(tmp_path, dataset=regions), workers=2)
    [found] = measure_study(model, [loop]).loops
    assert found.structures == {"LV": (1, 2), "LA": (3,)}
    with pytest.raises(ValueError, match="the model predicts regions that overlap"):
        measure_study(model, [loop], smooth=True)


def test_what_is_refused(model: CineModel, loop: Path, tmp_path: Path) -> None:
    def error_of(paths: list[Path], **options: object) -> str:
        with pytest.raises(ValueError) as caught:
            measure_study(model, paths, **options)
        return str(caught.value)

    assert "a study is one clip or two, got 0" in error_of([])
    assert "got 3" in error_of([loop] * 3)
    other = tmp_path / "other.dcm"
    for views in ([], ["4CH"], ["4CH", "4CH"], ["4CH", "2CH", "4CH"]):
        said = error_of([loop, other], views=views)
        assert said == f"views={views}: two clips are two views. Name both, 4CH and 2CH."
    assert "2 for one clip. Name one, or none." in error_of([loop], views=["4CH", "2CH"])
    shutil.copy(loop, other)
    for second in (loop, other):
        said = error_of([loop, second], views=["4CH", "2CH"])
        assert said.startswith(f"{second.name}: has the same content as the first clip")
    assert "views='../x': must be among 4CH, 2CH" in error_of([loop], views=["../x"])
    assert "spacing=(0.0, 1.0)" in error_of([loop], spacing=(0.0, 1.0))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(loop.read_bytes()[:-900])
    with pytest.raises(ClipError, match="cut.dcm: it ends within frame"):
        measure_study(model, [cut])
    with pytest.raises(FileNotFoundError):
        measure_study(model, [tmp_path / "none.dcm"])


def test_another_engine_says_what_its_self_test_gave(model: CineModel) -> None:
    frame, spacing = np.zeros((1, 40, 40), np.uint8), (1.0, 1.0)
    frame[0, 10:30, 15:30] = 90
    labels = model.predict(frame[:, None], model.frame_properties(spacing))[0].copy()
    labels[0, :3] += 1
    other = replace(model, engine="onnxruntime", test_frame=(frame, spacing, labels))
    assert about(other)["engine"] == "onnxruntime"
    assert about(other)["self_test"] == "3 of 1600 labels differ from PyTorch's"
    assert "self_test" not in about(model)


def test_what_sr_and_seg_need_is_seen_before_any_work(
    loop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_sources(["masks", "sr", "seg"], loop)
    write_volume(tmp_path / "loop.nii", phantom_frames(3))
    check_sources(["masks"], tmp_path / "loop.nii")
    with pytest.raises(ValueError, match="loop.nii: is no DICOM file, to which SEG and SR refer"):
        check_sources(["sr", "seg"], tmp_path / "loop.nii")
    with pytest.raises(ValueError, match=f"{tmp_path.name}: is no DICOM file"):
        check_sources(["seg"], tmp_path)
    for save in ("seg", "sr"):
        with pytest.raises(FileNotFoundError, match=r"none\.dcm: there is no such file"):
            check_sources([save], tmp_path / "none.dcm")
    monkeypatch.setattr("nnunet_echo.cine.study.find_spec", lambda name: None)
    check_sources(["seg"], loop)
    with pytest.raises(RuntimeError, match="pip install 'nnunet-echo\\[dicom\\]'"):
        check_sources(["sr"], loop)


def test_a_header_that_sr_and_seg_cannot_refer_to(loop: Path, tmp_path: Path) -> None:
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        for value in (None, "", ["1.2", "1.3"]):
            with pydicom.config.disable_value_validation():
                write_dicom_cine(tmp_path / "a.dcm", drawn()[1][:2], tags={keyword: value})
            for save in ("seg", "sr"):
                with pytest.raises(ValueError, match=rf"a\.dcm: it has no {keyword}, to which SEG and SR refer"):
                    check_sources([save], tmp_path / "a.dcm")
    data = loop.read_bytes()
    (tmp_path / "b.dcm").write_bytes(data[:300] + b"\xff" * 200 + data[500:])
    with pytest.raises(ValueError, match=r"b\.dcm: "):
        check_sources(["seg"], tmp_path / "b.dcm")


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientBirthDate": "13.02.1937"},
        {"StudyTime": "11:37:59"},
        {"PatientSex": "female"},
        {"SpecificCharacterSet": "NOSUCH"},
    ],
)
def test_a_header_that_a_report_cannot_repeat(
    tags: dict[str, str], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """highdicom takes none of these; a SEG has them as they are."""
    pytest.importorskip("highdicom")
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dicom_cine(tmp_path / "a.dcm", drawn()[1][:2], tags=tags)
    check_sources(["seg"], tmp_path / "a.dcm")
    with pytest.raises(ValueError, match=r"a\.dcm: its patient, study or character set has values") as caught:
        check_sources(["sr"], tmp_path / "a.dcm")
    assert not any(value in str(caught.value) for value in tags.values()) and not recwarn.list
