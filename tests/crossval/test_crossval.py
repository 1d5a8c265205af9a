"""`crossval`, `status`, `slurm-script` with a stand-in for nnU-Net's commands: order, failures, what the disk says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crossval_dataset import CASES, Dataset, crossval
from crossval_fake import DATASET, FakeFold, alive, kill, wait_for

from nnunet_echo.cli.main import main
from nnunet_echo.crossval import engines, prepare, sweep
from nnunet_echo.crossval import slurm as slurm_script
from nnunet_echo.crossval.jobs import Model, Training
from nnunet_echo.crossval.status import parse_folds
from nnunet_echo.nnunet import cases
from nnunet_echo.nnunet.results import duration, read_fold

pytest_plugins = ("crossval_dataset",)


def test_every_fold_of_every_trainer(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    assert crossval() == 0
    folds = [*dataset.a, *dataset.b]
    assert [fold.options() for fold in folds] == [[[]]] * 4
    news = re.findall(r"^\d\d:\d\d:\d\d (.*)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert news == ["A fold 0 done", "B fold 0 done", "A fold 1 done", "B fold 1 done"]
    assert crossval() == 0  # and again: nothing
    assert [len(fold.starts()) for fold in folds] == [1] * 4


def test_a_failure_leaves_the_others(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODE_B", "fail")
    images = tmp_path / "imagesTs"
    images.mkdir()
    assert crossval("--predict", str(images)) == 1
    printed = capsys.readouterr().out
    assert [read_fold(fold.folder).state for fold in (*dataset.a, *dataset.b)] == ["done", "done", "failed", "failed"]
    assert f"B fold 1 failed. The end of {dataset.b[1].folder / 'train_fold.log'}:\n    Traceback" in printed
    assert printed.count("    RuntimeError: it cannot be trained") == 2
    assert "To try again: nnunet-echo crossval 751 -c 2d --trainers B --folds 0 1 --device cpu" in printed
    predicted = dataset.a[0].folder.parent / "predicted_imagesTs" / "arguments"
    assert f"-i {images} " in predicted.read_text() and "-f 0 1 -tr A" in predicted.read_text()
    assert not (dataset.b[0].folder.parent / "predicted_imagesTs").exists()

    monkeypatch.setenv("MODE_B", "train")
    assert crossval("--predict", str(images)) == 0
    assert [len(fold.starts()) for fold in (*dataset.a, *dataset.b)] == [1, 1, 2, 2]
    assert (dataset.b[0].folder.parent / "predicted_imagesTs").is_dir()


def test_who_is_killed_runs_again(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE_A", "die once")
    assert crossval("--folds", "0") == 0
    assert dataset.a[0].options() == [[], ["--c"]]
    assert dataset.b[0].options() == [[]]


def test_who_is_always_killed_fails(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE_A", "die")
    monkeypatch.setattr(sweep, "RETRIES", 2)
    assert crossval("--folds", "0") == 1
    assert len(dataset.a[0].starts()) == 3
    assert read_fold(dataset.b[0].folder).state == "done"


def test_what_another_trains_is_waited_for(dataset: Dataset) -> None:
    other = dataset.a[0].start("hang")
    stop = threading.Timer(3, other.terminate)
    stop.start()
    assert crossval("--folds", "0") == 0
    assert other.wait() == 143
    assert dataset.a[0].options() == [[], ["--c"]]
    assert [len(fold.starts()) for fold in dataset.b] == [1, 0]  # meanwhile


def test_an_interrupted_loop_leaves_no_training(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "hang")
    engine = engines.OneByOne()
    engine.submit(Training(Model(DATASET, "2d", "A", "nnUNetPlans", "cpu"), "0"))
    while not (dataset.a[0].folder / "ready").exists():
        assert engine.wait(0.1) == []
    engine.close()
    assert alive(dataset.a[0].group()) == []
    assert "checkpoint_latest.pth" in {path.name for path in dataset.a[0].folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gpus-per-job", "2"], "on one GPU or on a share"),
        (["--predict", "nowhere"], "nowhere is not a folder"),
        (["--folds", "0-4"], "--folds 2: the split of Dataset751_CAMUS has folds 0 to 1"),
        (["--folds", "x"], "Give numbers"),
        (["-c", "3d"], "configuration 3d: .*nnUNetPlans.json has 2d, 2d_small"),
        (["-p", "other"], "other.json is not there"),
    ],
)
def test_errors(dataset: Dataset, capsys: pytest.CaptureFixture, options: list[str], reason: str) -> None:
    assert crossval(*options) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(reason, error), error


# What the disk says


def test_status(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert main(["status", "751"]) == 2
    assert "Start with nnunet-echo crossval." in capsys.readouterr().err
    dataset.a[0].run("train")
    dataset.b[0].run("fail")
    running = dataset.b[1].start("hang")
    log = "\n".join(f"2026-01-01 10:00:00.0: Epoch {e}\n2026-01-01 10:01:00.0: Epoch time: 60.0 s" for e in range(4))
    (dataset.b[1].folder / "training_log_2026_1_1_10_00_00.txt").write_text(log)
    (dataset.b[1].folder / "debug.json").write_text('{"num_epochs": "124"}')
    before = {path: path.stat().st_mtime_ns for path in dataset.folder.rglob("*")}
    assert main(["status", "751"]) == 1
    printed = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in dataset.folder.rglob("*")} == before  # it only looks
    assert "4 folds, 1 done, 1 not started, 1 failed, 1 running" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith(("A  ", "B  "))]
    assert rows == [["A", "done", "-"], ["B", "failed", "4/124"]]
    assert "B fold 0: failed, epoch 0/?" in printed and "status 1: RuntimeError: it cannot be trained" in printed
    end = time.strftime("%a %H", time.localtime(time.time() + 120 * 60))
    assert "B fold 1: running, epoch 4/124, last write " in printed and f"ends about {end}" in printed
    assert "nnunet-echo crossval 751 -c 2d --trainers A B --folds 0 1" in printed

    kill(running)
    wait_for(lambda: read_fold(dataset.b[1].folder).state == "stopped")
    for fold in (dataset.a[1], *dataset.b):
        fold.run("train")
    capsys.readouterr()
    assert main(["status", "751"]) == 0
    assert "All folds are done." in capsys.readouterr().out


def test_a_training_by_hand(tmp_path: Path) -> None:
    fold = FakeFold(tmp_path)
    fold.folder.mkdir(parents=True)
    (fold.folder / "training_log_2026_1_1_10_00_00.txt").write_text("2026: Epoch 0 \n2026: Epoch time: 3.0 s\n")
    assert str(read_fold(fold.folder)) == "stopped, epoch 1/?, last write 0 s ago"


def test_durations() -> None:
    assert [duration(s) for s in (-1, 45, 720, 108000, 300000)] == ["0 s", "45 s", "12 min", "30 h", "3 d"]


def test_folds(dataset: Dataset) -> None:
    dataset.splits.write_text(json.dumps([{"train": [], "val": []}] * 5))
    assert parse_folds(None, DATASET) == [0, 1, 2, 3, 4]
    assert parse_folds(["0-2", "4", "1", "1"], DATASET) == [0, 1, 2, 4]
    dataset.splits.write_text(json.dumps([{"train": [], "val": []}] * 12))
    assert parse_folds(["9-11"], DATASET) == [9, 10, 11]


# What the folds share


def test_preparation(dataset: Dataset) -> None:
    def step(configuration: str = "2d") -> list[str] | None:
        return prepare.next_step(DATASET, configuration, "nnUNetPlans")

    assert step() is None and step("2d_small") is None
    (dataset.data / f"{CASES[3]}.pkl").unlink()
    assert step() == ["nnUNetv2_preprocess", "-d", "751", "-c", "2d", "-plans_name", "nnUNetPlans"]
    dataset.plans.unlink()
    made = ["nnUNetv2_plan_and_preprocess", "-d", "751", "-c", "3d_fullres", "--verify_dataset_integrity"]
    assert step("3d_fullres") == made
    with pytest.raises(ValueError, match="configuration 3d: .* not planned yet, and nnU-Net plans only 2d, 3d_fullres"):
        step("3d")


def test_preparation_does_not_turn_in_circles(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(prepare, "run_command", lambda command, *_: ran.append(command))
    (dataset.data / f"{CASES[3]}.pkl").unlink()
    with pytest.raises(RuntimeError, match=f"nnUNetv2_preprocess .*1 cases are missing .*{CASES[3]}") as error:
        prepare.prepare(DATASET, "2d", "nnUNetPlans")
    assert len(ran) == 1
    assert "take them out" not in str(error.value)  # which would change the split under folds that are trained


def test_a_split_is_made_once_and_by_patient(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "raw" / DATASET
    own.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(own.parent))
    dataset.splits.unlink()
    prepare.prepare(DATASET, "2d", "nnUNetPlans")
    folds = cases.read_folds(DATASET)
    assert len(folds) == 5 and sorted(case for fold in folds for case in fold["val"]) == CASES
    assert not [fold for fold in folds if {case[:2] for case in fold["val"]} & {case[:2] for case in fold["train"]}]

    (own / "splits_final.json").write_text(json.dumps(folds[:2]))
    prepare.prepare(DATASET, "2d", "nnUNetPlans")
    assert cases.read_folds(DATASET) == folds  # what is there stays
    dataset.splits.unlink()
    prepare.prepare(DATASET, "2d", "nnUNetPlans")
    assert cases.read_folds(DATASET) == folds[:2]

    dataset.splits.unlink()
    (own / "splits_final.json").unlink()
    (dataset.folder / "dataset.json").write_text("{}")
    prepare.prepare(DATASET, "2d", "nnUNetPlans")
    assert sorted(case for fold in cases.read_folds(DATASET) for case in fold["val"]) == CASES


def test_when_ray_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object())
    assert engines.why_not_ray("cuda") == ""
    assert "takes the whole machine" in engines.why_not_ray("cpu")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in engines.why_not_ray("cuda")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(RuntimeError, match="pip install"):
        engines.why_not_ray("cpu")


# The script for Slurm


def test_slurm_script(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("nnUNet_results", "/data/my results")
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    assert main(["slurm-script", "751", "--trainers", "A", "B", "C", "--folds", "0", "1"]) == 0
    script = capsys.readouterr().out
    assert 15 <= len(script.splitlines()) <= 25
    assert "#SBATCH --array=0-5\n" in script
    assert "export nnUNet_results='/data/my results'\n" in script
    runs = []
    for task in range(6):
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task)},
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(shlex.split(done.stdout))
    expected = [
        "-m",
        "nnunet_echo.crossval.train_fold",
        DATASET,
        "2d",
        "FOLD",
        "-tr",
        "TRAINER",
        "-p",
        "nnUNetPlans",
        "-device",
        "cuda",
        "--wait",
        "600",
    ]
    for run, (trainer, fold) in zip(runs, [(t, k) for t in "ABC" for k in "01"], strict=True):
        assert run == [{"FOLD": fold, "TRAINER": trainer}.get(word, word) for word in expected]


def test_slurm_script_ends_as_the_training_does() -> None:
    script = slurm_script.slurm_script(DATASET, "2d", "nnUNetPlans", ["A"], [0], "cuda")
    script = script.replace(sys.executable, "exit 7; echo")
    assert subprocess.run(["bash", "-c", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"}).returncode == 7


def test_no_slurm_script_before_the_data_are_ready(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    (dataset.data / f"{CASES[3]}.pkl").unlink()
    assert main(["slurm-script", "751", "--trainers", "A"]) == 2
    assert "Run this first (nnUNetv2_preprocess -d 751 -c 2d" in capsys.readouterr().err
