"""Downloads as people have them: other layouts are read or named, and nothing that looks like a case is passed over."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import table
from echonet_download import regular_videos
from hard_ground import SOURCES, Undamaged, convert, images

from nnunet_echo.data.cases import Written
from nnunet_echo.data.findings import NOT_TAKEN
from nnunet_echo.data.tables import whole_number
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.camus.review import review

pytest_plugins = ("hard_ground",)
Get = Callable[[str], Undamaged]
Damage = Callable[[Path], object]


@pytest.fixture
def copy(undamaged: Get, raw: Path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(undamaged(name).folder, raw.parent / "source")


def report_of(raw: Path) -> dict:
    (path,) = raw.glob("*/conversion_report.json")
    return json.loads(path.read_text())


def rename(old: str, new: str) -> Damage:
    return lambda source: (source / old).rename(source / new)


def copied(old: str, new: str) -> Damage:
    return lambda source: (shutil.copytree if (source / old).is_dir() else shutil.copy)(source / old, source / new)


def write(name: str) -> Damage:
    return lambda source: (source / name).write_bytes(b"x")


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
    ),  # its .raw has the name; the film is refused as missing
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
    assert f"there is {release}/{packed}.tar\n" in capsys.readouterr().err


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


def names_to(change: Callable[[str], str], *tables: str) -> Damage:
    """Change the column FileName."""

    def apply(source: Path) -> None:
        for name in tables or ("FileList.csv", "VolumeTracings.csv"):
            header, *rows = (source / name).read_text().splitlines()
            changed = [f"{change(row.split(',')[0].removesuffix('.avi'))},{row.partition(',')[2]}" for row in rows]
            (source / name).write_text("\n".join([header, *changed]) + "\n")

    return apply


def in_list(old: str, new: str) -> Damage:
    return lambda source: (source / "FileList.csv").write_text((source / "FileList.csv").read_text().replace(old, new))


def move_videos(folder: str, ending: str = ".avi") -> Damage:
    def apply(source: Path) -> None:
        (source / "Videos").rename(source / "old")
        (source / folder).mkdir(parents=True, exist_ok=True)
        for path in (source / "old").iterdir():
            path.rename(source / folder / f"{path.stem}{ending}")
        (source / "old").rmdir()

    return apply


@pytest.mark.parametrize(
    "change",
    [
        move_videos("videos"),
        move_videos("VIDEOS"),
        move_videos("."),
        move_videos("a4c-video-dir"),
        move_videos("data/Videos"),
        move_videos("Videos", ".AVI"),
        names_to(lambda name: f"{name}.AVI"),
        names_to(lambda name: f"Videos/{name}.avi"),
        names_to(lambda name: f"/home/me/EchoNet-Dynamic/Videos/{name}.avi", "FileList.csv"),
        names_to(lambda name: f"Videos\\{name}.avi"),
        lambda source: (move_videos("more/a4c/x")(source), names_to(lambda name: f"x/{name}.avi")(source)),
        in_list(",VAL", ",Valid"),
    ],
)
def test_echonet_as_people_have_it(change: Damage, copy: Callable[[str], Path], undamaged: Get, raw: Path) -> None:
    source = copy("echonet")
    change(source)
    assert convert(SOURCES["echonet"], source, raw) == 0
    assert images(raw) == undamaged("echonet").images
    assert {row["subset"] for row in table(raw / "Dataset752_EchoNetDynamic").values()} == {"TRAIN", "VAL", "TEST"}


def only_one_test_video(source: Path) -> None:
    lines = (source / "FileList.csv").read_text().splitlines()
    (source / "FileList.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith("TEST"))]))


def pediatric(source: Path) -> None:
    for view in ("A4C", "PSAX"):
        (source / view / "Videos").mkdir(parents=True)
        (source / view / "FileList.csv").write_text("FileName,EF,Sex,Age,Weight,Height,Split\nCR1.avi,60,F,1,3,1,0\n")
        (source / view / "VolumeTracings.csv").write_text("FileName,X,Y,Frame\nCR1.avi,1,2,No Systolic\n")
    (source / "FileList.csv").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda source: shutil.rmtree(source / "Videos"), "no videos, Videos/NAME.avi, beside FileList.csv"),
        (move_videos("Videos", ".mp4"), "there is Videos/0X"),
        (
            names_to(lambda name: f"elsewhere/{name}.avi", "FileList.csv"),
            "can be used; the first: FileList.csv, line 2: ",
        ),
        (in_list(",", ";"), "separated by commas"),
        (only_one_test_video, "0 are left outside the test list, too few for any split"),
        (pediatric, "as in EchoNet-Pediatric"),
    ],
)
def test_echonet_that_cannot_be_read_is_one_error(
    damage: Damage, said: str, copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copy("echonet")
    damage(source)
    assert convert(SOURCES["echonet"], source, raw) == 2
    shown = capsys.readouterr().err
    assert said in shown and "use --split 5fold" not in shown and not list(raw.iterdir())


def test_a_video_in_two_folders_is_refused(
    copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = copy("echonet")
    move_videos("a")(source)
    name = regular_videos()[0].name
    (source / "b").mkdir()
    shutil.copy(source / "a" / f"{name}.avi", source / "b")
    assert convert(SOURCES["echonet"], source, raw) == 1
    assert f"there are a/{name}.avi and b/{name}.avi" in capsys.readouterr().out


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


ABSURD = ("1e15", "1e300", "inf", "nan", "-1", "1.5", "", "many", "1_0", "99999999999999999999")
FIELDS = [
    ("echonet", "VolumeTracings.csv", 5),
    ("echonet clips", "VolumeTracings.csv", 5),
    ("echonet clips", "FileList.csv", 7),
]


def absurd(fields: list[tuple]) -> list:
    """Every value in the first of the fields, a telling one in the others; the rest is slow."""
    return [
        pytest.param(
            *field,
            value,
            marks=[pytest.mark.slow] * (field != fields[0] and value != "1e300"),
            id=" ".join(map(str, (*field, value))),
        )
        for field in fields
        for value in ABSURD
    ]


@pytest.mark.parametrize(("name", "file", "column", "value"), absurd(FIELDS))
def test_a_frame_number_that_is_absurd_costs_its_video_alone(
    name: str, file: str, column: int, value: str, copy: Callable[[str], Path], undamaged: Get, raw: Path
) -> None:
    source = copy(name)
    person = regular_videos()[0].name
    for path in [source / file]:
        header, *rows = path.read_text().splitlines()
        change = [
            ",".join([*row.split(",")[:column], value, *row.split(",")[column + 1 :]])
            if row.startswith(person)
            else row
            for row in rows
        ]
        path.write_text("\n".join([header, *change]) + "\n")
    assert convert(SOURCES[name], source, raw) in (0, 1)
    report = report_of(raw)
    assert person in " ".join(note["subject"] for note in report["refused"] + report["warnings"])
    rest = {image: digest for image, digest in undamaged(name).images.items() if person not in image}
    assert rest == {image: digest for image, digest in images(raw).items() if person not in image}


def test_whole_numbers_are_those_that_a_float_can_tell() -> None:
    texts = ["0", "17", "1.0", " 2 ", "9007199254740991", *ABSURD[1:], "9007199254740993"]
    assert [whole_number(text) for text in texts] == [0, 17, 1, 2, 2**53 - 1] + [None] * 10


@pytest.mark.parametrize("frame", ["200000", "1000000000000000"])
def test_a_clip_without_a_known_number_of_frames(
    frame: str, copy: Callable[[str], Path], raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing tells that a frame is not there before the video is opened, and the list of frames would fill memory."""
    source, person = copy("echonet clips"), regular_videos()[0].name
    for name in ("FileList.csv", "VolumeTracings.csv"):
        text = (source / name).read_text()
        text = (
            re.sub(rf"(?m)^({person}\b.*),\d+,([A-Z]+)$", r"\1,,\2", text)
            if name == "FileList.csv"
            else re.sub(rf"(?m)^({person}\.avi.*),{regular_videos()[0].ed}$", rf"\1,{frame}", text)
        )
        (source / name).write_text(text)
    assert convert(SOURCES["echonet clips"], source, raw) == 1
    assert f"frame {frame} is traced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "keep"),
    [*((value, False) for value in ("1e300", "inf", "nan", "", "1_0")), ("1e15", True), ("nan", True)],
)
def test_a_coordinate_that_is_absurd_costs_its_video_alone(
    value: str, keep: bool, copy: Callable[[str], Path], undamaged: Get, raw: Path
) -> None:
    source, person = copy("echonet"), regular_videos()[0].name
    header, *rows = (source / "VolumeTracings.csv").read_text().splitlines()
    first = next(index for index, row in enumerate(rows) if row.startswith(person)) + 4
    rows[first] = re.sub(r"^([^,]*),[^,]*", rf"\1,{value}", rows[first])
    (source / "VolumeTracings.csv").write_text("\n".join([header, *rows]) + "\n")
    assert convert(SOURCES["echonet"], source, raw, *["--keep-irregular"] * keep) == 1
    (note,) = report_of(raw)["refused"]
    assert person in note["subject"] and f"X1 {value!r}" in note["message"]
    assert images(raw) == {
        image: digest for image, digest in undamaged("echonet").images.items() if person not in image
    }


@pytest.mark.parametrize(
    ("name", "field", "value"),
    absurd(
        [
            (name, field)
            for field in ("NbFrame", "ED", "ES", "EF", "FrameRate")
            for name in ("camus films", "ted", "ted frames")
        ]
    ),
)
def test_a_number_of_a_cfg_that_is_absurd_costs_its_case_alone(
    name: str, field: str, value: str, copy: Callable[[str], Path], undamaged: Get, raw: Path
) -> None:
    source = copy(name)
    person = "patient002" if "ted" in name else "patient0002"
    (path,) = source.rglob(f"{person}/*4CH*.cfg")
    text = path.read_text()
    path.write_text(re.sub(rf"(?m)^{field}: .*$", f"{field}: {value}", text))
    assert convert(SOURCES[name], source, raw) in (0, 1)
    report = report_of(raw)
    said = " ".join(note["subject"] + note["message"] for note in report["refused"] + report["warnings"])
    assert field == "FrameRate" or (field, value) == ("EF", "1.5") or path.read_text() == text or person in said
    if field in ("ED", "ES", "NbFrame") and value and name != "ted":
        assert any(person in note["subject"] for note in report["refused"]), "it is refused"
    rest = {image: digest for image, digest in undamaged(name).images.items() if person not in image}
    assert rest == {image: digest for image, digest in images(raw).items() if person not in image}


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


def test_a_film_of_another_length_than_its_cfg_says_is_refused(copy: Callable[[str], Path], raw: Path) -> None:
    source = copy("camus films")
    path = source / CAMUS / "Info_4CH.cfg"
    path.write_text(re.sub(r"NbFrame: (\d+)", lambda match: f"NbFrame: {int(match[1]) + 1}", path.read_text()))
    assert convert(SOURCES["camus films"], source, raw) == 1
    (note,) = report_of(raw)["refused"]
    assert note["subject"] == "CAMUS_patient0002_4CH" and "it is cut off or another cine" in note["message"]


def test_a_name_that_is_no_utf8_is_reported(copy: Callable[[str], Path], raw: Path) -> None:
    source = copy("camus")
    os.mkdir(os.fsencode(source) + b"/database_nifti/Patient0009\xe9\n")
    assert convert(SOURCES["camus"], source, raw) == 1
    (note,) = report_of(raw)["refused"]
    assert note["subject"] == "database_nifti/Patient0009\\udce9\\n"
