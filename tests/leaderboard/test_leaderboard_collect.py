"""Which folds and models count, and whose results stand in the table at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from leaderboard_study import BASELINE, FOREIGN, GOOD, Study
from leaderboard_tables import PATIENTS, rows, run

from nnunet_echo.evaluation.metrics import METRICS
from nnunet_echo.leaderboard import figures
from nnunet_echo.leaderboard.board import leaderboard
from nnunet_echo.leaderboard.collect import TrainedModel, find_models, read_split
from nnunet_echo.nnunet.logs import read_training
from nnunet_echo.nnunet.pretrained import keep_pretrained

pytest_plugins = ("camus_download", "leaderboard_study", "leaderboard_tables")
VMAMBA = {"file": "vmamba_tiny.pth", "sha256": "0123456789ab" + "0" * 52, "layout": "VMamba v0"}


def found(study: Study, trainer: str = GOOD, folds: list[int] | None = None) -> TrainedModel:
    dataset_json = json.loads((study.raw / "dataset.json").read_text())
    split = read_split(study.raw / "splits_final.json", dataset_json, folds)
    (model,) = find_models(study.results, "2d", split, ".nii.gz", [trainer])
    return model


def test_incomplete_models_are_shown_and_not_ranked(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(study.model(GOOD) / "fold_3")
    shutil.rmtree(study.model(FOREIGN))
    run(tmp_path / "out")
    assert f"incomplete  {GOOD}: missing: fold 3" in capsys.readouterr().out
    table = {row["trainer"]: row for row in rows(tmp_path / "out" / "leaderboard.csv")}
    assert table[BASELINE]["rank"] == "1"
    row = table[GOOD]
    assert (row["status"], row["reasons"], row["folds"]) == ("incomplete", "missing: fold 3", "0 1 2 4")
    assert row["rank"] == row["score_mean"] == row["p"] == row["rank_1_share"] == ""
    assert int(row["patients"]) < PATIENTS
    assert float(row["LV_dice_mean"]) > 0.9  # shown
    assert not (tmp_path / "out" / "comparisons.csv").exists()
    assert f"{GOOD} is incomplete and not ranked: missing: fold 3." in (tmp_path / "out" / "leaderboard.md").read_text()
    run(tmp_path / "four", "--folds", "0", "1", "2", "4")  # compared on what all of them have
    four = rows(tmp_path / "four" / "leaderboard.csv")
    assert [row["trainer"] for row in four] == [GOOD, BASELINE]
    assert {row["folds"] for row in four} == {row["folds_of_split"] for row in four} == {"0 1 2 4"}
    assert four[0]["split"] != table[BASELINE]["split"]
    assert four[0]["patients"] == four[1]["patients"] == row["patients"]


def test_without_a_whole_model_nothing_is_ranked(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "shown_metrics", lambda _: [METRICS["dice"]])
    for fold in (1, 2, 3, 4):
        shutil.rmtree(study.model(GOOD) / f"fold_{fold}")
    run(tmp_path / "out", "--trainers", GOOD, "--figures")
    (row,) = rows(tmp_path / "out" / "leaderboard.csv")
    assert (row["status"], row["rank"], row["baseline"]) == ("incomplete", "", "")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rank_stability"] is None
    assert "its numbers are of" in (tmp_path / "out" / "index.html").read_text()
    assert not (tmp_path / "out" / "figures" / "ranks.pdf").exists()


def test_fold_all_is_refused(study: Study, tmp_path: Path) -> None:
    (study.model(GOOD) / "fold_0").rename(study.model(GOOD) / "fold_all")
    model = found(study)
    assert (model.status, model.folds) == ("incomplete", (1, 2, 3, 4))
    assert "fold_all left out: it is validated on cases that it was trained on" in model.reasons
    for fold in model.folds:
        shutil.rmtree(model.folder / f"fold_{fold}")
    assert found(study).status == "refused"
    run(tmp_path / "out", "--folds", "0")
    last = rows(tmp_path / "out" / "leaderboard.csv")[-1]
    assert (last["trainer"], last["status"], last["LV_dice_mean"], last["cases"]) == (GOOD, "refused", "", "0")


def remove_summary(study: Study) -> None:
    (study.model(GOOD) / "fold_2" / "validation" / "summary.json").unlink()


def cut_summary(study: Study) -> None:
    (study.model(GOOD) / "fold_2" / "validation" / "summary.json").write_text('{"mean": ')


def remove_prediction(study: Study) -> None:
    (study.model(GOOD) / "fold_2" / "validation" / f"{study.splits[2]['val'][0]}.nii.gz").unlink()


def swap_folds(study: Study) -> None:
    one, two = (study.model(GOOD) / f"fold_{fold}" / "validation" for fold in (2, 3))
    for old, new in ((one, one.with_name("x")), (two, one), (one.with_name("x"), two)):
        old.rename(new)


def train_on_more(study: Study) -> None:
    log = study.model(GOOD) / "fold_2" / "training_log_2026_1_1_10_00_00.txt"
    log.with_name("training_log_2026_1_10_9_00_00.txt").write_text(
        log.read_text().replace(f"{len(study.splits[2]['train'])} training", "99 training")
    )


@pytest.mark.parametrize(
    ("damage", "status", "reason"),
    [
        (remove_summary, "incomplete", "fold 2 is not finished"),
        (cut_summary, "incomplete", "fold 2 is not finished"),
        (remove_prediction, "incomplete", "fold 2 lacks 1 of 4 validation cases, first CAMUS_patient"),
        (swap_folds, "refused", "fold 2 is of another split: it validates CAMUS_patient"),
        (
            train_on_more,
            "refused",
            "fold 2 is of another split: it has 99 training and 4 validation cases, not 20 and 4",
        ),
    ],
)
def test_folds_that_do_not_count(study: Study, damage: Callable[[Study], None], status: str, reason: str) -> None:
    assert found(study).status == "complete"
    damage(study)
    model = found(study)
    assert model.status == status
    assert any(text.startswith(reason) for text in model.reasons), model.reasons
    assert 2 not in model.folds


def test_names(study: Study) -> None:
    other = f"{GOOD}__nnUNetResEncUNetMPlans"
    shutil.copytree(study.model(GOOD), study.results / f"{other}__2d")
    board = leaderboard("751", plans="nnUNetResEncUNetMPlans", baseline=GOOD, folds=[0], workers=1)
    assert [entry.model.name for entry in board.entries] == [other] == [board.baseline]
    with pytest.raises(FileNotFoundError, match="no folder TRAINER__Nosuch__2d .* other plans with -p"):
        leaderboard("751", plans="Nosuch", workers=1)
    board = leaderboard("751", trainers=[GOOD], baseline=f"{GOOD}__nnUNetPlans", folds=[0, 1], workers=1)
    assert [entry.model.name for entry in board.entries] == [GOOD, f"{GOOD}__nnUNetResEncUNetMPlans"]
    assert board.ranking.ranks.tolist() == [1, 1]
    assert board.baseline == GOOD
    assert board.comparisons[0]["p"] == 1
    assert leaderboard("751", trainers=[GOOD], folds=[1], workers=1).baseline == ""


def test_an_incomplete_baseline_is_an_error(study: Study) -> None:
    shutil.rmtree(study.model(GOOD) / "fold_3")
    with pytest.raises(ValueError, match=rf"baseline {GOOD} is incomplete \(missing: fold 3\)"):
        leaderboard("751", baseline=GOOD, workers=1)


def test_splits_that_say_nothing(study: Study) -> None:
    file, dataset_json = study.raw / "splits_final.json", json.loads((study.raw / "dataset.json").read_text())
    leaking = json.loads(json.dumps(study.splits))
    leaking[1]["train"].append(leaking[1]["val"][0])
    file.write_text(json.dumps(leaking))
    with pytest.raises(ValueError, match="fold 1 trains and validates on CAMUS_patient"):
        read_split(file, dataset_json)
    read_split(file, dataset_json, [0])
    twice = [study.splits[0], study.splits[0]]
    file.write_text(json.dumps(twice))
    with pytest.raises(ValueError, match="is validated in several folds"):
        read_split(file, dataset_json)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="splits_final.json is not there"):
        read_split(file, dataset_json)


def test_the_hash_is_that_of_the_split(study: Study) -> None:
    file, dataset_json = study.raw / "splits_final.json", json.loads((study.raw / "dataset.json").read_text())
    before = read_split(file, dataset_json).hash
    file.write_text(json.dumps([{side: cases[::-1] for side, cases in fold.items()} for fold in study.splits]))
    assert read_split(file, dataset_json).hash == before  # the order of cases says nothing
    file.write_text(json.dumps(study.splits[::-1]))
    assert read_split(file, dataset_json).hash != before


def test_logs_of_a_resumed_training(tmp_path: Path) -> None:
    """Epoch 1 was interrupted and ran again; October's log comes after September's."""
    head = "2026-10-02 09:00:00.000000: "
    (tmp_path / "training_log_2026_9_30_23_00_00.txt").write_text(
        f"{head}Epoch 0 \n{head}Epoch time: 10.0 s \n{head}Epoch 1 \n{head}Epoch time: 99.0 s \n"
    )
    (tmp_path / "training_log_2026_10_2_09_00_00.txt").write_text(f"{head}Epoch 1 \n{head}Epoch time: 20.0 s \n")
    training = read_training([tmp_path])
    assert (training.epochs, training.epoch_s, training.total_h) == (2, 15, 30 / 3600)
    assert math.isnan(training.peak_gib)
    assert math.isnan(training.validation_s)
    (tmp_path / "other").mkdir()
    assert math.isnan(read_training([tmp_path, tmp_path / "other"]).total_h)  # a sum over some folds is no sum


def test_a_row_says_what_its_training_started_from(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for fold in range(5):
        keep_pretrained(study.model(GOOD) / f"fold_{fold}", VMAMBA)
    shutil.rmtree(study.model(FOREIGN))
    run(tmp_path / "out")
    words = "VMamba v0, vmamba_tiny.pth, SHA-256 0123456789ab"
    table = {row["trainer"]: row for row in rows(tmp_path / "out" / "leaderboard.csv")}
    assert (table[GOOD]["pretrained"], table[GOOD]["status"], table[BASELINE]["pretrained"]) == (words, "complete", "")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [summary["models"][name]["pretrained"] for name in (GOOD, BASELINE)] == [words, None]
    sentence = f"Pretrained: {GOOD} from {words}."
    assert sentence in capsys.readouterr().out
    assert all(sentence in (tmp_path / "out" / name).read_text() for name in ("leaderboard.md", "index.html"))


def test_folds_of_different_starts_are_no_row(study: Study) -> None:
    keep_pretrained(study.model(GOOD) / "fold_0", VMAMBA)
    model = found(study)
    assert (model.status, model.pretrained) == ("refused", "")
    started = "fold 0 from VMamba v0, vmamba_tiny.pth, SHA-256 0123456789ab, fold 1 from random weights (nothing"
    assert f"its folds start from different weights: {started}" in model.reasons[-1]
    assert found(study, folds=[0]).pretrained.startswith("VMamba v0")
    assert found(study, folds=[1, 2]).status == "complete"


def test_a_checkpoint_for_each_fold_is_one_method(study: Study) -> None:
    """Such as those of the same folds of another configuration."""
    for fold in range(5):
        keep_pretrained(study.model(GOOD) / f"fold_{fold}", {"file": "a.pth", "sha256": f"{fold}" * 64, "layout": ""})
    model = found(study)
    assert model.status == "complete"
    assert model.pretrained.startswith(
        "fold 0 from a.pth, SHA-256 000000000000, fold 1 from a.pth, SHA-256 111111111111"
    )
    keep_pretrained(study.model(GOOD) / "fold_3", VMAMBA)  # a release is for all
    assert found(study).status == "refused"
    keep_pretrained(study.model(GOOD) / "fold_3", None)
    assert found(study).status == "refused"


def test_a_renamed_file_is_the_same(study: Study) -> None:
    for fold in range(5):
        keep_pretrained(study.model(GOOD) / f"fold_{fold}", {**VMAMBA, "file": f"{fold}.pth"})
    assert found(study).status == "complete"
