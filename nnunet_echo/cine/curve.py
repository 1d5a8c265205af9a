"""What every frame of a cine measures: areas, lengths and volumes of the chambers, thickness of the wall.

The left ventricle (LV) is measured by `evaluation.left_ventricle`: rule of disks, the one view standing for both. The
left atrium (LA) is measured alike, upside down, its mitral plane where it borders on the LV (biplane disks are what
Lang et al., J Am Soc Echocardiogr 28:1-39, 2015, recommend; one view is less). The wall is as thick as the median
distance from the LV's outline, where that borders on myocardium (MYO), to what lies beyond the myocardium.

T: frames; H, W: rows and columns. Lengths are in mm with a scale, else in pixels. Nothing is smoothed or filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray
from scipy import ndimage

from nnunet_echo.cine.masks import Masks
from nnunet_echo.evaluation.anatomy import anatomical_errors
from nnunet_echo.evaluation.left_ventricle.outline import main_part, trace
from nnunet_echo.evaluation.left_ventricle.volume import LvShape, lv_shape, lv_volumes

# Column -> the power of the unit of length that it has.
COLUMNS = {
    "lv_area": 2,
    "lv_length": 1,
    "lv_volume": 3,
    "myo_area": 2,
    "wall_thickness": 1,
    "la_area": 2,
    "la_length": 1,
    "la_volume": 3,
}
_OF = {"lv": "LV", "myo": "MYO", "wall": "MYO", "la": "LA"}


@dataclass(frozen=True)
class LvCurve:
    """Measured frames: `values` maps names of `COLUMNS` to (T,), NaN where a frame cannot be measured.

    `unit` is "mm" or "px"; volumes are in mL with mm, else in cubic pixels. `stray` (T,) is the share of the LV outside
    its largest piece, `on_edge` (T,) the share of its outline on the edge of sector or picture, `la_cut` (T,) whether
    the LA reaches that edge, `violations` (T,) how many anatomical criteria a frame breaks.
    """

    times_s: ndarray | None
    unit: str
    shapes: tuple[LvShape, ...]
    values: dict[str, ndarray]
    stray: ndarray
    on_edge: ndarray
    la_cut: ndarray
    violations: ndarray
    entropy: ndarray | None = field(default=None)

    def column(self, name: str) -> str:
        """The name of a column with its unit, as tables have it.

        >>> measure_curve(Masks([np.ones((4, 4), np.uint8)]), {"LV": 1}).column("lv_area")
        'lv_area_px2'
        """
        power = COLUMNS[name]
        if power == 3:
            return f"{name}_{'ml' if self.unit == 'mm' else 'px3'}"
        return f"{name}_{self.unit}{power if power > 1 else ''}"


def structure_values(labels: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Those of LV, MYO and LA among the labels, whatever their case, each with its values in a label map.

    >>> structure_values({"background": 0, "lv": 1, "RV": 2})
    {'LV': (1,)}
    """
    found = {name.upper(): value for name, value in labels.items()}
    return {
        name: tuple(int(v) for v in np.atleast_1d(np.asarray(found[name])))
        for name in ("LV", "MYO", "LA")
        if name in found
    }


def measure_curve(
    masks: Masks,
    labels: Mapping[str, int | Sequence[int]],
    *,
    spacing_mm: tuple[float, float] | None = None,
    times_s: ndarray | None = None,
    sector: ndarray | None = None,
) -> LvCurve:
    """Measure every frame. `sector` (H, W), bool, is where the probe sees; without it the picture is the sector.

    >>> y, x = np.mgrid[:100, :80]
    >>> ventricle = (y < 75) & (((x - 40) / 25) ** 2 + ((y - 75) / 70) ** 2 < 1)
    >>> curve = measure_curve(Masks([ventricle]), {"LV": 1}, spacing_mm=(1.0, 1.0))
    >>> curve.values["lv_volume"].round(), curve.values["lv_length"].round()
    (array([90.]), array([69.]))
    """
    structures = structure_values(labels)
    # What lies beside the sector, or is the rim of the picture: a chamber that reaches it may go on beyond.
    inside = np.ones(masks.shape, bool) if sector is None else sector
    edge = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3)))
    rows = [_measure(mask, structures, spacing_mm or (1.0, 1.0), edge, spacing_mm is not None) for mask in masks]

    def column(name: str) -> ndarray:
        return np.array([numbers[name] for _, numbers in rows], float)

    return LvCurve(
        times_s=times_s,
        unit="mm" if spacing_mm else "px",
        shapes=tuple(shape for shape, _ in rows),
        values={name: column(name) for name in COLUMNS if _OF[name.split("_")[0]] in structures},
        stray=column("stray"),
        on_edge=column("on_edge"),
        la_cut=column("la_cut") > 0,
        violations=column("violations"),
        entropy=masks.entropy,
    )


def disks_volume(shape: LvShape, in_mm: bool = True) -> float:
    """Volume of one view by disks: in mL for lengths in mm, in cubic pixels for pixels; NaN where not measured.

    >>> round(disks_volume(LvShape(80.0, (40.0,) * 20, 3200.0)), 1)  # a cylinder
    100.5
    """
    one = lv_volumes({("", "ED"): shape, ("", "ES"): shape}).edv_ml
    return one if in_mm else one * 1000


def _measure(
    mask: ndarray, structures: Mapping[str, tuple[int, ...]], spacing: tuple[float, float], edge: ndarray, in_mm: bool
) -> tuple[LvShape, dict[str, float]]:
    numbers = dict.fromkeys([*COLUMNS, "stray", "on_edge", "la_cut", "violations"], np.nan)
    box = _box(np.isin(mask, [v for values in structures.values() for v in values]))
    mask, edge = mask[box], edge[box]
    found = {name: np.isin(mask, values) for name, values in structures.items()}
    lv, myo, la = (found.get(name) for name in ("LV", "MYO", "LA"))
    shape = LvShape(flag="empty")
    pixel = spacing[0] * spacing[1]
    if found:
        numbers["violations"] = sum(anatomical_errors(found, spacing).values())
    if lv is not None and lv.any():
        shape = lv_shape(lv, spacing, myocardium=myo)
        part = main_part(lv)
        numbers["stray"] = 1 - np.count_nonzero(lv & part) / np.count_nonzero(lv)
        numbers["lv_area"], numbers["lv_length"] = np.count_nonzero(part) * pixel, shape.length
        numbers["lv_volume"] = disks_volume(shape, in_mm)
        rim = part & ~ndimage.binary_erosion(part)  # beyond the box is outside
        numbers["on_edge"] = np.count_nonzero(rim & edge) / np.count_nonzero(rim)
        if myo is not None and myo.any():
            numbers["wall_thickness"] = _wall_thickness(part, myo, spacing)
    if myo is not None:
        numbers["myo_area"] = np.count_nonzero(myo) * pixel
    if la is not None and la.any():
        part = main_part(la)
        beyond = ~(part if lv is None else part | lv)  # all but the LV is wall to the LA
        atrium = lv_shape(part[::-1], spacing, myocardium=None if lv is None else beyond[::-1])
        numbers["la_area"], numbers["la_length"] = np.count_nonzero(part) * pixel, atrium.length
        numbers["la_volume"] = disks_volume(atrium, in_mm)
        numbers["la_cut"] = float((part & edge).any())
    return shape, numbers


def _wall_thickness(part: ndarray, myo: ndarray, spacing: tuple[float, float]) -> float:
    """From the middles of the pixel edges between cavity and wall outwards; NaN where they do not touch."""
    _, beyond = trace(part)
    row, column = (beyond + 1).T
    on_wall = np.pad(myo, 1)[row, column]
    if not on_wall.any():
        return np.nan
    # Distances run from the middle of the wall's first pixel to that of the first one outside: the same two halves.
    depth = ndimage.distance_transform_edt(np.pad(part | myo, 1), sampling=spacing)
    return float(np.median(depth[row[on_wall], column[on_wall]]))


def _box(mask: ndarray) -> tuple[slice, slice]:
    """Rows and columns of a mask with two of margin, as far as the picture goes: lengths do not depend on the rest."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 3), slice(0, 3)
    return slice(max(rows[0] - 2, 0), rows[-1] + 3), slice(max(columns[0] - 2, 0), columns[-1] + 3)
