"""What `evaluate` refuses: folders, files and arguments that do not fit, and files that are somebody else's."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import SPACING_MM, rewrite, tree
from evaluated_phantom import CASE, change, compare, echonet, hearts

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON

pytest_plugins = ("camus_download", "evaluated_phantom")


def test_a_table_that_is_not_of_a_conversion(predictions: Path, references: Path, tmp_path: Path) -> None:
    shutil.copy(references.parent / "dataset.json", tmp_path)
    others = {"dataset_json": tmp_path / "dataset.json"}
    assert math.isnan(compare(predictions, references, **others).patients[0]["recorded_ef_percent"])
    (tmp_path / "cases.csv").write_text(f"case,patient,ef_percent\n{CASE},CAMUS_patient0002,high\n")
    with pytest.raises(ValueError, match=r"cases\.csv: not the table of a conversion .*'high'.*\. Move it"):
        compare(predictions, references, **others)


def flip(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    image.SetDirection((1, 0, 0, -1))
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "has no prediction in"),
        (lambda path: shutil.copy(path, path.with_name(f"{CASE}2.nii.gz")), f"{CASE}2.nii.gz: has no reference"),
        (lambda path: rewrite(path, lambda labels: labels[1:]), "size"),
        (lambda path: rewrite(path, lambda labels: labels, spacing=SPACING_MM * 1.001), "spacing"),
        (flip, "direction"),
        (lambda path: rewrite(path, lambda labels: labels + 1), "unknown labels 4; dataset.json has [0, 1, 2, 3]"),
        (lambda path: rewrite(path, lambda labels: labels * np.float32(0.5)), "unknown labels 0.5, 1.5"),
        (lambda path: rewrite(path, lambda labels: labels.astype(np.int16) + 256), "unknown labels 256"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "truncated"),
    ],
)
def test_what_cannot_be_compared_is_named(
    damage: Callable[[Path], None],
    message: str,
    predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    damage(predictions / f"{CASE}.nii.gz")
    assert main(["evaluate", str(predictions), str(references), "-o", str(tmp_path / "out"), "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert CASE in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": None}, "not a usable dataset.json"),
        ({"file_ending": ".nrrd"}, "file_ending is '.nrrd'"),
        ({"file_ending": ".nii"}, "no *.nii file there"),
        ({"labels": {"background": 0, "LV": 1, "ignore": 4}}, "ignore label"),
        ({"spacing_unit": "cm"}, "spacing_unit is 'cm'"),
        ({"spacing_unit": "px"}, "spacing 1.5 x 1.5, but dataset.json says spacing_unit"),
        ({"case_id_pattern": "(?P<patient>P.*)"}, "does not match the dataset's case_id_pattern"),
        ({"case_id_pattern": r"(?P<patient>CAMUS_patient\d+)_.CH_(?P<phase>ED|ES)"}, "are both CAMUS_patient0001 ED"),
        ({"case_id_pattern": r".*_(?P<phase>ED|ES)"}, "it needs a group (?P<patient>...)"),
        ({"case_id_pattern": "("}, "not a usable dataset.json"),
        ({"labels": {"background": 0, "LV": 1}}, "unknown labels 2, 3"),
    ],
)
def test_dataset_json_that_does_not_fit(content: dict, message: str, references: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(DATASET_JSON | content))
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        compare(references, references, dataset_json=path)


def test_arguments_that_do_not_fit(references: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="method='simpson'"):
        compare(references, references, method="simpson")
    alone = shutil.copytree(references, tmp_path / "alone" / "labels")
    with pytest.raises(FileNotFoundError, match="Name it with --dataset-json"):
        compare(alone, alone)
    assert main(["evaluate", str(alone), str(references), "-o", f"{alone}/."]) == 2
    assert "holds the label maps" in capsys.readouterr().err
    assert tree(alone) == tree(references)


def test_png_files_that_are_no_label_maps(tmp_path: Path) -> None:
    references = echonet(tmp_path / "references", ".png")
    predictions = shutil.copytree(references, tmp_path / "predictions")
    path = predictions / "ECHONET_0X1A_ED.png"
    sitk.WriteImage(sitk.Compose(*[sitk.Image(112, 112, sitk.sitkUInt8)] * 3), str(path))
    with pytest.raises(ValueError, match="0X1A_ED.png: 3 values a pixel"):
        compare(predictions, references)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="0X1A_ED.png: cannot be read"):
        compare(predictions, references)


def test_a_spacing_that_no_echo_has_is_not_measured_in_mm(predictions: Path, references: Path, tmp_path: Path) -> None:
    metres = shutil.copytree(references, tmp_path / "metres")
    for folder in (predictions, metres):
        change(folder, CASE, lambda labels: labels, spacing=SPACING_MM / 1000)
    shutil.copy(references.parent / "dataset.json", tmp_path / "dataset.json")
    with pytest.raises(ValueError, match=f"{CASE}.nii.gz: spacing 0.0015 x 0.0015 mm, but pixels of an echo"):
        compare(predictions, metres)


def test_two_frames_of_one_phase_are_refused(tmp_path: Path) -> None:
    """Frames of a cine may be as many as they are; but which ED is the patient's is not ours to choose."""
    names = {"a_4CH_f1_ED": 46.0, "a_4CH_f2_mid": 40.0, "a_4CH_f3_ES": 34.0}
    folder = hearts(tmp_path / "one", names)
    assert compare(folder, folder).patients[0]["planes"] == "single-plane 4CH"
    for phase in ("ED", "ed"):
        folder = hearts(tmp_path / phase, names | {f"a_4CH_f4_{phase}": 40.0})
        with pytest.raises(ValueError, match=rf"a_4CH_f4_{phase} and a_4CH_f1_ED are both a 4CH ED; one frame of each"):
            compare(folder, folder)
    folder = hearts(tmp_path / "mid", names | {"a_4CH_f4_mid": 40.0})
    assert compare(folder, folder).patients[0]["reference_flags"] == "missing_2CH"
    folder = hearts(tmp_path / "no LV", names | {"a_4CH_f4_ED": 40.0}, labels={"background": 0, "A": 1, "B": 2})
    assert compare(folder, folder).patients  # and no volumes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cases.csv", "case,patient\n"),
        ("summary.json", '{"foreground_mean": {}}'),
        ("summary.json", "[1]"),
        ("frames.csv", ""),
        ("summary.json", '{"versions": {"nnunet_echo": "1"}}'),
    ],
)
def test_files_of_others_are_not_replaced(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The table of a conversion, nnU-Net's summary, a leaderboard."""
    folder = hearts(tmp_path / "pair", {"b_4CH_ED": 46, "b_4CH_ES": 36})
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content)
    before = tree(out)
    assert main(["evaluate", str(folder), str(folder), "-o", str(out), "--workers", "1"]) == 2
    message = rf"{name}: is there already, and not by evaluate, .* Choose another folder"
    assert re.search(message, capsys.readouterr().err)
    assert tree(out) == before
