"""Volumes of known shapes, by each method; what leaves a patient without them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from drawn_ventricles import ANISOTROPIC, FRAME_MM, ISOTROPIC, Profile, bullet, draw, ellipse, shape

from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.evaluation.left_ventricle.volume import METHODS, LvVolumes, lv_shape, lv_volumes
from nnunet_echo.phantom.cine import render

LENGTH_MM, DIAMETERS_MM = 88.0, {"2CH": 44.0, "4CH": 48.0}


def volume_ml(profile: Profile, length: float, diameters: Mapping[str, float]) -> float:
    u = (np.arange(100_000) + 0.5) / 100_000
    return math.pi / 4 * math.prod(diameters.values()) * length * float(np.mean(profile(u) ** 2)) / 1000


def beat(
    profile: Profile = ellipse,
    *,
    shortening: float = 0.1,
    narrowing: float = 0.8,
    scale: float = 1.0,
    tilt: float = 0.0,
    spacing: tuple[float, float] = ISOTROPIC,
    wall: bool = False,
    method: str = "ase",
) -> tuple[LvVolumes, tuple[float, float, float]]:
    """Measured, and true (EDV, ESV, EF), of a ventricle whose axis shortens and whose diameters narrow in systole."""
    shapes, truth = {}, []
    for phase, length, width in (("ED", LENGTH_MM, 1.0), ("ES", LENGTH_MM * (1 - shortening), narrowing)):
        diameters = {view: scale * width * diameter for view, diameter in DIAMETERS_MM.items()}
        for view, diameter in diameters.items():
            frame = (scale * FRAME_MM[0], scale * FRAME_MM[1])
            lv, myocardium = draw(profile, scale * length, diameter, tilt, spacing, frame)
            shapes[view, phase] = lv_shape(lv, spacing, method=method, myocardium=myocardium if wall else None)
        truth.append(volume_ml(profile, scale * length, diameters))
    return lv_volumes(shapes, method=method), (*truth, 100 * (1 - truth[1] / truth[0]))


@pytest.mark.parametrize("wall", [False, True])
@pytest.mark.parametrize("profile", [ellipse, bullet])
@pytest.mark.parametrize("shortening", [0.0, 0.05, 0.1, 0.14, 0.18])
def test_known_volumes(profile: Profile, shortening: float, wall: bool) -> None:
    for tilt in (-20, 0, 13):
        measured, (edv, esv, ef) = beat(profile, shortening=shortening, tilt=tilt, wall=wall)
        assert measured.edv_ml == pytest.approx(edv, rel=0.01)
        assert measured.esv_ml == pytest.approx(esv, rel=0.01)
        assert measured.ef_percent == pytest.approx(ef, abs=0.5)
        assert (measured.planes, measured.flags) == ("biplane", ())


@pytest.mark.parametrize("method", ["ase", "area_length"])
def test_tilt_scale_and_pixel_shape_do_not_matter(method: str) -> None:
    upright, _ = beat(method=method)
    others = [beat(method=method, tilt=tilt)[0] for tilt in (-20, 20)] + [beat(method=method, spacing=ANISOTROPIC)[0]]
    for other in others:
        assert other.edv_ml == pytest.approx(upright.edv_ml, abs=1)
        assert other.esv_ml == pytest.approx(upright.esv_ml, abs=1)
        assert other.ef_percent == pytest.approx(upright.ef_percent, abs=0.5)
    doubled, _ = beat(method=method, scale=2, spacing=(0.616, 0.616))
    assert doubled.edv_ml == pytest.approx(8 * upright.edv_ml, rel=1e-4)
    assert doubled.ef_percent == pytest.approx(upright.ef_percent, abs=1e-4)


def test_camus_is_independent_of_pixel_shape_too() -> None:
    square, oblong = (beat(method="camus", spacing=spacing)[0] for spacing in ((0.154, 0.154), ANISOTROPIC))
    assert oblong.edv_ml == pytest.approx(square.edv_ml, abs=1)
    assert oblong.esv_ml == pytest.approx(square.esv_ml, abs=1)


def test_area_length_of_half_an_ellipse() -> None:
    """The formula is exact for an ellipsoid, half or whole, with its axis in the image."""
    half = lambda u: np.sqrt(np.clip(1 - (1 - u) ** 2, 0, None))  # noqa: E731
    lv, _ = draw(half, 80, 50)
    shape = lv_shape(lv, ISOTROPIC, method="area_length")
    measured = lv_volumes({("4CH", "ED"): shape, ("4CH", "ES"): shape}, method="area_length")
    assert measured.edv_ml == pytest.approx(volume_ml(half, 80, {"a": 50, "b": 50}), rel=0.01)


@pytest.mark.parametrize("view", ["2CH", "4CH", ""])
def test_one_view_stands_for_both(view: str) -> None:
    shapes = {
        (view, phase): lv_shape(draw(ellipse, 88, width)[0], ISOTROPIC) for phase, width in (("ED", 46), ("ES", 36))
    }
    measured = lv_volumes(shapes)
    assert measured.edv_ml == pytest.approx(volume_ml(ellipse, 88, {"a": 46, "b": 46}), rel=0.01)
    assert measured.planes == f"single-plane {view}".strip()
    assert measured.flags == {"2CH": ("missing_4CH",), "4CH": ("missing_2CH",), "": ()}[view]


SHAPES = {
    ("4CH", "ED"): shape(80, 40, 2500),
    ("2CH", "ED"): shape(90, 42, 2700),
    ("4CH", "ES"): shape(75, 30, 1800),
    ("2CH", "ES"): shape(70, 32, 1700),
}


@pytest.mark.parametrize(
    ("method", "edv", "esv"),
    [
        ("ase", math.pi / 4 * 40 * 42 * 90, math.pi / 4 * 30 * 32 * 75),
        ("camus", math.pi / 4 * 40 * 42 * 90, math.pi / 4 * 30 * 32 * 90),
        ("area_length", 8 / (3 * math.pi) * 2500 * 2700 / 80, 8 / (3 * math.pi) * 1800 * 1700 / 70),
    ],
)
def test_which_length_each_method_takes(method: str, edv: float, esv: float) -> None:
    measured = lv_volumes(SHAPES, method=method)
    assert (measured.edv_ml, measured.esv_ml) == pytest.approx((edv / 1000, esv / 1000))
    assert measured.ef_percent == pytest.approx(100 * (1 - esv / edv))
    rounded = lv_volumes(SHAPES, method=method, rounding=True)
    assert (rounded.edv_ml, rounded.esv_ml) == (round(edv / 1000), round(esv / 1000))
    assert rounded.ef_percent == round(100 * (1 - round(esv / 1000) / round(edv / 1000)))


def test_camus_does_not_see_the_axis_shorten() -> None:
    """EF by "camus" is 1 - the ratio of the sums of disks, whatever the axis does; "ase" follows it."""
    measured = {
        (method, s): beat(method=method, shortening=s)[0].ef_percent for method in ("ase", "camus") for s in (0.0, 0.18)
    }
    assert measured["camus", 0.18] == pytest.approx(measured["camus", 0.0], abs=0.5)
    assert measured["ase", 0.18] > measured["ase", 0.0] + 10


@pytest.mark.parametrize("method", METHODS)
def test_volumes_that_grow_are_flagged_and_not_swapped(method: str) -> None:
    swapped = {(view, {"ED": "ES", "ES": "ED"}[phase]): shape for (view, phase), shape in SHAPES.items()}
    measured = lv_volumes(swapped, method=method)
    assert measured.esv_ml > measured.edv_ml
    assert measured.ef_percent < 0
    assert measured.flags == ("esv_above_edv",)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_mask_makes_no_volume(method: str) -> None:
    empty = lv_shape(np.zeros((50, 40), bool), ISOTROPIC, method=method)
    measured = lv_volumes({**SHAPES, ("4CH", "ES"): empty}, method=method)
    assert math.isnan(measured.esv_ml)
    assert math.isnan(measured.ef_percent)
    assert (measured.planes, measured.flags) == ("biplane", ("empty_4CH_ES",))


def test_missing_frames() -> None:
    without_phase = {key: shape for key, shape in SHAPES.items() if key != ("2CH", "ES")}
    measured = lv_volumes(without_phase)
    assert (measured.planes, measured.flags) == ("single-plane 4CH", ("missing_2CH_ES",))
    assert measured.edv_ml == pytest.approx(math.pi / 4 * 40 * 40 * 80 / 1000)
    nothing = lv_volumes({("4CH", "ED"): SHAPES["4CH", "ED"], ("4CH", "f7"): SHAPES["4CH", "ES"]})
    assert (nothing.planes, nothing.flags) == ("", ("missing_2CH", "missing_4CH_ES"))
    assert math.isnan(nothing.edv_ml)
    assert lv_volumes({}).flags == ()


@pytest.mark.parametrize("method", METHODS)
def test_specks_and_holes_change_nothing(method: str) -> None:
    lv, myocardium = draw(ellipse, 88, 46)
    littered = lv.copy()
    littered[2:5, 100:103] = True  # above the LV, where the first outline in reading order would be
    littered[250, 195] = False
    for wall in (None, myocardium):
        clean = lv_shape(lv, ISOTROPIC, method=method, myocardium=wall)
        assert lv_shape(littered, ISOTROPIC, method=method, myocardium=wall) == clean
        assert 86 < clean.length < 90


def test_coarse_is_less_than_64_by_64_pixels() -> None:
    """Of the smaller side of a pixel: 64 rows of 32 pixels twice as wide are as many."""
    for columns, spacing in ((64, ISOTROPIC), (32, (0.154, 0.308))):
        mask = np.zeros((100, 100), bool)
        mask[10:74, 10 : 10 + columns] = True
        assert lv_shape(mask, spacing, method="camus").flag == ""
        mask[10, 10] = False
        assert lv_shape(mask, spacing, method="camus").flag == "coarse"
        assert lv_shape(mask, spacing).flag == ""


@pytest.mark.parametrize("method", METHODS)
def test_an_lv_at_the_edge_of_the_frame_is_flagged(method: str) -> None:
    lv, myocardium = draw(ellipse, 88, 46)
    rows, columns = np.nonzero(lv)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert lv_shape(lv[top - 1 : bottom + 1, left - 1 : right + 1], ISOTROPIC, method=method).flag == ""
    for box in np.s_[top + 9 :, :], np.s_[: bottom - 9, :], np.s_[:, left + 9 :], np.s_[:, : right - 9]:
        for wall in (None, myocardium[box]):
            assert "cut" in lv_shape(lv[box], ISOTROPIC, method=method, myocardium=wall).flag.split()
    speck = lv.copy()
    speck[:2, :2] = True  # not of the largest component
    assert lv_shape(speck, ISOTROPIC, method=method).flag == ""


@pytest.mark.parametrize("spacing", [0.154, 0.6, 0.8, 1.5, 2.5])
def test_camus_flags_too_few_pixels(spacing: float) -> None:
    """Where it does not, EF is that of the resolution that the method was made for; its 8 pixels grow otherwise."""
    native, _ = beat(method="camus")
    measured, _ = beat(method="camus", spacing=(spacing, spacing))
    coarse = {flag.partition("_")[0] for flag in measured.flags}
    assert coarse == ({"coarse"} if spacing > 0.7 else set())
    if not coarse:
        assert measured.ef_percent == pytest.approx(native.ef_percent, abs=1)
    if spacing > 2:
        assert abs(measured.ef_percent - native.ef_percent) > 2
    assert beat(spacing=(spacing, spacing))[0].flags == ()  # "ase" has no pixels of its own


def test_camus_counts_pixels_of_the_smaller_side() -> None:
    shapes = [
        lv_shape(draw(ellipse, 88, 46, spacing=spacing)[0], spacing, method="camus")
        for spacing in ((0.308, 0.308), (0.308, 1.2), (1.2, 0.308))
    ]
    assert [shape.flag for shape in shapes] == ["", "", ""]
    for other in shapes[1:]:
        assert other.length == pytest.approx(shapes[0].length, rel=0.03)
        assert other.diameters[3:15] == pytest.approx(shapes[0].diameters[3:15], rel=0.05)
        assert other.area == pytest.approx(shapes[0].area, rel=0.01)


def test_what_leaves_views_or_all_without_ef_is_flagged() -> None:
    named = {(f"A{view[0]}C", phase): shape for (view, phase), shape in SHAPES.items()}
    measured = lv_volumes(named)
    assert (measured.planes, measured.flags) == ("single-plane A2C", ("unused_A4C",))
    assert lv_volumes({("4CH", "diastole"): SHAPES["4CH", "ED"]}).flags == (
        "missing_2CH",
        "missing_4CH_ED",
        "missing_4CH_ES",
    )
    assert lv_volumes({("", ""): SHAPES["4CH", "ED"]}).flags == ("missing_ED", "missing_ES")
    assert lv_volumes(SHAPES | {("3CH", "ED"): SHAPES["4CH", "ED"], ("3CH", "ES"): SHAPES["4CH", "ES"]}).flags == ()


def test_the_phantom() -> None:
    """Volumes of the synthetic heart, from its labels, myocardium and atrium included."""
    for patient in range(1, 4):
        heart = camus_heart(5, patient)
        shapes = {}
        for view, (phase, moment) in itertools.product(("2CH", "4CH"), (("ED", 0.0), ("ES", 1.0))):
            _, labels = render(heart, view, moment, spacing_mm=0.5)
            shapes[view, phase] = lv_shape(labels == 1, (0.5, 0.5), myocardium=labels == 2)
        measured = lv_volumes(shapes)
        assert (measured.edv_ml, measured.esv_ml) == pytest.approx((heart.edv_ml, heart.esv_ml), rel=0.02)
        assert measured.ef_percent == pytest.approx(heart.ef_percent, abs=0.7)
        assert measured.flags == ()


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method='simpson': expected one of"):
        lv_shape(np.ones((4, 4), bool), ISOTROPIC, method="simpson")
    with pytest.raises(ValueError, match="method='simpson': expected one of"):
        lv_volumes(SHAPES, method="simpson")
