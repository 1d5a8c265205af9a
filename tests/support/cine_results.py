"""Results of drawn hearts: a quick picture (noise in a sector, a text beside it), true masks, all beats known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from beating import Beating, a_heart, drawn_masks, drawn_sector, steady
from numpy import ndarray

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips.clip import Clip, clip_of
from nnunet_echo.cine.result import CineResult
from nnunet_echo.phantom.dicom import write_dicom_cine

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
GREY = np.array([60, 30, 120, 35], np.uint8)
SEED = 5  # a heart whose atrium lies within the picture


@cache
def drawn(
    view: str = "4CH", seed: int = SEED, bpm: float = 75, fps: float = 30, seconds: float = 3.2, spacing: float = 2.0
) -> tuple[tuple[ndarray, ...], ndarray, ndarray]:
    """Masks, frames (T, H, W) uint8 and contraction (T,) of a steady heart; the text stands at the upper left."""
    return drawn_beating(steady(bpm, seconds), view, seed, fps, seconds, spacing)


def drawn_beating(
    beating: Beating, view: str, seed: int, fps: float, seconds: float, spacing: float = 2.0
) -> tuple[tuple[ndarray, ...], ndarray, ndarray]:
    contraction = beating.contraction(np.arange(0, seconds, 1 / fps))
    masks = tuple(drawn_masks(a_heart(seed), view, contraction, spacing))
    sector = drawn_sector(a_heart(seed), view, masks[0].shape, spacing)
    rng = np.random.default_rng(0)
    frames = np.stack([np.where(sector, GREY[mask] + rng.integers(0, 40, mask.shape), 0) for mask in masks])
    frames[:, 2:10, 2:26] = text()
    return masks, frames.astype(np.uint8), contraction


def text() -> ndarray:
    """What a screen writes beside the sector: bright bars (8, 24)."""
    return np.broadcast_to(np.where(np.arange(24) % 4 < 2, 250, 0), (8, 24))


def drawn_clip(frames: ndarray, fps: float | None = 30, spacing: float | None = 2.0) -> Clip:
    return clip_of(frames, fps=fps, spacing_mm=None if spacing is None else (spacing, spacing))


@cache
def drawn_result(
    *, fps: float | None = 30, spacing: float | None = 2.0, view: str = "4CH", **options: Any
) -> CineResult:
    masks, frames, _ = drawn(view)
    return analyse(drawn_clip(frames, fps, spacing), masks, LABELS, view=view, **options)


def drawn_dicom(path: Path, **tags: Any) -> Path:
    """The same loop as a DICOM file with a patient in it."""
    _, frames, _ = drawn()
    write_dicom_cine(path, frames, spacing_mm=(2.0, 2.0), frame_time_ms=1000 / 30, **tags)
    return path


def refused(result: CineResult) -> dict[str, set[str]]:
    return {refusal.name: set(refusal.numbers) for refusal in result.refusals}


def flags(result: CineResult) -> set[str]:
    return {flag.name for flag in result.flags}


def with_masks(change: Any, **options: Any) -> CineResult:
    """The result of the drawn loop after `change(masks (T, H, W))` in place; the clip is the same."""
    masks, frames, _ = drawn()
    changed = np.stack(masks)
    change(changed)
    return analyse(drawn_clip(frames), changed, LABELS, view="4CH", **options)
