"""NIfTI and MetaImage as clips: whose spacing is a scale, and their grey. Folders of pictures, and strays in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from clip_files import phantom_frames, write_folder, write_volume

from nnunet_echo.cine.clips import Clip, ClipError, read_clip
from nnunet_echo.cine.clips.images import entries_of
from nnunet_echo.cine.masks import Masks, write_nifti

FRAMES = phantom_frames(4)


def names(clip: Clip) -> list[str]:
    return [finding.name for finding in clip.findings if finding.name != "time_missing"]


def nifti(path: Path, spacing: tuple[float, float], units: int, frames: np.ndarray = FRAMES) -> Clip:
    write_volume(path, frames, spacing)
    data = bytearray(path.read_bytes())
    assert data[123] == 10  # SimpleITK names mm and seconds
    data[123] = units
    path.write_bytes(data)
    return read_clip(path)


def test_pixels_of_one_by_one_without_a_unit_are_no_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    for units in (0, 8):  # seconds alone
        clip = nifti(path, (1, 1), units)
        assert (clip.spacing_mm, clip.spacing_source, names(clip)) == (None, "none", ["scale_missing"])
    assert nifti(path, (1, 1), 0, FRAMES[:1]).spacing_mm is None
    assert read_clip(path, spacing=(1.0, 1.0)).spacing_source == "by the user"
    for units in (2, 10):
        clip = nifti(path, (1, 1), units)
        assert (clip.spacing_mm, clip.spacing_source, names(clip)) == ((1, 1), "file", [])


def test_another_spacing_without_a_unit_is_taken_for_mm_and_flagged(tmp_path: Path) -> None:
    """As nibabel writes it, which names no unit unless it is told to."""
    clip = nifti(tmp_path / "a.nii", (0.5, 1), 0)
    assert (clip.spacing_mm, clip.spacing_source, names(clip)) == ((0.5, 1), "file", ["scale_unit_assumed"])
    assert names(nifti(tmp_path / "a.nii", (5, 5), 0)) == ["scale_outside_limits"]
    assert names(read_clip(tmp_path / "a.nii", spacing=(0.5, 0.5))) == []


def test_units_of_nifti(tmp_path: Path) -> None:
    assert nifti(tmp_path / "a.nii", (0.0005, 0.001), 1).spacing_mm == pytest.approx((0.5, 1))  # metres
    assert nifti(tmp_path / "a.nii", (500, 1000), 3).spacing_mm == pytest.approx((0.5, 1))  # micrometres


def test_our_own_masks_of_a_clip_without_a_scale_have_none(tmp_path: Path) -> None:
    masks = Masks(FRAMES // 64)
    for spacing in (None, (0.5, 1.0), (1.0, 1.0)):
        write_nifti(tmp_path / "masks.nii.gz", masks, spacing, 0.02)
        assert read_clip(tmp_path / "masks.nii.gz").spacing_mm == spacing


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_a_spacing_that_no_echo_has_is_a_scale_refused(tmp_path: Path, ending: str) -> None:
    """As in DICOM: EF needs none."""
    for spacing in ((300, 300), (0.01, 0.01), (3, 3)):
        write_volume(tmp_path / f"a{ending}", FRAMES, spacing)
        clip = read_clip(tmp_path / f"a{ending}")
        assert (clip.spacing_mm, names(clip)) == (None, ["scale_outside_limits"])


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_values_that_are_not_grey_of_8_bits(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    for frames in (
        FRAMES.astype(np.uint16) * 16,
        FRAMES / 255,
        FRAMES.astype(np.int16) - 1,
        FRAMES[0].astype(float) * 2,
    ):
        sitk.WriteImage(sitk.GetImageFromArray(frames), str(path))
        with pytest.raises(ClipError, match="are not all whole numbers in 0..255") as caught:
            read_clip(path)
        assert caught.value.remedy == "Scale the grey to 0..255, round it, and save it as 8 bits"
        assert not any(word in str(caught.value) for word in ("release", "dataset.json", "original"))
    sitk.WriteImage(sitk.GetImageFromArray(FRAMES.astype(np.float32)), str(path))
    assert np.array_equal(list(read_clip(path).frames()), FRAMES)


def test_an_ending_in_capitals_is_verified_too(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", FRAMES)
    data, path = (tmp_path / "a.nii.gz").read_bytes(), tmp_path / "A.NII.GZ"
    path.write_bytes(data)
    assert np.array_equal(list(read_clip(path).frames()), FRAMES)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match=r"A\.NII\.GZ: truncated"):
        read_clip(path)


@pytest.mark.parametrize("name", ["Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", ".DS_Store", "._frame_1.png"])
def test_what_systems_leave_in_a_folder_is_passed_over(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    write_folder(folder, FRAMES)
    (folder / name).write_text("x")
    assert np.array_equal(list(read_clip(folder).frames()), FRAMES)
    assert {path.suffix for path in entries_of(folder)} == {".png"}


def test_what_else_lies_in_a_folder_is_named(tmp_path: Path) -> None:
    def error_of(name: str) -> str:
        with pytest.raises(ClipError) as caught:
            read_clip(tmp_path / name)
        return str(caught.value)

    write_folder(tmp_path / "notes", FRAMES)
    (tmp_path / "notes" / "notes\n.txt").write_text("x")
    assert (
        error_of("notes")
        == r"notes: the folder holds notes\n.txt beside its pictures. Move it elsewhere, or remove it."
    )
    write_folder(tmp_path / "below", FRAMES)
    (tmp_path / "below" / "sub.png").mkdir()
    assert "the folder holds sub.png beside its pictures" in error_of("below")
    write_folder(tmp_path / "pipe", FRAMES[:1])
    (tmp_path / "pipe" / "gone.png").symlink_to("nowhere")
    assert "the folder holds gone.png beside its pictures" in error_of("pipe")
    write_folder(tmp_path / "kinds", FRAMES)
    (tmp_path / "kinds" / "frame_2.png").rename(tmp_path / "kinds" / "frame_2.jpg")
    assert "the folder holds pictures of several kinds, .jpg, .png. Give a folder" in error_of("kinds")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "Thumbs.db").write_text("x")
    assert "the folder holds nothing. Give a folder" in error_of("none")
    (tmp_path / "none" / "IM_0001").write_text("x")
    (tmp_path / "none" / "a.dcm").write_text("x")
    assert "the folder holds no pictures, but IM_0001, a.dcm. Give a folder" in error_of("none")
