"""EchoNet-Dynamic and -Pediatric as people have them: other folders of videos, lists that differ, unreadable ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from camus_download import table
from echonet_download import regular_videos
from hard_downloads import Damage, Get
from hard_ground import SOURCES, convert, images

pytest_plugins = ("hard_downloads",)


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
