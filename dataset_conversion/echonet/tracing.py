"""The left ventricle as EchoNet-Dynamic traces it: the long axis, then 20 lines across it from the apex down.

A tracing is an array (N, 4) of x1, y1, x2, y2 in pixels, row 0 the long axis. The outline runs down one end of the
lines and up the other; what lies beyond the first and the last line is not part of it.
Source: Ouyang et al., Nature 580, 2020, and the code published with it, for `tracing_mask`.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from skimage.draw import polygon

ROWS = 21
STEEPEST = 0.5  # cosine of the smallest angle between the long axis and the lines across it: 60 degrees


def tracing_mask(tracing: ndarray, shape: tuple[int, int]) -> ndarray:
    """The pixels inside the outline, its points rounded to whole pixels: `shape` (H, W), uint8, 0 or 1."""
    points = np.rint(_outline(tracing))
    mask = np.zeros(shape, np.uint8)
    mask[polygon(points[:, 1], points[:, 0], shape)] = 1
    return mask


def why_irregular(tracing: ndarray) -> str:
    """What is unlike a tracing of the long axis and 20 lines in order; an empty string when nothing is."""
    if len(tracing) != ROWS:
        return f"it has {len(tracing)} rows instead of {ROWS}"
    axis, *lines = tracing[:, 2:] - tracing[:, :2]
    lines = np.array(lines)
    lengths = np.linalg.norm(lines, axis=1) * np.linalg.norm(axis)
    if not np.all(np.abs(lines @ axis) < STEEPEST * lengths):  # so that a length of 0 fails, too
        return "its first row is not the long axis across which the others lie"
    steps = np.diff((tracing[1:, :2] + tracing[1:, 2:]) @ axis)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        return "its rows are not in order along the long axis"
    if _crosses_itself(_outline(tracing)):
        return "its outline crosses itself"
    return ""


def _outline(tracing: ndarray) -> ndarray:
    """(2N - 2, 2) points x, y: one end of the lines downwards, the other upwards; the long axis is left out."""
    return np.concatenate([tracing[1:, :2], tracing[:0:-1, 2:]])


def _crosses_itself(points: ndarray) -> bool:
    """Whether two edges of the closed polygon of `points` (N, 2) cross: the ends of each on both sides of the other."""
    start, edge = points, np.roll(points, -1, axis=0) - points
    # side[i, j]: on which side of edge i point j lies.
    offset = start[None, :, :] - start[:, None, :]
    side = np.sign(edge[:, None, 0] * offset[..., 1] - edge[:, None, 1] * offset[..., 0])
    parted = side * np.roll(side, -1, axis=1) < 0
    return bool((parted & parted.T).any())
