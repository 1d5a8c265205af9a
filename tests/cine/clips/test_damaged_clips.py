"""300 clips damaged at random: an error, a finding, or the frames of the undamaged clip.

Formats with a checksum, or whose structure is damaged, keep to that without exception. Where the bytes of pixels have
no checksum (uncompressed, JPEG, JPEG 2000, RLE, deflate, GIF, H.264, MetaImage) a changed byte can give another picture
that no reader can tell from a true one; what is asked for there is that the picture is nearly the same. That numbers
are, too, is asked in tests/end_to_end/test_damaged_numbers.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from clip_files import phantom_frames, real_file, write_clip, write_dicom_cine
from damaged_clips import COMPRESSED, FILES, damaged_clips
from numpy import ndarray

from nnunet_echo.cine.clips import ClipError, read_clip
from nnunet_echo.cine.clips.fragments import encapsulated_frames
from nnunet_echo.cine.clips.header import read_header

CHECKED = {"a.nii.gz", "folder"}
UNNOTICED = 0.15  # the share of a frame's pixels that may be off by more than 8 grey levels where there is no checksum


@cache
def real_frames() -> ndarray:
    """A few frames (T, H, W) of a real loop, small."""
    frames = read_clip(real_file("examples_ybr_color.dcm")).frames()
    return np.stack([frame[::2, ::2] for frame, _ in zip(frames, range(8), strict=False)])


@pytest.mark.parametrize("name", FILES)
def test_no_damage_is_silent(tmp_path: Path, name: str, capfd: pytest.CaptureFixture) -> None:
    for clip in damaged_clips(tmp_path, name, real_frames()):
        if clip.found == "silent":
            assert clip.unnoticed and name not in CHECKED, (clip.seed, clip.damage)
            assert clip.off < UNNOTICED, (clip.seed, clip.damage, clip.off)
    assert capfd.readouterr() == ("", "")  # no library says anything of its own


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("how", ["lost", "twice", "empty"])
def test_a_frame_lost_or_doubled(tmp_path: Path, name: str, how: str) -> None:
    path = tmp_path / name
    write_clip(path, real_frames())
    header = read_header(path, name)
    with path.open("rb") as file:
        [(start, length)] = encapsulated_frames(file, name, header.pixels_start, header.count)[3]
    data = path.read_bytes()
    item = data[start - 8 : start + length]
    changed = {"lost": b"", "twice": item * 2, "empty": item[:4] + bytes(4)}[how]
    path.write_bytes(data[: start - 8] + changed + data[start + length :])
    with pytest.raises(ClipError):
        read_clip(path)


def test_a_frame_of_another_moment_is_reported(tmp_path: Path) -> None:
    frames = real_frames().copy()
    frames[4] = np.roll(frames[4], 12, axis=1)
    write_clip(tmp_path / "folder", frames)
    clip = read_clip(tmp_path / "folder")
    [finding] = [finding for finding in clip.findings if finding.name == "frame_unlike_neighbours"]
    assert "Frame 5:" in finding.text
    frames = real_frames().copy()
    frames[0] = 255 - frames[0]
    write_clip(tmp_path / "first", frames)
    assert "frame_unlike_neighbours" in {finding.name for finding in read_clip(tmp_path / "first").findings}


def test_a_picture_that_has_lost_its_shades_is_reported(tmp_path: Path) -> None:
    """Values of 12 bits are 17 levels of 16, unless the file says how many bits there are, or what is white."""
    path, frames = tmp_path / "a.dcm", phantom_frames(2)

    def few(pixels: ndarray, **options: object) -> list[str]:
        write_dicom_cine(path, pixels, **options)
        return [finding.text for finding in read_clip(path).findings if finding.name == "few_grey_levels"]

    deep = frames.astype(np.uint16) * 16
    [text] = few(deep)
    assert text.startswith("All frames together have 17 grey levels, the brightest is 16 of 255: ")
    assert few(deep, tags={"BitsStored": 12, "HighBit": 11}) == []
    assert few(deep, tags={"WindowCenter": 2048, "WindowWidth": 4096}) == []
    assert few(frames) == few(frames, syntax="jpeg") == []
    levels = np.arange(frames[0].size).reshape(frames[:1].shape)
    assert few((levels % 32 * 8).astype(np.uint8)) == [] and few((levels % 31 * 8).astype(np.uint8)) != []
    assert few((levels % 49).astype(np.uint8)) == [] and few((levels % 48).astype(np.uint8)) != []
    dark = frames // 16
    dark[:, :10] = np.arange(dark.shape[2]) * 2  # text
    assert few(dark) == [] and few(dark, region=(20, 70, 0, 90)) != []
