"""Where the mitral plane is, and when it is in doubt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn_ventricles import ANISOTROPIC, FRAME_MM, ISOTROPIC, Profile, bullet, draw, ellipse, ragged, shape
from numpy import ndarray

from nnunet_echo.evaluation.left_ventricle.outline import mitral_junction, mitral_plane, trace
from nnunet_echo.evaluation.left_ventricle.volume import lv_shape, lv_volumes
from nnunet_echo.evaluation.motion import frame_attributes


def test_a_mask_without_mitral_plane_says_so() -> None:
    """One column of pixels lies above nothing."""
    line = np.zeros((60, 40), bool)
    line[5:50, 20] = True
    measured = lv_shape(line, (1.0, 0.2))
    assert measured.flag == "no_base"
    assert math.isnan(measured.length)


def test_a_mask_without_a_long_axis_says_so() -> None:
    """The points that are farthest from its base lie on both sides of it; a network's scraps look like this."""
    scrap = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]], bool)
    measured = lv_shape(np.pad(scrap, 2), (1.0, 1.0))
    assert measured.flag == "no_base" and math.isnan(measured.length)


def test_a_curved_mitral_plane_is_closed_between_its_hinges() -> None:
    """With myocardium, L ends on the line between the hinges of the valve however far the LV bulges beyond.

    A bulge far beyond looks the same as a wall that is open on both sides above the hinges: it is flagged.
    """
    lv, myocardium = draw(ellipse, 88, 46)
    row, column = np.nonzero(lv)
    far = np.hypot(*(np.indices(lv.shape) - np.array([row.max(), 194])[:, None, None]) * 0.308)
    for bulging, flag in ((lv | (far < 4), ""), (lv | (far < 12), "base_doubtful")):
        straight, bulge = (lv_shape(mask, ISOTROPIC, myocardium=myocardium & ~mask) for mask in (lv, bulging))
        assert bulge.length == pytest.approx(straight.length, abs=0.5)
        assert (straight.flag, bulge.flag) == ("", flag)
    assert lv_shape(bulging, ISOTROPIC).length > straight.length + 4


def test_myocardium_that_shows_no_mitral_plane_is_flagged() -> None:
    lv, _ = draw(ellipse, 88, 46)
    for myocardium in (np.zeros_like(lv), ~lv):
        measured = lv_shape(lv, ISOTROPIC, myocardium=myocardium)
        assert measured.flag == "base_from_outline"
        assert measured.length == lv_shape(lv, ISOTROPIC).length
        assert lv_volumes({("", "ED"): measured, ("", "ES"): measured}).flags == (
            "base_from_outline_ED",
            "base_from_outline_ES",
        )


def test_shreds_of_myocardium_do_not_split_the_mitral_plane() -> None:
    lv, myocardium = draw(ellipse, 88, 46)
    shred = myocardium.copy()
    bottom = np.nonzero(lv)[0].max()
    shred[bottom + 1, 192:197] = True  # 1.5 mm in the middle of the mitral plane
    assert lv_shape(lv, ISOTROPIC, myocardium=shred) == lv_shape(lv, ISOTROPIC, myocardium=myocardium)


def gapped(
    start: float,
    gap: float,
    right: bool = True,
    profile: Profile = ellipse,
    tilt: float = 0.0,
    spacing: tuple[float, float] = ANISOTROPIC,
) -> tuple[ndarray, ndarray]:
    """An LV 76 mm long, whose wall is open on one side from `start` mm below the apex over `gap` mm along the axis."""
    lv, myocardium = draw(profile, 76, 44, tilt, spacing)
    y, x = ((np.arange(n) + 0.5) * step - side / 2 for n, step, side in zip(lv.shape, spacing, FRAME_MM, strict=True))
    y, x, angle = y[:, None], x[None, :], np.deg2rad(tilt)
    below, beside = y * np.cos(angle) + x * np.sin(angle) + 38, x * np.cos(angle) - y * np.sin(angle)
    return lv, myocardium & ~((below > start) & (below < start + gap) & ((beside > 0) == right))


@pytest.mark.parametrize("spacing", [ANISOTROPIC, ANISOTROPIC[::-1], ISOTROPIC])
@pytest.mark.parametrize("profile", [ellipse, bullet])
def test_a_gap_in_the_side_wall_is_not_the_mitral_plane(profile: Profile, spacing: tuple[float, float]) -> None:
    """Whatever its length: it has more pixel edges than the plane, or is wider, but does not lie across the LV."""
    for tilt in (0, 15):
        whole = lv_shape(
            *gapped(0, 0, profile=profile, tilt=tilt, spacing=spacing)[:1],
            spacing,
            myocardium=gapped(0, 0, profile=profile, tilt=tilt, spacing=spacing)[1],
        )
        assert 74 < whole.length < 78
        for start, gap, right in ((0, 18, True), (5, 25, False), (20, 18, True), (20, 40, False), (40, 25, True)):
            lv, myocardium = gapped(start, gap, right, profile, tilt, spacing)
            shape = lv_shape(lv, spacing, myocardium=myocardium)
            assert (shape.length, shape.diameters) == (whole.length, whole.diameters)
            attributes = frame_attributes({"LV": lv, "MYO": myocardium}, spacing)
            assert attributes["lv_length"] == whole.length
            assert attributes["lv_base_width"] == pytest.approx({ellipse: 32.8, bullet: 44}[profile], abs=1.5)


@pytest.mark.parametrize(
    ("start", "gap", "flag"),
    [
        (20, 10, ""),
        (20, 18, ""),
        (20, 25, "base_doubtful"),
        (20, 40, "base_doubtful"),
        (5, 25, "base_doubtful"),
        (72, 20, ""),
        (66, 20, "base_doubtful"),
        (61, 20, "base_doubtful"),  # down to the hinge: the outline has a corner
        (41, 40, "base_doubtful"),  # the plane seems slanted as well
    ],
)
def test_a_doubtful_mitral_plane_is_flagged(start: float, gap: float, flag: str) -> None:
    for right in (False, True):
        lv, myocardium = gapped(start, gap, right)
        measured = lv_shape(lv, ANISOTROPIC, myocardium=myocardium)
        assert measured.flag == flag
        assert flag or measured.length == pytest.approx(76, abs=2)
    assert lv_volumes({("4CH", "ED"): shape(80, 40, flag="base_doubtful cut"), ("4CH", "ES"): shape(75, 30)}).flags == (
        "missing_2CH",
        "base_doubtful_4CH_ED",
        "cut_4CH_ED",
    )


def test_a_gap_where_the_mitral_plane_is_closed_is_not_taken_for_it() -> None:
    lv, myocardium = gapped(30, 12)
    row = int(np.nonzero(lv)[0].max())
    myocardium[row + 1 : row + 20, 100:290] = True
    measured = lv_shape(lv, ANISOTROPIC, myocardium=myocardium)
    assert measured.flag == "base_from_outline"
    assert measured.length == lv_shape(lv, ANISOTROPIC).length
    assert math.isnan(frame_attributes({"LV": lv, "MYO": myocardium}, ANISOTROPIC)["lv_base_width"])


@pytest.mark.parametrize("spacing", [ANISOTROPIC, ISOTROPIC])
def test_the_mirrored_lv_is_measured_alike(spacing: tuple[float, float]) -> None:
    """No tie goes to the first: of points equally far, stretches equally long, or the middle of an even number."""
    for seed in range(8):
        mask = ragged(seed)
        wall = np.zeros_like(mask)
        wall[: 60 + 5 * seed] = True
        wall[:, :40] = True
        for myocardium in (None, wall & ~mask):
            ours, mirrored = (
                lv_shape(lv, spacing, myocardium=wall)
                for lv, wall in (
                    (mask, myocardium),
                    (mask[:, ::-1], None if myocardium is None else myocardium[:, ::-1]),
                )
            )
            assert mirrored.length == pytest.approx(ours.length, abs=1e-6)
            assert mirrored.diameters == pytest.approx(ours.diameters, abs=1e-6)
            assert mirrored.flag == ours.flag


def test_mitral_junction_on_a_square() -> None:
    points = np.array([[0, 0], [0, 1], [0, 2], [1, 2], [2, 2], [2, 1], [2, 0], [1, 0]], float)
    walled = np.array([True, True, True, True, False, False, False, True])
    start, end = mitral_junction(points, walled, 0.5)
    assert (start.tolist(), end.tolist()) == ([2, 2], [2, 0])
    for shift in range(8):  # wherever the outline starts
        ends = mitral_junction(np.roll(points, shift, axis=0), np.roll(walled, shift), 0.5)
        np.testing.assert_array_equal(ends, [start, end])
    assert mitral_junction(points, np.ones(8, bool), 1.0) is None
    assert mitral_junction(points, np.zeros(8, bool), 1.0) is None


@pytest.mark.parametrize("mirror", [False, True])
def test_mitral_junction_does_not_depend_on_where_the_outline_starts(mirror: bool) -> None:
    """Shreds of wall before, in and behind the part without it; a wide gap elsewhere."""
    lv, myocardium = gapped(20, 18, spacing=(1.0, 1.3))
    row = int(np.nonzero(lv)[0].max())
    bottom = np.nonzero(lv[row])[0]
    myocardium[row + 1, bottom[4] : bottom[5]] = myocardium[row + 1, bottom[12] : bottom[13]] = True
    if mirror:
        lv, myocardium = lv[:, ::-1], myocardium[:, ::-1]
    points, beyond = trace(lv)
    walled, points = np.pad(myocardium, 1)[tuple(beyond.T + 1)], points * (1.0, 1.3)
    answers = {
        tuple(np.ravel(mitral_junction(np.roll(points, k, axis=0), np.roll(walled, k), 3.0)).tolist())
        for k in range(len(points))
    }
    (ends,) = answers
    assert abs(ends[1] - ends[3]) == pytest.approx(1.3 * len(bottom), abs=2.7)
    backwards = mitral_junction(points[::-1], walled[::-1], 3.0)
    assert tuple(np.ravel(backwards[::-1]).tolist()) == ends


def test_no_mitral_junction_of_two_equal_parts() -> None:
    """Nothing but their order would choose; nor does a shred of wall make the whole outline a plane."""
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    points, beyond = trace(mask)
    sides = (beyond[:, 1] < 5) | (beyond[:, 1] > 24)
    assert mitral_junction(points, sides, 2.0) is None
    assert mitral_junction(points, (beyond == (4, 10)).all(axis=1), 2.0) is None
    start, end = mitral_junction(points, beyond[:, 0] < 25, 2.0)
    assert (start.tolist(), end.tolist()) == ([24.5, 24], [24.5, 5])
    wall = np.ones_like(mask)
    wall[25:] = False
    ends, doubtful = mitral_plane(mask, wall & ~mask, (1.0, 2.0))
    assert (ends.tolist(), doubtful) == ([[24.5, 48], [24.5, 10]], False)
