"""Preparations of a cross-validation take turns, and what a command starts ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crossval_dataset import Dataset
from crossval_fake import DATASET, alive, wait_for

from nnunet_echo.cli.main import main
from nnunet_echo.nnunet.commands import run_command

pytest_plugins = ("crossval_dataset",)


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
