"""Where `nnunet-echo cine` writes: what cannot be a result's folder, clips that fail, a reader that goes away."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cine_results import drawn_result
from pydicom.errors import InvalidDicomError

from nnunet_echo.cine.output import check_new
from nnunet_echo.cine.result import CineResult
from nnunet_echo.cli.main import main

SUPPORT = Path(__file__).resolve().parents[1] / "support"


class _NoModel:
    def stream(self, clip: object, **options: object) -> None:
        pass


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; clips beside it, a.dcm, b.dcm and c.dcm, are measured without a network."""
    monkeypatch.setattr("nnunet_echo.cli.cine.load_model", lambda args: _NoModel())
    monkeypatch.setattr("nnunet_echo.cine.study.measure_study", lambda *_, **__: drawn_result())
    (tmp_path / "clips").mkdir()
    for name in "abc":
        (tmp_path / "clips" / f"{name}.dcm").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def cine(out: str | Path, clips: str = "../clips/a.dcm", *options: str) -> int:
    return main(["cine", "-i", clips, "-o", str(out), "-m", "x", "--save", "masks", *options])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_dir_of_a_result(folder: Path) -> bool:
    return {"result.json", "frames.csv", "masks.nii.gz"} <= set(names(folder))


ERRORS = [
    (ZeroDivisionError("x"), "the program failed (ZeroDivisionError). Please report it"),
    (AttributeError("x"), "the program failed (AttributeError). Please report it"),
    (InvalidDicomError("x"), "the program failed (InvalidDicomError). Please report it"),
    (MemoryError(), "the memory of this computer is too small for it."),
    (AssertionError(), "the program failed (AssertionError). Please report it"),
    (OSError(28, "No space left"), "[Errno 28] No space left"),
    (RuntimeError("why it failed"), "why it failed"),
    (ValueError(), "ValueError"),
]


@pytest.mark.parametrize(("error", "said"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
@pytest.mark.parametrize("where", ["measure", "save"])
def test_one_clip_that_fails_is_left_out(
    error: Exception, said: str, where: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    failing(monkeypatch, where, error)
    assert cine("out", "../clips") == 1
    printed = capsys.readouterr()
    assert f"clip_002  'b.dcm'\nnot measured: {said}" in printed.out and not printed.err
    assert f"2 of 3 clips measured: {Path('out') / 'summary.csv'}" in printed.out
    assert names(place / "out") == ["clip_001", "clip_003", "summary.csv"]
    assert is_dir_of_a_result(place / "out" / "clip_003")
    with (place / "out" / "summary.csv").open(newline="") as file:
        assert [row["measured"] for row in csv.DictReader(file)] == ["yes", "no", "yes"]


def failing(monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException) -> None:
    """The second of three clips raises `error`."""
    calls: list[int] = []

    def at_second(else_: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            calls.append(1)
            if len(calls) == 2:
                raise error
            return else_(*args, **options)

        return call

    if where == "measure":
        monkeypatch.setattr("nnunet_echo.cine.study.measure_study", at_second(lambda *_, **__: drawn_result()))
    else:
        monkeypatch.setattr(CineResult, "_write", at_second(CineResult._write))


def test_where_it_failed_can_be_seen(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    failing(monkeypatch, "measure", AttributeError("x"))
    assert cine("out", "../clips", "--traceback") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["measure", "save"])
def test_an_interrupt_ends_all(
    where: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    failing(monkeypatch, where, KeyboardInterrupt())
    assert cine("out", "../clips") == 130
    assert names(place / "out") == ["clip_001"] and "interrupted" in capsys.readouterr().err


def refused(out: str | Path, capsys: pytest.CaptureFixture, clips: str = "../clips/a.dcm") -> str:
    before = sorted(Path("..").rglob("*"))
    assert cine(out, clips) == 2
    assert sorted(Path("..").rglob("*")) == before
    return capsys.readouterr().err.partition("error: ")[2].rstrip()


@pytest.fixture
def no_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("nnunet_echo.cli.cine.load_model", lambda args: pytest.fail("loaded"))
    return place


def test_folders_that_cannot_be_are_seen_before_any_work(no_work: Path, capsys: pytest.CaptureFixture) -> None:
    for clips in ("../clips/a.dcm", "../clips"):
        assert refused("../clips/a.dcm", capsys, clips).startswith("../clips/a.dcm: is there already and not empty")
        for out, why in (
            ("../clips/a.dcm/x", "Not a directory"),
            ("../clips/a.dcm/x/y", "Not a directory"),
            ("n" * 300, "File name too long"),
            (f"new/{'n' * 300}/x", "File name too long"),
        ):
            assert refused(out, capsys, clips) == f"{out}: no folder can be made there ({why}). Choose another."
        os.symlink("loop", "loop")
        assert refused("loop", capsys, clips) == "loop: is a link that leads to itself. Choose another folder."
        Path("loop").unlink()
    assert refused(".", capsys) == ".: is the current folder, or a mounted one. Name a new folder in it."
    assert "is the current folder" in refused("../here", capsys)


def test_a_mounted_folder(no_work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    Path("disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    assert "is the current folder, or a mounted one" in refused("disk", capsys)
    assert check_new(Path("disk/new")) == no_work / "disk" / "new"
    assert check_new(Path("disk"), many=True) == no_work / "disk"


def test_a_folder_that_may_not_be_written(
    no_work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One clip needs the folder above; many that have one need it alone."""
    made = tempfile.mkdtemp

    def deny(*, dir: Path, prefix: str) -> str:
        if dir.name == "closed":
            raise PermissionError(13, "Permission denied", str(dir))
        return made(dir=dir, prefix=prefix)

    monkeypatch.setattr("nnunet_echo.cine.output.tempfile.mkdtemp", deny)
    Path("closed/open").mkdir(parents=True)
    for clips in ("../clips/a.dcm", "../clips"):
        said = refused("closed/out", capsys, clips)
        assert said == "closed/out: no folder can be made there (Permission denied). Choose another."
    assert "Permission denied" in refused("closed/open", capsys)
    assert check_new(Path("closed/open"), many=True).name == "open"


@pytest.mark.parametrize("clips", ["../clips/a.dcm", "../clips"])
@pytest.mark.parametrize("kind", ["link", "dangling", "long", "below", "empty"])
def test_folders_that_can(clips: str, kind: str, place: Path) -> None:
    outs = {"link": "link", "dangling": "dangling", "long": "n" * 245, "below": "a/b/c", "empty": "empty"}
    for name in ("target", "empty"):
        Path(name).mkdir()
    os.symlink("target", "link")
    os.symlink("nowhere/x", "dangling")
    assert cine(outs[kind], clips) == 0
    folder = Path(outs[kind])
    assert is_dir_of_a_result(folder if clips.endswith("dcm") else folder / "clip_003")
    assert Path("link").is_symlink() and Path("dangling").is_symlink()
    assert not [path for path in place.rglob("*") if "unfinished" in path.name]


def test_a_folder_of_clips_may_go_to_the_current_one(place: Path) -> None:
    assert cine(".", "../clips") == 0
    assert names(place) == ["clip_001", "clip_002", "clip_003", "summary.csv"]


@pytest.mark.parametrize("clips", ["../clips/a.dcm", "../clips"])
def test_a_reader_that_goes_away_loses_nothing(clips: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="ascii") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert cine("out", clips) == 0
    assert is_dir_of_a_result(place / "out" if clips.endswith("dcm") else place / "out" / "clip_003")
    assert "summary.csv" in names(place / "out") or clips.endswith("dcm")


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise there")
def test_a_reader_that_goes_away_is_no_error(place: Path) -> None:
    """Also at the end of the process, when what is left is written."""
    script = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from cine_results import drawn_result
import nnunet_echo.cine.study as study, nnunet_echo.cli.cine as cine
from nnunet_echo.cli.main import main
class NoModel:
    def stream(self, clip, **options):
        pass
def load(args):
    print("loaded")
    return NoModel()
study.measure_study, cine.load_model = lambda *_, **__: drawn_result(), load
sys.exit(main(sys.argv[1:]))
"""
    reader, writer = os.pipe()
    os.close(reader)
    command = ["cine", "-i", "../clips", "-o", "out", "-m", "x", "--save", "masks"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(SUPPORT), *command],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(place / "out") == ["clip_001", "clip_002", "clip_003", "summary.csv"]


def test_letters_that_a_terminal_has_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files and units are printed all the same."""
    (place.parent / "clips" / "b.dcm").rename(place.parent / "clips" / "\u5fc3.dcm")
    with open("printed.txt", "w", encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert cine("out", "../clips") == 0
    printed = Path("printed.txt").read_text(encoding="ascii")
    assert "clip_003  '\\u5fc3.dcm'\n" in printed and " mm\\xb2\n" in printed
