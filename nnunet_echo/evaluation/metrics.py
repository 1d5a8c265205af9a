"""Metrics of one structure in one 2D frame: overlap of regions and distance of outlines.

TP, FP, FN, TN count pixels of the frame. The border of a mask are its pixels with a 4-neighbour outside it; beyond the
edge of the frame is outside. A and B are the centres of the border pixels of prediction and reference, d(a, B) is the
distance from a point of A to the nearest of B, in the unit of the spacing (mm, or px where the spacing is 1 px).

Empty masks, so that no miss is dropped in silence:
- both empty: nothing to compare; NaN, except accuracy and specificity;
- one empty: Dice, IoU and NSD are 0, distances are NaN, `hd95_penalised` is the diagonal of the frame.

Definitions after Metrics Reloaded (Maier-Hein et al., Nature Methods 21:195-212, 2024); docs/reference/metrics.md has
them all. Masks are bool arrays of axes (rows, columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray
from scipy.spatial import KDTree

REGION_METRICS = ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy")
SURFACE_METRICS = ("hd", "hd95", "hd95_pooled", "assd", "masd", "nsd_1", "nsd_2", "hd95_penalised")
NSD_TOLERANCES = (1.0, 2.0)
_TIE = 1e-6  # spacings in files are 32-bit floats: a distance of exactly the tolerance may come out above it


def structures(labels: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The label values of each structure of a dataset.json, and LV_EPI = LV or MYO where it has both.

    The epicardial contour of the CAMUS papers encloses LV_EPI; MYO is the ring alone, and scores much lower.
    """
    found = {
        name: (value,) if isinstance(value, int) else tuple(value)
        for name, value in labels.items()
        if name != "background"
    }
    if "LV" in found and "MYO" in found:
        found.setdefault("LV_EPI", found["LV"] + found["MYO"])
    return found


def region_metrics(prediction: ndarray, reference: ndarray) -> dict[str, float]:
    """`REGION_METRICS` of two masks (H, W); NaN where a denominator is 0. Raises `ValueError` unless both are masks."""
    _check(prediction, reference)
    tp = np.count_nonzero(prediction & reference)
    fp = np.count_nonzero(prediction) - tp
    fn = np.count_nonzero(reference) - tp
    tn = prediction.size - tp - fp - fn
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "accuracy": _ratio(tp + tn, prediction.size),
    }


def surface_metrics(prediction: ndarray, reference: ndarray, spacing: tuple[float, float]) -> dict[str, float]:
    """`SURFACE_METRICS` of two masks (H, W) whose pixels are `spacing` = (row, column) apart, in the spacing's unit.

    Each border's distances to the other are found once and serve all metrics: a k-d tree over the border points gives
    what a distance transform over the crop would give there, for less. Raises `ValueError` unless both are masks.
    """
    _check(prediction, reference)
    a, b = _border_points(prediction, spacing), _border_points(reference, spacing)
    if len(a) == 0 or len(b) == 0:
        nothing = len(a) == len(b)
        undefined = dict.fromkeys(SURFACE_METRICS, float("nan"))
        if nothing:
            return undefined
        diagonal = float(np.hypot(*np.multiply(prediction.shape, spacing)))
        return undefined | {f"nsd_{tau:g}": 0.0 for tau in NSD_TOLERANCES} | {"hd95_penalised": diagonal}

    from_a, from_b = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    both = np.concatenate([from_a, from_b])
    hd95 = float(max(np.percentile(from_a, 95), np.percentile(from_b, 95)))
    return {
        "hd": float(both.max()),
        "hd95": hd95,
        "hd95_pooled": float(np.percentile(both, 95)),
        "assd": float(both.mean()),
        "masd": float((from_a.mean() + from_b.mean()) / 2),
        **{f"nsd_{tau:g}": float(np.mean(both <= tau * (1 + _TIE))) for tau in NSD_TOLERANCES},
        "hd95_penalised": hd95,
    }


def _border_points(mask: ndarray, spacing: tuple[float, float]) -> ndarray:
    """The centres of the border pixels as (N, 2) in the spacing's unit."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return np.empty((0, 2))
    top, left = rows[0], columns[0]
    crop = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    inner = crop[:-2, 1:-1] & crop[2:, 1:-1] & crop[1:-1, :-2] & crop[1:-1, 2:]
    return (np.argwhere(crop[1:-1, 1:-1] & ~inner) + (top, left)) * spacing


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _check(prediction: ndarray, reference: ndarray) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 2:
        raise ValueError(
            f"prediction has shape {prediction.shape}, reference {reference.shape}; both must be (H, W), "
            "on the grid of the reference"
        )
    if prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(f"prediction is {prediction.dtype}, reference {reference.dtype}; both must be bool masks")
