"""Films of a loop with outlines: sector alone, frame for frame, in their own time."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cine_results import drawn_result
from PIL import Image

from nnunet_echo.cine.overlay import (
    overlay_frames,
    sector_frames,
    shown_structures,
    write_mp4,
    write_overlay,
    write_webp,
)
from nnunet_echo.cine.result import Loop


@pytest.fixture(scope="module")
def loop() -> Loop:
    return drawn_result().loops[0]


def test_pixels_outside_the_sector_are_black(loop: Loop) -> None:
    raw = next(loop.clip.frames())
    first, *_ = sector_frames(loop)
    assert raw[2:10, 2:26].any() and not first[2:10, 2:26].any()
    assert (first[loop.sector] == raw[loop.sector]).all() and not first[~loop.sector].any()
    picture = np.asarray(next(overlay_frames(loop)))
    height, width = picture.shape[:2]
    assert not picture[: 10 * height // raw.shape[0], : 26 * width // raw.shape[1] - 2].any()


def test_outlines_lie_on_the_edges_of_masks(loop: Loop) -> None:
    picture = np.asarray(next(overlay_frames(loop))).astype(int)
    coloured = np.ptp(picture, axis=2) > 40
    mask = np.asarray(Image.fromarray(loop.masks[0]).resize(picture.shape[1::-1], Image.Resampling.NEAREST))
    edges = np.zeros(mask.shape, bool)
    edges[1:] |= np.diff(mask.astype(int), axis=0) != 0
    edges[:, 1:] |= np.diff(mask.astype(int), axis=1) != 0
    near = np.pad(edges, 3)
    near = np.any([np.roll(near, (a, b), (0, 1)) for a in range(-3, 4) for b in range(-3, 4)], axis=0)[3:-3, 3:-3]
    assert coloured.any() and near[coloured].all()
    assert list(shown_structures(loop)) == ["LV", "LA", "LV_EPI"]


def test_pixels_that_are_not_square_become_so(loop: Loop) -> None:
    flat = replace(loop, clip=replace(loop.clip, spacing_mm=(1.0, 2.0)))
    width, height = next(overlay_frames(flat)).size
    rows, columns = loop.clip.shape
    assert width / height == pytest.approx(2 * columns / rows, rel=0.05)
    assert width % 2 == height % 2 == 0
    assert max(next(overlay_frames(loop, side=64)).size) <= 64


def test_webp_has_every_frame_for_as_long_as_it_took(loop: Loop, tmp_path: Path) -> None:
    times = loop.clip.times_s.copy()
    times[10:] += 0.1
    path = write_webp(tmp_path / "film.webp", replace(loop, clip=replace(loop.clip, times_s=times)))
    with Image.open(path) as film:
        assert (film.format, film.n_frames) == ("WEBP", loop.clip.count)
        lengths = []
        for k in range(film.n_frames):
            film.seek(k)
            film.load()
            lengths.append(film.info["duration"])
    assert lengths[0] == 33 and lengths[9] == 133
    assert not {"exif", "xmp", "icc_profile"} & set(film.info)


def test_mp4_has_every_frame_and_its_time(loop: Loop, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_mp4(tmp_path / "film.mp4", loop)
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
        assert len(frames) == loop.clip.count
        assert [float(f.pts * f.time_base) for f in frames] == pytest.approx(loop.clip.times_s.tolist(), abs=0.001)
        wanted = np.asarray(list(overlay_frames(loop))[7]).astype(int)
        assert np.abs(frames[7].to_ndarray(format="rgb24").astype(int) - wanted).mean() < 8


def test_steps_shorter_than_the_film_can_say_stay_in_order(loop: Loop, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    times = np.arange(loop.clip.count) * 0.02
    times[10:14] = times[10] + np.arange(4) * 1e-5
    write_mp4(tmp_path / "a.mp4", replace(loop, clip=replace(loop.clip, times_s=times)))
    with av.open(str(tmp_path / "a.mp4")) as film:
        shown = [frame.time for frame in film.decode(video=0)]
    assert len(shown) == loop.clip.count and (np.diff(shown) > 0).all()
    assert np.allclose(shown, times, atol=0.0035)


def test_the_video_does_not_say_when_and_with_what_it_was_made(loop: Loop, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(write_mp4(tmp_path / "overlay.mp4", loop))) as video:
        said = {**video.metadata, **video.streams.video[0].metadata}
    assert set(said) <= {"major_brand", "minor_version", "compatible_brands", "language", "handler_name", "vendor_id"}


def test_without_pyav_the_film_is_a_webp(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert write_overlay(tmp_path / "overlay", loop).name == "overlay.webp"
    with pytest.raises(RuntimeError, match=r"pip install 'nnunet-echo\[video\]'"):
        write_mp4(tmp_path / "film.mp4", loop)
    still = replace(loop, clip=replace(loop.clip, times_s=None, time_source="none"))
    assert write_overlay(tmp_path / "still", still).exists()
