"""The command `evaluate`: its tables, and what it averages."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from camus_download import SPACING_MM, array, load, rewrite, tree
from conftest import SHARED, shared
from evaluated_phantom import CASE, COLUMNS, HEAD, TRAINING, change, compare, rows
from scipy import ndimage

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.evaluation.agreement import agreement, classification
from nnunet_echo.evaluation.metrics import mask_metrics, metric_columns
from nnunet_echo.evaluation.summary import summarise_structures

pytest_plugins = ("camus_download", "evaluated_phantom")
PHANTOM_SEED = 3


def row_of(case: str, structure: str, out: Path) -> dict[str, str]:
    return next(row for row in rows(out / "cases.csv") if (row["case"], row["structure"]) == (case, structure))


def eroded(labels: np.ndarray) -> np.ndarray:
    """Every structure a pixel smaller, all moved to the right."""
    small = sum(ndimage.binary_erosion(labels == value) * value for value in (1, 2, 3))
    return np.roll(small, 2, axis=1).astype(labels.dtype)


def test_tables_of_perfect_predictions(predictions: Path, references: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(predictions), str(references), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert sorted(tree(tmp_path / "out")) == ["anatomy.csv", "cases.csv", "patients.csv", "summary.json"]
    cases = rows(tmp_path / "out" / "cases.csv")
    assert list(cases[0]) == COLUMNS
    assert len(cases) == TRAINING * 4 * 4
    assert {row["structure"] for row in cases} == {"LV", "MYO", "LA", "LV_EPI"}
    assert [cases[0][name] for name in HEAD] == ["CAMUS_patient0001_2CH_ED", "CAMUS_patient0001", "2CH", "ED", "LV"]
    for row in cases:
        assert {
            row[name]
            for name in ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy", "nsd_1mm", "nsd_2mm")
        } == {"1"}
        assert {row[name] for name in COLUMNS if name.startswith(("hd", "assd", "masd"))} == {"0"}
        assert (row["prediction_empty"], row["reference_empty"]) == ("0", "0")
    for number, row in enumerate(rows(tmp_path / "out" / "patients.csv"), start=1):
        assert row["patient"] == f"CAMUS_patient{number:04d}"
        assert (row["method"], row["planes"], row["reference_flags"]) == ("ase", "biplane", "")
        heart = camus_heart(PHANTOM_SEED, number)
        assert float(row["reference_ef_percent"]) == pytest.approx(heart.ef_percent, abs=3)  # at 1.5 mm a pixel
        assert float(row["reference_edv_ml"]) == pytest.approx(heart.edv_ml, rel=0.05)
        assert float(row["recorded_ef_percent"]) == round(heart.ef_percent)
        for name in ("edv_ml", "esv_ml", "ef_percent"):
            assert row[f"prediction_{name}"] == row[f"reference_{name}"]
    summary = load(tmp_path / "out", "summary.json")
    assert (summary["unit"], summary["cases"], summary["patients"]) == ("mm", TRAINING * 4, TRAINING)
    assert summary["ejection_fraction"]["biplane"]["ef_percent"]["mae"] == 0
    assert summary["ejection_fraction"]["biplane"]["ef_percent"]["pearson_r"] == pytest.approx(1)
    assert summary["warnings"] == []


def test_values_are_those_of_the_metrics_in_mm(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in predictions.iterdir():
        rewrite(path, eroded)
    assert (
        main(
            [
                "evaluate",
                str(predictions),
                str(references),
                "-o",
                str(tmp_path / "one"),
                "--workers",
                "1",
                "--ef-method",
                "camus",
                "--ef-rounding",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "EF, camus, biplane: 6 patients" in printed
    row = row_of(CASE, "LV_EPI", tmp_path / "one")
    pair = [np.isin(array(folder / f"{CASE}.nii.gz"), (1, 2)) for folder in (predictions, references)]
    expected = mask_metrics(*pair, (SPACING_MM, SPACING_MM))
    found = {name: float(row[column]) for name, column in metric_columns("mm").items()}
    assert found == pytest.approx(expected, rel=1e-5)
    for patient in rows(tmp_path / "one" / "patients.csv"):
        assert patient["method"] == "camus, rounded"
        assert all(float(patient[name]).is_integer() for name in patient if name.endswith(("_ml", "_percent")))
    assert (
        main(
            [
                "evaluate",
                str(predictions),
                str(references),
                "-o",
                str(tmp_path / "two"),
                "--workers",
                "2",
                "--ef-method",
                "camus",
                "--ef-rounding",
            ]
        )
        == 0
    )
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_miss_is_counted_and_costs(predictions: Path, references: Path, tmp_path: Path) -> None:
    perfect = compare(predictions, references).summary["structures"]["LV"]["all"]
    change(predictions, CASE, lambda labels: np.where(labels == 1, 0, labels))
    missed = compare(predictions, references)
    missed.write(tmp_path / "out")
    group = missed.summary["structures"]["LV"]["all"]
    assert (group["n_missing"], group["n_spurious"], group["n_both_empty"]) == (1, 0, 0)
    assert (perfect["dice"]["mean"], perfect["hd95_penalised_mm"]["mean"]) == (1, 0)
    assert group["dice"]["mean"] == pytest.approx(1 - 1 / 4 / TRAINING)
    assert group["nsd_1mm"]["mean"] == pytest.approx(1 - 1 / 4 / TRAINING)
    height, width = array(references / f"{CASE}.nii.gz").shape
    diagonal = SPACING_MM * math.hypot(height, width)
    assert group["hd95_penalised_mm"]["mean"] == pytest.approx(diagonal / 4 / TRAINING)
    assert (group["hd95_mm"]["mean"], group["hd95_mm"]["frames_undefined"]) == (0, 1)

    row = row_of(CASE, "LV", tmp_path / "out")
    assert [row[name] for name in ("dice", "precision", "hd_mm", "assd_mm", "nsd_1mm")] == ["0", "", "", "", "0"]
    assert float(row["hd95_penalised_mm"]) == pytest.approx(diagonal, rel=1e-5)
    assert (row["prediction_empty"], row["reference_empty"]) == ("1", "0")
    patient = rows(tmp_path / "out" / "patients.csv")[1]
    assert (patient["prediction_edv_ml"], patient["prediction_ef_percent"]) == ("", "")
    assert patient["reference_ef_percent"] != ""
    assert (patient["prediction_flags"], patient["reference_flags"]) == ("empty_4CH_ED", "")
    ef = load(tmp_path / "out", "summary.json")["ejection_fraction"]
    assert (ef["biplane"]["ef_percent"]["n"], ef["biplane"]["ef_percent"]["n_undefined"]) == (TRAINING - 1, 1)
    assert ef["prediction_flags"] == {"empty_4CH_ED": 1}


def test_both_empty_is_neither_right_nor_wrong(predictions: Path, references: Path, tmp_path: Path) -> None:
    both = [predictions, shutil.copytree(references, tmp_path / "references")]
    for folder in both:
        change(folder, CASE, lambda labels: np.where(labels == 3, 0, labels))
    change(predictions, CASE.replace("ED", "ES"), eroded)
    group = compare(*both, dataset_json=references.parent / "dataset.json").summary["structures"]["LA"]["all"]
    assert (group["n_missing"], group["n_both_empty"], group["dice"]["frames_undefined"]) == (0, 1, 1)
    assert group["accuracy"]["frames_undefined"] == 0
    assert group["dice"]["patients"] == TRAINING


def test_ef_on_record(predictions: Path, references: Path) -> None:
    """Both sides are compared with the EF that the dataset came with; that of masks alone is what can be reached."""
    for path in predictions.glob("*_ES.nii.gz"):
        change(predictions, path.name.removesuffix(".nii.gz"), eroded)
    result = compare(predictions, references)
    found = result.summary["ejection_fraction"]["biplane"]["recorded_ef"]
    for side in ("prediction", "reference"):
        errors = [row[f"{side}_ef_percent"] - row["recorded_ef_percent"] for row in result.patients]
        assert found[side]["n"] == TRAINING
        assert found[side]["bias"] == pytest.approx(np.mean(errors))
    assert found["prediction"]["mae"] > 5 > 3 > found["reference"]["mae"]


def test_exchanged_phases_are_shown_as_they_are(predictions: Path, references: Path) -> None:
    for view in ("2CH", "4CH"):
        ed, es = (predictions / f"CAMUS_patient0002_{view}_{phase}.nii.gz" for phase in ("ED", "ES"))
        shutil.copy(references / es.name, ed)
        shutil.copy(references / ed.name, es)
    patient = compare(predictions, references).patients[1]
    assert patient["prediction_ef_percent"] < 0
    assert patient["prediction_esv_ml"] == patient["reference_edv_ml"] > patient["prediction_edv_ml"]
    assert (patient["prediction_flags"], patient["reference_flags"]) == ("esv_above_edv", "")


def test_one_view_missing(predictions: Path, references: Path) -> None:
    for path in predictions.glob("CAMUS_patient0003_2CH_*"):
        path.unlink()
    evaluation = compare(predictions, references, subset=True)
    assert evaluation.summary["references_without_prediction"] == 2
    patient = evaluation.patients[2]
    assert (patient["planes"], patient["prediction_flags"]) == ("single-plane 4CH", "missing_2CH")
    assert 0 < patient["prediction_ef_percent"] == patient["reference_ef_percent"]
    ef = evaluation.summary["ejection_fraction"]
    assert (ef["biplane"]["ef_percent"]["n"], ef["single-plane 4CH"]["ef_percent"]["n"]) == (TRAINING - 1, 1)


def test_a_patient_with_many_frames_counts_once() -> None:
    def row(patient: str, phase: str, dice: float, empty: int = 0) -> dict:
        return {
            "structure": "LV",
            "patient": patient,
            "phase": phase,
            "dice": dice,
            "prediction_empty": empty,
            "reference_empty": 0,
        }

    summary = summarise_structures(
        [
            row("a", "ED", 0.9),
            row("a", "ES", 0.7),
            row("a", "7", 0.5),
            row("b", "ED", 0.3),
            row("b", "ES", math.nan),
            row("c", "ES", 0.0, empty=1),
        ],
        ["dice"],
    )["LV"]
    assert summary["all"]["dice"] == pytest.approx(
        {
            "mean": (0.7 + 0.3 + 0) / 3,
            "sd": np.std([0.7, 0.3, 0], ddof=1),
            "median": 0.3,
            "patients": 3,
            "frames_undefined": 1,
        }
    )
    assert summary["ED"]["dice"]["mean"] == pytest.approx(0.6)
    assert summary["ES"]["dice"]["mean"] == pytest.approx(0.35)
    assert (summary["all"]["n_missing"], summary["ES"]["n_missing"], summary["ED"]["n_missing"]) == (1, 1, 0)


def test_every_column_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-z0-9_]+)`", text))
    heads = [
        "patient",
        "method",
        "planes",
        *(
            f"{side}_{name}"
            for side in ("reference", "prediction")
            for name in ("edv_ml", "esv_ml", "ef_percent", "flags")
        ),
    ]
    statistics = [*agreement([1], [1]), *classification([1], [1], 40)]
    assert {*COLUMNS, *heads, *statistics} <= documented
    assert '"spacing_unit": "px"' in text


@pytest.mark.skipif(not SHARED.exists(), reason="real patients are not here")
def test_real_patients_against_themselves(tmp_path: Path) -> None:
    """The 4CH view of CAMUS: nothing is refused, the long axis is found by the myocardium in every mask."""
    for patient in sorted(shared("data", "camus_4ch", "database_nifti").glob("patient*"))[:10]:
        for path in patient.glob("*_gt.nii.gz"):
            shutil.copy(path, tmp_path)
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            DATASET_JSON | {"case_id_pattern": r"(?P<patient>patient\d{4})_(?P<view>2CH|4CH)_(?P<phase>ED|ES)_gt"}
        )
    )
    evaluation = compare(tmp_path, tmp_path)
    assert evaluation.summary["ejection_fraction"]["reference_flags"] == {"missing_2CH": 10}
    assert {row["planes"] for row in evaluation.patients} == {"single-plane 4CH"}
    assert all(0 < row["reference_ef_percent"] < 85 for row in evaluation.patients)
    assert all(40 < row["reference_edv_ml"] < 300 for row in evaluation.patients)
    assert {row["dice"] for row in evaluation.cases} == {1.0}
