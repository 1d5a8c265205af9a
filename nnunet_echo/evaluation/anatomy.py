"""Is a segmented long-axis frame anatomically possible? The twelve criteria of Painchaud et al. 2020.

Structures are LV (cavity), MYO and LA, bool masks of axes (rows, columns); LV_EPI = LV or MYO, background is none of
them. Rows run from the apex to the base as images show them, for two criteria measure widths along rows. Everything is
counted on square pixels, and beyond the edge of the frame is outside. "Small" is at most 1/2^14 of the frame's pixels.

holes_in_lv, holes_in_la, holes_in_lv_epi   pixels outside the structure that it encloses
fragments_of_lv, .._of_myo, .._of_la        pixels of the structure that are not in its largest piece
gap_lv_myo, gap_lv_la                       pixels that neither has but both together enclose; 0 where they are small.
                                            A hole in one of them is not a gap unless the other lies in it
frontier_lv_background, frontier_myo_la     pixels of the first that touch the second, 0 for one pixel, over the width
                                            of the first (its columns): at most 0.4 and 0.11
width_ratio_lv_myo                          pixels of LV over pixels of MYO in the row of the centroid of LV_EPI: at
                                            most 4.15
erosion_ratio_myo                           erosions by 3 x 3 pixels until MYO falls apart, small pieces left out,
                                            over its largest distance to the outside: at least 0.12

The others must be 0; a ratio that is undefined because a structure is missing is a violation. Pieces and holes connect
by 8 neighbours, what a gap leaves open by 4.

Definitions and limits: Painchaud et al., IEEE TMI 39(11):3703-3713, 2020, and its authors' public code (vital), which
gives LV and MYO to the criterion of LV and LA: a gap there never counted. Rates to be compared with that code's leave
`gap_lv_la` out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy import ndarray
from scipy import ndimage

# Criterion: the structures it needs, and the range of values that is possible.
CRITERIA: dict[str, tuple[tuple[str, ...], float, float]] = {
    "holes_in_lv": (("LV",), 0, 0),
    "holes_in_la": (("LA",), 0, 0),
    "holes_in_lv_epi": (("LV", "MYO"), 0, 0),
    "fragments_of_lv": (("LV",), 0, 0),
    "fragments_of_myo": (("MYO",), 0, 0),
    "fragments_of_la": (("LA",), 0, 0),
    "gap_lv_myo": (("LV", "MYO"), 0, 0),
    "gap_lv_la": (("LV", "LA"), 0, 0),
    "frontier_lv_background": (("LV", "MYO", "LA"), 0, 0.4),
    "frontier_myo_la": (("MYO", "LA"), 0, 0.11),
    "width_ratio_lv_myo": (("LV", "MYO"), 0, 4.15),
    "erosion_ratio_myo": (("MYO",), 0.12, math.inf),
}
_SMALL = 2.0**-14  # of the frame
_EIGHT = np.ones((3, 3), bool)


def anatomical_errors(masks: Mapping[str, ndarray], spacing: tuple[float, float]) -> dict[str, bool]:
    """Criterion -> whether one frame violates it; arguments and errors as in `anatomical_measures`.

    >>> lv = np.pad(np.ones((20, 20), bool), 20)
    >>> lv[25:35, 25:35] = False
    >>> anatomical_errors({"LV": lv}, (1.0, 1.0))
    {'holes_in_lv': True, 'fragments_of_lv': False}
    """
    measures = anatomical_measures(masks, spacing)
    return {name: not CRITERIA[name][1] <= value <= CRITERIA[name][2] for name, value in measures.items()}


def anatomical_measures(masks: Mapping[str, ndarray], spacing: tuple[float, float]) -> dict[str, float]:
    """Criterion -> its value, in pixels or a ratio, NaN where a missing structure leaves a ratio undefined.

    `masks` maps those of "LV", "MYO" and "LA" that the dataset labels to bool arrays (H, W), empty where this frame
    has none; other names are ignored. Criteria that need another structure are left out: two of twelve remain of LV
    alone. `spacing` is (row, column). Raises `ValueError` unless all are masks of one shape.
    """
    known = {name: masks[name] for name in ("LV", "MYO", "LA") if name in masks}
    shapes = {mask.shape for mask in known.values()}
    if len(shapes) > 1 or any(mask.dtype != bool or mask.ndim != 2 for mask in known.values()):
        described = ", ".join(f"{name} {mask.dtype} {mask.shape}" for name, mask in known.items())
        raise ValueError(f"masks are {described}: all must be bool and of one shape (H, W).")
    if not known:
        return {}
    small, found = _prepare(known, spacing)
    nothing = np.zeros_like(found["background"])  # of a structure that no criterion below needs
    lv, myo, la = (found.get(name, nothing) for name in ("LV", "MYO", "LA"))
    measure = {
        "holes_in_lv": lambda: _holes(lv),
        "holes_in_la": lambda: _holes(la),
        "holes_in_lv_epi": lambda: _holes(lv | myo),
        "fragments_of_lv": lambda: _fragments(lv),
        "fragments_of_myo": lambda: _fragments(myo),
        "fragments_of_la": lambda: _fragments(la),
        "gap_lv_myo": lambda: _gap(lv, myo, small),
        "gap_lv_la": lambda: _gap(lv, la, small),
        "frontier_lv_background": lambda: _frontier(lv, found["background"]),
        "frontier_myo_la": lambda: _frontier(myo, la),
        "width_ratio_lv_myo": lambda: _width_ratio(lv, myo),
        "erosion_ratio_myo": lambda: _erosion_ratio(myo, small),
    }
    return {name: float(measure[name]()) for name, (needed, *_) in CRITERIA.items() if known.keys() >= set(needed)}


def _prepare(masks: Mapping[str, ndarray], spacing: tuple[float, float]) -> tuple[float, dict[str, ndarray]]:
    """How many pixels are small, and masks and background on square pixels, cropped, in a border of outside."""
    side = min(spacing)
    # Nearest neighbours on square pixels of the smaller side.
    shape = next(iter(masks.values())).shape
    rows, columns = (
        ((np.arange(round(n * step / side)) + 0.5) * side / step).astype(int)
        for n, step in zip(shape, spacing, strict=True)
    )
    square = {name: mask[rows][:, columns] for name, mask in masks.items()}
    background = ~np.any(list(square.values()), axis=0)
    box = tuple(
        slice(max(where.min() - 1, 0), where.max() + 2) if len(where) else slice(0) for where in np.nonzero(~background)
    )
    return background.size * _SMALL, {
        name: np.pad(mask[box], 1) for name, mask in (square | {"background": background}).items()
    }


def _holes(mask: ndarray) -> int:
    components = ndimage.label(~mask, _EIGHT)[0]
    return int(np.count_nonzero(components > 1))  # the first in reading order is the outside


def _fragments(mask: ndarray) -> int:
    sizes = _sizes(mask)
    return int(sizes.sum() - sizes.max(initial=0))


def _gap(first: ndarray, second: ndarray, small: float) -> int:
    components = ndimage.label(~(_filled(first, second) | _filled(second, first)))[0]
    gap = int(np.count_nonzero(components > 1))
    return gap if gap > small else 0


def _filled(mask: ndarray, other: ndarray) -> ndarray:
    """A mask with those of its holes filled in which nothing of `other` lies."""
    components, count = ndimage.label(~mask)
    open_ = np.zeros(count + 1, bool)
    open_[components[other]] = True
    open_[1] = True
    return ~open_[components]


def _frontier(first: ndarray, second: ndarray) -> float:
    touching = np.count_nonzero(first & ndimage.binary_dilation(second, _EIGHT))
    return touching / (np.ptp(np.nonzero(first)[1]) + 1) if touching > 1 else 0


def _width_ratio(lv: ndarray, myo: ndarray) -> float:
    if not (lv | myo).any():
        return math.nan
    row = int(np.nonzero(lv | myo)[0].mean())
    widths = np.count_nonzero(lv[row]), np.count_nonzero(myo[row])
    return widths[0] / widths[1] if all(widths) else math.nan


def _erosion_ratio(mask: ndarray, small: float) -> float:
    if not mask.any():
        return math.nan
    # Pixels that survive n erosions are more than n pixels from the outside, diagonal steps counting as one.
    depth = ndimage.distance_transform_cdt(mask, "chessboard")
    erosions = 0
    while np.count_nonzero(_sizes(depth > erosions) > small) == 1:
        erosions += 1
    return erosions / ndimage.distance_transform_edt(mask).max()


def _sizes(mask: ndarray) -> ndarray:
    """Pixels of each of its pieces."""
    return np.bincount(ndimage.label(mask, _EIGHT)[0].ravel())[1:]
