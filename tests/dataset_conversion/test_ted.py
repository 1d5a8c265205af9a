"""The TED converter on phantom data: cines as 3D cases, ED and ES as 2D cases, folds by patient, refusals by name."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import array, load, table, tree
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from ted_download import PATIENTS, SPACING_MM, TED, TED_FRAMES, convert_ted

from nnunet_echo.cli.main import main
from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.cine import TIME_STEP

pytest_plugins = ("ted_download",)

PATIENT = Path("database") / "patient002"
CINE, MASKS, CFG = (f"patient002_4CH_{name}" for name in ("sequence.mhd", "sequence_gt.mhd", "info.cfg"))


def cfg(ted: Path, name: str) -> dict[str, str]:
    lines = (ted / "database" / name / f"{name}_4CH_info.cfg").read_text().splitlines()
    return dict(line.split(": ") for line in lines)


def test_a_cine_is_one_case_with_all_its_frames_and_masks(ted: Path, raw: Path) -> None:
    report = convert_ted(ted)
    assert report.exit_code == 0 and [note.kind for note in report.warnings] == ["patients of CAMUS"]
    rows = table(raw / TED)
    assert set(rows) == {f"TED_patient{number:03d}_4CH" for number in range(1, PATIENTS + 1)}
    for case, row in rows.items():
        image, label = (
            sitk.ReadImage(str(raw / TED / name))
            for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
        )
        cine = ted / row["source"]
        assert np.array_equal(sitk.GetArrayFromImage(image), array(cine))
        masks = array(cine.with_name(cine.name.replace(".mhd", "_gt.mhd")))
        assert np.array_equal(sitk.GetArrayFromImage(label), masks)
        assert all(set(np.unique(mask)) == {0, 1, 2} for mask in masks)
        for written in (image, label):
            np.testing.assert_allclose(written.GetSpacing(), (SPACING_MM, SPACING_MM / 2, TIME_STEP), rtol=1e-6)
        info = cfg(ted, row["patient"].removeprefix("TED_"))
        assert (row["ed"], row["es"], row["ef_percent"]) == (info["ED"], info["ES"], info["EF"])
        assert image.GetSize()[2] == int(info["NbFrame"])
    written = raw / TED / "imagesTr" / "TED_patient001_4CH_0000.nii.gz"
    pixels, properties = SimpleITKIO().read_images([str(written)])
    assert np.array_equal(pixels[0], array(ted / "database" / "patient001" / "patient001_4CH_sequence.mhd"))
    np.testing.assert_allclose(properties["spacing"], (TIME_STEP, SPACING_MM / 2, SPACING_MM), rtol=1e-6)
    assert not check_dataset(raw / TED, 1)


def test_a_clip_runs_from_one_end_diastole_to_the_next(ted: Path, raw: Path) -> None:
    assert convert_ted(ted, clip=5, size=64).exit_code == 0
    dataset_json = load(raw / TED, "dataset.json")
    assert (dataset_json["sequence"]["first"], dataset_json["sequence"]["last"]) == ("ED", "ED")
    for case, row in table(raw / TED).items():
        mask = array(raw / TED / "labelsTr" / f"{case}.nii.gz")
        areas = (mask == 1).sum((1, 2))
        assert mask.shape == (5, 64, 64) and areas.argmin() == 2 and areas[0] == areas[4] == areas.max()
        numbers = [int(number) for number in row["frames"].split()]
        info = cfg(ted, row["patient"].removeprefix("TED_"))
        assert (row["ed"], row["es"]) == ("1", "3") and numbers[::2] == [1, int(info["ES"]), int(info["NbFrame"])]


def test_dataset_json_has_no_atrium(ted: Path, raw: Path) -> None:
    for mode, name in (("sequence", TED), ("frames", TED_FRAMES)):
        convert_ted(ted, mode=mode)
        dataset_json = load(raw / name, "dataset.json")
        assert dataset_json["labels"] == {"background": 0, "LV": 1, "MYO": 2}
        assert all(patient_of(case, dataset_json) == row["patient"] for case, row in table(raw / name).items())


def test_the_frames_are_those_of_the_cfg(ted: Path, raw: Path) -> None:
    assert convert_ted(ted, mode="frames").exit_code == 0
    rows = table(raw / TED_FRAMES)
    assert len(rows) == 2 * PATIENTS
    for case, row in rows.items():
        cine, frame = ted / row["source"], int(row["frame"])
        assert frame == int(cfg(ted, row["patient"].removeprefix("TED_"))[row["phase"]])
        for name, original in (
            (f"imagesTr/{case}_0000.nii.gz", cine),
            (f"labelsTr/{case}.nii.gz", cine.with_name(cine.name.replace(".mhd", "_gt.mhd"))),
        ):
            written = sitk.ReadImage(str(raw / TED_FRAMES / name))
            assert np.array_equal(sitk.GetArrayFromImage(written), array(original)[frame - 1])
            np.testing.assert_allclose(written.GetSpacing(), (SPACING_MM, SPACING_MM / 2), rtol=1e-6)
    assert not check_dataset(raw / TED_FRAMES, 1)


def test_five_folds_by_patient(ted: Path, raw: Path) -> None:
    convert_ted(ted, mode="frames")
    folds = [
        {side: {case[:14] for case in cases} for side, cases in fold.items()}
        for fold in load(raw / TED_FRAMES, "splits_final.json")
    ]
    everybody = {f"TED_patient{number:03d}" for number in range(1, PATIENTS + 1)}
    assert Counter(name for fold in folds for name in fold["val"]) == Counter(everybody) and len(folds) == 5
    assert all(fold["train"] == everybody - fold["val"] for fold in folds)


def replace(pattern: str, text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(re.sub(pattern, text, path.read_text()))


def cine_for_masks(path: Path) -> None:
    shutil.copy(path.with_name(CINE).with_suffix(".raw"), path.with_suffix(".raw"))


BOTH, SEQUENCE, FRAMES = ("sequence", "frames"), ("sequence",), ("frames",)
REFUSALS = [
    (CINE, lambda p: p.unlink(), BOTH, "is there, but not its cine"),
    (MASKS, lambda p: p.unlink(), BOTH, "is there, but not its masks (.._gt)"),
    (CINE, lambda p: p.with_suffix(".raw").unlink(), BOTH, "its data file patient002_4CH_sequence.raw is missing"),
    (CINE, lambda p: os.truncate(p.with_suffix(".raw"), 999), BOTH, "truncated: 999 bytes"),
    (MASKS, replace("patient002", "../patient001/patient001"), BOTH, "not a file of the same folder"),
    (MASKS, cine_for_masks, SEQUENCE, "unknown labels"),
    (MASKS, replace("ElementSpacing = 3", "ElementSpacing = 2"), BOTH, "must lie on one grid"),
    (CFG, replace(r"NbFrame: \d+", "NbFrame: 7"), BOTH, "frames where its cfg has NbFrame 7"),
    (CFG, replace(r"(ED|ES): \d+", r"\1: 5"), FRAMES, "the ventricle is not larger in frame 5"),
    (CFG, replace(r"ES: \d+", "ES: 999"), FRAMES, "ES 999 of"),
    (CFG, replace(r"ED: \d+", "ED: 0"), FRAMES, "has ED 0 and"),
    (CFG, replace(r"ES: \d+", "ES: late"), FRAMES, "no usable ES in patient002_4CH_info.cfg"),
    (CFG, lambda p: p.unlink(), FRAMES, "no usable EF, NbFrame, ED, ES"),
]


@pytest.mark.parametrize(
    ("name", "damage", "mode", "message"),
    [(name, damage, mode, message) for name, damage, modes, message in REFUSALS for mode in modes],
)
def test_a_damaged_cine_is_refused_by_name_and_the_rest_converted(
    ted: Path, raw: Path, tmp_path: Path, name: str, damage: Callable[[Path], object], mode: str, message: str
) -> None:
    before = tree(convert_ted(ted, mode=mode, raw=tmp_path / "undamaged").folder)
    damage(ted / PATIENT / name)
    report = convert_ted(ted, mode=mode)
    assert report.exit_code == 1 and report.refused
    assert all(message in note.message and "patient002" in note.subject for note in report.refused)
    after = tree(report.folder)
    kept = {path: digest for path, digest in before.items() if path.endswith(".nii.gz") and "patient002" not in path}
    assert kept == {path: digest for path, digest in after.items() if path.endswith(".nii.gz")}


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (CFG, lambda p: p.unlink(), "no usable EF, NbFrame, ED, ES"),
        (CFG, lambda p: (p.unlink(), p.mkdir()), "missing or not a file"),
        (CFG, replace(r"EF: \d+", "EF: high"), "no usable EF in"),
        (CFG, replace(r"EF: \d+", "EF: 990"), "no usable EF in"),
    ],
)
def test_a_cine_needs_no_cfg(ted: Path, raw: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    damage(ted / PATIENT / name)
    report = convert_ted(ted)
    assert report.exit_code == 0 and report.training_cases == PATIENTS
    assert message in " ".join(note.message for note in report.warnings if note.subject == "patient002")
    assert table(raw / TED)["TED_patient002_4CH"]["ef_percent"] == ""


def test_other_oddities_of_the_folders(ted: Path, raw: Path) -> None:
    for path in (ted / PATIENT).iterdir():
        shutil.copy(path, ted / "database" / "patient003")
    shutil.rmtree(ted / "database" / "patient004")
    (ted / "database" / "patient004").mkdir()
    report = convert_ted(ted)
    assert Counter(note.kind for note in report.refused) == {"misplaced file": 3}
    assert ("patient without cine", "patient004") in [(note.kind, note.subject) for note in report.warnings]
    assert report.training_cases == PATIENTS - 1
    shutil.copytree(ted, ted / "copy")
    with pytest.raises(ValueError, match="patient001 is in two folders"):
        convert_ted(ted)
    with pytest.raises(FileNotFoundError, match="no folder patientXXX below"):
        convert_ted(raw)


def test_command_line(ted: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "ted", str(ted), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "-c 3d_fullres" in shown and "never train" in shown and (raw / TED / "dataset.json").is_file()
    assert main(["convert", "ted", str(ted), "--mode", "frames", "--split", "7:1:2", "--workers", "1"]) == 0
    assert "-c 2d" in capsys.readouterr().out and len(list((raw / TED_FRAMES / "imagesTs").iterdir())) == 2
