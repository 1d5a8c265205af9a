"""The sector: tissue within, screen text without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from clip_files import phantom_frames, real_file
from numpy import ndarray

from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.clips.clip import clip_of
from nnunet_echo.cine.clips.sector import find_sector

FRAMES = phantom_frames(6)


def screen(cine: ndarray = FRAMES) -> ndarray:
    """The phantom in a larger picture, with text that stands still, an ECG and a clock that do not."""
    height, width = cine.shape[1:]
    frames = np.zeros((len(cine), height + 60, width + 60), np.uint8)
    frames[:, 20 : 20 + height, 30 : 30 + width] = cine
    frames[:, 4:10, 4:50] = 200  # a name
    for index, frame in enumerate(frames):
        frame[-10:-4, 10 + 10 * index : 14 + 10 * index] = 250  # a trace
        frame[6:12, -20 : -14 + index] = 220  # a clock
    return frames


def test_the_sector_is_what_changes() -> None:
    frames = screen()
    sector = find_sector(clip_of(frames))
    truth = np.zeros_like(sector)
    truth[20:-40, 30:-30] = FRAMES.max(axis=0) > 0
    assert (sector & truth).sum() / (sector | truth).sum() > 0.93
    assert not sector[:12].any() and not sector[-12:].any()
    outside = np.where(sector, 0, frames)
    assert (outside[:, 20:-40, 30:-30] > 40).mean() < 0.01  # hardly any tissue is lost


def a_frame_of(value: int, index: int) -> Callable[[ndarray], ndarray]:
    def change(frames: ndarray) -> ndarray:
        frames[index] = value
        return frames

    return change


DISTURBED: dict[str, Callable[[ndarray], ndarray]] = {
    "noise": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 2, x.shape), 0, 255).astype(np.uint8),
    "grey background": lambda x: np.maximum(x, 20),
    "a grey frame": a_frame_of(128, 3),
    "a black first frame on grey": lambda x: a_frame_of(0, 0)(np.maximum(x, 20)),
    "brighter by and by": lambda x: np.clip(x + np.linspace(0, 3, len(x))[:, None, None], 0, 255).astype(np.uint8),
    "one frame on grey": lambda x: np.maximum(x[:1], 20),
}


@pytest.mark.parametrize("kind", DISTURBED)
def test_what_disturbs_the_whole_picture_is_not_the_sector(kind: str) -> None:
    """The name above it would be shown."""
    frames = DISTURBED[kind](screen(phantom_frames(12)))
    sector = find_sector(clip_of(frames))
    truth = np.zeros_like(sector)
    truth[20:-40, 30:-30] = FRAMES.max(axis=0) > 0
    assert (sector & truth).sum() / (sector | truth).sum() > 0.85
    assert not sector[:11].any()


def test_a_picture_that_is_all_sector_has_no_background() -> None:
    frames = FRAMES[:, 25:-15, 30:-30]
    assert find_sector(clip_of(frames)).mean() > 0.9


def test_the_region_cuts_the_sector() -> None:
    clip = replace(clip_of(screen()), region=(40, 80, 50, 90))
    sector = find_sector(clip)
    assert sector.any() and not sector[:40].any() and not sector[80:].any()
    assert not sector[:, :50].any() and not sector[:, 90:].any()


def test_clips_that_do_not_change() -> None:
    still = clip_of(np.repeat(FRAMES[:1], 3, axis=0))
    assert not find_sector(still).any()
    one = find_sector(clip_of(FRAMES[:1]))
    lit = FRAMES[0] > 10
    assert (one & lit).sum() > 0.97 * lit.sum()


def test_bright_tissue_that_hardly_changes_is_measured_exactly() -> None:
    """Squares of large numbers would lose a small change."""
    frames = np.full((50, 40, 40), 250, np.uint8)
    frames[::2, 10:30, 10:30] = 253
    sector = find_sector(clip_of(frames))
    assert sector[12:28, 12:28].all() and sector.sum() <= 400


def test_the_real_loop() -> None:
    clip = read_clip(real_file("color3d_jpeg_baseline.dcm"))
    sector = find_sector(clip)
    brightest = np.max(list(clip.frames()), axis=0)
    assert 0.34 < sector.mean() < 0.38
    rows, columns = np.nonzero(sector)
    assert (columns.min(), columns.max()) == (84, pytest.approx(593, abs=4)) and rows.max() == pytest.approx(402, abs=6)
    assert sector[300, 330] and sector[250, 450] and sector[295, 100]
    for text in (np.s_[:60, :80], np.s_[120:180, 600:], np.s_[440:], np.s_[395:410, 570:600], np.s_[35:46, 374:388]):
        assert brightest[text].max() > 90 and not sector[text].any()
    assert brightest[~sector & (np.arange(480)[:, None] > 45) & (np.arange(640) < 590)][: 200 * 640].max() <= 255
    y0, y1, x0, x1 = clip.region
    inside = brightest[y0 + 20 : y1 - 20, x0 : x1 - 20]
    lost = np.where(sector[y0 + 20 : y1 - 20, x0 : x1 - 20], 0, inside)
    assert (lost > 40).sum() < 30
