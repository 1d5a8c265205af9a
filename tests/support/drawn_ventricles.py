"""Ventricles of known shape, drawn as masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from nnunet_echo.evaluation.left_ventricle.outline import main_part
from nnunet_echo.evaluation.left_ventricle.volume import LvShape

ISOTROPIC, ANISOTROPIC = (0.308, 0.308), (0.154, 0.308)

FRAME_MM = (150.0, 120.0)

Profile = Callable[[ndarray], ndarray]


def ellipse(u: ndarray) -> ndarray:
    """Diameter of an ellipse cut off above its end, relative to the widest, from the apex (0) to the base (1)."""
    return np.sqrt(np.clip(1 - ((u - 0.6) / 0.6) ** 2, 0, None))


def bullet(u: ndarray) -> ndarray:
    """A cylinder with half an ellipse on top."""
    return np.sqrt(np.clip(1 - (np.minimum(u, 0.5) / 0.5 - 1) ** 2, 0, None))


def draw(
    profile: Profile,
    length: float,
    diameter: float,
    tilt: float = 0.0,
    spacing: tuple[float, float] = ISOTROPIC,
    frame: tuple[float, float] = FRAME_MM,
) -> tuple[ndarray, ndarray]:
    """LV and myocardium (H, W): upright and in the middle of the frame, then tilted by degrees; lengths in mm."""
    rows, columns = (round(side / step) for side, step in zip(frame, spacing, strict=True))
    y = ((np.arange(rows) + 0.5) * spacing[0] - frame[0] / 2)[:, None]
    x = ((np.arange(columns) + 0.5) * spacing[1] - frame[1] / 2)[None, :]
    angle, wall = np.deg2rad(tilt), 0.1 * length
    u = (y * np.cos(angle) + x * np.sin(angle)) + length / 2
    v = np.abs(x * np.cos(angle) - y * np.sin(angle))
    lv = (u >= 0) & (u <= length) & (v < diameter / 2 * profile(u / length))
    outer = profile(np.clip(u + wall, 0, length + wall) / (length + wall))
    return lv, (u >= -wall) & (u <= length) & (v < diameter / 2 * outer + wall * (u > 0)) & ~lv


def shape(length: float, diameter: float, area: float = 1.0, flag: str = "") -> LvShape:
    return LvShape(length, (diameter,) * 20, area, flag)


def ragged(seed: int) -> ndarray:
    """An LV-like mask with an uneven outline."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:150, :110]
    angle = np.arctan2(row - 75, column - 55)
    bumps = sum(rng.normal(0, 0.03) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(3, 12))
    return main_part((np.hypot((row - 75) / 62, (column - 55) / 33) < 1 + bumps) & (row < 118 + 0.2 * (column - 55)))
