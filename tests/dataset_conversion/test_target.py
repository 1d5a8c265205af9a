"""Every converter and the conversion that is there already: nothing is replaced unasked, one writes at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from camus_download import rewrite, tree
from hard_ground import SOURCES, Undamaged, convert
from ted_download import plain_picture

from nnunet_echo.cli.main import main
from nnunet_echo.data import raw_dataset, target
from nnunet_echo.data.target import locked
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.echonet import phantom as phantom_echonet
from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.nnunet.folders import preprocessed_splits, raw_folder
from nnunet_echo.phantom import cine as phantom_cine

pytest_plugins = ("hard_ground",)

# The same names of cases (camus, ted) with other pictures, or other cases (echonet).
OTHERS = {
    "camus": partial(write_camus, patients=4, seed=4, spacing_mm=3.0, half_sequence=False),
    "echonet": partial(write_echonet, videos=8, seed=19, oddities=False, workers=1),
    "ted": partial(write_ted, patients=3, seed=4, spacing_mm=3.0),
}
EACH = ["camus", "echonet", pytest.param("ted", marks=pytest.mark.slow)]
Get = Callable[[str], Undamaged]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def written(name: str) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(phantom_cine, "ultrasound", plain_picture)
            patch.setattr(phantom_echonet, "ultrasound", plain_picture)
            OTHERS[name](tmp_path / "other")
        return tmp_path / "other"

    return written


def same_but_for_the_place(first: Path, second: Path) -> bool:
    trees = [
        {name: digest for name, digest in tree(folder).items() if not name.endswith("conversion_report.json")}
        for folder in (first, second)
    ]
    return trees[0] == trees[1]


@pytest.mark.parametrize("name", EACH)
def test_another_source_is_refused_by_name_and_replaces_on_request(
    name: str, undamaged: Get, other: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, foreign = undamaged(name).folder, other(name)
    assert convert(SOURCES[name], source, raw) == 0
    before = tree(raw)
    capsys.readouterr()
    assert convert(SOURCES[name], foreign, raw) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in (str(source), str(foreign), "-d", "--replace")) and tree(raw) == before
    assert convert(SOURCES[name], foreign, raw, "--replace") == 0
    assert convert(SOURCES[name], foreign, raw.parent / "fresh") == 0
    assert tree(raw) == tree(raw.parent / "fresh")


@pytest.mark.parametrize("name", EACH)
def test_a_source_that_moved_is_the_same_and_one_that_lost_a_case_is_not(
    name: str, undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(undamaged(name).folder, raw.parent / "first")
    assert convert(SOURCES[name], source, raw) == 0
    moved = source.rename(raw.parent / "second")
    shutil.copytree(raw, raw.parent / "before")
    assert convert(SOURCES[name], moved, raw) == 0
    assert same_but_for_the_place(raw, raw.parent / "before")
    (report,) = raw.glob("*/conversion_report.json")
    assert json.loads(report.read_text())["source"] == str(moved)
    if name == "echonet":
        rows = (moved / "VolumeTracings.csv").read_text().splitlines(keepends=True)
        lost = rows[1].partition(".avi")[0]
        (moved / "VolumeTracings.csv").write_text("".join(row for row in rows if not row.startswith(lost)))
        listed = (moved / "FileList.csv").read_text().splitlines(keepends=True)
        (moved / "FileList.csv").write_text("".join(row for row in listed if not row.startswith(lost)))
        (moved / "Videos" / f"{lost}.avi").unlink()
    else:
        shutil.rmtree(next(iter(sorted(moved.glob("data*/patient*1")))))
    before = tree(raw)
    assert convert(SOURCES[name], moved, raw) == 2
    assert "belong to none of the cases of this source" in capsys.readouterr().err and tree(raw) == before


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("camus", ("--views", "4CH"), "views was ['2CH', '4CH'] and is ['4CH']"),
        ("camus", ("--seed", "1"), "seed was 12345 and is 1"),
        ("echonet", ("--split", "5fold"), "split was 'official' and is '5fold'"),
        ("ted", ("--clip", "5"), "clip was None and is 5"),
    ],
)
def test_other_options_are_refused_by_name(
    name: str, options: tuple[str, ...], said: str, undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(SOURCES[name], undamaged(name).folder, raw) == 0
    before = tree(raw)
    assert convert(SOURCES[name], undamaged(name).folder, raw, *options) == 2
    assert said in capsys.readouterr().err and tree(raw) == before


def test_another_list_of_the_same_name_is_another_option(
    undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = raw.parent / "list.csv"
    options = ("--split", "file", "--split-file", str(path))
    path.write_text("patient,subset\npatient0001,train\npatient0002,val\npatient0003,train\n")
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw, *options) == 0
    path.write_text("patient,subset\npatient0001,val\npatient0002,train\npatient0003,train\n")
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw, *options) == 2
    assert "split_file_sha256 was" in capsys.readouterr().err


def test_a_mask_that_the_user_corrected_is_not_overwritten(undamaged: Get, raw: Path) -> None:
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    first, second = sorted(raw.glob("*/labelsTr/*"))[:2]
    shutil.copy(second, first)
    before = tree(raw)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 2
    assert tree(raw) == before


def test_the_same_pixels_at_another_scale_are_another_source(undamaged: Get, raw: Path) -> None:
    source = shutil.copytree(undamaged("camus").folder, raw.parent / "source")
    assert convert(SOURCES["camus"], source, raw) == 0
    for path in source.rglob("patient0001_4CH_ED*"):
        rewrite(path, lambda pixels: pixels, spacing=2.9)
    before = tree(raw)
    assert convert(SOURCES["camus"], source, raw) == 2 and tree(raw) == before


@pytest.mark.parametrize("writes", [0, 5])
def test_replacing_that_is_stopped_leaves_no_dataset_and_is_completed(
    writes: int, undamaged: Get, other: Callable[[str], Path], raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = other("camus")
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    real, count = raw_dataset.write_image, 0

    def stop(*arguments: object) -> None:
        nonlocal count
        if count == writes:
            raise KeyboardInterrupt
        count += 1
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(raw_dataset, "write_image", stop)
        assert convert(SOURCES["camus"], foreign, raw, "--replace") == 130
    names = {path.name for path in raw.rglob("*")}
    assert not {"dataset.json", "splits_final.json", "cases.csv"} & names
    assert len(list(raw.glob("*/*/*.nii.gz"))) == writes, "pictures of both sources"
    assert convert(SOURCES["camus"], foreign, raw) == 0
    assert convert(SOURCES["camus"], foreign, raw.parent / "fresh") == 0
    assert tree(raw) == tree(raw.parent / "fresh")


@pytest.fixture
def preprocessed(undamaged: Get, raw: Path) -> Path:
    """What nnU-Net would keep of a converted dataset, as far as it matters here."""
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    folder = raw.parent / "preprocessed" / "Dataset751_CAMUS"
    shutil.copytree(raw / folder.name / "labelsTr", folder / "gt_segmentations")
    shutil.copy(raw / folder.name / "splits_final.json", folder)
    return folder


def test_preprocessed_data_of_the_same_cases_stay(preprocessed: Path, undamaged: Get, raw: Path) -> None:
    before = tree(preprocessed)
    shutil.rmtree(raw / preprocessed.name)
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    assert tree(preprocessed) == before


@pytest.mark.parametrize("damage", ["other pictures", "a case too many"])
def test_preprocessed_data_of_other_cases_are_refused_by_name_or_set_aside(
    damage: str,
    preprocessed: Path,
    undamaged: Get,
    other: Callable[[str], Path],
    raw: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(raw / preprocessed.name)
    source = undamaged("camus").folder
    if damage == "other pictures":
        source = other("camus")
    else:
        masks = preprocessed / "gt_segmentations"
        shutil.copy(next(masks.iterdir()), masks / "CAMUS_patient0099_4CH_ED.nii.gz")
    before = tree(preprocessed)
    assert convert(SOURCES["camus"], source, raw) == 2
    said = capsys.readouterr().err
    assert str(preprocessed) in said and "--replace" in said
    assert not list(raw.iterdir()) and tree(preprocessed) == before
    assert convert(SOURCES["camus"], source, raw, "--replace") == 0
    aside = preprocessed.with_name(f"replaced_1_{preprocessed.name}")
    assert tree(aside) == before and not preprocessed.exists() and aside.name in capsys.readouterr().out


def test_preprocessed_data_that_lack_cases_are_named(
    preprocessed: Path, undamaged: Get, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(iter(sorted((preprocessed / "gt_segmentations").iterdir()))).unlink()
    assert convert(SOURCES["camus"], undamaged("camus").folder, raw) == 0
    assert "lacks 1 training cases" in (raw / preprocessed.name / "conversion_report.txt").read_text()


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
        assert all(word in said for word in (f"process {os.getpid()}", os.uname().nodename, " since 20", "wait"))
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


def test_what_was_edited_by_hand_is_kept_and_named(
    undamaged: Get, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = undamaged("camus").folder
    assert convert(SOURCES["camus"], source, raw) == 0
    (folder,) = raw.glob("Dataset*")
    preprocessed = raw.parent / "preprocessed" / folder.name
    preprocessed.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    before = tree(raw)
    for text in ("[]", "[{}]"):  # twice, and each is kept
        for file in (folder / "splits_final.json", folder / "dataset.json", preprocessed / "splits_final.json"):
            file.write_text(text)
        capsys.readouterr()
        assert convert(SOURCES["camus"], source, raw) == 0
        said = capsys.readouterr().out
        assert "kept beside" in said
    for place in (folder, preprocessed):
        assert (place / "splits_final.json.old").read_text() == "[]"
        assert (place / "splits_final.json.old2").read_text() == "[{}]"
    assert (folder / "dataset.json.old").read_text() == "[]"
    assert str(folder / "splits_final.json.old2") in (folder / "conversion_report.txt").read_text()
    for old in folder.glob("*.old*"):
        old.unlink()
    assert convert(SOURCES["camus"], source, raw) == 0
    assert tree(raw) == before
