"""The files of the local page: for their owner alone, under no name of the user's, and gone in the end."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from cine_results import drawn_dicom
from serving import LIMIT, Client, Gate, Quick, measure_drawn, until

from nnunet_echo.cine.serve import folder as folders
from nnunet_echo.cine.serve import jobs
from nnunet_echo.cine.serve.folder import PREFIX, private_folder
from nnunet_echo.cine.serve.server import serving

pytest_plugins = ("serving",)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return drawn_dicom(tmp_path_factory.mktemp("loop") / "Zzyzx.dcm").read_bytes()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (".avi", ".avi"),
        (".nii.gz", ".nii.gz"),
        (".mp4", ".mp4"),
        (".dcm", ""),
        (".mhd", ""),
        ("/../../x", ""),
        ("", ""),
    ],
)
def test_only_known_endings_are_kept(client: Client, gate: Gate, given: str, kept: str) -> None:
    """Of the name of a file nothing else is told."""
    client.send(b"1", ending=given)
    assert gate.began.acquire(timeout=10)
    assert gate.seen[0]["paths"][0].name == f"clip_1{kept}"
    assert gate.seen[0]["paths"][0].parent.parent == client.folder


def test_temporary_files_are_their_owners_alone(client: Client, gate: Gate) -> None:
    before = os.umask(0)
    try:
        client.send(b"1")
        assert gate.began.acquire(timeout=10)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [client.folder, *client.folder.rglob("*")]}
    assert len(modes) == 4 and {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_cancelled_while_the_result_is_written(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda paths, **options: Quick(0), LIMIT) as server:
        client = Client(server, next(temporary.iterdir()))
        pack = jobs.pack

        def slow(*of: object) -> None:
            assert until(lambda: paths)
            client("DELETE", paths[0])
            pack(*of)

        monkeypatch.setattr(jobs, "pack", slow)
        paths = []
        paths.append(client.send(b"1"))
        assert until(lambda: client("GET", paths[0]).status == 404)
        assert until(lambda: list(client.folder.iterdir()) == [client.folder / "lock"])


def test_nothing_is_left_at_the_end(temporary: Path, gate: Gate) -> None:
    with serving(gate, LIMIT) as server:
        client = Client(server, next(temporary.iterdir()))
        client.send(b"1")
        client.send(b"1")
        client.announce(1)
        assert gate.began.acquire(timeout=10)
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_by_a_worker_that_does_not_listen(temporary: Path, loop: bytes, monkeypatch) -> None:
    """It comes to its saving after the end, and may not make its folder again."""
    gate, stop = Gate(), jobs.Jobs.stop
    monkeypatch.setattr(jobs.Jobs, "stop", lambda self: stop(self, 0.2))
    results: list[object] = []

    def deaf(paths: list[Path], **options: object) -> object:
        result = measure_drawn(paths, progress=lambda done, total: None)
        gate.began.release()
        gate.go.acquire(timeout=20)
        results.append(result)
        return result

    with serving(deaf, LIMIT) as server:
        Client(server, next(temporary.iterdir())).send(loop)
        assert gate.began.acquire(timeout=60)
        worker = server.jobs._thread
    assert worker.is_alive() and list(temporary.iterdir()) == []
    gate.go.release()
    worker.join(20)
    assert results and not worker.is_alive() and list(temporary.iterdir()) == []


def test_what_a_kill_left_goes_with_the_next_start(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, young, foreign = (temporary / name for name in (f"{PREFIX}left", f"{PREFIX}young", "other-left"))
    for path in (left, young, foreign):
        path.mkdir()
        (path / "clip_1").write_bytes(b"1")
    for path in (left, foreign):
        os.utime(path, (time.time() - 100, time.time() - 100))
    with private_folder() as running:
        assert not left.exists() and young.exists() and foreign.exists()
        monkeypatch.setattr(folders, "_YOUNG_S", -100.0)
        with private_folder():
            assert running.exists() and not young.exists()  # whose lock is held
    assert list(temporary.iterdir()) == [foreign]


def test_a_folder_that_cannot_be_removed_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.raises(RuntimeError, match="could not be removed, and may hold clips"), private_folder():
        pass
