"""Numbers in tables and cfg files that cannot be: each costs its own case, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from echonet_download import regular_videos
from hard_downloads import Get, report_of
from hard_ground import SOURCES, convert, images

from nnunet_echo.data.tables import whole_number

pytest_plugins = ("hard_downloads",)


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
            for name in ("camus cines", "ted", "ted frames")
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
