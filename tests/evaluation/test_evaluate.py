"""The command `evaluate`: its tables, what it averages, what it refuses; statistics of agreement."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import PATIENTS, SPACING_MM, array, convert, load, rewrite, tree
from conftest import SHARED, shared
from PIL import Image
from scipy import ndimage

from nnunet_echo.cli.main import main
from nnunet_echo.data.tables import read_rows, read_table, write_rows
from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.evaluation.agreement import agreement, classification
from nnunet_echo.evaluation.evaluate import Evaluation, evaluate
from nnunet_echo.evaluation.metrics import mask_metrics, metric_columns
from nnunet_echo.evaluation.summary import summarise_structures

pytest_plugins = ("camus_download",)
TRAINING = PATIENTS - 1  # the last phantom patient is the test patient
PHANTOM_SEED = 3
CASE = "CAMUS_patient0002_4CH_ED"
HEAD = ["case", "patient", "view", "phase", "structure"]
COLUMNS = [
    *HEAD,
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "specificity",
    "accuracy",
    "hd_mm",
    "hd95_mm",
    "hd95_pooled_mm",
    "assd_mm",
    "masd_mm",
    "nsd_1mm",
    "nsd_2mm",
    "hd95_penalised_mm",
    "prediction_empty",
    "reference_empty",
]


@pytest.fixture(scope="module")
def references(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labelsTr of the converted phantom: six patients, two views, two phases."""
    raw = tmp_path_factory.mktemp("raw")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(raw))
        convert(pristine)
    return raw / "Dataset751_CAMUS" / "labelsTr"


@pytest.fixture
def predictions(references: Path, tmp_path: Path) -> Path:
    """Predictions without a fault, which the test may damage."""
    return shutil.copytree(references, tmp_path / "predictions")


def compare(predictions: Path, references: Path, **options: object) -> Evaluation:
    return evaluate(predictions, references, **{"workers": 1, **options})


def change(predictions: Path, case: str, function: Callable[[np.ndarray], np.ndarray], **options: float) -> None:
    rewrite(predictions / f"{case}.nii.gz", function, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_a_table_that_is_not_of_a_conversion(predictions: Path, references: Path, tmp_path: Path) -> None:
    shutil.copy(references.parent / "dataset.json", tmp_path)
    others = {"dataset_json": tmp_path / "dataset.json"}
    assert math.isnan(compare(predictions, references, **others).patients[0]["recorded_ef_percent"])
    (tmp_path / "cases.csv").write_text(f"case,patient,ef_percent\n{CASE},CAMUS_patient0002,high\n")
    with pytest.raises(ValueError, match=r"cases\.csv: not the table of a conversion .*'high'.*; move it"):
        compare(predictions, references, **others)


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
    with pytest.raises(ValueError, match="method is 'simpson'"):
        compare(references, references, method="simpson")
    alone = shutil.copytree(references, tmp_path / "alone" / "labels")
    with pytest.raises(FileNotFoundError, match="name it with --dataset-json"):
        compare(alone, alone)
    assert main(["evaluate", str(alone), str(references), "-o", f"{alone}/."]) == 2
    assert "holds the label maps" in capsys.readouterr().err
    assert tree(alone) == tree(references)


def echonet(folder: Path, ending: str, **fields: object) -> Path:
    """Frames of two videos without a scale: an ellipse 20 (ED) and 14 to 18 (ES) pixels wide, in a frame of 112."""
    folder.mkdir(exist_ok=True)
    row, column = np.mgrid[:112, :112]
    for video, es_width in (("0X1A", 14), ("0X2B", 18)):
        for phase, width in (("ED", 20), ("ES", es_width)):
            mask = (np.hypot((row - 60) / 40, (column - 56) / width) < 1) & (row < 75)
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            sitk.WriteImage(image, str(folder / f"ECHONET_{video}_{phase}{ending}"))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "LV": 1},
                "file_ending": ending,
                "case_id_pattern": "(?P<patient>ECHONET_0X[0-9A-F]+)_(?P<phase>ED|ES)",
                **fields,
            }
        )
    )
    return folder


@pytest.mark.parametrize(("ending", "fields"), [(".nii.gz", {"spacing_unit": "px"}), (".png", {})])
def test_images_without_a_scale_are_measured_in_pixels(ending: str, fields: dict, tmp_path: Path) -> None:
    references = echonet(tmp_path / "references", ending, **fields)
    evaluation = compare(shutil.copytree(references, tmp_path / "predictions"), references)
    assert [name for name in evaluation.cases[0] if "mm" in name] == []
    assert list(evaluation.cases[0]) == [re.sub("(_|[12])mm$", r"\1px", name) for name in COLUMNS]
    for row, width in zip(evaluation.patients, (14, 18), strict=True):
        assert math.isnan(row["reference_edv_ml"])
        assert math.isnan(row["prediction_esv_ml"])
        assert row["reference_ef_percent"] == pytest.approx(100 * (1 - (width / 20) ** 2), abs=2)
        assert (row["planes"], row["reference_flags"]) == ("single-plane", "")
    assert evaluation.summary["unit"] == "px"
    assert evaluation.summary["ejection_fraction"]["single-plane"]["edv_ml"]["n"] == 0
    with pytest.raises(ValueError, match="rounding is for mL"):
        compare(references, references, rounding=True)


def test_a_spacing_of_1_mm_is_doubted(tmp_path: Path) -> None:
    folder = echonet(tmp_path / "videos", ".nii.gz")
    evaluation = compare(folder, folder)
    assert "hd95_mm" in evaluation.cases[0]
    assert "4 reference(s) have a spacing of 1 x 1 mm" in evaluation.summary["warnings"][0]
    with pytest.raises(ValueError, match="spacing_unit is 'mm'; .png files can have px"):
        compare(folder, echonet(tmp_path / "png", ".png", spacing_unit="mm"))


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


def test_palette_images_are_read_by_their_indices(tmp_path: Path) -> None:
    references = echonet(tmp_path / "references", ".png")
    predictions = shutil.copytree(references, tmp_path / "predictions")
    for path in (predictions / "ECHONET_0X1A_ED.png", references / "ECHONET_0X2B_ED.png"):
        image = Image.fromarray(np.asarray(Image.open(path)), "P")
        image.putpalette([9, 9, 9, 255, 0, 0] + [0] * 762)
        image.save(path)
    assert compare(predictions, references).cases == compare(references, references).cases
    image.paste(2, (0, 0, 5, 5))
    image.save(predictions / "ECHONET_0X1A_ED.png")
    with pytest.raises(ValueError, match="0X1A_ED.png: unknown labels 2"):
        compare(predictions, references)


def test_a_spacing_that_no_echo_has_is_not_measured_in_mm(predictions: Path, references: Path, tmp_path: Path) -> None:
    metres = shutil.copytree(references, tmp_path / "metres")
    for folder in (predictions, metres):
        change(folder, CASE, lambda labels: labels, spacing=SPACING_MM / 1000)
    shutil.copy(references.parent / "dataset.json", tmp_path / "dataset.json")
    with pytest.raises(ValueError, match=f"{CASE}.nii.gz: spacing 0.0015 x 0.0015 mm, but pixels of an echo"):
        compare(predictions, metres)


def test_without_a_pattern_each_case_is_a_patient(references: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}))
    evaluation = compare(references, references, dataset_json=path)
    assert evaluation.summary["patients"] == TRAINING * 4
    assert evaluation.summary["ejection_fraction"]["patients_without_both_phases"] == TRAINING * 4
    assert {row["view"] for row in evaluation.cases} == {""}


def hearts(
    folder: Path,
    names: dict[str, float],
    spacing: tuple[float, float] = (0.6, 1.2),
    shift: tuple = (0, 0),
    **fields: object,
) -> Path:
    """For each name LV and MYO of a frame (row, column): half an ellipsoid 80 mm long, with that diameter in mm."""
    folder.mkdir(exist_ok=True)
    shape = round(130 / spacing[0]), round(100 / spacing[1])
    row, column = ((np.arange(n) + 0.5) * step for n, step in zip(shape, spacing, strict=True))
    up, beside = 105 - row[:, None], column[None, :] - 50
    for name, diameter in names.items():
        lv, epi = ((up > 0) & (np.hypot(up / (80 + wall), beside / (diameter / 2 + wall)) < 1) for wall in (0, 9))
        image = sitk.GetImageFromArray(np.roll(lv + 2 * (epi & ~lv), shift, (0, 1)).astype(np.uint8))
        image.SetSpacing(spacing[::-1])  # x, y
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "LV": 1, "MYO": 2},
                "file_ending": ".nii.gz",
                "case_id_pattern": r"(?P<patient>.+?)_(?P<view>[^_]+)_(?:f(?P<frame>\d+)_)?(?P<phase>[A-Za-z]+)",
                **fields,
            }
        )
    )
    return folder


@pytest.mark.parametrize("spacing", [(0.6, 1.2), (1.2, 0.6)])
def test_rows_and_columns_have_their_own_spacing(spacing: tuple[float, float], tmp_path: Path) -> None:
    """From the file to the tables: volumes of known hearts, and shifts in mm down and across."""
    names = {"a_2CH_ED": 48, "a_4CH_ED": 44, "a_2CH_ES": 36, "a_4CH_ES": 33}
    references = hearts(tmp_path / "references", names, spacing)
    volumes = [2 / 3 * math.pi * 80 * a * b / 4 / 1000 for a, b in ((48, 44), (36, 33))]  # of half an ellipsoid
    for axis in (0, 1):
        found = compare(hearts(tmp_path / "predictions", names, spacing, (5, 0) if axis == 0 else (0, 5)), references)
        (patient,) = found.patients
        for side in ("prediction", "reference"):
            assert [patient[f"{side}_edv_ml"], patient[f"{side}_esv_ml"]] == pytest.approx(volumes, rel=0.02)
            assert patient[f"{side}_ef_percent"] == pytest.approx(100 * (1 - 36 * 33 / 48 / 44), abs=1)
        distances = [row["hd_mm"] for row in found.cases if row["structure"] == "LV"]
        assert distances == pytest.approx([5 * spacing[axis]] * 4)
    camus = compare(references, references, method="camus").patients[0]
    assert camus["reference_edv_ml"] == pytest.approx(volumes[0], rel=0.1)


def test_two_frames_of_one_phase_are_refused(tmp_path: Path) -> None:
    """Frames of a film may be as many as they are; but which ED is the patient's is not ours to choose."""
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
    "names",
    [
        ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES"),
        ("2ch_ed", "2ch_es", "4ch_ed", "4ch_es"),
        ("2Ch_Ed", "2CH_es", "4ch_eD", "4cH_ES"),
    ],
)
def test_views_and_phases_in_small_letters(names: tuple[str, ...], tmp_path: Path) -> None:
    widths = zip(names, (46, 36, 44, 34), strict=True)
    folder = hearts(tmp_path / "names", {f"a_{name}": width for name, width in widths})
    result = compare(folder, folder)
    (patient,) = result.patients
    assert (patient["planes"], patient["reference_flags"]) == ("biplane", "")
    assert patient["reference_ef_percent"] == pytest.approx(100 * (1 - 36 * 34 / 46 / 44), abs=1)
    assert {(row["view"], row["phase"]) for row in result.cases} == {
        ("2CH", "ED"),
        ("2CH", "ES"),
        ("4CH", "ED"),
        ("4CH", "ES"),
    }
    assert set(result.summary["structures"]["LV"]) == {"all", "ED", "ES"}
    assert result.summary["warnings"] == []


def test_no_ef_is_said_with_the_phases_that_names_have(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = hearts(tmp_path / "names", {"a_4CH_dia": 46, "a_4CH_sys": 36})
    assert main(["evaluate", str(folder), str(folder), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "warning: no patient has an EF, which needs the phases ED and ES of one view" in printed
    assert "give: dia, sys" in printed
    assert "flags, reference: missing_2CH 1, missing_4CH_ED 1, missing_4CH_ES 1" in printed
    (patient,) = rows(tmp_path / "out" / "patients.csv")
    assert patient["reference_flags"] == "missing_2CH missing_4CH_ED missing_4CH_ES"


def test_camus_on_a_coarse_grid_is_flagged(tmp_path: Path) -> None:
    """The 8 pixels of the method are most of an LV of 112 x 112 pixels: EF falls below that of `ase`."""
    folder = echonet(tmp_path / "videos", ".png")
    ase, camus = (compare(folder, folder, method=method) for method in ("ase", "camus"))
    assert ase.patients[0]["reference_ef_percent"] - camus.patients[0]["reference_ef_percent"] > 2
    assert {row["reference_flags"] for row in camus.patients} == {"coarse_ED coarse_ES"}
    assert {row["reference_flags"] for row in ase.patients} == {""}
    assert camus.summary["ejection_fraction"]["prediction_flags"] == {"coarse_ED": 2, "coarse_ES": 2}
    assert "EF by camus is not to be trusted in 2 of 2 patients" in camus.summary["warnings"][0]
    assert ase.summary["warnings"] == []


def test_a_rerun_leaves_no_table_of_the_run_before(tmp_path: Path) -> None:
    """Nor does it replace what another program, or the user, wrote."""
    film = hearts(tmp_path / "film", {f"a_4CH_f{time}_x": 40 + time for time in range(4)})
    pair = hearts(tmp_path / "pair", {"b_4CH_ED": 46, "b_4CH_ES": 36})
    out = tmp_path / "out"

    def run(folder: Path, out: Path = out) -> int:
        return main(["evaluate", str(folder), str(folder), "-o", str(out), "--workers", "1"])

    assert run(film) == 0
    assert {"frames.csv", "sequences.csv"} <= set(tree(out))
    (out / "notes.txt").write_text("mine")
    assert run(pair) == 0
    assert sorted(tree(out)) == ["anatomy.csv", "cases.csv", "notes.txt", "patients.csv", "summary.json"]
    assert {row["patient"] for row in rows(out / "cases.csv")} == {"b"}
    assert run(pair, tmp_path / "new") == 0
    assert {name: text for name, text in tree(out).items() if name != "notes.txt"} == tree(tmp_path / "new")


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


TEXTS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''@x",
    "'",
    "'a",
    "a=1",
    "a\rb",
    "a\nb",
    'a"b,c',
    "",
    "-1.5",
    "+2",
    "-inf",
    "=",
    "-",
    "ä",
    "'-1",
]


def test_no_text_in_a_table_is_a_formula(tmp_path: Path) -> None:
    """And reading gives back what was written."""
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [["=name", "n"], *([text, -1.5] for text in TEXTS)])
    with path.open(encoding="utf-8", newline="") as file:
        raw = list(csv.reader(file))
    for text, _ in raw:
        assert text[:1] not in tuple("=+-@\t\r") or text in ("-1.5", "+2")
    assert {number for _, number in raw[1:]} == {"-1.5"}
    assert {"-1.5", "+2", "'-inf", "'=1+1", "''=1"} <= {text for text, _ in raw}
    with path.open(encoding="utf-8", newline="") as file:
        assert read_rows(file) == [{"=name": text, "n": "-1.5"} for text in TEXTS]
    header, read = read_table(path, ["n"])
    assert (header, [row["=name"] for _, row in read]) == (["=name", "n"], TEXTS)


def test_names_and_structures_that_would_be_formulas(tmp_path: Path) -> None:
    folder = hearts(
        tmp_path / "names",
        {"=cmd_4CH_ED": 46, "=cmd_4CH_ES": 36, "-x_4CH_f1_a": 40, "-x_4CH_f2_b": 40},
        labels={"background": 0, "LV": 1, "@MYO": 2},
    )
    compare(folder, folder).write(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.csv"):
        with path.open(newline="") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert re.fullmatch(r"-[\d.e-]+", cell) or cell[:1] not in tuple("=+-@\t\r")
        with path.open(newline="") as file:
            assert {row["patient"] for row in read_rows(file)} <= {"=cmd", "-x"}
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert {row["structure"] for row in read_rows(file)} == {"LV", "@MYO"}


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


def test_agreement_is_of_the_errors() -> None:
    """bias is signed and sd the error's; published code has called |error| the bias and the prediction's sd "std"."""
    reference, prediction = [30.0, 50.0, 60.0, 70.0, math.nan], [36.0, 48.0, 58.0, 62.0, 40.0]
    error = [6, -2, -2, -8]
    result = agreement(prediction, reference)
    assert (result["n"], result["n_undefined"]) == (4, 1)
    assert result["bias"] == pytest.approx(-1.5)
    assert result["sd"] == pytest.approx(math.sqrt(sum((e + 1.5) ** 2 for e in error) / 3))
    assert (result["loa_low"], result["loa_high"]) == pytest.approx((-1.5 - 11.2593, -1.5 + 11.2593), abs=1e-3)
    assert agreement(reference, prediction)["bias"] == pytest.approx(1.5)
    assert result["mae"] == 4.5
    assert result["rmse"] == pytest.approx(math.sqrt(27))
    assert result["r2"] == pytest.approx(1 - 108 / 875)
    assert result["pearson_r"] == pytest.approx(np.corrcoef(prediction[:4], reference[:4])[0, 1])


def test_classification_at_a_threshold() -> None:
    reference, prediction = [30, 35, 39, 45, 50, 55, 60, math.nan], [28, 42, 38, 42, 36, 50, 61, 20]
    result = classification(prediction, reference, 40)
    # 12 pairs: 28 below all four; 42 ties with 42, below two, above 36; 38 below three, above 36.
    assert result == pytest.approx({"n_below": 3, "auc": (4 + 2.5 + 3) / 12, "kappa": (5 / 7 - 25 / 49) / (24 / 49)})
    assert classification([45, 55], [39, 61], 40)["auc"] == 1
    # An EF of the threshold itself is not below it, be it the reference or the prediction.
    assert classification([30, 40, 50], [30, 40, 50], 40) == {"n_below": 1, "auc": 1, "kappa": 1}
    assert classification([40, 39], [39, 40], 40) == {"n_below": 1, "auc": 0, "kappa": -1}
    assert classification([40, 40, 40], [39, 41, 42], 40) == {"n_below": 1, "auc": 0.5, "kappa": 0}
    assert classification([61, 39], [39, 61], 40) == {"n_below": 1, "auc": 0, "kappa": -1}


@pytest.mark.parametrize("values", [[], [50.0], [50.1, 50.1, 50.1]])
def test_statistics_that_few_values_leave_undefined(values: list[float]) -> None:
    result = agreement(values, values)
    assert result["n"] == len(values)
    assert math.isnan(result["pearson_r"])
    assert math.isnan(result["r2"])
    assert math.isnan(result["sd"]) == (len(values) < 2)
    assert all(math.isnan(classification(values, values, 40)[name]) for name in ("auc", "kappa"))
    with pytest.raises(ValueError, match="the same patients"):
        agreement(values, [*values, 1.0])


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
