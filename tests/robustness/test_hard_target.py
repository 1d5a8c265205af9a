"""Every converter on a target that resists, and killed at random moments: no half-written case, the same bytes after.

The conversions run in processes that are forked from one that has all modules loaded, so that a kill meets the
conversion and not Python's start.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from camus_download import tree
from hard_ground import SOURCES, Undamaged, convert, images

from nnunet_echo.dataset_conversion.ted import Ted

pytest_plugins = ("hard_ground",)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and RLIMIT_FSIZE are POSIX")

KILLS = 8  # of each of four conversions
MODULES = ["nnunet_echo.cli.main", *(f"nnunet_echo.dataset_conversion.{name}" for name in ("camus", "echonet", "ted"))]


def run(pipe: Connection, name: str, folder: Path, raw: Path, workers: int, largest_file: int) -> None:
    """Convert in this process, whose files can be `largest_file` bytes long; send the exit code and what was said."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = convert(SOURCES[name], folder, raw, "--workers", str(workers))
    pipe.send((code, said.getvalue()))


def start(
    name: str, folder: Path, raw: Path, workers: int = 1, largest_file: int = resource.RLIM_INFINITY
) -> tuple[multiprocessing.Process, Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(theirs, name, folder, raw, workers, largest_file))
    process.start()
    return process, ours


def convert_without_rights(pipe: Connection, source: Path, raw: Path, elsewhere: Path) -> None:
    """Send what a conversion says that may not write to `raw`; root, who may, becomes nobody for it."""
    Ted().convert(source, raw=elsewhere, workers=1)  # loads what nobody may not read of Python
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        Ted().convert(source, raw=raw, workers=1)
        pipe.send("no error")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def open_to_all() -> str:
    """A folder for temporary files that another user can enter; a fresh TMPDIR is often its owner's alone."""
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        path = Path(folder).resolve()
        if path.is_dir() and all(place.stat().st_mode & 0o001 for place in (path, *path.parents)):
            return folder
    pytest.skip("there is no folder for temporary files that another user can enter")


@pytest.mark.parametrize("again", [False, True])
def test_the_target_is_read_only(again: bool, undamaged: Callable[[str], Undamaged]) -> None:
    """Refused by name, and a dataset that is there stays as it is."""
    with tempfile.TemporaryDirectory(dir=open_to_all()) as place:  # pytest's own folder is closed to nobody
        Path(place).chmod(0o755)
        source, raw, elsewhere = (Path(place, name) for name in ("source", "raw", "elsewhere"))
        shutil.copytree(undamaged("ted").folder, source)
        source.chmod(0o755)
        for folder in (raw, elsewhere):
            folder.mkdir()
        if again:
            assert convert(SOURCES["ted"], source, raw) == 0
        before = tree(raw)
        folders = [raw, *(path for path in raw.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=convert_without_rights, args=(theirs, source, raw, elsewhere))
        process.start()
        assert ours.poll(60)
        said = ours.recv()
        process.join()
        for folder in folders:
            folder.chmod(0o755)
        assert re.match(f"OSError: cannot (create|write) {re.escape(str(raw))}.*[Pp]ermission denied", said), said
        assert tree(raw) == before


@pytest.mark.parametrize(
    "name",
    ["camus", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ted", "camus sparse cines", "echonet"))],
)
def test_killed_at_random_moments_and_run_again(name: str, undamaged: Callable[[str], Undamaged], raw: Path) -> None:
    before = undamaged(name)
    finished = raw.parent / "finished"
    start(name, before.folder, finished)[0].join()  # loads the modules
    began = time.monotonic()
    start(name, before.folder, finished)[0].join()
    duration = time.monotonic() - began
    rng, killed = np.random.default_rng(list(name.encode())), 0
    for attempt in range(5 * KILLS):
        process, _ = start(name, before.folder, raw, workers=1 if attempt % 4 else 2)
        time.sleep(duration * rng.uniform(0, 1))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert images(raw).items() <= before.images.items(), "a case is half-written"
        if attempt % 2:  # another process continues, and else the next one is killed in the same dataset
            assert convert(SOURCES[name], before.folder, raw) == 0
            assert tree(raw) == tree(finished)
            if attempt % 4 == 1:
                shutil.rmtree(raw)
        if killed == KILLS and attempt % 2:
            break
    assert killed >= KILLS, "it ended before it could be killed"


def in_place_of(pattern: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def apply(dataset: Path) -> None:
        path = next(iter(sorted(dataset.glob(pattern)))) if "*" in pattern else dataset / pattern
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return apply


@pytest.mark.parametrize(
    "obstacle",
    [
        in_place_of("", Path.touch),
        in_place_of("", lambda path: path.symlink_to(path)),
        in_place_of("imagesTr", Path.touch),
        in_place_of("labelsTr", Path.touch),
        in_place_of(".unfinished", Path.touch),
        in_place_of("dataset.json", Path.mkdir),
        in_place_of("splits_final.json", Path.mkdir),
        in_place_of("cases.csv", Path.mkdir),
        in_place_of("conversion_report.json", Path.mkdir),
        in_place_of("conversion_report.txt", Path.mkdir),
        in_place_of("labelsTr/*", lambda path: (path.mkdir(), (path / "mine").touch())),
        in_place_of("imagesTr/*", lambda path: (path.mkdir(), (path / "mine").touch())),
    ],
)
def test_something_stands_where_a_file_of_ours_should(
    obstacle: Callable[[Path], object],
    undamaged: Callable[[str], Undamaged],
    raw: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert convert(SOURCES["ted"], undamaged("ted").folder, raw) == 0
    (dataset,) = raw.iterdir()
    obstacle(dataset)
    there = {path for path in tree(raw) if path.endswith("mine")}
    capsys.readouterr()
    assert convert(SOURCES["ted"], undamaged("ted").folder, raw) == 2
    said = capsys.readouterr().err
    answer = said[said.index("error: ") :]
    assert "Traceback" not in answer and dataset.name in answer
    assert there <= set(tree(raw)) and images(raw).items() <= undamaged("ted").images.items()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SOURCES)
def test_the_disk_is_full(name: str, seed: int, undamaged: Callable[[str], Undamaged], raw: Path) -> None:
    largest = int(np.exp(np.random.default_rng([seed, *name.encode()]).uniform(np.log(20), np.log(1500))))
    process, pipe = start(name, undamaged(name).folder, raw, largest_file=largest)
    assert pipe.poll(60)
    code, said = pipe.recv()
    process.join()
    assert code == 2 and re.search(r"error: cannot (write|create) ", said) and "Traceback" not in said
    assert images(raw).items() <= undamaged(name).images.items(), "a case is half-written"
    assert not list(raw.glob("*/dataset.json"))
    assert convert(SOURCES[name], undamaged(name).folder, raw) == 0
    assert images(raw) == undamaged(name).images
