"""The phantom in the layout of EchoNet-Dynamic: files, known truth, oddities, reproducible bytes, the command."""

from __future__ import annotations

import csv
import hashlib
import struct
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from skimage.draw import polygon

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.echonet import phantom as phantom_echonet
from nnunet_echo.dataset_conversion.echonet.phantom import LINES, ODDITIES, SIZE, echonet_video, write_echonet
from nnunet_echo.phantom.heart import LV

VIDEOS, SEED = 12, 5


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "EchoNet"
    write_echonet(folder, VIDEOS, SEED, workers=1)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_and_headers(out: Path) -> None:
    names = [echonet_video(SEED, number).name for number in range(1, VIDEOS + 1)]
    videos = {f"Videos/{name}.avi" for name in names}
    assert set(hashes(out)) == {"FileList.csv", "VolumeTracings.csv", "PHANTOM.txt"} | videos
    rows = table(out / "FileList.csv")
    assert ",".join(rows[0]) == "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    assert [row["FileName"] for row in rows] == names
    assert ",".join(table(out / "VolumeTracings.csv")[0]) == "FileName,X1,Y1,X2,Y2,Frame"
    assert Counter(row["Split"] for row in rows) == {"TRAIN": 9, "VAL": 2, "TEST": 1}
    for number, row in enumerate(rows, 1):
        edv, esv = float(row["EDV"]), float(row["ESV"])
        assert float(row["EF"]) == pytest.approx(100 * (edv - esv) / edv, abs=1e-9)
        assert float(row["EF"]) == pytest.approx(echonet_video(SEED, number).heart.ef_percent, abs=1e-9)
        header = (out / "Videos" / f"{row['FileName']}.avi").read_bytes()[:240]
        assert header[:4] == b"RIFF" and header[8:12] == b"AVI " and header[112:116] == b"MJPG"
        assert struct.unpack_from("<I", header, 48)[0] == int(row["NumberOfFrames"])


def test_tracings_outline_the_true_ventricle(out: Path) -> None:
    lines = defaultdict(list)
    for row in table(out / "VolumeTracings.csv"):
        lines[row["FileName"], int(row["Frame"])].append([float(row[key]) for key in ("X1", "Y1", "X2", "Y2")])
    for number in range(1, VIDEOS + 1 - len(ODDITIES)):
        video, areas = echonet_video(SEED, number), {}
        for frame in (video.ed, video.es):
            x1, y1, x2, y2 = np.array(lines[f"{video.name}.avi", frame])[1:].T
            assert len(x1) == LINES and 0 <= frame < video.frames
            mask = np.zeros((SIZE, SIZE), bool)
            mask[polygon(np.append(y1, y2[::-1]), np.append(x1, x2[::-1]), mask.shape)] = True
            truth = video.section(frame).labels(*video.grid()) == LV
            assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.94
            areas[frame] = mask.sum()
        assert areas[video.ed] > areas[video.es]
        assert video.section(video.ed).contraction == 0 and video.section(video.es).contraction == pytest.approx(1)


@pytest.fixture
def black(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos without a picture, where only the tables matter."""
    monkeypatch.setattr(phantom_echonet, "ultrasound", lambda *_: np.zeros((SIZE, SIZE), np.uint8))


@pytest.mark.usefixtures("black")
def test_the_oddities_of_the_release(out: Path, tmp_path: Path) -> None:
    groups = Counter((row["FileName"], row["Frame"]) for row in table(out / "VolumeTracings.csv"))
    listed = [row["FileName"] for row in table(out / "FileList.csv")]
    assert Counter(groups.values()) == {21: 2 * VIDEOS - 2, 20: 1, 42: 1}  # with the orphan, without the untraced
    assert {name.removesuffix(".avi") for name, _ in groups} ^ set(listed) == {
        echonet_video(SEED, VIDEOS + 1).name,
        listed[-1],
    }
    assert [row["FrameHeight"] for row in table(out / "FileList.csv")] == ["112"] * (VIDEOS - 1) + ["768"]
    write_echonet(tmp_path, VIDEOS, SEED, oddities=False, workers=1)
    clean = table(tmp_path / "VolumeTracings.csv")
    assert set(Counter((row["FileName"], row["Frame"]) for row in clean).values()) == {21}
    assert {row["FileName"].removesuffix(".avi") for row in clean} == set(listed)
    ends = {tuple(row.values()) for row in clean}
    turned = [
        row
        for row in table(out / "VolumeTracings.csv")
        if (row["FileName"], row["X2"], row["Y2"], row["X1"], row["Y1"], row["Frame"]) in ends
    ]
    assert len(turned) == 1


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_workers_and_the_number(out: Path, tmp_path: Path) -> None:
    before = hashes(out)
    next((out / "Videos").iterdir()).unlink()
    write_echonet(out, VIDEOS, SEED, workers=2)
    assert hashes(out) == before
    write_echonet(tmp_path / "fewer", 2, SEED, workers=1)
    videos = {name: digest for name, digest in hashes(tmp_path / "fewer").items() if name.startswith("Videos/")}
    assert len(videos) == 2 and videos.items() <= before.items()


def test_a_folder_of_something_else_is_left_alone(out: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for folder, videos in ((tmp_path, 2), (out, VIDEOS + 1)):
        before = hashes(folder)
        with pytest.raises(FileExistsError, match="Choose another folder"):
            write_echonet(folder, videos, SEED)
        assert hashes(folder) == before
    with pytest.raises(ValueError, match="videos=0: must be 1 or more"):
        write_echonet(tmp_path / "new", 0, SEED)


@pytest.mark.usefixtures("black")
def test_command_line(tmp_path: Path) -> None:
    options = ["--videos", "10", "--seed", str(SEED), "--no-oddities", "--workers", "1"]
    assert main(["phantom", "echonet", str(tmp_path / "out"), *options]) == 0
    assert len(table(tmp_path / "out" / "FileList.csv")) == 10
    assert len(table(tmp_path / "out" / "VolumeTracings.csv")) == 10 * 2 * 21
