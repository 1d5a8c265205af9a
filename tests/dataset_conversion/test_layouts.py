"""Downloads as people have them: other layouts are read or named, and nothing that looks like a case is passed over."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import table
from hard_downloads import Damage, Get, copied, rename, report_of, write
from hard_ground import SOURCES, convert, images

from nnunet_echo.data.cases import Written
from nnunet_echo.data.findings import NOT_TAKEN
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.camus.review import review

pytest_plugins = ("hard_downloads",)


CAMUS, TED = "database_nifti/patient0002", "database/patient002"
PASSED_OVER = [  # the source, what happens to it, what is named, whether a case is lost by it
    *(
        ("camus", rename(CAMUS, f"database_nifti/{name}"), f"database_nifti/{name}", True)
        for name in ("Patient0002", "patient_0002", "patient002", "patient 0002", "PATIENT-0002", "pat0002", "Patient2")
    ),
    ("camus", copied(CAMUS, "database_nifti/patient0002 (1)"), "database_nifti/patient0002 (1)", False),
    ("camus", copied(CAMUS, "database_nifti/patient002"), "database_nifti/patient002", False),
    ("camus", copied(CAMUS, f"{CAMUS}/patient0002"), f"{CAMUS}/patient0002", False),
    ("camus", rename(CAMUS, "database_nifti/patient0009 (1)"), "database_nifti/patient0009 (1)", True),
    (
        "camus",
        rename(f"{CAMUS}/patient0002_2CH_ED.nii.gz", f"{CAMUS}/patient0002_2ch_ED.nii.gz"),
        f"{CAMUS}/patient0002_2ch_ED.nii.gz",
        True,
    ),
    (
        "camus",
        rename(f"{CAMUS}/patient0002_2CH_ED.nii.gz", f"{CAMUS}/0002_2CH_ED.nii.gz"),
        f"{CAMUS}/0002_2CH_ED.nii.gz",
        True,
    ),
    ("camus", write(f"{CAMUS}/patient0002_2CH_ED.png"), f"{CAMUS}/patient0002_2CH_ED.png", False),
    (
        "camus",
        copied(f"{CAMUS}/patient0002_2CH_ED.nii.gz", "patient0002_2CH_ED.nii.gz"),
        "patient0002_2CH_ED.nii.gz",
        False,
    ),
    ("camus", write("database_nifti/patient0009.zip"), "database_nifti/patient0009.zip", True),
    ("camus", write("rest.tar.gz"), "rest.tar.gz", False),
    ("camus 2019", rename("training/patient0002", "training/Patient0002"), "training/Patient0002", True),
    ("ted", rename(TED, "database/patient0002"), "database/patient0002", True),
    (
        "ted",
        rename(f"{TED}/patient002_4CH_sequence.mhd", f"{TED}/patient002_4ch_sequence.mhd"),
        f"{TED}/patient002_4ch_sequence.mhd",
        False,
    ),  # its .raw has the name; the cine is refused as missing
    ("echonet", write("Videos/0X99.avi"), "Videos/0X99.avi", True),
    ("echonet", write("Videos/0X99.mp4"), "Videos/0X99.mp4", True),
    ("echonet", write("more.zip"), "more.zip", False),
    (
        "echonet",
        lambda source: shutil.copy(next((source / "Videos").iterdir()), source / "Videos" / "0X9 (1).AVI"),
        "Videos/0X9 (1).AVI",
        True,
    ),
]


@pytest.mark.parametrize(
    ("name", "damage", "subject", "lost"), PASSED_OVER, ids=[f"{case[0]} {case[2]}" for case in PASSED_OVER]
)
def test_what_looks_like_a_case_and_is_not_taken_is_named(
    name: str,
    damage: Damage,
    subject: str,
    lost: bool,
    copy: Callable[[str], Path],
    raw: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = copy(name)
    damage(source)
    code = convert(SOURCES[name], source, raw)
    report = report_of(raw)
    notes = {
        kind: [note["subject"] for note in report[kind] if note["kind"] == NOT_TAKEN]
        for kind in ("refused", "warnings")
    }
    assert notes == {"refused": [subject] * lost, "warnings": [subject] * (not lost)}
    shown = capsys.readouterr().out
    assert code == bool(report["refused"]) and subject in shown
    assert f"{subject}: " in next(iter(raw.glob("*/conversion_report.txt"))).read_text()


def test_the_terminal_names_each_of_several(
    copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copy("camus")
    for number in range(1, 5):
        write(f"{CAMUS[:-1]}{number}/patient000{number}_2CH_ED.png")(source)
    assert convert(SOURCES["camus"], source, raw) == 0
    shown = capsys.readouterr().out
    assert all(f"patient000{number}_2CH_ED.png" in shown for number in range(1, 5))


@pytest.mark.parametrize(
    ("name", "release", "packed"), [("camus", "database_nifti", "patient0001"), ("ted", "database", "patient001")]
)
def test_patients_that_are_all_packed_are_named(
    name: str, release: str, packed: str, tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "packed" / release).mkdir(parents=True)
    (tmp_path / "packed" / release / f"{packed}.tar").touch()
    (tmp_path / "packed" / "LICENCE").touch()
    assert convert(SOURCES[name], tmp_path / "packed", raw) == 2
    assert f"there is {release}/{packed}.tar.\n" in capsys.readouterr().err


def test_a_document_about_patients_is_no_case(copy: Callable[[str], Path], raw: Path) -> None:
    source = copy("camus")
    for name in ("notes patient 12.docx", "database_nifti/patient0002/patient0002.xlsx", "2CH.log"):
        write(name)(source)
    assert convert(SOURCES["camus"], source, raw) == 0
    assert NOT_TAKEN not in {note["kind"] for note in report_of(raw)["warnings"]}


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_of_a_release_is_called_overlooked(name: str, undamaged: Get, raw: Path) -> None:
    assert convert(SOURCES[name], undamaged(name).folder, raw) == 0
    assert NOT_TAKEN not in {note["kind"] for note in report_of(raw)["warnings"]}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("camus", ("database_nifti",)),
        ("camus 2019", ("training", "testing")),
        ("ted", ("database",)),
        ("ted frames", ("database",)),
    ],
)
def test_all_patients_flat_in_one_folder(
    name: str, parts: tuple[str, ...], copy: Callable[[str], Path], undamaged: Get, raw: Path
) -> None:
    source = copy(name)
    for part in parts:
        for folder in list((source / part).iterdir()):
            for path in folder.iterdir():
                named = path.name if path.name.startswith(folder.name) else f"{folder.name}_{path.name}"
                path.rename(source / part / named)
            folder.rmdir()
    assert convert(SOURCES[name], source, raw) == 0
    assert images(raw) == undamaged(name).images
    (dataset,) = raw.iterdir()
    assert all(row["ef_percent"] for row in table(dataset).values())


@pytest.mark.parametrize("name", ["camus", "ted"])
def test_all_patients_in_folders_of_another_spelling(
    name: str, copy: Callable[[str], Path], undamaged: Get, raw: Path
) -> None:
    """The names of the files tell the patients; the cfg, which names none, is that of the only one in its folder."""
    source = copy(name)
    for folder in list(source.glob("data*/patient*")):
        folder.rename(folder.with_name(folder.name.replace("patient", "Patient-")))
    assert convert(SOURCES[name], source, raw) == 0
    assert images(raw) == undamaged(name).images
    (dataset,) = raw.iterdir()
    assert all(row["ef_percent"] for row in table(dataset).values())


def test_a_view_that_no_patient_has_is_one_warning_with_the_option(
    copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copy("camus")
    for path in source.rglob("*2CH*"):
        path.unlink()
    assert convert(SOURCES["camus"], source, raw) == 0
    notes = [note for note in report_of(raw)["warnings"] if "view" in note["kind"]]
    assert [(note["kind"], note["subject"]) for note in notes] == [("view missing", "2CH")]
    shown = capsys.readouterr().out
    assert "--views 4CH" in shown and "none of 4 patients" in shown
    assert convert(SOURCES["camus"], source, raw.parent / "elsewhere", "--views", "2CH") == 2
    assert "no patientXXXX_VIEW_ED or _ES file of 2CH" in capsys.readouterr().err


def test_a_phantom_of_1_mm_is_not_said_to_have_lost_its_spacing(raw: Path, tmp_path: Path) -> None:
    write_camus(tmp_path / "phantom", 2, 1, spacing_mm=1.0, half_sequence=False)
    assert convert(SOURCES["camus"], tmp_path / "phantom", raw) == 0
    assert "spacing lost" not in {note["kind"] for note in report_of(raw)["warnings"]}


def test_a_copy_of_the_release_that_lost_its_spacing() -> None:
    """A sector is no half metre wide; that a phantom of pixels of 1 mm is as wide as it should be shows in its size."""
    for size, kinds in (((549, 389), ["spacing lost"]), ((180, 150), [])):
        written = {"CAMUS_patient0001_4CH_ED": Written(size=size, spacing=(1.0, 1.0))}
        assert [note.kind for note in review(written)] == kinds


def test_testing_of_the_other_release_is_a_folder_like_any(copy: Callable[[str], Path], raw: Path) -> None:
    """Only where all files are .mhd does the folder `testing` hold other persons, without masks."""
    source = copy("camus")
    (source / "database_nifti").rename(source / "testing")
    assert convert(SOURCES["camus"], source, raw) == 0
    assert "CAMUS_patient0001_4CH_ED" in table(raw / "Dataset751_CAMUS")


def test_copies_of_the_split_lists_that_differ_are_refused(
    copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copy("camus")
    shutil.copytree(source / "database_split", source / "again")
    assert convert(SOURCES["camus"], source, raw) == 0
    path = source / "again" / "subgroup_training.txt"
    path.write_text("\n".join(path.read_text().split()[:-1]) + "\n")
    assert convert(SOURCES["camus"], source, raw.parent / "other") == 2
    assert "holds other split lists than another folder" in capsys.readouterr().err


def test_a_cine_of_another_length_than_its_cfg_says_is_refused(copy: Callable[[str], Path], raw: Path) -> None:
    source = copy("camus cines")
    path = source / CAMUS / "Info_4CH.cfg"
    path.write_text(re.sub(r"NbFrame: (\d+)", lambda match: f"NbFrame: {int(match[1]) + 1}", path.read_text()))
    assert convert(SOURCES["camus cines"], source, raw) == 1
    (note,) = report_of(raw)["refused"]
    assert note["subject"] == "CAMUS_patient0002_4CH" and "it is cut off or another cine" in note["message"]


def test_a_name_that_is_no_utf8_is_reported(copy: Callable[[str], Path], raw: Path) -> None:
    source = copy("camus")
    os.mkdir(os.fsencode(source) + b"/database_nifti/Patient0009\xe9\n")
    assert convert(SOURCES["camus"], source, raw) == 1
    (note,) = report_of(raw)["refused"]
    assert note["subject"] == "database_nifti/Patient0009\\udce9\\n"
