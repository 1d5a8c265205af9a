"""The folder that a conversion writes to: whose it is, who else writes there, and where it lies."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from camus_download import tree
from hard_ground import SOURCES, convert
from other_downloads import Get

from nnunet_echo.cli.main import main
from nnunet_echo.data import raw_dataset, target
from nnunet_echo.data.target import locked
from nnunet_echo.nnunet.folders import preprocessed_splits, raw_folder

pytest_plugins = ("other_downloads",)


def test_a_folder_of_another_converter_is_left_alone(
    undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    report = raw / "Dataset751_CAMUS" / "conversion_report.json"
    report.write_text(report.read_text().replace("dataset_conversion.camus", "dataset_conversion.hearts"))
    before = tree(raw)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw, "--replace") == 2
    assert "was written by nnunet_echo.dataset_conversion.hearts" in capsys.readouterr().err and tree(raw) == before


@pytest.mark.parametrize(
    "record",
    [
        '{"converter": "nnunet_echo.dataset_conversion.camus 0", "files": [1, null]}',
        '{"converter": 3, "files": []}',
        '{"converter": " ", "files": []}',
        "5",
        "[]",
        "[" * 10**5,
    ],
)
def test_a_record_of_any_shape_is_an_error_in_words(
    record: str, undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = raw / "Dataset751_CAMUS"
    folder.mkdir()
    (folder / "conversion_report.json").write_text(record)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw, "--replace") == 2
    assert "without a readable conversion_report.json" in capsys.readouterr().err


def test_what_nnunet_passes_over_is_no_obstacle_and_stays(
    undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Mac's Finder and Windows leave files in every folder that somebody looked into."""
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    folder = raw / "Dataset751_CAMUS"
    for name in ("imagesTr/.DS_Store", "labelsTr/Thumbs.db", "notes.txt"):
        (folder / name).write_text("mine")
    before = tree(raw)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    assert tree(raw) == before
    (folder / "labelsTr" / "._mine.nii.gz").touch()
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw, "--replace") == 2
    assert "first labelsTr/._mine.nii.gz" in capsys.readouterr().err


def test_a_second_conversion_says_who_is_at_it_whatever_the_name(
    undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Dataset751_CAMUS", "Dataset751_Other"):
        with locked(raw / name):
            before = tree(raw)
            assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 2
            assert tree(raw) == before
        said = capsys.readouterr().err
        assert all(word in said for word in (f"process {os.getpid()}", os.uname().nodename, " since 20", "Wait"))
    assert not list(raw.iterdir())


def test_an_id_that_another_conversion_took_meanwhile(
    undamaged: Get, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def locked_late(folder: Path) -> Iterator[None]:
        (raw / "Dataset751_Other").mkdir()  # by the one that had the lock until now
        with locked(folder):
            yield

    monkeypatch.setattr(raw_dataset, "locked", locked_late)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 2
    assert "dataset id 751 is taken by" in capsys.readouterr().err
    assert [path.name for path in raw.iterdir()] == ["Dataset751_Other"]


def test_a_killed_owner_of_the_lock_is_no_obstacle(undamaged: Get, raw: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from nnunet_echo.data.target import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", hold, str(raw / "Dataset751_CAMUS")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (raw / ".Dataset751.lock").exists()
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    assert [path.name for path in raw.iterdir()] == ["Dataset751_CAMUS"]


def test_a_part_on_another_file_system_is_refused_before_anything_changes(
    undamaged: Get, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    part = raw / "Dataset751_CAMUS" / "labelsTr"
    before = tree(raw)
    real = os.replace

    def across(source: Path, to: Path) -> None:
        if Path(to).parent == part:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(target.os, "replace", across)
        assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 2
    said = capsys.readouterr().err
    assert str(part) in said and "on the file system of" in said and "disk full" not in said
    assert {name: digest for name, digest in tree(raw).items() if not name.endswith(".unfinished")} == before
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0 and tree(raw) == before


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_a_tilde_is_refused_where_nobody_expands_it(
    variable: str,
    undamaged: Get,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, "~/nn")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert main(["convert", "camus", str(undamaged("camus").folder), "--workers", "1"]) == 2
    said = capsys.readouterr().err
    assert f"{variable} is '~/nn'" in said and "$HOME/nn" in said and tree(tmp_path) == before
    assert main(["status", "751"]) == 2 and f"{variable} is '~/nn'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--raw is '~'"):
        raw_folder("~")
    monkeypatch.setenv("nnUNet_preprocessed", "~me/nn")
    with pytest.raises(ValueError, match="nnUNet_preprocessed is '~me/nn'"):
        preprocessed_splits("Dataset751_CAMUS")


def test_exit_code_2_where_no_dataset_came_out(undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shutil.copytree(undamaged("camus").folder, raw.parent / "source")
    masks = sorted(source.rglob("*_gt.nii.gz"))
    for path in masks[4:]:  # of the first patient all are left: too few for folds
        path.write_bytes(b"")
    assert convert(SOURCES["camus"], source, raw) == 2
    shown = capsys.readouterr()
    assert "NOT USABLE" in shown.out and "error: nothing was converted: too many cases were refused" in shown.err
    assert not list(raw.rglob("*.nii.gz")) and not list(raw.rglob("dataset.json"))
    for path in masks:
        path.write_bytes(b"")
    assert convert(SOURCES["camus"], source, raw) == 2
    assert "all cases were refused, the first because of database_nifti/patient0001/" in capsys.readouterr().err
