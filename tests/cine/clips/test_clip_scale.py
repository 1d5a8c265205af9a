"""The scale: from the region of tissue, refused with a name where it cannot be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_files import phantom_frames, real_file, write_clip, write_dicom_cine

from nnunet_echo.cine.clips import Clip, ClipError, read_clip
from nnunet_echo.cine.clips.scale import Region, choose_region, find_scale
from nnunet_echo.phantom.dicom import region_item

SHAPE = (100, 200)
GOOD = Region(1, 1, 10, 90, 20, 180, (3, 3), (0.03, 0.04))
FRAMES = phantom_frames(2)


def names(clip: Clip) -> set[str]:
    return {finding.name for finding in clip.findings}


def test_a_good_region_is_the_scale() -> None:
    assert find_scale(GOOD, SHAPE) == ((0.3, 0.4), "ultrasound region", [])
    assert GOOD.box(SHAPE) == (10, 91, 20, 181)
    assert find_scale(replace(GOOD, delta=(-0.03, 0.04)), SHAPE)[0] == (0.3, 0.4)  # upwards


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"units": (3, 4)}, "scale_units"),
        ({"units": (0, 3)}, "scale_units"),
        ({"delta": (0.0, 0.04)}, "scale_not_positive"),
        ({"delta": (0.03, float("nan"))}, "scale_not_positive"),
        ({"delta": (0.004, 0.04)}, "scale_outside_limits"),
        ({"delta": (0.03, 0.21)}, "scale_outside_limits"),
        ({"y1": 101}, "scale_outside_image"),
        ({"x1": 201}, "scale_outside_image"),
        ({"y0": 95}, "scale_outside_image"),
        ({"x0": -1}, "scale_outside_image"),
    ],
)
def test_a_region_that_cannot_be_true_is_no_scale(change: dict, name: str) -> None:
    scale, source, findings = find_scale(replace(GOOD, **change), SHAPE)
    assert (scale, source, [finding.name for finding in findings]) == (None, "none", [name])


def test_a_region_may_end_with_the_row_after_the_picture() -> None:
    assert find_scale(replace(GOOD, y1=100, x1=200), SHAPE)[0] == (0.3, 0.4)
    assert replace(GOOD, y1=100, x1=200).box(SHAPE) == (10, 100, 20, 200)


@pytest.mark.parametrize(
    ("spacing", "name"),
    [((0.3, 0.4), None), ((0.302, 0.4), None), ((0.31, 0.4), "scale_contradicted"), ((0, 1), "scale_contradicted")],
)
def test_region_and_pixel_spacing_must_agree(spacing: tuple[float, float], name: str | None) -> None:
    scale, _, findings = find_scale(GOOD, SHAPE, pixel_spacing=spacing)
    assert [finding.name for finding in findings] == ([name] if name else [])
    assert scale == (None if name else (0.3, 0.4))


def test_pixel_spacing_alone() -> None:
    assert find_scale(None, SHAPE, pixel_spacing=(0.3, 0.4)) == ((0.3, 0.4), "PixelSpacing", [])
    assert find_scale(None, SHAPE, pixel_spacing=(30, 40))[2][0].name == "scale_outside_limits"
    assert find_scale(None, SHAPE)[2][0].name == "scale_missing"
    assert find_scale(None, SHAPE, any_regions=True)[2][0].name == "scale_no_tissue_region"


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([GOOD, replace(GOOD, spatial_format=2, y0=91, y1=99)], "M-mode"),
        ([replace(GOOD, spatial_format=3, data_type=3)], "spectral Doppler"),
        ([replace(GOOD, spatial_format=3, data_type=4)], "spectral Doppler"),
        ([replace(GOOD, data_type=2)], "colour Doppler"),
        ([replace(GOOD, x1=99), replace(GOOD, x0=100)], "side by side"),
    ],
)
def test_other_pictures_are_refused_and_say_which(regions: list[Region], said: str) -> None:
    with pytest.raises(ClipError, match=said):
        choose_region("a.dcm", regions, SHAPE)


def test_the_region_of_the_picture_is_chosen() -> None:
    trace = Region(4, 10, 92, 99, 20, 180, (4, 0), (0.01, 0.0))  # of the ECG
    bar = Region(1, 1, 10, 90, 190, 191, (3, 3), (0.03, 0.04))
    assert choose_region("a.dcm", [trace, GOOD, bar], SHAPE) == GOOD
    assert choose_region("a.dcm", [GOOD, GOOD], SHAPE) == GOOD
    assert choose_region("a.dcm", [trace], SHAPE) is None
    halves = [replace(GOOD, x1=99), replace(GOOD, x0=100)]
    assert choose_region("a.dcm", halves, SHAPE, 2) == halves[1]
    for number in (0, 3):
        with pytest.raises(ClipError, match="it has 2 ultrasound regions. Give one of them"):
            choose_region("a.dcm", halves, SHAPE, number)
    for regions, said in (([GOOD], "1 ultrasound region. Give"), ([], "0 ultrasound regions. Leave it out")):
        with pytest.raises(ClipError, match=f"region=2: it has {said}"):
            choose_region("a.dcm", regions, SHAPE, 2)
    with pytest.raises(ClipError, match="not of tissue"):
        choose_region("a.dcm", [trace, GOOD], SHAPE, 1)


def test_the_real_files(tmp_path: Path) -> None:
    half = read_clip(real_file("examples_ybr_color.dcm"))
    assert (half.spacing_mm, half.region) == (None, None) and names(half) == {"scale_outside_image"}
    assert half.times_s is not None
    both = real_file("gdcm-US-ALOKA-16.dcm")
    with pytest.raises(ClipError, match="Give region 1 or 2"):
        read_clip(both)
    left, right = (read_clip(both, region=number) for number in (1, 2))
    assert left.region == (24, 416, 32, 336) and right.region == (24, 416, 336, 640)
    assert left.spacing_mm == right.spacing_mm and left.spacing_mm[0] == pytest.approx(0.38265, abs=1e-5)
    assert read_clip(real_file("OBXXXX1A.dcm")).spacing_mm[0] == pytest.approx(0.26229, abs=1e-5)


def test_spacing_by_the_user_is_looked_at_too(tmp_path: Path) -> None:
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, spacing_mm=None)
    assert names(read_clip(tmp_path / "a.dcm")) == {"scale_missing"}
    assert read_clip(tmp_path / "a.dcm", spacing=(0.3, 0.3)).spacing_mm == (0.3, 0.3)
    for spacing in ((0.3, 0.0), (3.0, 3.0), (np.nan, 1.0), (-1.0, -1.0)):
        with pytest.raises(ValueError, match="spacing="):
            read_clip(tmp_path / "a.dcm", spacing=spacing)


def test_a_file_that_is_no_ultrasound_has_no_pixel_spacing_to_trust(tmp_path: Path) -> None:
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2", "PixelSpacing": [1, 1]}
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, spacing_mm=None, tags=tags)
    assert names(read_clip(tmp_path / "a.dcm")) == {"not_ultrasound", "scale_missing"}
    write_dicom_cine(tmp_path / "b.dcm", FRAMES, spacing_mm=None, tags={"PixelSpacing": [0.5, 1]})
    clip = read_clip(tmp_path / "b.dcm")
    assert (clip.spacing_mm, clip.spacing_source) == ((0.5, 1.0), "PixelSpacing")


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def found(ratio: list[int] | None, **options: object) -> list[str]:
        write_dicom_cine(tmp_path / "a.dcm", FRAMES, tags={"PixelAspectRatio": ratio} if ratio else {}, **options)
        return [one.text for one in read_clip(tmp_path / "a.dcm").findings if one.name == "pixels_not_square"]

    assert found([2, 3], spacing_mm=None) == [
        "Pixels are 1.5 times as wide as high; areas and EF are those of square ones."
    ]
    assert found([2, 3], spacing_mm=(0.4, 0.6)) == []  # which says it
    assert found([9, 3], spacing_mm=(30.0, 90.0)) != []  # no scale, as no echo has it
    for ratio in ([1, 1], [0, 1], [1, 0], [-1, 2], None):
        assert found(ratio, spacing_mm=None) == []
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, spacing_mm=None, tags={"PixelAspectRatio": [2, 3]})
    assert names(read_clip(tmp_path / "a.dcm", spacing=(0.4, 0.6))) == set()


def test_regions_of_a_written_file(tmp_path: Path) -> None:
    height, width = FRAMES.shape[1:]
    flow = region_item((0, height, 0, width), (0.5, 0.5), data_type=2)
    write_dicom_cine(tmp_path / "flow.dcm", FRAMES, tags={"SequenceOfUltrasoundRegions": [flow]})
    with pytest.raises(ClipError, match="RegionDataType 2"):
        read_clip(tmp_path / "flow.dcm")
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, spacing_mm=(0.4, 0.6), region=(5, 70, 10, 90))
    clip = read_clip(tmp_path / "a.dcm")
    assert clip.region == (5, 70, 10, 90) and np.allclose(clip.spacing_mm, (0.4, 0.6))
    half = region_item((0, height, 0, width), (0.5, 0.5))
    del half.RegionDataType
    write_dicom_cine(tmp_path / "part.dcm", FRAMES, tags={"SequenceOfUltrasoundRegions": [half]})
    assert names(read_clip(tmp_path / "part.dcm")) == {"scale_missing"}


def test_only_dicom_has_regions(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", FRAMES)
    with pytest.raises(ClipError, match="only DICOM"):
        read_clip(tmp_path / "a.avi", region=1)
