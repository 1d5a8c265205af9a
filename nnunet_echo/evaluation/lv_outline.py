"""The outline of the left ventricle (LV) in an apical view: mitral plane, apex, long axis.

A mask is taken as one body without holes (`main_part`) and its outline followed pixel edge by pixel edge (`trace`). The
mitral plane is found in one of two ways:
- `mitral_junction`: where the LV borders on something else than myocardium;
- `straight_stretch`: the longest nearly straight stretch of the outline with the LV above it, for masks without
  myocardium, after the reference script of CAMUS (Leclerc et al., IEEE TMI 38(9), 2019).
The long axis runs from the middle of the mitral plane to the farthest point of the outline, the apex.

Points are (row, column), rows downwards, in pixels or scaled to mm. Images show the apex above the mitral plane.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy import ndimage

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up: clockwise on the screen
_STRIDE = 8  # of the first, coarse search for the straight stretch


def main_part(mask: ndarray) -> ndarray:
    """The largest 4-connected component of a mask (H, W), its holes filled; empty for an empty mask."""
    part = np.zeros_like(mask)
    for box in ndimage.find_objects(mask.astype(np.uint8)):  # one, or none
        components = ndimage.label(np.pad(mask[box], 1))[0]
        largest = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
        around = ndimage.label(~largest)[0] == 1  # the first component in reading order holds the corner
        part[box] = ~around[1:-1, 1:-1]
    return part


def trace(mask: ndarray) -> tuple[ndarray, ndarray]:
    """The outline of a `main_part` (H, W): middles of its pixel edges, and the pixel beyond each edge.

    Both are (N, 2); the first holds halves, the second whole numbers that may lie one outside the frame. The outline
    runs clockwise on the screen from the top edge of the first pixel in reading order. Its points are those of marching
    squares at the level 1/2.
    """
    padded = np.pad(mask, 1)
    width = padded.shape[1]
    inside = padded.tobytes()
    steps = [rows * width + columns for rows, columns in _STEPS]
    # A walk along pixel edges, the mask on the right hand: `pixel` is the one there, `heading` indexes _STEPS.
    start = pixel = int(np.argmax(padded))
    heading, pixels, headings = 0, [], []
    while True:
        pixels.append(pixel)
        headings.append(heading)
        ahead = pixel + steps[heading]
        if not inside[ahead]:
            heading = (heading + 1) % 4
        elif inside[beyond := ahead + steps[heading - 1]]:
            pixel, heading = beyond, (heading - 1) % 4
        else:
            pixel = ahead
        if (pixel, heading) == (start, 0):
            break
    centres = np.stack(np.divmod(pixels, width), axis=1) - 1
    outwards = np.array(_STEPS)[np.array(headings) - 1]
    return centres + outwards / 2, centres + outwards


def mitral_junction(points: ndarray, walled: ndarray, bridge: float) -> tuple[ndarray, ndarray] | None:
    """The two ends of the longest part of the closed outline (N, 2) that does not border on myocardium.

    `walled` (N,) says where it does; parts of myocardium shorter than `bridge` (in the unit of the points) do not
    interrupt. None when all of the outline or nothing of it borders on myocardium.
    """
    if walled.all() or not walled.any():
        return None
    first = int(np.argmax(walled & ~np.roll(walled, -1)))  # so that no part of the rolled outline wraps around
    points, open_ = np.roll(points, -first - 1, axis=0), ~np.roll(walled, -first - 1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], open_, [False]]).astype(int)))
    starts, stops = edges[::2], edges[1::2]
    apart = np.linalg.norm(points[starts[1:]] - points[stops[:-1] - 1], axis=1) > bridge
    starts, stops = starts[np.append(True, apart)], stops[np.append(apart, True)]
    longest = int(np.argmax(stops - starts))
    return points[starts[longest]], points[stops[longest] - 1]


def straight_stretch(points: ndarray, tolerance: float) -> tuple[int, int] | None:
    """Indices i < j of the ends of the longest nearly straight stretch of an outline (N, 2) with the mask above it.

    The chord from point i to point j leads to the left and rises or falls by at most 45 degrees; all points between are
    within `tolerance` of its line. Of equal ones, the first to end counts. None where there is no such chord.
    """
    best = None
    for stride in (_STRIDE, 1):  # the coarse search gives a length, below which the full one need not look
        index = np.arange(0, len(points), stride)
        row, column = points[index].T
        drop, left = row - row[:, None], column[:, None] - column
        reach = drop**2 + left**2
        i, j = np.nonzero((np.abs(drop) <= left) & (reach >= (best[0] if best else 1e-12)))
        squared, i, j = reach[i, j], index[i], index[j]
        near = (j > i + 1) & (_distances(points[(i + j) // 2], points[i], points[j]) <= tolerance)  # most fail here
        squared, i, j = squared[near], i[near], j[near]
        for k in np.lexsort((i, j, -squared)):
            if (_distances(points[i[k] + 1 : j[k]], points[i[k]], points[j[k]]) <= tolerance).all():
                best = squared[k], int(i[k]), int(j[k])
                break
    return best and best[1:]


def _distances(points: ndarray, start: ndarray, end: ndarray) -> ndarray:
    """Distances of points (N, 2) from the line through `start` and `end`, each (2,) or (N, 2)."""
    along, to = end - start, points - start
    cross = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return np.abs(cross) / np.hypot(along[..., 0], along[..., 1])
