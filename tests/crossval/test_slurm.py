"""The script of `slurm-script` in a real Slurm, with real trainings: submitted twice, requeued, a node lost."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from crossval_checks import check_events, check_fold
from crossval_fake import wait_for
from crossval_place import BROKEN, CONFIGURATION, OURS, STOCK, Place, make_place
from slurm_machines import PROGRAMS, Slurm

from nnunet_echo.nnunet.results import read_fold

LACKING = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.nnunet,
    pytest.mark.skipif(bool(LACKING), reason=f"{', '.join(LACKING)} not found: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
]
FOLDS = (0, 1)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    if "slurm" not in request.config.option.markexpr:
        pytest.skip("run with -m slurm")
    return make_place(tmp_path)


@pytest.fixture
def slurm(tmp_path: Path, place: Place) -> Iterator[Slurm]:
    folder = tmp_path / "slurm"
    folder.mkdir()
    slurm = Slurm(folder)
    yield slurm
    slurm.shutdown()


def nnunet_echo(place: Place, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "nnunet_echo.cli.main", *arguments],
        env=place.environment,
        text=True,
        capture_output=True,
    )


def test_twice_stopped_and_a_node_lost(place: Place, slurm: Slurm) -> None:
    command = [
        "slurm-script",
        "751",
        "-c",
        CONFIGURATION,
        "--trainers",
        OURS,
        STOCK,
        BROKEN,
        "--folds",
        "0-1",
        "--device",
        "cpu",
    ]
    refused = nnunet_echo(place, *command)
    assert refused.returncode == 2
    prepare = shlex.split(refused.stderr.partition("Run this first (")[2].rpartition(").")[0])
    subprocess.run([str(Path(sys.executable).with_name(prepare[0])), *prepare[1:]], env=place.environment, check=True)
    script = nnunet_echo(place, *command).stdout
    for default, here in (("--cpus-per-task=12", "--cpus-per-task=1"), ("--mem=48G", "--mem=1G")):  # as a user edits it
        assert script.count(default) == 1
        script = script.replace(default, here)
    file = place.folder / "sweep.sh"
    file.write_text(script)

    def submit() -> str:
        """Submit it, as the user types it; the number of the array."""
        return slurm.run("sbatch", "--parsable", "-D", str(place.folder), str(file), **place.environment).strip()

    def task_of(event: dict) -> str:
        words = psutil.Process(event["process"]).environ()
        return f"{words['SLURM_ARRAY_JOB_ID']}_{words['SLURM_ARRAY_TASK_ID']}"

    def active(array: str) -> dict[str, tuple[str, str]]:
        return {task: where for task, where in slurm.jobs().items() if task.startswith(array)}

    first, second = submit(), submit()
    stopped = place.wait_for_epoch()
    task = task_of(stopped)
    assert {state for state, _ in active(second).values()} == {"PENDING"}  # while tasks of the first run
    # What --signal=B:USR1@300 does before the time is up. The command goes on trying while the task is requeued.
    with subprocess.Popen(["scancel", "--signal=USR1", "--batch", task], env=slurm.environment) as scancel:
        wait_for(lambda: active(first).get(task, ("",))[0] == "PENDING", 120)
        scancel.kill()
    lost = place.wait_for_epoch(since=len(place.events()))
    node = slurm.jobs()[task_of(lost)][1]
    slurm.lose(node)
    wait_for(lambda: f"{node} down" in slurm.run("sinfo", "-h", "-N", "-o", "%N %T").replace("*", ""), 120)
    slurm.bring_back(node)
    wait_for(lambda: not slurm.jobs(), 1500)

    check_events(place, continued=2)
    for trainer in (OURS, STOCK):
        for fold in FOLDS:
            check_fold(place, trainer, fold)
    assert {event["gpu"] for event in place.events()} == {"0", "1"}  # two on each node, which Slurm handed out
    for fold in FOLDS:
        assert "this trainer is broken on purpose" in read_fold(place.fold(BROKEN, fold)).reason
    status = nnunet_echo(place, "status", "751", "-c", CONFIGURATION, "--folds", "0-1")
    assert f"--trainers {BROKEN} --folds 0 1" in status.stdout

    events, began = place.events(), time.time()
    submit()
    wait_for(lambda: not slurm.jobs(), 300)
    assert place.events() == events
    assert place.fold(BROKEN, 0).joinpath("train_fold.log").stat().st_mtime > began  # only what failed is tried again
