"""Volumes and ejection fraction (EF) of the left ventricle (LV) from masks of one or two apical views.

`lv_shape` measures one mask: L, the long axis, d_1..d_20, the diameters of 20 disks across it, and A, the area.
`lv_volumes` makes end-diastolic and end-systolic volume (EDV, ESV) and EF of a patient's shapes. Methods:

"ase"          V = pi/4 sum_k(d_k of 2CH * d_k of 4CH) L/20, the rule of disks of Lang et al., J Am Soc Echocardiogr
               28:1-39, 2015: L is the longer one of the two views in that phase, diameters are taken in the middle of
               the disks. Where a view is missing, the other stands for both. Mitral plane by the myocardium if given.
"camus"        the same sum by the choices of the script behind the EF values of CAMUS (Leclerc et al., IEEE TMI 38(9),
               2019): mitral plane by the outline; constants in pixels; diameters at the bases of the disks; one L for
               all, the longest of views and phases, so that a shortening of the long axis does not count.
"area_length"  V = 8/(3 pi) * A of 2CH * A of 4CH / L with the shorter L; axes as in "ase".

Lengths are in the unit of the spacing; spacing is (row, column). ESV above EDV, missing views and masks that cannot be
measured become flags and NaN: nothing is swapped or filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy import ndimage

from nnunet_echo.evaluation.left_ventricle.outline import (
    TOLERANCE,
    farthest,
    main_part,
    mitral_plane,
    straight_stretch,
    straight_stretches,
    trace,
)

METHODS = ("ase", "camus", "area_length")
PHASES = ("ED", "ES")
BIPLANE_VIEWS = ("4CH", "2CH")
N_DISKS = 20
# Flags of an EF that is there and not to be trusted.
DOUBTS = ("base_from_outline", "base_doubtful", "cut", "coarse", "esv_above_edv")
_CAMUS_PIXELS = 8
# Side in pixels of the square as large as the LV, below which EF by "camus" is not what it is at the native resolution
# of CAMUS (99 to 250 pixels in systole): docs/reference/metrics.md has the measurement.
_CAMUS_SIDE = 64


@dataclass(frozen=True)
class LvShape:
    """One mask, measured: `length`, 20 `diameters` from the mitral plane to the apex, `area`.

    `flag` is "", or of these, separated by spaces: "empty" (no mask: all NaN), "no_base" (no mitral plane found: all
    NaN), "base_from_outline" (measured, but the myocardium did not show the mitral plane), "base_doubtful" (something
    else might be it, see `mitral_plane`), "cut" (the LV reaches the edge of the frame: more may lie beyond), "coarse"
    (too few pixels for "camus").
    """

    length: float = np.nan
    diameters: tuple[float, ...] = (np.nan,) * N_DISKS
    area: float = np.nan
    flag: str = ""


@dataclass(frozen=True)
class LvVolumes:
    """A patient's volumes in mL (for spacings in mm) and EF in percent, NaN where undefined.

    `planes` is "biplane", "single-plane VIEW" or "" (no view with both phases). `flags` holds "esv_above_edv",
    "missing_VIEW", "missing_VIEW_PHASE", "unused_VIEW" (where 2CH and 4CH are not, only one view counts) and the flags
    of shapes as FLAG_VIEW_PHASE.
    """

    edv_ml: float
    esv_ml: float
    ef_percent: float
    planes: str
    flags: tuple[str, ...]


def lv_shape(
    lv: ndarray, spacing: tuple[float, float], *, method: str = "ase", myocardium: ndarray | None = None
) -> LvShape:
    """Measure the mask `lv` (H, W), bool, of one frame; only its largest component counts, holes filled.

    `myocardium` (H, W), bool, shows the mitral plane; "camus" does not look at it. `spacing` is that of rows and of
    columns, the lengths are in its unit. Raises `ValueError` for an unknown method.

    >>> import numpy as np
    >>> import nnunet_echo
    >>> y, x = np.mgrid[:200, :160]
    >>> ventricle = (y < 150) & (((x - 80) / 50) ** 2 + ((y - 150) / 140) ** 2 < 1)  # half an ellipse, the base below
    >>> round(nnunet_echo.lv_shape(ventricle, (0.5, 0.5)).length)
    70
    """
    _check(method)
    if not lv.any():
        return LvShape(flag="empty")
    if method == "camus":
        return _camus_shape(lv, spacing)

    part = main_part(lv)
    points = trace(part)[0] * spacing
    area = float(np.count_nonzero(part) * np.prod(spacing))
    ends, doubtful = (None, False) if myocardium is None else mitral_plane(part, myocardium, spacing)
    flags = ["base_from_outline"] * (myocardium is not None and ends is None) + ["base_doubtful"] * doubtful
    if ends is None:  # the middles of the stretch, of both middle points and of all equal ones
        stretches = straight_stretches(points, TOLERANCE * np.sqrt(area))
        ends = np.array([points[[(i + j) // 2, (i + j + 1) // 2]].mean(axis=0) for i, j in stretches])
    if len(ends) == 0:
        return LvShape(flag=" ".join(["no_base", *_cut(part)]))
    base = np.mean(ends, axis=0)
    apex = farthest(points, base)
    length = float(np.linalg.norm(apex - base))
    if length == 0:  # points that are equally far on all sides have their middle there
        return LvShape(flag=" ".join(["no_base", *_cut(part)]))
    return LvShape(
        length, tuple(_diameters(part, points, base, apex, spacing).tolist()), area, " ".join([*flags, *_cut(part)])
    )


def lv_volumes(shapes: Mapping[tuple[str, str], LvShape], *, method: str = "ase", rounding: bool = False) -> LvVolumes:
    """EDV, ESV and EF from the shapes at (view, phase), all measured by the same `method`.

    Phases are "ED" and "ES"; others are ignored. "2CH" and "4CH" together are biplane; else the one of them that has
    both phases, or else a view of another name, is single-plane. `rounding` gives whole mL, and the whole percent of
    these, as the EF of CAMUS has them. Raises `ValueError` for an unknown method.

    >>> import numpy as np
    >>> import nnunet_echo
    >>> y, x = np.mgrid[:200, :160]
    >>> def ventricle(radius, length):  # half an ellipse, the base below, in pixels
    ...     return (y < 150) & (((x - 80) / radius) ** 2 + ((y - 150) / length) ** 2 < 1)
    >>> shapes = {("4CH", "ED"): nnunet_echo.lv_shape(ventricle(50, 140), (0.5, 0.5)),
    ...           ("4CH", "ES"): nnunet_echo.lv_shape(ventricle(38, 125), (0.5, 0.5))}
    >>> volumes = nnunet_echo.lv_volumes(shapes, rounding=True)
    >>> volumes.edv_ml, volumes.esv_ml, volumes.ef_percent, volumes.planes
    (91.0, 47.0, 48.0, 'single-plane 4CH')
    """
    _check(method)
    present = {view for view, phase in shapes if phase in PHASES} or {view for view, _ in shapes}
    expected = sorted(present | (set(BIPLANE_VIEWS) if present & set(BIPLANE_VIEWS) else set()))
    complete = [view for view in expected if all((view, phase) in shapes for phase in PHASES)]
    flags = [
        _name("missing", view, phase if view in present else "")
        for view in expected
        for phase in PHASES
        if (view, phase) not in shapes
    ]
    if set(complete) >= set(BIPLANE_VIEWS):
        views, planes = list(BIPLANE_VIEWS), "biplane"
    else:
        views = sorted(complete, key=lambda view: view not in BIPLANE_VIEWS)[:1]
        planes = " ".join(filter(None, ["single-plane", *views])) if views else ""
    if not views:
        return LvVolumes(np.nan, np.nan, np.nan, "", tuple(dict.fromkeys(flags)))

    used = {phase: [shapes[view, phase] for view in views] for phase in PHASES}
    flags += [_name("unused", view) for view in complete if planes != "biplane" and view not in views]
    flags += [
        _name(flag, view, phase) for view in views for phase in PHASES for flag in shapes[view, phase].flag.split()
    ]
    longest = np.max([shape.length for phase in PHASES for shape in used[phase]])
    edv, esv = (_volume(used[phase], method, longest) / 1000 for phase in PHASES)
    if rounding:
        edv, esv = np.round(edv), np.round(esv)
    if esv > edv:
        flags.append("esv_above_edv")
    ef = 100 * (edv - esv) / edv if edv > 0 else np.nan
    if rounding:
        ef = np.round(ef)
    return LvVolumes(float(edv), float(esv), float(ef), planes, tuple(dict.fromkeys(flags)))


def doubts(flags: str) -> list[str]:
    """Which of `DOUBTS` are among a patient's flags, as patients.csv has them."""
    return [doubt for doubt in DOUBTS if any(flag.startswith(doubt) for flag in flags.split())]


def _volume(shapes: Sequence[LvShape], method: str, longest: float) -> float:
    """Volume of one phase from one or two views, in the cube of the spacing's unit."""
    first, second = shapes[0], shapes[-1]
    lengths = [shape.length for shape in shapes]
    if method == "area_length":
        return 8 / (3 * np.pi) * first.area * second.area / np.min(lengths)
    length = longest if method == "camus" else np.max(lengths)
    return np.pi / 4 * np.dot(first.diameters, second.diameters) * length / N_DISKS


def _diameters(part: ndarray, points: ndarray, base: ndarray, apex: ndarray, spacing: tuple[float, float]) -> ndarray:
    """What of the lines across the axis, through the middle of each disk, lies in the mask.

    The mask is interpolated linearly and integrated along the lines, so that a slanted edge counts by its true place.
    """
    length = np.linalg.norm(apex - base)
    along = (apex - base) / length
    across = np.array([-along[1], along[0]])
    step = min(spacing) / 4
    reach = np.abs((points - base) @ across).max() + max(spacing)
    reach = np.ceil(reach / step)
    offsets = np.arange(-reach, reach + 1) * step  # alike on both sides of the axis
    middles = base + np.outer((np.arange(N_DISKS) + 0.5) / N_DISKS * length, along)
    lines = (middles[:, None] + offsets[:, None] * across) / spacing  # (disk, offset, 2)
    values = ndimage.map_coordinates(part.astype(float), np.moveaxis(lines, 2, 0), order=1, mode="grid-constant")
    return values.sum(axis=1) * step


def _camus_shape(lv: ndarray, spacing: tuple[float, float]) -> LvShape:
    pixel = min(spacing)
    # Nearest neighbours on square pixels of the smaller side.
    rows, columns = (
        ((np.arange(round(n * side / pixel)) + 0.5) * pixel / side).astype(int)
        for n, side in zip(lv.shape, spacing, strict=True)
    )
    part = main_part(lv[np.ix_(rows, columns)])
    points, _ = trace(part)
    # The script's outline starts, and ends, at the last point of the lowest row; its search does not cross the start.
    lowest = np.lexsort((points[:, 1], points[:, 0]))[-1]
    points = np.roll(points, -lowest, axis=0)
    points = np.vstack([points, points[:1]])
    pixels = np.count_nonzero(part)
    flags = _cut(part) + ["coarse"] * bool(pixels < _CAMUS_SIDE**2)
    stretch = straight_stretch(points, _CAMUS_PIXELS)
    if stretch is None:
        return LvShape(flag=" ".join(["no_base", *flags]))
    base = points[stretch[0] + round((stretch[1] - stretch[0]) / 2)]
    axis = points[np.argmax(((points - base) ** 2).sum(axis=1))] - base
    length = np.linalg.norm(axis)
    across = np.array([-axis[1], axis[0]]) / length
    starts = base + np.outer(np.arange(N_DISKS) / N_DISKS, axis)
    # From 8 pixels beside the axis on, outwards by half pixels until outside the mask.
    offsets = np.arange(_CAMUS_PIXELS, np.hypot(*part.shape) + 1, 0.5)
    padded = np.pad(part, 1)
    diameters = np.zeros(N_DISKS)
    for side in (across, -across):
        nearest = np.round(starts[:, None] + offsets[:, None] * side).astype(int) + 1  # (disk, offset, 2)
        row, column = np.moveaxis(np.clip(nearest, 0, np.array(padded.shape) - 1), 2, 0)
        diameters += offsets[np.argmin(padded[row, column], axis=1)]
    return LvShape(
        float(length * pixel), tuple((diameters * pixel).tolist()), float(pixels * pixel**2), " ".join(flags)
    )


def _cut(part: ndarray) -> list[str]:
    return ["cut"] * bool(part[[0, -1]].any() or part[:, [0, -1]].any())


def _name(*parts: str) -> str:
    return "_".join(filter(None, parts))


def _check(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}.")
