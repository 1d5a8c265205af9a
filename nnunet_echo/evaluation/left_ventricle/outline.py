"""The outline of the left ventricle (LV) in an apical view: mitral plane, apex, long axis.

A mask is taken as one body without holes (`main_part`) and its outline followed pixel edge by pixel edge (`trace`). The
mitral plane is found in one of two ways:
- `mitral_plane`: where the LV borders on anything but myocardium;
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
# Of the square root of the LV's area, so that the scale of the image does not matter: 2.5 mm for the mean LV of CAMUS,
# which is what the 8 pixels of its script are there.
TOLERANCE = 0.045
# Of 200 reference masks of CAMUS, the plane and the apex span 0.31 to 0.72 of the LV's area, the plane lies across the
# long axis to 27 degrees, the outline leaves the line between its ends by 0.013 of its width, and nothing else is open.
_LEAST_SPAN, _RIVAL, _SLANT_DEG, _BEND = 0.2, 2 / 3, 30, 0.15
_TIE = 1e-9  # lengths that differ by less, relatively, are equal: the order of sums must not decide


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


def mitral_plane(part: ndarray, myocardium: ndarray, spacing: tuple[float, float]) -> tuple[ndarray | None, bool]:
    """The two ends (2, 2) of the mitral plane of a `main_part`, and whether to doubt them; in the spacing's unit.

    None where the myocardium does not show it: see `mitral_junction`, or what is open is too small. Doubtful is a plane
    beside another open part that is at least 2/3 as wide; one that slants by more than 30 degrees from across the long
    axis; and one from which the outline departs by more than 0.15 of its width: there it has a corner, as where the
    wall is open down to its hinge.
    """
    points, beyond = trace(part)
    points, area = points * spacing, np.count_nonzero(part) * np.prod(spacing)
    walled, bridge = np.pad(myocardium, 1)[tuple(beyond.T + 1)], TOLERANCE * np.sqrt(area)
    parts = open_parts(points, walled, bridge)
    plane = _largest(points, parts)
    if plane is None or span(points[plane[0]], points[plane[1]], points) < _LEAST_SPAN * area:
        return None, False
    start, stop = plane
    ends = points[[start, stop]]
    chord, middle = ends[1] - ends[0], np.mean(ends, axis=0)
    axis, width = farthest(points, middle) - middle, np.linalg.norm(chord)
    widths = [np.linalg.norm(points[j] - points[i]) for i, j in parts]
    rivals = np.count_nonzero(np.array(widths) >= _RIVAL * width) > 1
    slant = abs(chord @ axis) > np.sin(np.radians(_SLANT_DEG)) * width * np.linalg.norm(axis)
    outline = np.roll(points, -start, axis=0)[: (stop - start) % len(points) + 1]
    bend = _distances(outline, *ends).max() > _BEND * width
    return ends, bool(rivals or slant or bend)


def mitral_junction(points: ndarray, walled: ndarray, bridge: float) -> tuple[ndarray, ndarray] | None:
    """The two ends of the mitral plane: of that part of the closed outline (N, 2) without myocardium, see `open_parts`,
    whose ends and farthest point of the outline span the largest triangle.

    So a wide part counts for more than a narrow one, and one across the long axis for more than a gap in the side wall.
    None when there is no such part, or when no part is larger than all others.
    """
    plane = _largest(points, open_parts(points, walled, bridge))
    return tuple(points[list(plane)]) if plane else None


def _largest(points: ndarray, parts: list[tuple[int, int]]) -> tuple[int, int] | None:
    spans = [span(points[start], points[stop], points) for start, stop in parts]
    largest = [ends for ends, size in zip(parts, spans, strict=True) if size >= (1 - _TIE) * max(spans)]
    return largest[0] if len(largest) == 1 and max(spans) > 0 else None


def open_parts(points: ndarray, walled: ndarray, bridge: float) -> list[tuple[int, int]]:
    """Indices of the first and the last point of each part of a closed outline (N, 2) that is not on myocardium.

    `walled` (N,) says where it is; pieces of myocardium along at most `bridge` (in the unit of the points) do not
    interrupt a part. Empty when all of the outline or, but for such pieces, nothing of it borders on myocardium.
    """
    starts = np.flatnonzero(~walled & np.roll(walled, 1))
    stops = np.flatnonzero(~walled & np.roll(walled, -1))
    if len(starts) == 0:
        return []
    if stops[0] < starts[0]:  # the end of the part that runs past the last point
        stops = np.roll(stops, -1)
    steps = np.linalg.norm(np.diff(points, axis=0, append=points[:1]), axis=1)
    place = np.cumsum(steps) - steps
    wall = (place[starts] - place[np.roll(stops, 1)]) % steps.sum()  # before each part
    apart = np.flatnonzero(wall > bridge * (1 + _TIE))
    return list(zip(starts[apart].tolist(), stops[np.roll(apart, -1) - 1].tolist(), strict=True))


def span(start: ndarray, stop: ndarray, points: ndarray) -> float:
    """Area of the triangle of two points (2,) and that of an outline (N, 2) which is farthest from their middle."""
    (down, right), (below, beside) = stop - start, farthest(points, (start + stop) / 2) - start
    return float(abs(down * beside - right * below) / 2)


def farthest(points: ndarray, base: ndarray) -> ndarray:
    """The point of an outline (N, 2) that is farthest from `base`; the middle of several that are equally far."""
    squared = ((points - base) ** 2).sum(axis=1)
    return points[squared >= (1 - _TIE) * squared.max()].mean(axis=0)


def straight_stretch(points: ndarray, tolerance: float) -> tuple[int, int] | None:
    """Indices i < j of the ends of the longest nearly straight stretch of an outline (N, 2) with the mask above it.

    The chord from point i to point j leads to the left and rises or falls by at most 45 degrees; all points between are
    within `tolerance` of its line. Of equal ones, the first to end counts. None where there is no such chord.
    """
    longest = straight_stretches(points, tolerance)
    return min(longest, key=lambda ends: (-_squared(points, *ends), *ends[::-1]), default=None)


def straight_stretches(points: ndarray, tolerance: float) -> list[tuple[int, int]]:
    """All stretches of an outline that are as long as that of `straight_stretch`, but for rounding.

    j leaves all i at once, point by point, and gives up those i through which no line passes all points between by at
    most `tolerance`: memory follows N and time the stretches that are nearly straight, however ragged the outline.
    """
    best = 0.0
    found: list[tuple[int, int]] = []
    i = np.arange(len(points))
    low, high = np.full((2, len(points)), np.pi / 4) * [[-1], [1]]  # the falls of these lines
    for steps in range(1, len(points)):
        going = (low <= high + _TIE) & (i + steps < len(points))
        i, low, high = i[going], low[going], high[going]
        if len(i) == 0:
            break
        drop, left = points[i + steps, 0] - points[i, 0], points[i, 1] - points[i + steps, 1]
        squared = drop**2 + left**2
        with np.errstate(divide="ignore", invalid="ignore"):
            fall = np.arctan(drop / left)  # of the line, whichever way it leads; NaN for a point met again
        if steps > 1:
            long = (squared >= (1 - _TIE) * best) & (left > 0) & (np.abs(drop) <= left)
            candidates = np.flatnonzero(long & (fall >= low - _TIE) & (fall <= high + _TIE))
            for k in candidates[np.argsort(-squared[candidates], kind="stable")].tolist():
                if squared[k] > best and _is_straight(points, i[k], i[k] + steps, tolerance):
                    found = found if squared[k] * (1 - _TIE) <= best else []
                    best = squared[k]
                if (1 - _TIE) * best <= squared[k] <= best:
                    found.append((int(i[k]), int(i[k]) + steps))
        far = squared > 2 * tolerance**2  # nearer ones may leave lines of two kinds; `_is_straight` looks at them
        room = np.arcsin(tolerance / np.sqrt(squared[far]))
        low[far], high[far] = np.maximum(low[far], fall[far] - room), np.minimum(high[far], fall[far] + room)
    return [
        ends
        for ends in found
        if _squared(points, *ends) >= (1 - _TIE) * best and _is_straight(points, *ends, tolerance)
    ]


def _squared(points: ndarray, i: int, j: int) -> float:
    drop, left = points[j, 0] - points[i, 0], points[i, 1] - points[j, 1]
    return drop**2 + left**2


def _is_straight(points: ndarray, i: int, j: int, tolerance: float) -> bool:
    return bool((_distances(points[i + 1 : j], points[i], points[j]) <= tolerance).all())


def _distances(points: ndarray, start: ndarray, end: ndarray) -> ndarray:
    """Distances of points (N, 2) from the line through `start` and `end`, each (2,) or (N, 2)."""
    along, to = end - start, points - start
    cross = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return np.abs(cross) / np.hypot(along[..., 0], along[..., 1])
