"""Folds whose split was changed after they were trained: what each command says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from crossval_dataset import CASES, PATTERN, Dataset, crossval
from crossval_fake import DATASET

from nnunet_echo.cli.main import main
from nnunet_echo.leaderboard.collect import TrainedModel, find_models, read_split
from nnunet_echo.nnunet.cases import other_split
from nnunet_echo.nnunet.results import last_lines

pytest_plugins = ("crossval_dataset",)
LEAK = "it was trained on p0 (3 such patients), whom the split now has it validate"


def turn_round(dataset: Dataset) -> None:
    """What fold 0 trained on it now validates."""
    dataset.splits.write_text(json.dumps(json.loads(dataset.splits.read_text())[::-1]))


def predict(dataset: Dataset) -> None:
    """The files that nnU-Net's validation leaves, for both folds of A."""
    for fold, split in zip(dataset.a, json.loads(dataset.splits.read_text()), strict=True):
        for case in split["val"]:
            (fold.folder / "validation" / f"{case}.nii.gz").touch()


def on_the_board(dataset: Dataset) -> TrainedModel:
    split = read_split(dataset.splits, {"case_id_pattern": PATTERN})
    (model,) = find_models(dataset.folder, "2d", split, ".nii.gz", ["A"])
    return model


def test_status_and_crossval_refuse_them(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    assert crossval() == 0
    assert main(["status", "751"]) == 0
    assert "no record" not in capsys.readouterr().out
    turn_round(dataset)
    assert main(["status", "751"]) == 1
    printed = capsys.readouterr().out
    assert "4 folds, 4 other split" in printed and f"A fold 0: other split: {LEAK}" in printed
    assert "Train the fold again" in printed and "To finish" not in printed and "All folds are done" not in printed
    assert crossval() == 2
    error = capsys.readouterr().err
    assert f"4 folds are of another split than nnUNet_preprocessed has now:\n  A fold 0: {LEAK}" in error
    assert "Train the fold again" in error
    assert [len(fold.starts()) for fold in (*dataset.a, *dataset.b)] == [1] * 4
    shutil.rmtree(dataset.a[0].folder)
    assert main(["status", "751", "--trainers", "A"]) == 1  # one is waiting, the other cannot be done
    assert "crossval 751 -c 2d --trainers A --folds 0 --device cpu" in capsys.readouterr().out
    turn_round(dataset)
    shutil.rmtree(dataset.a[1].folder)
    assert crossval() == 0


@pytest.mark.parametrize("mode", ["train", "hang"])
def test_a_task_of_slurm_refuses_it(dataset: Dataset, mode: str) -> None:
    """`train_fold` alone, for nnU-Net's own trainers too: what is done, and what would go on."""
    fold = dataset.a[0]
    if mode == "train":
        assert fold.run("train") == 0
    else:
        process = fold.start("hang")
        process.terminate()
        process.wait()
    turn_round(dataset)
    assert fold.run("train") == 1
    assert (
        f"A fold 0 is of another split: it was trained on {CASES[0]} (6 such"
        in last_lines(fold.folder / "train_fold.log", 1)[0]
    )
    assert len(fold.starts()) == 1
    turn_round(dataset)
    assert fold.run("train") == 0


def test_a_fold_that_never_saved_may_start_in_the_new_split(dataset: Dataset) -> None:
    fold = dataset.a[0]
    assert fold.run("fail") == 1
    turn_round(dataset)
    assert fold.run("train") == 0
    assert json.loads((fold.folder / "split.json").read_text()) == json.loads(dataset.splits.read_text())[0]


def test_without_a_record_validation_cases_tell(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    crossval()
    for fold in (*dataset.a, *dataset.b):
        (fold.folder / "split.json").unlink()
    predict(dataset)
    capsys.readouterr()
    assert main(["status", "751"]) == 0
    assert capsys.readouterr().out.count("4 folds keep no record of what they were trained on") == 1
    assert on_the_board(dataset).status == "complete"
    turn_round(dataset)
    assert main(["status", "751"]) == 1
    printed = capsys.readouterr().out
    assert f"A fold 0: other split: it validates {CASES[6]} (6 such cases)" in printed
    assert on_the_board(dataset).status == "refused"


def test_the_summary_tells_where_the_predictions_are_gone(dataset: Dataset) -> None:
    dataset.a[0].run("train")
    (dataset.a[0].folder / "split.json").unlink()
    summary = dataset.a[0].folder / "validation" / "summary.json"
    for listed, reason in ((CASES[6], ""), (CASES[0], f"it validates {CASES[0]} (1 such cases)")):
        summary.write_text(json.dumps({"metric_per_case": [{"prediction_file": f"/elsewhere/{listed}.nii.gz"}, 5]}))
        model = on_the_board(dataset)
        assert any(reason in text for text in model.reasons)
        assert ("another split" in str(model.reasons)) == bool(reason)


def test_a_training_on_windows_and_the_files_of_a_mac_are_no_other_split(dataset: Dataset) -> None:
    validation = dataset.a[0].folder / "validation"
    dataset.a[0].run("train")
    now = json.loads(dataset.splits.read_text())[0]
    (validation / f"._{CASES[6]}.nii.gz").touch()
    (validation / "summary.json").write_text(
        json.dumps({"metric_per_case": [{"prediction_file": rf"C:\results\validation\{CASES[6]}.nii.gz"}]})
    )
    assert not other_split(validation.parent, now)
    (validation / f"{CASES[0]}.nii.gz").touch()
    assert f"it validates {CASES[0]} (1" in other_split(validation.parent, now)


def test_without_a_record_the_log_tells_the_numbers_of_cases(tmp_path: Path) -> None:
    (tmp_path / "training_log_2026_1_1_1_1_1.txt").write_text("x: This split has 3 training and 2 validation cases.\n")
    assert not other_split(tmp_path, {"train": list("abc"), "val": list("de")})
    for train, validation in (("ab", "de"), ("abc", "def"), ("de", "abc")):
        assert "it has 3 training and 2 validation cases, not" in other_split(
            tmp_path, {"train": list(train), "val": list(validation)}
        )


def test_the_leaderboard_refuses_what_validated_the_right_cases_after_training_on_others(dataset: Dataset) -> None:
    crossval()
    predict(dataset)
    assert on_the_board(dataset).status == "complete"
    folds = json.loads(dataset.splits.read_text())
    folds[0]["train"] = [*CASES[:4], "p7_ED", "p7_ES"]
    dataset.splits.write_text(json.dumps(folds))
    model = on_the_board(dataset)
    assert (model.status, model.folds) == ("refused", (1,))
    assert model.reasons == (
        "fold 0 is of another split: it was trained with 6 training and 6 validation cases, the "
        "split now has 6 and 6, the first that differs is p2",
    )


def test_the_leaderboard_reads_odd_folders(dataset: Dataset) -> None:
    crossval()
    predict(dataset)
    model = dataset.a[0].folder.parent
    shutil.copytree(model, model.with_name("A__my__plans__2d"))
    for name in ("____2d", "A____2d", "__nnUNetPlans__2d", "__2d", "A__nnUNetPlans__3d"):
        model.with_name(name).mkdir()
    model.with_name("file__nnUNetPlans__2d").touch()
    for name in ("fold_00", "fold_x", "fold_99999999999999999999", "fold_"):
        (model / name).mkdir()
    split = read_split(dataset.splits, {"case_id_pattern": PATTERN})
    models = {model.name: model for model in find_models(dataset.folder, "2d", split, ".nii.gz")}
    assert set(models) == {"A", "A__my__plans", "B", "____2d", "A____2d", "__nnUNetPlans__2d", "__2d"}
    assert (models["A"].status, models["A"].folds) == ("complete", (0, 1))
    assert (models["A__my__plans"].trainer, models["A__my__plans"].plans) == ("A", "my__plans")
    for name in ("____2d", "A____2d", "__nnUNetPlans__2d", "__2d"):
        assert models[name].status == "refused"
        assert models[name].reasons == (f"its folder {name} is not called TRAINER__PLANS__2d",)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "5",
        "[]",
        "[3, 4]",
        '[{"train": ["a"]}]',
        '[{"train": 1, "val": 2}]',
        "[" * 10**5,
        '{"train": []}',
        "null",
        '[{"train": [], "val": [1]}]',
    ],
)
def test_a_damaged_split_is_named(dataset: Dataset, capsys: pytest.CaptureFixture, content: str) -> None:
    dataset.splits.write_text(content)
    for command in (["status", "751"], ["crossval", "751", "--trainers", "A", "--device", "cpu"]):
        assert main(command) == 2
        assert str(dataset.splits) in capsys.readouterr().err
    with pytest.raises(ValueError, match="splits_final.json"):
        read_split(dataset.splits, {})


def test_status_without_the_folder_of_preprocessed_data(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("nnUNet_preprocessed")
    assert main(["status", DATASET]) == 2
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err
    assert Path(dataset.splits).exists()
