"""`nnunet-echo measure`, and label maps without a dataset.json: --labels and --patients of measure and evaluate."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from own_images import LABELS, PATIENTS, heart
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.evaluation.evaluate import evaluate
from nnunet_echo.evaluation.left_ventricle.volume import LvShape
from nnunet_echo.evaluation.measure import Measurement, _phases_by_area, measure
from nnunet_echo.evaluation.pairs import CaseId

SPACING = 1.5, 0.8  # row, column
FRAMES = r"(?P<patient>p\d+)_(?P<view>[24]CH)_(?P<frame>\d+)"


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(mask).save(path)
        return
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(image, str(path))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Two patients, two views, ED and ES, and no dataset.json anywhere."""
    for patient in (1, 2):
        for view in ("2CH", "4CH"):
            for phase, radius in (("ED", 11 + patient), ("ES", 8)):
                write_mask(tmp_path / "masks" / f"p{patient}_{view}_{phase}.nii.gz", heart(radius)[1])
    return tmp_path / "masks"


def measured(masks: Path, **options: object) -> Measurement:
    return measure(masks, **{"labels": LABELS, "patients": PATIENTS, "workers": 1, **options})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_volumes_and_anatomy_are_those_of_evaluate(masks: Path) -> None:
    for method in ("ase", "camus"):
        found = measured(masks, method=method)
        both = evaluate(masks, masks, labels=LABELS, patients=PATIENTS, method=method, workers=1)
        assert len(found.patients) == 2 and found.summary["patients_with_ef"] == 2
        for ours, theirs in zip(found.patients, both.patients, strict=True):
            assert ours["flags"] == theirs["reference_flags"] and ours["planes"] == theirs["planes"] == "biplane"
            assert all(ours[name] == theirs[f"reference_{name}"] > 0 for name in ("edv_ml", "esv_ml", "ef_percent"))
        assert [(row["case"], row["violations"], row["criteria"]) for row in found.anatomy] == [
            (row["case"], row["reference_violations"], row["reference_criteria"]) for row in both.anatomy
        ]
    assert measured(masks, rounding=True).patients[0]["edv_ml"] == round(measured(masks).patients[0]["edv_ml"])


def test_areas_and_lengths_of_each_case(masks: Path) -> None:
    row = next(row for row in measured(masks).cases if row["case"] == "p2_4CH_ES")
    mask = heart(8)[1]
    for name, values in (("LV", [1]), ("MYO", [2]), ("LA", [3]), ("LV_EPI", [1, 2])):
        assert row[f"{name}_area_mm2"] == pytest.approx(np.isin(mask, values).sum() * 1.2)
    assert (row["patient"], row["view"], row["phase"], row["frame"]) == ("p2", "4CH", "ES", "")
    # From the middle of the lowest row to that of the highest row of pixels, in mm.
    down = np.flatnonzero((mask == 1).any(axis=1))
    assert row["lv_length_mm"] == pytest.approx((down[-1] - down[0]) * 1.5, abs=1.6) and row["lv_base_width_mm"] > 0


def test_ed_and_es_by_area_where_names_have_frames_alone(tmp_path: Path) -> None:
    for frame, radius in enumerate((10, 12, 9, 8), 8):  # 8 9 10 11, not in the order of their names
        write_mask(tmp_path / "cine" / f"p1_4CH_{frame}.nii.gz", heart(radius)[1])
    write_mask(tmp_path / "phases" / "p1_4CH_ED.nii.gz", heart(12)[1])
    write_mask(tmp_path / "phases" / "p1_4CH_ES.nii.gz", heart(8)[1])
    (cine,) = measured(tmp_path / "cine", patients=FRAMES).patients
    (phases,) = measured(tmp_path / "phases").patients
    assert cine["ef_percent"] == phases["ef_percent"] > 20 and cine["edv_ml"] == phases["edv_ml"]
    assert cine["flags"].split()[0] == "phase_by_area_4CH" and phases["flags"] == "missing_2CH"
    write_mask(tmp_path / "one" / "p1_4CH_1.nii.gz", heart(8)[1])
    (one,) = measured(tmp_path / "one", patients=FRAMES).patients
    assert np.isnan(one["ef_percent"]) and "by_area" not in one["flags"]


def test_of_equal_areas_the_first_frame_counts() -> None:
    frames = [
        (CaseId(f"p1_{number}", "p1", "", "", number), LvShape(area=area, flag=str(number)))
        for number, area in ((10, 9.0), (11, 3.0), (8, 9.0), (9, 3.0))
    ]
    assert [(case.phase, shape.flag) for case, shape in _phases_by_area(frames)] == [("ED", "8"), ("ES", "9")]


def test_png_has_no_millilitres(tmp_path: Path) -> None:
    for phase, radius in (("ED", 12), ("ES", 8)):
        write_mask(tmp_path / "masks" / f"p1_4CH_{phase}.png", heart(radius)[1])
    found = measured(tmp_path / "masks")
    assert np.isnan(found.patients[0]["edv_ml"]) and 20 < found.patients[0]["ef_percent"] < 90
    assert found.cases[0]["LV_area_px2"] == (heart(12)[1] == 1).sum()
    with pytest.raises(ValueError, match="rounding=True: .*masks has lengths in pixels"):
        measured(tmp_path / "masks", rounding=True)


def test_command_line(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["measure", str(masks), "--labels", *LABELS, "--patients", PATIENTS, "--workers", "1"]
    assert main(command) == 0 and main(command) == 0
    out = tmp_path / "masks_measured"
    assert f"tables: {out}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"cases.csv", "patients.csv", "anatomy.csv", "summary.json"}
    assert 20 < float(rows(out / "patients.csv")[0]["ef_percent"]) < 90
    summary = json.loads((out / "summary.json").read_text())
    assert summary["ef_percent_mean"] == pytest.approx(
        np.mean([float(row["ef_percent"]) for row in rows(out / "patients.csv")]), rel=1e-4
    )
    assert main(["measure", str(masks), "-o", str(out), "--labels", "MYO=2", "LV=1", "LA=3", "--workers", "1"]) == 0
    assert "no patient has an EF" in capsys.readouterr().out
    assert main([*command, "-o", str(masks)]) == 2 and "holds the label maps" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cases.csv").write_text("mine")
    assert main([*command, "-o", str(tmp_path / "other")]) == 2
    assert "not by measure" in capsys.readouterr().err and (tmp_path / "other" / "cases.csv").read_text() == "mine"


def test_a_dataset_json_is_used_where_there_is_one(masks: Path, tmp_path: Path) -> None:
    labels = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
    content = {"labels": labels, "file_ending": ".nii.gz", "case_id_pattern": f".*?(?:{PATIENTS}).*"}
    expected = measured(masks).patients
    (tmp_path / "dataset.json").write_text(json.dumps(content))  # beside the masks
    assert measure(masks, workers=1).patients == expected
    with pytest.raises(ValueError, match=re.escape("dataset.json says already what the labels are")):
        measured(masks)
    with pytest.raises(ValueError, match="--patients .* goes with --labels"):
        measured(masks, labels=())


def test_evaluate_takes_labels_in_place_of_a_dataset_json(
    masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(masks), str(masks), "-o", str(tmp_path / "scores"), "--workers", "1"]
    assert main(command) == 2 and "name the structures: --labels LV=1" in capsys.readouterr().err
    assert main([*command, "--labels", *LABELS, "--patients", PATIENTS]) == 0
    assert {row["structure"] for row in rows(tmp_path / "scores" / "cases.csv")} == {"LV", "MYO", "LA", "LV_EPI"}
    assert rows(tmp_path / "scores" / "patients.csv")[1]["patient"] == "p2"
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["dataset_json"] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": ("LV=1", "MYO=2")}, "unknown labels 3"),
        ({"labels": ("LV=#ff0000",)}, "label maps hold values"),
        ({"labels": ("background=1", "LV=2")}, "the background of label maps is 0"),
        ({"labels": ("LV",)}, "it must be NAME=VALUE"),
        ({"labels": ()}, "goes with --labels"),
        ({"labels": (), "patients": None}, "name the structures: --labels"),
        ({"patients": "("}, "nor a regular expression"),
        ({"patients": r"(?P<patient>q\d)"}, "does not match"),
        ({"patients": r"(?P<patient>p\d)"}, None),
        ({"method": "guess"}, "method='guess': expected one of"),
    ],
)
def test_what_cannot_be_measured_is_said(masks: Path, options: dict, reason: str | None) -> None:
    if reason is None:
        assert len(measured(masks, **options).cases) == 8
        return
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(reason)):
        measured(masks, **options)


def test_one_kind_of_file_is_needed(masks: Path, tmp_path: Path) -> None:
    write_mask(masks / "p3_4CH_ED.png", heart(8)[1])
    with pytest.raises(ValueError, match=re.escape("holds .nii.gz and .png files. Keep one kind there")):
        measured(masks)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no label maps"):
        measured(tmp_path / "empty")


def test_every_column_is_defined(masks: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
    section = page.partition("## measure")[2].partition("\n## ")[0]
    found = measured(masks)
    for table in (found.cases, found.patients, found.anatomy):
        for column in table[0]:
            assert f"`{column}`" in section or column in ("MYO_area_mm2", "LA_area_mm2", "LV_EPI_area_mm2"), column
