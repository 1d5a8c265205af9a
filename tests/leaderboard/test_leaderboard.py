"""The command `leaderboard`: the numbers in its tables, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import array, convert, rewrite, table, tree
from leaderboard_study import BASELINE, FOREIGN, GOOD, Study
from leaderboard_tables import CASES, PATIENTS, rows, run
from ted_download import plain_picture

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.evaluation.evaluate import evaluate
from nnunet_echo.evaluation.metrics import METRICS
from nnunet_echo.leaderboard import figures
from nnunet_echo.leaderboard.board import leaderboard
from nnunet_echo.phantom import cine as phantom_cine

pytest_plugins = ("camus_download", "leaderboard_study", "leaderboard_tables")


def test_the_whole_study(study: Study, tables: Path) -> None:
    table = rows(tables / "leaderboard.csv")
    assert [row["trainer"] for row in table] == [GOOD, BASELINE, FOREIGN]
    assert [(row["rank"], row["rank_low"], row["rank_high"], row["rank_1_share"]) for row in table] == [
        ("1", "1", "1", "1"),
        ("2", "2", "2", "0"),
        ("3", "3", "3", "0"),
    ]
    for row in table:
        assert (row["status"], row["reasons"], row["folds"], row["folds_of_split"]) == (
            "complete",
            "",
            *["0 1 2 3 4"] * 2,
        )
        assert (row["patients"], row["patients_of_split"], row["cases"]) == (*[str(PATIENTS)] * 2, str(CASES))
        assert (row["grid"], row["unit"], row["ef_method"], row["bootstrap_seed"]) == ("native", "mm", "ase", "0")
        assert row["split"] == table[0]["split"] != ""
        assert "numpy 2" in row["versions"]
        assert row["ef_planes"] == "biplane"
        assert float(row["score_ci_low"]) < float(row["score_mean"]) < float(row["score_ci_high"])
    # One patient's mean over frames, then the mean over patients, from the evaluation of each fold.
    validation = [
        evaluate(study.model(GOOD) / f"fold_{fold}" / "validation", study.raw / "labelsTr", workers=1, subset=True)
        for fold in range(5)
    ]
    lv = [row for evaluation in validation for row in evaluation.cases if row["structure"] == "LV"]
    means = [
        np.mean([row["hd95_mm"] for row in lv if row["patient"] == patient])
        for patient in sorted({row["patient"] for row in lv})
    ]
    assert float(table[0]["LV_hd95_mm_mean"]) == pytest.approx(np.mean(means), rel=1e-5)
    assert float(table[0]["LV_hd95_mm_sd"]) == pytest.approx(np.std(means, ddof=1), rel=1e-5)
    scores = [float(table[0][f"{structure}_dice_mean"]) for structure in ("LV", "MYO", "LA")]
    assert float(table[0]["score_mean"]) == pytest.approx(np.mean(scores), rel=1e-5)
    errors = [
        patient["prediction_ef_percent"] - patient["reference_ef_percent"]
        for evaluation in validation
        for patient in evaluation.patients
    ]
    assert float(table[0]["ef_bias"]) == pytest.approx(np.mean(errors), abs=1e-4)
    assert (tables / "index.html").stat().st_size > 50_000
    assert {path.stem for path in (tables / "figures").glob("*.pdf")} == {
        "boxes_dice",
        "ranks",
        "ejection_fraction",
        "quality",
    }
    assert len(rows(tables / "cases.csv")) == 3 * CASES * 4
    assert list(rows(tables / "cases.csv")[0])[:3] == ["trainer", "fold", "case"]
    assert len(rows(tables / "patients.csv")) == 3 * PATIENTS
    assert len(rows(tables / "anatomy.csv")) == 3 * CASES
    broken = sum(
        row["trainer"] == FOREIGN and row["prediction_violations"] != "0" for row in rows(tables / "anatomy.csv")
    )
    assert table[2]["anatomy_frames_with_errors"] == str(broken) != "0"
    assert float(table[2]["anatomy_rate"]) == pytest.approx(broken / CASES, rel=1e-5)
    summary = json.loads((tables / "summary.json").read_text())
    assert summary["rank_stability"]["kendall_tau"] == 1
    assert summary["baseline"] == BASELINE


def test_every_column_is_documented(tables: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "leaderboard.md").read_text()
    columns = list(rows(tables / "leaderboard.csv")[0]) + list(rows(tables / "comparisons.csv")[0])
    statistics = re.compile(r"(?:(?:LV|MYO|LA|LV_EPI)_([a-z0-9_]+)|score)(_(?:n|mean|sd|median|q1|q3|ci_low|ci_high))")
    for column in columns:
        if match := statistics.fullmatch(column):
            assert f"`{match[2]}`" in text
            assert match[1] is None or f"`{match[1]}`" in text
        else:
            first = column.replace("esv_", "edv_").replace("_ef_reference_", "_ef_prediction_")
            name = re.sub("^(MYO|LA|LV_EPI)_n_", "LV_n_", first)
            assert f"`{name}`" in text, column


def test_tests_against_the_baseline(tables: Path) -> None:
    comparisons = {(row["trainer"], row["structure"], row["metric"]): row for row in rows(tables / "comparisons.csv")}
    assert {key[0] for key in comparisons} == {GOOD, FOREIGN}
    assert ("score", "dice") in {key[1:] for key in comparisons}
    assert ("EF", "absolute_error") in {key[1:] for key in comparisons}
    row = comparisons[FOREIGN, "LV", "dice"]
    assert float(row["difference"]) < 0
    assert float(row["p"]) == pytest.approx(2 / 2**PATIENTS)  # exact: all six patients on one side
    assert float(row["p_holm"]) == pytest.approx(2 * 2 / 2**PATIENTS)
    by_trainer = {row["trainer"]: row for row in rows(tables / "leaderboard.csv")}
    assert by_trainer[BASELINE]["p"] == ""
    assert float(by_trainer[GOOD]["difference_mean"]) > 0 > float(by_trainer[FOREIGN]["difference_mean"])
    assert f"paired Wilcoxon test of the score against {BASELINE}" in (tables / "leaderboard.md").read_text()


def test_a_rerun_leaves_nothing_of_the_run_before(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Nor does it replace the tables of `evaluate`, or a user's."""
    monkeypatch.setattr(figures, "shown_metrics", lambda _: [METRICS["dice"]])
    out = tmp_path / "out"
    run(out, "--figures", "--folds", "0", "--trainers", GOOD, BASELINE)
    (out / "figures" / "mine.png").write_text("mine")
    assert {"comparisons.csv", "figures/ranks.pdf"} <= set(tree(out))
    run(out, "--folds", "0", "--trainers", GOOD)
    run(tmp_path / "new", "--folds", "0", "--trainers", GOOD)
    assert set(tree(out)) == {"figures", "figures/mine.png"} | set(tree(tmp_path / "new"))
    assert "comparisons.csv" not in tree(out)
    (tmp_path / "other").mkdir()
    for name, content in (("cases.csv", ""), ("index.html", ""), ("summary.json", '{"nnunet_echo": "1"}')):
        (tmp_path / "other" / name).write_text(content)
        assert main(["leaderboard", "751", "-o", str(tmp_path / "other"), "--workers", "1"]) == 2
        assert f"{name}: is there already, and not by leaderboard" in capsys.readouterr().err
        (tmp_path / "other" / name).unlink()


def test_a_missed_structure_costs_the_rank(study: Study) -> None:
    case = study.splits[1]["val"][0]
    for fold in range(5):  # of a model that is perfect otherwise
        for path in (study.model(FOREIGN) / f"fold_{fold}" / "validation").glob("*.nii.gz"):
            reference = array(study.raw / "labelsTr" / path.name)
            rewrite(path, lambda labels, reference=reference: reference)
    rewrite(study.model(FOREIGN) / "fold_1" / "validation" / f"{case}.nii.gz", np.zeros_like)
    board = leaderboard("751", trainers=[FOREIGN], workers=1)
    assert sorted(board.scores[:, 0]) == [3 / 4, *[1] * (PATIENTS - 1)]  # one of the patient's four frames
    penalised = leaderboard("751", trainers=[FOREIGN, GOOD], rank_by="hd95_penalised", workers=1)
    assert [entry.model.name for entry in penalised.entries] == [GOOD, FOREIGN]
    assert penalised.score == "hd95_penalised_mm"


def test_ejection_fraction_is_of_the_same_planes_for_all(study: Study, tmp_path: Path) -> None:
    """Two of six patients have the 4CH view alone, and one trainer finds no LV in three of the others."""
    patients = sorted({case.rsplit("_", 2)[0] for fold in study.splits for case in fold["val"]})
    for case in [f"{patient}_2CH_{phase}" for patient in patients[:2] for phase in ("ED", "ES")]:
        for path in [*study.raw.rglob(f"{case}.nii.gz"), *study.results.rglob(f"{case}.nii.gz")]:
            path.unlink()
        for fold in study.splits:
            for side in ("train", "val"):
                fold[side] = [name for name in fold[side] if name != case]
    (study.raw / "splits_final.json").write_text(json.dumps(study.splits))
    for log in study.results.rglob("training_log_*.txt"):
        log.unlink()  # it names other numbers of cases
    for patient in patients[2:5]:
        (path,) = study.model(FOREIGN).rglob(f"{patient}_2CH_ES.nii.gz")
        rewrite(path, lambda labels: np.where(labels == 1, 0, labels))
    run(tmp_path)
    table = {row["trainer"]: row for row in rows(tmp_path / "leaderboard.csv")}
    assert {row["ef_planes"] for row in table.values()} == {"biplane"}
    assert {(row["ef_patients"], row["ef_patients_of_other_planes"]) for row in table.values()} == {("4", "2")}
    assert {trainer: row["ef_n"] for trainer, row in table.items()} == {GOOD: "4", BASELINE: "4", FOREIGN: "1"}
    assert float(table[FOREIGN]["ef_mae_penalised"]) > 0.75 * 50 > float(table[GOOD]["ef_mae_penalised"])
    assert table[GOOD]["ef_mae_penalised"] == table[GOOD]["ef_mae"]
    tests = {
        (row["trainer"], row["metric"]): row["n"]
        for row in rows(tmp_path / "comparisons.csv")
        if row["structure"] == "EF"
    }
    assert tests == {
        (trainer, metric): n
        for trainer in (GOOD, FOREIGN)
        for metric, n in (("absolute_error", "1"), ("absolute_error_penalised", "4"))
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trainers", "nnUNetTrainerX"), f"trainer nnUNetTrainerX has no results.*{BASELINE}"),
        (("--baseline", "nnUNetTrainerX"), f"baseline nnUNetTrainerX is none of.*{BASELINE}"),
        (("-c", "3d_fullres"), "no folder TRAINER__PLANS__3d_fullres"),
        (("--folds", "5"), r"folds \[5\]: .*splits_final.json has folds 0 to 4"),
    ],
)
def test_errors(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture, options: tuple[str, ...], message: str
) -> None:
    assert main(["leaderboard", "751", "-o", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "cines"), [({}, 5), ({"clip": 6, "size": 64, "labels": "ed_es"}, 0)])
def test_sequences_are_compared_frame_by_frame(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], cines: int
) -> None:
    """Each frame that has a reference, on the grid of the cine; the pictures are frames of the sequences."""
    monkeypatch.setattr(phantom_cine, "ultrasound", plain_picture)
    write_camus(tmp_path / "download", 6, 0, spacing_mm=2.5)
    dataset = convert(tmp_path / "download", mode="half_sequence", views=["4CH"], **options).folder
    ignore = json.loads((dataset / "dataset.json").read_text())["labels"].get("ignore", 255)
    model = tmp_path / "results" / dataset.name / f"{BASELINE}__nnUNetPlans__3d_fullres"
    for fold, split in enumerate(json.loads((dataset / "splits_final.json").read_text())):
        validation = model / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        for case in split["val"]:
            labels = sitk.ReadImage(dataset / "labelsTr" / f"{case}.nii.gz")
            sitk.WriteImage(sitk.Mask(labels, labels != ignore), validation / f"{case}.nii.gz")
        (validation / "summary.json").write_text("{}")
    out = tmp_path / "out"
    assert main(["leaderboard", dataset.name, "-c", "3d_fullres", "-o", str(out), "--workers", "1"]) == 0
    (row,) = rows(out / "leaderboard.csv")
    assert (row["status"], row["score_mean"], row["ef_mae"], row["sequences"]) == (
        "complete",
        "1",
        "0",
        str(cines or ""),
    )
    cases = [case for case in table(dataset).values() if case["split"] == "tr"]
    frames = sum(int(case["size"].split()[2]) for case in cases) if cines else 2 * len(cases)
    assert int(row["cases"]) == frames
    assert float(row["recorded_ef_reference_mae"]) < 6  # of pixels of 2.5 mm
    page = (out / "index.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["clips"]) == cines
    assert data["pictures"] and all(picture["width"] != 64 for picture in data["pictures"].values())
    with pytest.raises(ValueError, match="holds sequences; `scratch` is None"):
        leaderboard(dataset.name, "3d_fullres", workers=1)
