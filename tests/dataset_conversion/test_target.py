"""Every converter and the conversion that is there already: nothing is replaced unasked, what was edited is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import rewrite, tree
from hard_ground import SOURCES, convert
from other_downloads import EACH, Get, same_but_for_the_place

from nnunet_echo.data import raw_dataset

pytest_plugins = ("other_downloads",)


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
