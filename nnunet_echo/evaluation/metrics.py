"""Metrics of one structure in one 2D frame: overlap of regions and distance of outlines. One row of `METRICS` each.

TP, FP, FN, TN count pixels of the frame. A border pixel belongs to a mask and has a 4-neighbour outside it; beyond the
edge of the frame is outside. A and B are the centres of the border pixels of prediction and reference, d(a, B) is the
distance from a point of A to the nearest of B, in the unit of the spacing (mm, or px where the spacing is 1 px).

Empty masks, so that no miss is dropped in silence:
- both empty: nothing to compare; NaN, except accuracy and specificity;
- one empty: Dice, IoU and NSD are 0, distances are NaN, `hd95_penalised` is the diagonal of the frame.

Definitions after Metrics Reloaded (Maier-Hein et al., Nature Methods 21:195-212, 2024); docs/reference/metrics.md has
them all. Masks are bool arrays of axes (rows, columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, partial

import numpy as np
from numpy import ndarray
from scipy.spatial import KDTree

_TIE = 1e-6  # spacings in files are 32-bit floats: a distance of exactly the tolerance may come out above it


class MaskPair:
    """Prediction and reference of one structure in one frame, and what several metrics need of them, found once.

    Both are masks (H, W), bool, whose pixels are `spacing` = (row, column) apart. Raises `ValueError` unless they are.

    >>> pair = MaskPair(np.eye(3, dtype=bool), np.ones((3, 3), bool), (0.5, 0.5))
    >>> pair.tp, pair.fp, pair.fn, pair.tn
    (3, 0, 6, 0)
    """

    def __init__(self, prediction: ndarray, reference: ndarray, spacing: tuple[float, float]) -> None:
        if prediction.shape != reference.shape or prediction.ndim != 2:
            raise ValueError(
                f"prediction has shape {prediction.shape}, reference {reference.shape}: both must be (H, W), "
                "on the grid of the reference."
            )
        if prediction.dtype != bool or reference.dtype != bool:
            raise ValueError(f"prediction is {prediction.dtype}, reference {reference.dtype}: both must be bool masks.")
        self.prediction, self.reference, self.spacing = prediction, reference, spacing
        self.tp = int(np.count_nonzero(prediction & reference))
        self.fp = int(np.count_nonzero(prediction)) - self.tp
        self.fn = int(np.count_nonzero(reference)) - self.tp
        self.tn = prediction.size - self.tp - self.fp - self.fn

    @property
    def prediction_empty(self) -> bool:
        """Whether the prediction has no pixel."""
        return self.tp + self.fp == 0

    @property
    def reference_empty(self) -> bool:
        """Whether the reference has no pixel."""
        return self.tp + self.fn == 0

    @cached_property
    def distances(self) -> tuple[ndarray, ndarray] | None:
        """d(a, B) of all a, and d(b, A) of all b, in the spacing's unit; None where a mask is empty.

        A k-d tree over the border points gives what a distance transform over the crop would give there, for less.
        """
        if self.prediction_empty or self.reference_empty:
            return None
        a, b = _border_points(self.prediction, self.spacing), _border_points(self.reference, self.spacing)
        return KDTree(b).query(a)[0], KDTree(a).query(b)[0]

    @property
    def diagonal(self) -> float:
        """Of the frame, in the spacing's unit: no distance is longer."""
        return math.hypot(*np.multiply(self.prediction.shape, self.spacing).tolist())


class Shown(IntEnum):
    """Where a metric is seen. All are in cases.csv and summary.json; each further place includes those before it."""

    CASES = 0
    BOARD = 1  # columns of leaderboard.csv
    PLOT = 2  # a plot of the report, a figure
    TEST = 3  # a column in the page and in leaderboard.md, a test against the baseline


@dataclass(frozen=True)
class Metric:
    """What is computed of two masks, and how it is read.

    `unit_power` is that of the unit of length in the value: 0 for a share, 1 for a distance, 2 for an area. A
    `tolerance` is a length in the name: it is in the unit of the spacing, too. `counts_misses` says that a structure
    which one of both masks lacks has the worst value, not NaN: trainers may then be ranked by it. `shown` says where it
    is seen, `short` is its name in the head of a table, which `note` explains.
    """

    name: str
    title: str
    unit_power: int
    higher_is_better: bool
    counts_misses: bool
    compute: Callable[[MaskPair], float]
    shown: Shown = Shown.CASES
    tolerance: float | None = None
    short: str = ""
    note: str = ""

    def unit(self, unit: str) -> str:
        """Of the value, for lengths in `unit` ("mm" or "px"); "1" for a share."""
        return f"{unit}{self.unit_power if self.unit_power > 1 else ''}" if self.unit_power else "1"

    def column(self, unit: str) -> str:
        """Its name in the tables.

        >>> [METRICS[name].column("mm") for name in ("dice", "hd95", "nsd_2")]
        ['dice', 'hd95_mm', 'nsd_2mm']
        """
        ending = unit if self.tolerance is not None else ""
        return f"{self.name}{ending}" + (f"_{self.unit(unit)}" if self.unit_power else "")

    def axis(self, unit: str) -> str:
        """Its title with the unit, for the axis of a plot.

        >>> METRICS["hd95_penalised"].axis("mm"), METRICS["nsd_2"].axis("px")
        ('HD95, missed structures penalised, mm', 'Normalised surface Dice at 2 px')
        """
        return self._with_unit(self.title, unit)

    def heading(self, unit: str, structure: str = "") -> str:
        """Its short name with the unit, for the head of a column, which may be that of a structure.

        >>> METRICS["hd95_penalised"].heading("mm", "LV"), METRICS["dice"].heading("mm")
        ('HD95 LV, mm', 'Dice')
        """
        return self._with_unit(" ".join(filter(None, (self.short or self.title, structure))), unit)

    def _with_unit(self, text: str, unit: str) -> str:
        text += f" {unit}" if self.tolerance is not None else ""
        return f"{text}, {self.unit(unit)}" if self.unit_power else text

    @property
    def best(self) -> float:
        """The value where prediction and reference are the same: 1 where higher is better, else 0."""
        return float(self.higher_is_better)


def _ratio(part: int, total: int) -> float:
    return part / total if total else math.nan


def _hd95(pair: MaskPair) -> float:
    """The larger one of both directed percentiles."""
    return _of_distances(lambda a, b: max(np.percentile(a, 95), np.percentile(b, 95)), pair)


def _hd95_penalised(pair: MaskPair) -> float:
    """`hd95`; the diagonal of the frame where one mask is empty."""
    return pair.diagonal if pair.prediction_empty != pair.reference_empty else _hd95(pair)


def _nsd(tolerance: float, pair: MaskPair) -> float:
    if pair.prediction_empty != pair.reference_empty:
        return 0.0
    return _pooled(lambda both: float(np.mean(both <= tolerance * (1 + _TIE))), pair)


def _of_distances(statistic: Callable[[ndarray, ndarray], float], pair: MaskPair) -> float:
    """NaN where a mask is empty."""
    return math.nan if pair.distances is None else float(statistic(*pair.distances))


def _pooled(statistic: Callable[[ndarray], float], pair: MaskPair) -> float:
    """Of the distances of both directions together."""
    return _of_distances(lambda a, b: statistic(np.concatenate([a, b])), pair)


# Name, title, power of the unit, whether higher is better, whether a missed structure has a value, how to compute it.
_ROWS = (
    Metric("dice", "Dice", 0, True, True, lambda m: _ratio(2 * m.tp, 2 * m.tp + m.fp + m.fn), Shown.TEST),
    Metric("iou", "IoU", 0, True, True, lambda m: _ratio(m.tp, m.tp + m.fp + m.fn), Shown.BOARD),
    Metric("precision", "Precision", 0, True, False, lambda m: _ratio(m.tp, m.tp + m.fp)),
    Metric("sensitivity", "Sensitivity", 0, True, False, lambda m: _ratio(m.tp, m.tp + m.fn)),
    Metric("specificity", "Specificity", 0, True, False, lambda m: _ratio(m.tn, m.tn + m.fp)),
    Metric("accuracy", "Accuracy", 0, True, False, lambda m: _ratio(m.tp + m.tn, m.prediction.size)),
    Metric("hd", "HD", 1, False, False, partial(_pooled, np.max), Shown.BOARD),
    Metric("hd95", "HD95", 1, False, False, _hd95, Shown.PLOT),
    Metric("hd95_pooled", "HD95, pooled", 1, False, False, partial(_pooled, lambda both: np.percentile(both, 95))),
    Metric("assd", "ASSD", 1, False, False, partial(_pooled, np.mean), Shown.PLOT),
    Metric("masd", "MASD", 1, False, False, partial(_of_distances, lambda a, b: (a.mean() + b.mean()) / 2)),
    Metric("nsd_1", "Normalised surface Dice at 1", 0, True, True, partial(_nsd, 1.0), Shown.BOARD, 1.0),
    Metric("nsd_2", "Normalised surface Dice at 2", 0, True, True, partial(_nsd, 2.0), Shown.PLOT, 2.0),
    Metric(
        "hd95_penalised",
        "HD95, missed structures penalised",
        1,
        False,
        True,
        _hd95_penalised,
        Shown.TEST,
        short="HD95",
        note="a missed structure counts with the diagonal of the frame",
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ROWS}


def mask_metrics(prediction: ndarray, reference: ndarray, spacing: tuple[float, float]) -> dict[str, float]:
    """All of `METRICS` of two masks (H, W), bool, whose pixels are `spacing` = (row, column) apart; NaN if undefined.

    Distances are in the spacing's unit. Raises `ValueError` unless both are masks of one shape.

    >>> reference = np.zeros((20, 20), bool)
    >>> reference[5:15, 5:15] = True
    >>> found = mask_metrics(np.roll(reference, 2, axis=0), reference, (0.5, 0.5))
    >>> round(found["dice"], 2), found["hd"], found["nsd_1"]
    (0.8, 1.0, 1.0)
    """
    pair = MaskPair(prediction, reference, spacing)
    return {name: metric.compute(pair) for name, metric in METRICS.items()}


def metric_columns(unit: str) -> dict[str, str]:
    """Metric -> its column in the tables, for lengths in `unit` ("mm" or "px").

    >>> metric_columns("px")["assd"]
    'assd_px'
    """
    return {name: metric.column(unit) for name, metric in METRICS.items()}


def shown_metrics(place: Shown) -> list[Metric]:
    """Those that are seen at this place.

    >>> [metric.name for metric in shown_metrics(Shown.TEST)]
    ['dice', 'hd95_penalised']
    """
    return [metric for metric in METRICS.values() if metric.shown >= place]


def ranking_metrics() -> list[str]:
    """The names of those that trainers may be ranked by, because a missed structure has a value in them.

    >>> ranking_metrics()
    ['dice', 'iou', 'nsd_1', 'nsd_2', 'hd95_penalised']
    """
    return [name for name, metric in METRICS.items() if metric.counts_misses]


def structures(labels: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The label values of each structure of a dataset.json, and LV_EPI = LV or MYO where it has both.

    The epicardial contour of the CAMUS papers encloses LV_EPI; MYO is the ring alone, and scores much lower.

    >>> structures({"background": 0, "LV": 1, "MYO": 2})
    {'LV': (1,), 'MYO': (2,), 'LV_EPI': (1, 2)}
    """
    found = {
        name: (value,) if isinstance(value, int) else tuple(value)
        for name, value in labels.items()
        if name != "background"
    }
    if "LV" in found and "MYO" in found:
        found.setdefault("LV_EPI", found["LV"] + found["MYO"])
    return found


def _border_points(mask: ndarray, spacing: tuple[float, float]) -> ndarray:
    """The centres of the border pixels of a mask that is not empty, as (N, 2) in the spacing's unit."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    crop = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    inner = crop[:-2, 1:-1] & crop[2:, 1:-1] & crop[1:-1, :-2] & crop[1:-1, 2:]
    return (np.argwhere(crop[1:-1, 1:-1] & ~inner) + (top, left)) * spacing
