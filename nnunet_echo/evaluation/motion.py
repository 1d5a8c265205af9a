"""Does a segmentation move smoothly through the frames of a sequence? After Painchaud et al. 2022.

An attribute a_t of frame t, scaled by the lowest and highest value that the dataset has, should lie between those of
the frames beside it. Its consistency error is

    e_t = (a_t - (a_{t-1} + a_{t+1}) / 2) / (highest - lowest),

0 in the first and last frame. A frame is inconsistent when |e_t| exceeds the attribute's threshold for one attribute.
Bounds and thresholds come from references (`limits_of`): a prediction may jerk as much as the worst of them, no more.

Source: Painchaud et al., IEEE TMI 41(10):2867-2878, 2022; limits and definitions of attributes also from its authors'
public code. Structures are LV, MYO and LV_EPI = LV or MYO, bool masks (rows, columns); T counts frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from nnunet_echo.evaluation.left_ventricle.outline import main_part, mitral_plane
from nnunet_echo.evaluation.left_ventricle.volume import lv_shape

# Attribute: the power of the spacing's unit that it has; None for degrees.
ATTRIBUTES: dict[str, int | None] = {
    "lv_area": 2,
    "lv_base_width": 1,
    "lv_length": 1,
    "lv_orientation": None,
    "myo_area": 2,
    "epi_center_x": 1,
    "epi_center_y": 1,
}


@dataclass(frozen=True)
class Limits:
    """Of one attribute: the range of its values, in its unit, and the largest |e_t| of a consistent frame."""

    lowest: float
    highest: float
    threshold: float


# Of the paper's dataset TED, whole cycles of 98 four-chamber views. Its bounds are published in pixels, which must be
# 0.154 mm high and 0.308 mm wide: so, and only so, they are the ranges that CAMUS's masks have. Lengths are taken as
# upright, base widths as level, as they nearly are.
_DOWN_MM, _ACROSS_MM = 0.154, 0.308
PAINCHAUD_2022 = {
    "lv_area": Limits(19632 * _DOWN_MM * _ACROSS_MM, 112404 * _DOWN_MM * _ACROSS_MM, 0.0160),
    "lv_base_width": Limits(53.8 * _ACROSS_MM, 172.9 * _ACROSS_MM, 0.0969),
    "lv_length": Limits(301 * _DOWN_MM, 613 * _DOWN_MM, 0.0262),
    "lv_orientation": Limits(-13.8, 28.7, 0.0229),  # from -7.0 and 15.3 degrees between such pixels
    "myo_area": Limits(23228 * _DOWN_MM * _ACROSS_MM, 64134 * _DOWN_MM * _ACROSS_MM, 0.0321),
    "epi_center_x": Limits(183 * _ACROSS_MM, 479 * _ACROSS_MM, 0.00456),
    "epi_center_y": Limits(286 * _DOWN_MM, 609 * _DOWN_MM, 0.0110),
}


def frame_attributes(masks: Mapping[str, ndarray], spacing: tuple[float, float]) -> dict[str, float]:
    """`ATTRIBUTES` of one frame, in the unit of `spacing` = (row, column); NaN where one cannot be measured.

    `masks` maps "LV", and "MYO" where the dataset labels it, to bool arrays (H, W). Without "MYO" there are lv_area,
    lv_length and lv_orientation.

    lv_area, myo_area      0 where the mask is empty
    lv_base_width          between the two ends of the mitral plane, as the myocardium shows it
    lv_length              of the long axis, by `lv_shape` (method "ase")
    lv_orientation         degrees from the vertical to the first principal axis of the LV's pixels, between -90 and 90,
                           positive where its lower end lies to the right
    epi_center_x, .._y     centroid of LV_EPI from the middle of the frame's upper left pixel, to the right and down
    """
    lv, myo = masks["LV"], masks.get("MYO")
    pixel = spacing[0] * spacing[1]
    found = {
        "lv_area": np.count_nonzero(lv) * pixel,
        "lv_length": lv_shape(lv, spacing, myocardium=myo).length,
        "lv_orientation": _orientation(lv, spacing),
    }
    if myo is not None:
        y, x = _center(lv | myo, spacing)
        found |= {
            "lv_base_width": _base_width(lv, myo, spacing),
            "myo_area": np.count_nonzero(myo) * pixel,
            "epi_center_x": x,
            "epi_center_y": y,
        }
    return {name: float(found[name]) for name in ATTRIBUTES if name in found}


def consistency_errors(values: Sequence[float] | ndarray, limits: Limits) -> ndarray:
    """e_t of one attribute over a sequence (T,), in frame order; NaN where one of the three values is.

    0 in the first and last frame, and everywhere in an attribute that the references never change.
    """
    curve = np.asarray(values, float)
    errors = np.zeros_like(curve)
    if limits.highest > limits.lowest:
        errors[1:-1] = (curve[1:-1] - (curve[:-2] + curve[2:]) / 2) / (limits.highest - limits.lowest)
    return errors


def limits_of(sequences: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, Limits]:
    """Limits from the attributes (attribute -> (T,) values) of reference sequences.

    Bounds are the extremes of all frames, the threshold is the largest |e_t|; undefined values are left out, and an
    attribute without any value gets no limits.
    """
    sequences = list(sequences)
    limits = {}
    for name in ATTRIBUTES:
        curves = [np.asarray(sequence[name], float) for sequence in sequences if name in sequence]
        values = np.concatenate([*curves, []])
        if np.isfinite(values).any():
            bounds = float(np.nanmin(values)), float(np.nanmax(values))
            errors = [np.abs(consistency_errors(curve, Limits(*bounds, 0))) for curve in curves]
            limits[name] = Limits(*bounds, float(np.nanmax(np.concatenate([np.nan_to_num(e) for e in errors]))))
    return limits


def inconsistent_frames(attributes: Mapping[str, Sequence[float]], limits: Mapping[str, Limits]) -> dict[str, ndarray]:
    """Attribute -> (T,) bool, whether |e_t| exceeds the threshold, for the attributes that have limits.

    A frame between two others in which the attribute cannot be measured is inconsistent; the errors beside it are
    undefined and do not count.
    """
    result = {}
    for name, values in attributes.items():
        if name in limits:
            errors = consistency_errors(values, limits[name])
            lost = np.isnan(np.asarray(values, float))
            lost[[0, -1]] = False
            # A threshold is itself an error of a reference: a hair of rounding must not put that frame above it.
            result[name] = lost | (np.abs(errors) > limits[name].threshold * (1 + 1e-9))
    return result


def ed_es_frames(lv_area: Sequence[float]) -> tuple[int, int] | None:
    """Indices of end diastole and end systole by the area curve (T,): the largest and the smallest LV.

    The first of equal ones; no order is assumed, for sequences may start in systole. Frames without LV (0 or NaN) are
    left out; None where no frame has one.

    >>> ed_es_frames([30.0, 0.0, 12.0, 25.0, 41.0])
    (4, 2)
    """
    areas = np.asarray(lv_area, float)
    areas = np.where(areas > 0, areas, np.nan)
    if np.isnan(areas).all():
        return None
    return int(np.nanargmax(areas)), int(np.nanargmin(areas))


def _center(mask: ndarray, spacing: tuple[float, float]) -> ndarray:
    return np.argwhere(mask).mean(axis=0) * spacing if mask.any() else np.full(2, np.nan)


def _orientation(mask: ndarray, spacing: tuple[float, float]) -> float:
    points = np.argwhere(mask) * spacing
    if len(points) < 2:
        return np.nan
    (down, both), (_, across) = np.cov(points.T)
    return np.degrees(np.arctan2(2 * both, down - across) / 2)


def _base_width(lv: ndarray, myo: ndarray, spacing: tuple[float, float]) -> float:
    if not lv.any():
        return np.nan
    ends, _ = mitral_plane(main_part(lv), myo, spacing)
    return np.nan if ends is None else float(np.linalg.norm(ends[1] - ends[0]))
