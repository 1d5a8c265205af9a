"""An apical view of a heart as an image with its labels, and as the frames of a cine, on a grid in mm."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy import ndarray

from nnunet_echo.phantom.heart import Heart, Section
from nnunet_echo.phantom.ultrasound import ultrasound

CAMUS_SPACING_MM = 0.308
Cine = dict[int, tuple[ndarray, ndarray]]  # frame, from 1 -> image and labels


def render(
    heart: Heart,
    view: str,
    contraction: float,
    *,
    frame: int = 1,
    spacing_mm: float = CAMUS_SPACING_MM,
    row_spacing_mm: float | None = None,
) -> tuple[ndarray, ndarray]:
    """Image and labels of one view ("2CH" or "4CH"), both (H, W) uint8, apex on top; `contraction` is 0 at ED, 1 at ES.

    `frame`, from 1, chooses the speckle; `spacing_mm` the side of a pixel, `row_spacing_mm` its height where that
    differs. A coarser grid shows the same heart. Labels: 0 background, 1 LV cavity, 2 myocardium, 3 left atrium.
    Raises ValueError for values out of range.

    >>> from nnunet_echo.phantom.heart import sample_heart
    >>> heart = sample_heart(np.random.default_rng(0))
    >>> image, labels = render(heart, "4CH", contraction=1, spacing_mm=2.0)  # end systole
    >>> image.shape, image.dtype.name, np.unique(labels).tolist()
    ((80, 97), 'uint8', [0, 1, 2, 3])
    """
    check_spacing(spacing_mm)
    if frame < 1:
        raise ValueError(f"frame={frame}: frames count from 1.")
    row_spacing_mm = row_spacing_mm or spacing_mm
    section = Section(heart, view, contraction)
    depth, half_angle = section.view.depth_mm, np.deg2rad(section.view.half_angle_deg)
    height, width = round(depth / row_spacing_mm), round(2 * depth * np.sin(half_angle) / spacing_mm)
    x = (np.arange(width)[None, :] - (width - 1) / 2) * spacing_mm
    y = np.arange(height)[:, None] * row_spacing_mm
    return ultrasound(section, x, y, frame, spacing_mm), section.labels(x, y)


def draw_cine(
    heart: Heart, name: str, frames: Iterable[int], spacing_mm: float, row_spacing_mm: float, es_first: bool = False
) -> Cine:
    """These frames of a view's cine: from ED at frame 1 to ES at frame `View.frames`, or the other way, and on.

    >>> from nnunet_echo.phantom.heart import sample_heart
    >>> heart = sample_heart(np.random.default_rng(0))
    >>> cine = draw_cine(heart, "4CH", frames=[1], spacing_mm=3.0, row_spacing_mm=3.0)
    >>> image, labels = cine[1]
    >>> image.shape == labels.shape, int((labels == 1).sum())  # pixels of the cavity
    (True, 354)
    """
    steps = heart.views[name].frames - 1

    def contraction(frame: int) -> float:
        step = (1 - np.cos(np.pi * (frame - 1) / steps)) / 2  # starts and ends gently
        return 1 - step if es_first else step

    return {
        frame: render(
            heart, name, contraction(frame), frame=frame, spacing_mm=spacing_mm, row_spacing_mm=row_spacing_mm
        )
        for frame in frames
    }


def draw_beats(
    heart: Heart, view: str, beats: int, *, bpm: float = 75.0, fps: float = 25.0, spacing_mm: float = CAMUS_SPACING_MM
) -> ndarray:
    """A loop (T, H, W) uint8 of a steady heart: so many complete beats from ED to ED, and a fifth of one on both sides.

    >>> from nnunet_echo.phantom.heart import sample_heart
    >>> draw_beats(sample_heart(np.random.default_rng(0)), "4CH", 2, spacing_mm=3.0).shape  # 2.4 beats of 0.8 s
    (48, 53, 65)
    """
    times_s = np.arange(round((beats + 0.4) * 60 / bpm * fps)) / fps
    contraction = (1 - np.cos(2 * np.pi * (times_s * bpm / 60 - 0.2))) / 2
    frames = [render(heart, view, float(c), frame=k, spacing_mm=spacing_mm)[0] for k, c in enumerate(contraction, 1)]
    return np.stack(frames)


def check_spacing(spacing_mm: float) -> None:
    """Raise ValueError for pixels that no such picture has.

    >>> check_spacing(0.308)
    >>> check_spacing(308)
    Traceback (most recent call last):
        ...
    ValueError: spacing_mm=308: must lie between 0.05 and 3; CAMUS has 0.308.
    """
    if not 0.05 <= spacing_mm <= 3:
        raise ValueError(f"spacing_mm={spacing_mm}: must lie between 0.05 and 3; CAMUS has {CAMUS_SPACING_MM}.")
