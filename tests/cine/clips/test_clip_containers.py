"""The same cine in every container and every compression: the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_files import FPS, SPACING_MM, coloured, phantom_frames, write_clip, write_dicom_cine, write_folder, write_mp4
from PIL import Image

from nnunet_echo.cine.clips import read_clip
from nnunet_echo.phantom.dicom import SYNTAXES

FRAMES = phantom_frames()
LOSSLESS_DICOM = [f"{syntax}.dcm" for syntax in SYNTAXES if syntax != "jpeg"]


@pytest.mark.parametrize("name", [*LOSSLESS_DICOM, "a.gif", "a.nii", "a.nii.gz", "a.mhd", "a.mha", "folder"])
def test_lossless_files_give_the_frames_that_were_written(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, FRAMES)
    clip = read_clip(tmp_path / name)
    assert (clip.count, clip.shape) == (len(FRAMES), FRAMES.shape[1:])
    for _ in range(2):
        assert np.array_equal(list(clip.frames()), FRAMES)


@pytest.mark.parametrize(
    ("name", "worst", "mean"), [("jpeg.dcm", 20, 2), ("a.avi", 20, 2), ("a.mp4", 12, 2), ("a.mov", 12, 2)]
)
def test_lossy_files_give_nearly_the_frames_that_were_written(
    tmp_path: Path, name: str, worst: int, mean: float
) -> None:
    write_clip(tmp_path / name, FRAMES)
    clip = read_clip(tmp_path / name)
    off = np.abs(np.stack(list(clip.frames())).astype(int) - FRAMES)
    assert off.max() <= worst and off.mean() <= mean


@pytest.mark.parametrize(
    ("name", "times", "spacing"),
    [
        ("jpeg.dcm", "FrameTime", "ultrasound region"),
        ("a.avi", "container", "none"),
        ("a.mp4", "container", "none"),
        ("a.gif", "container", "none"),
        ("folder", "none", "none"),
        ("a.nii.gz", "none", "file"),
        ("a.mhd", "none", "file"),
    ],
)
def test_where_times_and_spacing_come_from(tmp_path: Path, name: str, times: str, spacing: str) -> None:
    write_clip(tmp_path / name, FRAMES)
    clip = read_clip(tmp_path / name)
    assert (clip.time_source, clip.spacing_source) == (times, spacing)
    names = {finding.name for finding in clip.findings}
    assert ("time_missing" in names) == (times == "none") and ("scale_missing" in names) == (spacing == "none")
    if times != "none":
        assert np.allclose(clip.times_s, np.arange(len(FRAMES)) / FPS, atol=1e-6)
    if spacing != "none":
        assert np.allclose(clip.spacing_mm, SPACING_MM)
    by_hand = read_clip(tmp_path / name, fps=25, spacing=(0.3, 0.4))
    assert (by_hand.time_source, by_hand.spacing_source) == ("by the user", "by the user")
    assert by_hand.spacing_mm == (0.3, 0.4) and by_hand.times_s[1] == 1 / 25
    names = {finding.name for finding in by_hand.findings}
    assert not names & {"time_missing", "scale_missing"}
    assert ("fps_differs_from_file" in names) == (times != "none")


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "rle", "jpeg", "jpeg 2000", "jpeg-ls", "deflated"])
def test_colour_becomes_luma(tmp_path: Path, syntax: str) -> None:
    rgb = coloured(FRAMES)
    write_dicom_cine(tmp_path / "a.dcm", rgb, syntax=syntax)
    luma = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in rgb])
    off = np.abs(np.stack(list(read_clip(tmp_path / "a.dcm").frames())).astype(int) - luma)
    assert off.max() <= (25 if syntax == "jpeg" else 0) and off.mean() < 2
    assert (luma[:, 3, 4] == round(0.587 * 200)).all()


def test_a_folder_of_coloured_and_of_16_bit_pictures(tmp_path: Path) -> None:
    write_folder(tmp_path / "colour", coloured(FRAMES))
    frames = np.stack(list(read_clip(tmp_path / "colour").frames()))
    assert np.array_equal(frames[:, 6:], FRAMES[:, 6:]) and (frames[:, 3, 4] == 117).all()
    write_folder(tmp_path / "deep", FRAMES.astype(np.uint16) * 257)
    assert np.array_equal(list(read_clip(tmp_path / "deep").frames()), FRAMES)


def test_a_video_within_dicom(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", FRAMES)
    data = (tmp_path / "a.mp4").read_bytes()
    data += b"\0" * (len(data) % 2)
    for parts in (1, 3):  # one fragment, or several
        cut = [data[at * len(data) // parts // 2 * 2 : (at + 1) * len(data) // parts // 2 * 2] for at in range(parts)]
        assert b"".join(cut) == data
        path = tmp_path / f"{parts}.dcm"
        write_dicom_cine(
            path,
            np.repeat(FRAMES[..., None], 3, axis=3),
            syntax="1.2.840.10008.1.2.4.102",
            encoded=cut,
            tags={"PhotometricInterpretation": "YBR_PARTIAL_420"},
        )
        clip = read_clip(path)
        assert (clip.time_source, clip.spacing_mm, clip.count) == ("FrameTime", (0.5, 0.5), len(FRAMES))
        assert np.array_equal(list(clip.frames()), list(read_clip(tmp_path / "a.mp4").frames()))


def test_a_video_keeps_the_times_of_its_frames(tmp_path: Path) -> None:
    times = [0, 20, 40, 70, 90, 110, 130, 150]
    write_mp4(tmp_path / "a.mkv", FRAMES, times=times)
    clip = read_clip(tmp_path / "a.mkv")
    assert np.allclose(clip.times_s * 1000, times)
    write_mp4(tmp_path / "b.mkv", FRAMES, times=[0, 20, 40, 60, 80, 180, 200, 220])
    assert "frames_missing" in {finding.name for finding in read_clip(tmp_path / "b.mkv").findings}


def test_a_header_that_counts_its_frames_wrongly_is_reported(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", FRAMES)
    data = bytearray((tmp_path / "a.avi").read_bytes())
    data[data.index(b"strh") + 40] = len(FRAMES) + 1  # its length in frames
    (tmp_path / "a.avi").write_bytes(data)
    clip = read_clip(tmp_path / "a.avi")
    assert clip.count == len(FRAMES) and "frame_count_differs" in {finding.name for finding in clip.findings}
