"""`crossval` on Ray, with real trainings of nnU-Net: a worker, a machine and the driver die, and all folds get done.

The GPUs are pretended, two machines of one each; Ray hands them out all the same, and trainings run on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from crossval_checks import check_events, check_fold
from crossval_fake import alive, wait_for
from crossval_machines import Machines
from crossval_place import BROKEN, CONFIGURATION, OURS, STOCK, Place, make_place

from nnunet_echo.crossval.train_fold import start_time

pytestmark = [pytest.mark.nnunet, pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")]
FOLDS = (0, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("crossval"))


@pytest.fixture
def machines(place: Place) -> Iterator[Machines]:
    machines = Machines(place.environment)
    yield machines
    machines.shutdown()


def crossval(place: Place, machines: Machines, *trainers: str) -> subprocess.Popen:
    command = ["crossval", "751", "-c", CONFIGURATION, "--trainers", *trainers, "--folds", "0-1", "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "nnunet_echo.cli.main", *command],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**place.environment, **machines.environment},
    )


LOCAL = """
import sys
from pathlib import Path
from nnunet_echo.crossval.engines import OnRay
engine = OnRay(1, Path(sys.argv[1]))
print(engine.gpus())
engine.close()
"""


def test_ray_starts_where_it_never_ran(tmp_path: Path) -> None:
    """With another HOME and TMPDIR there is no folder that an earlier Ray left, for our Ray or that of these tests."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    fresh = {**kept, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    local = [sys.executable, "-c", LOCAL, str(tmp_path / "log")]
    done = subprocess.run(local, env=fresh, capture_output=True, text=True)
    assert done.returncode == 0 and float(done.stdout) >= 0, done.stderr
    machines = Machines(fresh)
    try:
        assert machines.environment["RAY_ADDRESS"]
        machines.add()
    finally:
        machines.shutdown()


@pytest.mark.slow
def test_worker_machine_and_driver_die(place: Place, machines: Machines) -> None:
    machines.add()
    machines.add()
    driver = crossval(place, machines, OURS, STOCK)
    try:
        hit = place.wait_for_epoch(driver)
        worker = psutil.Process(hit["process"]).parent().parent()  # training, train_fold, worker of Ray
        worker.kill()
        wait_for(lambda: not alive([hit["process"]]), seconds=120)
        lost = place.wait_for_epoch(driver, since=len(place.events()))
        machines.lose_that_of(lost["process"])
        machines.add()
        place.wait_for_epoch(driver, since=len(place.events()))
    finally:
        driver.kill()
        running = {event["process"] for event in place.events() if start_time(event["process"]) == event["began"]}
        wait_for(lambda: not alive(list(running)), seconds=120)

    second = crossval(place, machines, OURS, STOCK, BROKEN)
    output, _ = second.communicate(timeout=1800)
    assert second.returncode == 1, output
    for fold in FOLDS:
        assert f"{BROKEN} fold {fold} failed. The end of" in output
    assert output.count("    RuntimeError: this trainer is broken on purpose") == len(FOLDS)
    assert f"To try again: nnunet-echo crossval 751 -c {CONFIGURATION} --trainers {BROKEN} --folds 0 1" in output
    check_events(place, continued=3)
    for trainer in (OURS, STOCK):
        for fold in FOLDS:
            check_fold(place, trainer, fold)
    assert {event["gpu"] for event in place.events()} == {"0"}  # each machine has one

    events = place.events()
    third = crossval(place, machines, OURS, STOCK)
    output, _ = third.communicate(timeout=900)
    assert third.returncode == 0, output
    assert place.events() == events
