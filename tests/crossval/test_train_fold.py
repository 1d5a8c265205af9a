"""One fold, safely: done, locked, torn, TERM, KILL, twice, and a process number that somebody else has by now."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crossval_fake import FakeFold, alive, kill, wait_for
from test_package import imports_of

from nnunet_echo.crossval import train_fold
from nnunet_echo.nnunet.results import last_lines, read_fold, take_lock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fold(tmp_path: Path):
    fold = FakeFold(tmp_path)
    yield fold
    for start in fold.starts():  # whatever a failed test left
        for process in alive(start["group"]):
            os.kill(process, signal.SIGKILL)


def guardian_of(process: subprocess.Popen, fold: FakeFold) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    (guardian,) = {int(child) for child in children.read_text().split()} - set(fold.group())
    return guardian


def test_trains_once(fold: FakeFold) -> None:
    assert read_fold(fold.folder).state == "not started"
    assert fold.run("train") == 0
    assert fold.options() == [[]]
    assert alive(fold.group()) == []  # the worker that the training left behind
    log = fold.log()
    assert fold.run("train") == 0
    assert (len(fold.starts()), fold.log()) == (1, log)
    assert read_fold(fold.folder).state == "done"


def test_a_cut_summary_is_not_done(fold: FakeFold) -> None:
    fold.run("train")
    (fold.folder / "validation" / "summary.json").write_text('{"mean": {')
    assert fold.run("train") == 0
    assert fold.options() == [[], ["--val"]]  # all epochs are there


def test_second_caller(fold: FakeFold) -> None:
    first = fold.start("hang")
    assert read_fold(fold.folder).state == "running"
    assert fold.run("train", "--wait", "0.2") == 75
    assert len(fold.starts()) == 1
    waiting = subprocess.Popen(fold.command("--wait", "30"), env=fold.environment("train"))
    first.terminate()
    assert (first.wait(), waiting.wait(timeout=30)) == (143, 0)
    assert fold.options() == [[], ["--c"]]


def test_who_waited_finds_it_done(fold: FakeFold) -> None:
    first = fold.start("hang")
    waiting = subprocess.Popen(fold.command("--wait", "30"), env=fold.environment("train"))
    (fold.folder / "validation").mkdir()
    time.sleep(1)
    (fold.folder / "validation" / "summary.json").write_text("{}")
    kill(first)
    assert waiting.wait(timeout=30) == 0
    assert len(fold.starts()) == 1


def test_asking_for_the_state_disturbs_nobody(fold: FakeFold) -> None:
    """`status` holds the lock for a moment: whoever starts just then waits for it."""
    fold.folder.mkdir(parents=True)
    with (fold.folder / "train_fold.lock").open("w+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_SH)
        process = subprocess.Popen(fold.command(), env=fold.environment("train"))
        wait_for(lambda: (fold.folder / "train_fold.log").exists())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    assert process.wait() == 0


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_torn_checkpoints_are_set_aside(fold: FakeFold, share: float) -> None:
    torn = fold.checkpoint("latest", share)
    fold.checkpoint("best")
    assert fold.run("train") == 0
    assert fold.options() == [["--c"]]
    assert Path(f"{torn}.torn").exists() and not torn.exists()


def test_only_a_torn_checkpoint(fold: FakeFold) -> None:
    fold.checkpoint("final", 0.5)
    assert fold.run("train") == 0
    assert fold.options() == [[]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_let_the_training_save(fold: FakeFold, number: int) -> None:
    process = fold.start("hang")
    process.send_signal(number)
    assert process.wait(timeout=10) == 143
    assert alive(fold.group()) == []
    assert (fold.folder / "checkpoint_latest.pth").exists()
    assert str(read_fold(fold.folder)).endswith("by signal 15")


def test_who_ignores_term_is_killed(fold: FakeFold) -> None:
    process = fold.start("stubborn", grace=0.5)
    process.terminate()
    assert process.wait(timeout=10) == 137
    assert alive(fold.group()) == []


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_killed(fold: FakeFold, send: Callable[[int, int], None]) -> None:
    process = fold.start("hang")
    send(process.pid, signal.SIGKILL)
    wait_for(lambda: not alive(fold.group()), seconds=2)
    assert read_fold(fold.folder).state == "stopped"
    assert fold.run("train") == 0
    assert fold.options() == [[], ["--c"]]


def test_the_guardian_alone_is_killed(fold: FakeFold) -> None:
    process = fold.start("hang")
    os.kill(guardian_of(process, fold), signal.SIGKILL)
    (fold.folder / "validation").mkdir()
    (fold.folder / "validation" / "summary.json").write_text("{}")
    process.terminate()
    assert process.wait(timeout=10) == 143


def test_killed_with_its_guardian(fold: FakeFold) -> None:
    process = fold.start("hang")
    process.send_signal(signal.SIGSTOP)
    os.kill(guardian_of(process, fold), signal.SIGKILL)
    kill(process)
    orphans = fold.group()
    assert alive(orphans) == orphans
    assert fold.run("train") == 0
    assert alive(orphans) == []


def test_ends_with_its_parent(fold: FakeFold) -> None:
    code = "import os, subprocess, sys; subprocess.run([*sys.argv[1:], '--parent', str(os.getpid())])"
    engine = subprocess.Popen([sys.executable, "-c", code, *fold.command()], env=fold.environment("hang"))
    wait_for(lambda: (fold.folder / "ready").exists())
    kill(engine)
    wait_for(lambda: not alive(fold.group()), seconds=5)
    wait_for(lambda: "end, status 143" in fold.log())
    assert (fold.folder / "checkpoint_latest.pth").exists()


def test_failures_say_why(fold: FakeFold) -> None:
    assert fold.run("fail") == 1
    assert last_lines(fold.folder / "train_fold.log", 1) == ["RuntimeError: it cannot be trained"]
    assert str(read_fold(fold.folder)).endswith("status 1: RuntimeError: it cannot be trained")
    assert fold.run("nothing") == 1
    assert "has no results" in read_fold(fold.folder).reason
    assert "cannot be trained" in fold.log()  # appended
    fold.fake.unlink()
    assert fold.run("train") == 1
    assert "FileNotFoundError" in read_fold(fold.folder).reason


@pytest.mark.parametrize("who", ["the training", "a later process", "another host's"])
def test_a_recorded_group_is_believed_only_if_it_is_the_same(tmp_path: Path, who: str) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        started = "in the last boot 123" if who == "a later process" else train_fold.start_time(process.pid)
        host = "elsewhere" if who == "another host's" else socket.gethostname()
        record = tmp_path / "train_fold.json"
        record.write_text(json.dumps({"host": host, "group": process.pid, "started": started}))
        train_fold.kill_recorded(record)
        survived = process.poll() is None and train_fold.start_time(process.pid) is not None
        process.kill()
    assert survived == (who != "the training")


def test_start_times_tell_processes_apart() -> None:
    assert train_fold.start_time(os.getpid()) == train_fold.start_time(os.getpid()) is not None
    with subprocess.Popen(["sleep", "1000"]) as later:
        assert train_fold.start_time(later.pid) not in (None, train_fold.start_time(os.getpid()))
        later.kill()
    assert train_fold.start_time(later.pid) is None


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"host": "'])
def test_a_broken_record_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "train_fold.json").write_text(content)
    train_fold.kill_recorded(tmp_path / "train_fold.json")
    train_fold.kill_recorded(tmp_path / "absent.json")


def test_processes_are_held_to_the_processors_of_the_job(fold: FakeFold) -> None:
    def environment() -> dict[str, str]:
        return fold.starts()[-1]["environment"]

    fold.run("nothing", SLURM_CPUS_PER_TASK="3")
    assert (environment()["nnUNet_n_proc_DA"], environment()["nnUNet_def_n_proc"]) == ("3", "3")
    fold.run("nothing", SLURM_CPUS_PER_TASK="64", nnUNet_def_n_proc="5")
    assert (environment()["nnUNet_n_proc_DA"], environment()["nnUNet_def_n_proc"]) == ("12", "5")
    if hasattr(os, "sched_setaffinity"):
        code = (
            "import os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        subprocess.run([sys.executable, "-c", code, *fold.command()], env=fold.environment("nothing"))
        assert environment()["nnUNet_n_proc_DA"] == "1"


def test_without_locks_it_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    log = io.StringIO()
    with (tmp_path / "lock").open("w") as lock:
        assert take_lock(lock, 0, log)
    assert "cannot be locked" in log.getvalue() and "cannot be locked" in caplog.text


def test_predicts_into_a_folder_that_is_whole_or_not_there(fold: FakeFold) -> None:
    out = fold.folder.parent / "predicted_imagesTs"
    images = fold.results / "imagesTs"
    assert fold.run("fail", "--predict", str(images)) == 1
    assert not out.exists()
    (fold.folder.parent / "predicted_imagesTs.unfinished" / "torn.nii.gz").touch()
    assert fold.run("train", "--predict", str(images)) == 0
    assert [path.name for path in out.iterdir()] == ["arguments"]  # what the failure left is gone


def test_standard_library_only() -> None:
    """It has to start in no time, and to work where nnU-Net's environment does not."""
    todo, seen = ["nnunet_echo.crossval.train_fold"], set()
    while todo:
        module = todo.pop()
        inside = module.removeprefix("nnunet_echo.").split(".")
        found = [
            path
            for folder in (ROOT, ROOT / "nnunet_echo")
            if (path := folder.joinpath(*inside).with_suffix(".py")).exists()
        ]
        if module in seen or not found:  # the name of a function, or a package, whose __init__.py imports nothing
            continue
        seen.add(module)
        for name in imports_of(found[0]):
            assert name.partition(".")[0] in {*sys.stdlib_module_names, "nnunet_echo"}, f"{found[0]} imports {name}"
            todo += [name] if name.startswith("nnunet_echo.") else []
    assert "nnunet_echo.nnunet.results" in seen and "nnunet_echo.nnunet.logs" in seen
