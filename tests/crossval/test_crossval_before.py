"""What `crossval`, `status`, `slurm-script` refuse before anything starts, and that two preparations take turns."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crossval_dataset import Dataset, crossval
from crossval_fake import DATASET, alive, wait_for

from nnunet_echo.cli.main import main
from nnunet_echo.crossval import checks, sweep
from nnunet_echo.crossval import slurm as slurm_script
from nnunet_echo.nnunet.commands import run_command
from nnunet_echo.nnunet.logs import logged_split, read_training
from nnunet_echo.nnunet.plans import add_configuration, plan_configuration
from nnunet_echo.nnunet.results import Fold, read_fold

pytest_plugins = ("crossval_dataset",)

# Names, folds, devices


@pytest.mark.parametrize("command", ["crossval", "status", "slurm-script"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("1-0", "--folds 1-0: the range ends before it begins; give 0-1"),
        ("0-99999999999", "--folds 2: the split of Dataset751_CAMUS has folds 0 to 1"),
        ("9" * 5000, "give numbers"),
        ("-1", "give numbers"),
        ("", "give numbers"),
        (" ", "give numbers"),
        ("0-", "give numbers"),
        ("0,1", "give numbers"),
        ("0-1-2", "give numbers"),
        ("²", "give numbers"),
        ("1.0", "give numbers"),
        ("all", "give numbers"),
        ("2", "--folds 2: the split"),
    ],
)
def test_folds_that_are_none(
    dataset: Dataset, capsys: pytest.CaptureFixture, command: str, word: str, reason: str
) -> None:
    assert (
        main(
            [command, "751", "--trainers", "A", "--folds", word]
            + (["--device", "cpu"] if command == "crossval" else [])
        )
        == 2
    )
    assert reason in capsys.readouterr().err


def test_folds_are_refused_before_hours_of_preprocessing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "prepare", lambda *_: pytest.fail("prepared"))
    assert crossval("--folds", "1-0") == 2
    assert crossval("--folds", "0-2") == 2
    dataset.splits.unlink()
    raw = dataset.folder.parent / "raw"
    monkeypatch.setenv("nnUNet_raw", str(raw))  # not preprocessed yet: the split of the conversion
    (raw / DATASET).mkdir(parents=True)
    (raw / DATASET / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    assert crossval("--folds", "0-99999999999") == 2


@pytest.mark.parametrize("command", ["crossval", "status", "slurm-script"])
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("-c", "$(touch x)"),
        ("-c", "2d; touch x"),
        ("-c", "*"),
        ("-c", "../2d"),
        ("-c", "2d\nx"),
        ("-c", ""),
        ("-p", "`x`"),
        ("-p", "a/b"),
        ("--trainers", "A;x"),
        ("--trainers", "A__B"),
        ("--trainers", "$A"),
        ("--trainers", "A B"),
        ("--trainers", ""),
    ],
)
def test_names_that_cannot_be(
    dataset: Dataset, capsys: pytest.CaptureFixture, command: str, option: str, name: str
) -> None:
    options = {"--trainers": "A", option: name}
    assert main([command, "751", *(word for pair in options.items() for word in pair)]) == 2
    assert repr(name) in capsys.readouterr().err


def test_the_script_quotes_every_value(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = f"/x y'\"$(touch {tmp_path}/hit)`touch {tmp_path}/hit`\n;touch {tmp_path}/hit"
    for name in ("nnUNet_raw", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.setenv(name, evil)
    echo = tmp_path / "e $(touch hit) 'cho"
    echo.symlink_to("/bin/echo")
    monkeypatch.setattr(sys, "executable", str(echo))
    script = slurm_script.slurm_script(DATASET, "2d", "nnUNetPlans", ["A"], [0], "cpu")
    assert all(f' "${name}" ' in script for name in ("trainer", "fold"))
    done = subprocess.run(
        ["bash", "-c", script + 'printf %s "$nnUNet_results"'],
        cwd=tmp_path,
        text=True,
        check=True,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"},
        capture_output=True,
    )
    words = f"-m nnunet_echo.crossval.train_fold {DATASET} 2d 0 -tr A -p nnUNetPlans -device cpu --wait 600"
    assert done.stdout == f"{words}\n{evil}"
    assert not (tmp_path / "hit").exists()
    for names in (
        ("Dataset751_$(touch x)", "2d", "p", ["A"]),
        (DATASET, "$(x)", "p", ["A"]),
        (DATASET, "2d", "p;", ["A"]),
        (DATASET, "2d", "p", ["A", "$(x)"]),
    ):
        with pytest.raises(ValueError, match="name|trainer"):
            slurm_script.slurm_script(*names, [0], "cpu")


def test_every_trainer_is_looked_up_as_nnunet_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nnUNetTrainerOfMine.py").write_text("class nnUNetTrainerOfMine: pass\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    checks.check_trainers(["nnUNetTrainer", "nnUNetTrainer_5epochs", "nnUNetTrainerNoMamba_2epochs_8iterations"])
    with pytest.raises(ValueError) as error:
        checks.check_trainers(
            ["nnUNetTrainer_2epochs_8iterations", "nnUNetTrainer", "nnUNetTrainerLKMUnet", "nnUNetTrainerOfMine"]
        )
    first, second, third = re.split("; (?=nnUNetT|trainer )", str(error.value))
    assert first.startswith("trainer nnUNetTrainer_2epochs_8iterations: nnU-Net finds none of that name")
    assert "any length, as _2epochs_8iterations here, exists of this package's trainers only" in first
    assert second.startswith("trainer nnUNetTrainerLKMUnet: ") and "any length" not in second
    assert third.startswith("nnUNetTrainerOfMine: ") and "must inherit" in third
    (tmp_path / "nnUNetTrainerBad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ValueError, match="ModuleNotFoundError: No module named 'nothing_of_that_name'"):
        checks.check_trainers(["nnUNetTrainerBad"])


def test_nothing_starts_with_a_trainer_or_a_device_that_is_not_there(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import torch

    monkeypatch.setattr(sweep, "prepare", lambda *_: pytest.fail("prepared"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["crossval", "751", "--trainers", "A"]) == 2
    error = capsys.readouterr().err
    assert "--device cuda: this machine has no GPU" in error and "--device cpu" in error
    monkeypatch.setattr(sweep, "check_trainers", checks.check_trainers)
    assert crossval() == 2
    assert "trainer A: nnU-Net finds none of that name" in capsys.readouterr().err
    assert not (dataset.a[0].folder).exists()


def test_the_command_that_finishes_has_the_options_that_were_used(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "my images"
    images.mkdir()
    monkeypatch.setenv("MODE", "fail")
    assert crossval("--folds", "0", "--predict", str(images), "--gpus-per-job", "0.5") == 1
    wanted = (
        f"nnunet-echo crossval 751 -c 2d --trainers A B --folds 0 --device cpu --gpus-per-job 0.5 --predict "
        f"{shlex.quote(str(images))}\n"
    )
    assert f"To try again: {wanted}" in capsys.readouterr().out
    assert main(["status", "751", "--folds", "0"]) == 1
    assert f"To finish what is missing: {wanted}" in capsys.readouterr().out
    (dataset.a[0].folder.parent / "crossval.json").unlink()  # by hand, on a CPU
    (dataset.a[0].folder / "debug.json").write_text('{"device": "cpu"}')
    assert main(["status", "751", "--folds", "0"]) == 1
    printed = capsys.readouterr().out
    assert "crossval 751 -c 2d --trainers A --folds 0 --device cpu\n" in printed
    assert "crossval 751 -c 2d --trainers B --folds 0 --device cpu --gpus-per-job 0.5" in printed


def test_folders_of_other_plans_are_no_trainers(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    dataset.a[0].run("train")
    for name in ("A__my__nnUNetPlans__2d", "__nnUNetPlans__2d", "A b__nnUNetPlans__2d"):
        (dataset.folder / name).mkdir()
    (dataset.folder / "C__nnUNetPlans__2d").touch()
    main(["status", "751"])
    printed = capsys.readouterr().out
    assert "2 folds, 1 done, 1 not started" in printed


# Damaged files


@pytest.mark.parametrize(
    "line",
    [
        "x: Epoch time: 1.2.3 s",
        "x: Epoch time: . s",
        f"x: Epoch time: {'9' * 400} s",
        "x: Epoch time: inf s",
        "x: Epoch time: nan s",
        f"x: Epoch {'9' * 5000}",
        "x: Epoch ٣",
        "x: Peak memory ... GiB",
        f"x: Peak memory {'9' * 400} GiB",
        "2026-13-01 10:00:00.000000: predicting A",
        "2026-01-01 10:00:00.0: predicting A",
        f"This split has {'9' * 5000} training and 2 validation cases",
        "\x00\x1b[2J",
        "",
    ],
)
def test_a_damaged_line_of_a_log_is_passed_over(tmp_path: Path, line: str) -> None:
    good = (
        "x: This split has 6 training and 2 validation cases\n"
        "x: Epoch 0\nx: Peak memory 1.5 GiB\nx: Epoch time: 3.0 s\n"
        "2026-01-01 10:00:00.000000: predicting A\n2026-01-01 10:00:01.000000: predicting B\n"
        "2026-01-01 09:00:00.000000: predicting C\n"
    )
    log = tmp_path / "training_log_2026_1_1_10_00_00.txt"
    log.write_text(f"{line}\n{good}{line}\n")
    (tmp_path / "training_log_2026_2_1_10_00_00.txt").mkdir()
    (tmp_path / f"training_log_{'9' * 200}.txt").write_bytes(b"\xff\x00")
    training = read_training([tmp_path])
    assert (training.epochs, training.epoch_s, training.peak_gib, training.validation_s) == (1, 3.0, 1.5, 1.0)
    assert logged_split(tmp_path) == (6, 2)
    assert str(read_fold(tmp_path)).startswith("stopped, epoch 1/?")


@pytest.mark.parametrize(
    "content",
    [
        '{"num_epochs": Infinity}',
        '{"num_epochs": "inf"}',
        '{"num_epochs": NaN}',
        '{"num_epochs": 1e400}',
        '{"num_epochs": -5}',
        '{"num_epochs": [1]}',
        '{"num_epochs": null}',
        '{"num_epochs": "many"}',
        "[]",
        "5",
        "",
        "[" * 10**5,
        '{"num_epochs": ' + "9" * 4000 + "}",
    ],
)
def test_epochs_that_are_no_number(dataset: Dataset, capsys: pytest.CaptureFixture, content: str) -> None:
    folder = dataset.a[0].folder
    folder.mkdir(parents=True)
    (folder / "training_log_2026_1_1_10_00_00.txt").write_text("x: Epoch 0\nx: Epoch time: 3.0 s\n")
    (folder / "debug.json").write_text(content)
    (folder / "train_fold.log").mkdir()
    assert main(["status", "751"]) == 1
    assert "A fold 0: stopped, epoch 1/?" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [1e300, math.inf, math.nan, 1e12])
def test_an_end_that_no_calendar_has(tmp_path: Path, seconds: float) -> None:
    fold = Fold(tmp_path, "running", 1, 1000, epoch_s=seconds, written=time.time())
    assert str(fold) == "running, epoch 1/1000, last write 0 s ago"


@pytest.mark.parametrize("content", ["5", "[]", '"done"', "[" * 10**5])
def test_a_summary_that_is_none_is_not_done(dataset: Dataset, content: str) -> None:
    fold = dataset.a[0]
    fold.run("train")
    (fold.folder / "validation" / "summary.json").write_text(content)
    assert read_fold(fold.folder).state == "stopped" or read_fold(fold.folder).state == "failed"


# Plans


@pytest.mark.parametrize(
    ("configurations", "reason"),
    [
        ({"2d": {"inherits_from": "2d_x"}}, "configuration 2d inherits from 2d_x: .*nnUNetPlans.json has 2d"),
        ({"2d": {"inherits_from": "b"}, "b": {"inherits_from": "2d"}}, "inherits from itself, 2d -> b -> 2d"),
        ({"2d": {"inherits_from": "2d"}}, "inherits from itself, 2d -> 2d"),
        ({"2d": {"inherits_from": ["x"]}}, "inherits from"),
        ({"2d": 5}, "not an object with settings"),
        ({"2d": {}}, "no data_identifier"),
        ({"2d": {"data_identifier": 5}}, "no data_identifier"),
        ({}, "no plans"),
        ([], "no plans"),
        (None, "no plans"),
    ],
)
def test_plans_that_cannot_be(
    dataset: Dataset, capsys: pytest.CaptureFixture, configurations: object, reason: str
) -> None:
    dataset.plans.write_text(json.dumps({"configurations": configurations}))
    for command in ("crossval", "slurm-script"):
        assert main([command, "751", "--trainers", "A", "--device", "cpu"]) == 2
        assert re.search(reason, capsys.readouterr().err)
    with pytest.raises(ValueError, match=r"base='2d'"):
        add_configuration(dataset.plans, "x", (1, 1), (160, 192), 8, (16, 256))


def test_inherited_settings_yield_to_own_ones() -> None:
    plans = {"a": {"x": 1, "y": 1}, "b": {"inherits_from": "a", "y": 2}, "c": {"inherits_from": "b", "z": 3}}
    merged = plan_configuration(Path("plans"), plans, "c")
    assert {key: merged[key] for key in "xyz"} == {"x": 1, "y": 2, "z": 3}


# Preparation


PREPARE = """
import sys
from nnunet_echo.nnunet.plans import plan_configuration
from nnunet_echo.nnunet import commands
from nnunet_echo.crossval import prepare
prepare.run_command.__globals__["find_program"] = lambda name: {program!r}
prepare.prepare({dataset!r}, "2d", "nnUNetPlans", print)
print("prepared")
"""
SLOW = """#!{python}
import os, pathlib, time
folder = pathlib.Path({folder!r})
worker = os.fork()
if not worker:
    time.sleep(1000)
with open(folder / "runs", "a") as file:
    print(os.getpid(), worker, file=file)
while not (folder / "go").exists():
    time.sleep(0.02)
for case in {cases!r}:
    (folder / "nnUNetPlans_2d" / (case + ".pkl")).touch()
os.kill(worker, 9)
"""


class Preparation:
    """A dataset of which half is preprocessed and which has no split, and a stand-in for nnUNetv2_preprocess."""

    def __init__(self, dataset: Dataset) -> None:
        self.folder = dataset.folder
        names = [path.stem for path in dataset.data.glob("*.pkl")]
        dataset.splits.unlink()
        (self.folder / "dataset.json").write_text(
            json.dumps(json.loads((self.folder / "dataset.json").read_text()) | {"file_ending": ".nii.gz"})
        )
        (self.folder / "labelsTr").mkdir()
        for name in names:
            (self.folder / "labelsTr" / f"{name}.nii.gz").touch()
        for name in names[::2]:
            (dataset.data / f"{name}.pkl").unlink()
        self.program = self.folder / "preprocess"
        self.program.write_text(SLOW.format(python=sys.executable, folder=str(self.folder), cases=names))
        self.program.chmod(0o755)

    def start(self) -> subprocess.Popen:
        code = PREPARE.format(program=str(self.program), dataset=DATASET)
        return subprocess.Popen(
            [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def runs(self) -> list[list[int]]:
        file = self.folder / "runs"
        return [list(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []


def test_two_preparations_take_turns(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    place = Preparation(dataset)
    first = place.start()
    wait_for(place.runs)
    second = place.start()
    assert second.stdout.readline().startswith(f"{DATASET} is being prepared by process {first.pid} on ")
    assert main(["slurm-script", "751", "--trainers", "A"]) == 2  # its advice would make a second one
    assert f"is being prepared by process {first.pid}" in capsys.readouterr().err
    assert not dataset.splits.exists()  # half of the cases are there, of which no split is to be made
    (place.folder / "go").touch()
    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and output.endswith("prepared\n"), output
    assert len(place.runs()) == 1
    folds = json.loads(dataset.splits.read_text())
    assert len({case for fold in folds for case in fold["val"]}) == 12


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGKILL,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_preprocessing_ends_with_its_caller(dataset: Dataset, number: int) -> None:
    place = Preparation(dataset)
    process = place.start()
    wait_for(place.runs)
    process.send_signal(number)
    assert process.wait(timeout=30) in (-number, 128 + number)
    wait_for(lambda: not alive(place.runs()[0]), seconds=5)
    again = place.start()  # nobody is said to be at it
    wait_for(lambda: len(place.runs()) == 2)
    (place.folder / "go").touch()
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "is being prepared" not in output


def test_a_command_may_run_in_any_thread(tmp_path: Path) -> None:
    """Python lets the main thread alone set the handlers that end it with its caller."""
    log = tmp_path / "log"
    thread = threading.Thread(target=run_command, args=(["python", "-c", "print(5)"], os.environ, log))
    thread.start()
    thread.join()
    assert log.read_text() == "5\n"


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    """A worker whose parent died; it holds the pipe that the output comes through."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '100']).pid, flush=True)"
    began = time.monotonic()
    run_command(["python", "-c", code], os.environ, tmp_path / "log")
    assert time.monotonic() - began < 50
    wait_for(lambda: not alive([int((tmp_path / "log").read_text())]))
