"""The CAMUS converter on damaged downloads: each case is converted, or refused by name and for a reason."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import CASES, IMAGE, MASK, convert, load, rewrite, write_challenge_release

from nnunet_echo.data.check import check_dataset

pytest_plugins = ("camus_download",)


def test_a_truncated_raw_file_is_refused(pristine: Path, raw: Path, tmp_path: Path) -> None:
    write_challenge_release(pristine, tmp_path / "challenge")
    patient = tmp_path / "challenge" / "training" / "patient0002"
    os.truncate(patient / "patient0002_2CH_ED.raw", 500)
    (patient / "patient0002_2CH_ES.raw").unlink()
    header = patient / "patient0002_4CH_ED.mhd"
    header.write_text(re.sub("ElementDataFile = .*", "ElementDataFile = ../../../secret.raw", header.read_text()))
    messages = {note.subject: note.message for note in convert(tmp_path / "challenge").refused}
    assert len(messages) == 3
    assert "truncated: 500 bytes" in messages["CAMUS_patient0002_2CH_ED"]
    assert "patient0002_2CH_ES.raw is missing" in messages["CAMUS_patient0002_2CH_ES"]
    assert "not a file of the same folder" in messages["CAMUS_patient0002_4CH_ED"]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


def gunzip_and_cut(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    path.with_suffix("").write_bytes(data[: len(data) // 2])
    path.unlink()


def stretch_header(path: Path) -> None:
    """One more column in the header than there are pixels for."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[42] += 1
    path.write_bytes(gzip.compress(bytes(data)))


def flip(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    image.SetDirection((1, 0, 0, -1))
    sitk.WriteImage(image, str(path), True)


def lose_a_number(path: Path) -> None:
    """NaN for the width of a pixel, which SimpleITK reads as 1."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[80:84] = struct.pack("<f", float("nan"))
    path.write_bytes(gzip.compress(bytes(data)))


REFUSALS = [
    (IMAGE, lambda p: os.truncate(p, p.stat().st_size // 2), "truncated or damaged gzip data"),
    (IMAGE, lambda p: os.truncate(p, p.stat().st_size - 4), "truncated or damaged gzip data"),
    (IMAGE, flip_byte, "truncated or damaged gzip data"),
    (IMAGE, gunzip_and_cut, "truncated: "),
    (IMAGE, stretch_header, "truncated: "),
    (IMAGE, lambda p: p.write_bytes(b""), "not a NIfTI-1 file (0 bytes)"),
    (MASK, lambda p: p.write_text("<html>404</html>"), "not a NIfTI-1 file"),
    (IMAGE, lambda p: (p.unlink(), p.mkdir()), "is missing or not a file"),
    (IMAGE, lambda p: p.unlink(), "is there, but not its image"),
    (MASK, lambda p: p.unlink(), "is there, but not its mask"),
    (MASK, lambda p: rewrite(p, lambda a: a[:-1]), "must lie on one grid"),
    (MASK, lambda p: rewrite(p, lambda a: a, spacing=1.0), "spacing 1 x 1, but the image"),
    (MASK, flip, "direction 1 x 0 x 0 x -1, but the image"),
    (IMAGE, lambda p: rewrite(p, lambda a: a, spacing=308.0), "spacing 308 x 308 mm, but pixels of an echo"),
    (IMAGE, lambda p: rewrite(p, lambda a: a, spacing=1e-30), "spacing 1e-30 x 1e-30 mm, but pixels of an echo"),
    (IMAGE, lose_a_number, "spacing nan x 1.5; each must be a positive number"),
    (IMAGE, lambda p: p.write_bytes(gzip.compress(gzip.decompress(p.read_bytes()) + bytes(99))), "damaged: more than"),
    (MASK, lambda p: rewrite(p, lambda a: a * 0), "the mask is empty"),
    (MASK, lambda p: rewrite(p, lambda a: np.where(a == 2, 7, a)), "unknown labels 7; allowed are [0, 1, 2, 3]"),
    (MASK, lambda p: rewrite(p, lambda a: a * 0.5), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a / 255), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a * 2), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a - 1), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: np.where(a > 100, np.nan, a)), "NaN or infinite"),
    (IMAGE, lambda p: rewrite(p, lambda a: a * 0 + 9), "every pixel is 9"),
    (IMAGE, lambda p: shutil.copy(p.parent / MASK, p), "it is a mask, not an image"),
    (IMAGE, lambda p: rewrite(p, lambda a: np.stack([a, a])), "not a sequence or volume"),
    (IMAGE, lambda p: p.write_bytes((p.parent / MASK).read_bytes()[:40]), "truncated or damaged gzip data"),
]


@pytest.mark.parametrize(("name", "damage", "message"), REFUSALS, ids=[refusal[2][:24] for refusal in REFUSALS])
def test_a_damaged_case_is_refused_by_name_and_the_rest_converted(
    source: Path, raw: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(source / "database_nifti" / "patient0002" / name)
    report = convert(source)
    (note,) = report.refused
    assert note.subject == "CAMUS_patient0002_4CH_ED" and message in note.message
    assert "database_nifti/patient0002/patient0002_4CH_ED" in note.message
    assert report.exit_code == 1 and report.training_cases + report.test_cases == CASES - 1
    folder = raw / "Dataset751_CAMUS"
    assert note.message in (folder / "conversion_report.txt").read_text() and note.message in report.summary()
    assert not list(folder.rglob("CAMUS_patient0002_4CH_ED*"))
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]


def cut_line(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text("".join(line for line in path.open() if not line.startswith(key)))


def add_line(line: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(f"{path.read_text()}{line}\n")


def swap_phases(path: Path) -> None:
    for suffix in ("", "_gt"):
        ed, es = (path.parent / f"patient0002_4CH_{phase}{suffix}.nii.gz" for phase in ("ED", "ES"))
        ed_bytes, es_bytes = ed.read_bytes(), es.read_bytes()
        ed.write_bytes(es_bytes)
        es.write_bytes(ed_bytes)


def lose_spacing(path: Path) -> None:
    for name in (IMAGE, MASK):
        rewrite(path.parent / name, lambda a: a, spacing=1.0)


def move_origin(path: Path) -> None:
    mask = sitk.ReadImage(str(path))
    mask.SetOrigin((5, 0))
    sitk.WriteImage(mask, str(path), True)


def remove(pattern: str) -> Callable[[Path], object]:
    return lambda path: [file.unlink() for file in path.parent.glob(pattern)]


WARNINGS = [
    (IMAGE, remove("*_2CH_*"), "view missing", "no image or mask of view 2CH", 2),
    (IMAGE, remove("*_4CH_ES*"), "phase missing", "no ES image or mask of view 4CH", 1),
    (IMAGE, remove("*"), "patient without images", "no image or mask of 2CH or 4CH", 4),
    (IMAGE, remove("Info_4CH.cfg"), "cfg missing", "no Info_4CH.cfg", 0),
    (IMAGE, remove("*.cfg"), "EF unknown", "no Info_*.cfg gives an EF", 0),
    ("Info_4CH.cfg", lambda p: (p.unlink(), p.mkdir()), "cfg unreadable", "Info_4CH.cfg: missing or not a file", 0),
    ("Info_4CH.cfg", cut_line("EF"), "cfg field missing", "Info_4CH.cfg: no EF", 0),
    ("Info_4CH.cfg", cut_line("ImageQuality"), "cfg field missing", "Info_4CH.cfg: no ImageQuality", 0),
    ("Info_4CH.cfg", lambda p: p.write_bytes(b""), "cfg field missing", "no ED, ES, NbFrame, Sex, Age, Image", 0),
    ("Info_4CH.cfg", add_line("EF: high"), "cfg field unreadable", "EF is 'high', not a number in 0..100", 0),
    ("Info_4CH.cfg", add_line("EF: 99"), "EF differs", "EF 99 %, but", 0),
    ("Info_4CH.cfg", add_line("ImageQuality: Best"), "cfg field unreadable", "ImageQuality is 'Best'", 0),
    (IMAGE, swap_phases, "ED not larger than ES", "the phases may be exchanged", 0),
    (IMAGE, lose_spacing, "spacing lost", "spacing is 1 x 1 mm", 0),
    (MASK, move_origin, "origin differs", "origin 5 x 0 mm, image 0 x 0 mm", 0),
    (MASK, lambda p: rewrite(p, lambda a: np.where(a == 3, 0, a)), "structure missing", "the mask has no LA", 0),
    (IMAGE, lambda p: p.with_suffix("").write_bytes(gzip.decompress(p.read_bytes())), "double file", "is read, not", 0),
]


@pytest.mark.parametrize(
    ("name", "damage", "kind", "message", "lost"), WARNINGS, ids=[warning[2] for warning in WARNINGS]
)
def test_what_the_download_lacks_is_a_warning(
    source: Path, raw: Path, name: str, damage: Callable[[Path], object], kind: str, message: str, lost: int
) -> None:
    damage(source / "database_nifti" / "patient0002" / name)
    report = convert(source)
    (note,) = [note for note in report.warnings if note.kind == kind]
    assert "patient0002" in note.subject and message in note.message
    assert report.exit_code == 0 and report.training_cases + report.test_cases == CASES - lost
    folder = raw / "Dataset751_CAMUS"
    assert kind in report.summary() and note.message in (folder / "conversion_report.txt").read_text()
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]


def test_a_file_of_another_patient_is_not_taken_for_this_one(source: Path) -> None:
    folder = source / "database_nifti"
    for name in (IMAGE, MASK):
        shutil.copy(folder / "patient0002" / name, folder / "patient0001" / name)
    report = convert(source)
    assert [note.kind for note in report.refused] == ["misplaced file"] * 2
    assert "named patient0002 in the folder of patient0001" in report.refused[0].message
    assert report.training_cases + report.test_cases == CASES


def test_a_patient_lost_as_a_whole_does_not_empty_a_fold(source: Path, raw: Path) -> None:
    shutil.rmtree(source / "database_nifti" / "patient0001")
    for path in (source / "database_nifti" / "patient0002").glob("*_gt.nii.gz"):
        path.write_bytes(b"")
    report = convert(source)
    assert len(report.refused) == 4 and not report.unusable and report.folds == 4
    assert all(fold["train"] and fold["val"] for fold in load(raw / "Dataset751_CAMUS", "splits_final.json"))


def test_fewer_than_five_patients_make_fewer_folds(source: Path) -> None:
    for number in (1, 2, 3):
        shutil.rmtree(source / "database_nifti" / f"patient000{number}")
    report = convert(source)
    assert report.exit_code == 0 and report.folds == 3
    assert "3 patients make 3 folds, not 5." in [note.message for note in report.warnings]
    for number in (4, 5):
        shutil.rmtree(source / "database_nifti" / f"patient000{number}")
    with pytest.raises(ValueError, match="needs at least 2 patients outside the test list; there are 1"):
        convert(source)


def test_the_two_patients_with_a_suspect_ef_are_named(source: Path) -> None:
    folder = source / "database_nifti"
    (folder / "patient0003").rename(folder / "patient0185")
    for path in (folder / "patient0185").iterdir():
        path.rename(path.with_name(path.name.replace("patient0003", "patient0185")))
    assert [note.subject for note in convert(source).warnings if note.kind == "suspect EF"] == ["CAMUS_patient0185"]
    assert not [note for note in convert(source, views=["4CH"], replace=True).warnings if note.kind == "suspect EF"]


def test_nothing_usable_leaves_a_report_and_no_dataset(source: Path, raw: Path) -> None:
    for path in (source / "database_nifti").rglob("*_gt.nii.gz"):
        path.write_bytes(b"")
    report = convert(source)
    assert report.exit_code == 2 and len(report.refused) == CASES and "NOT USABLE" in report.summary()
    assert not (raw / "Dataset751_CAMUS" / "dataset.json").exists()
