"""The phantom's hearts: anatomy, known volumes, and images that look like ultrasound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_fill_holes, label

from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.evaluation.anatomy import anatomical_errors
from nnunet_echo.phantom import Heart
from nnunet_echo.phantom.cine import render
from nnunet_echo.phantom.heart import BACKGROUND, LA, LV, MYO, VIEWS, Section

SEED = 3
HEARTS = [camus_heart(SEED, patient) for patient in range(1, 7)]


def changed(heart: Heart, **fields: object) -> Heart:
    """The heart with other values in its 4-chamber view."""
    return replace(heart, views={**heart.views, "4CH": replace(heart.views["4CH"], **fields)})


def along_axis_mm(heart: Heart, view: str, mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Position of the mask's pixels along the long axis, from any fixed point."""
    rows, columns = np.nonzero(mask)
    tilt = np.deg2rad(heart.views[view].tilt_deg)
    return spacing_mm * (columns * np.sin(tilt) + rows * np.cos(tilt))


def simpson_ml(heart: Heart, phase: float, spacing_mm: float, disks: int = 20) -> float:
    """Biplane rule of disks over the rendered masks; only the direction of the axis is taken from the heart."""
    diameters, heights = [], []
    for view in VIEWS:
        u = along_axis_mm(heart, view, render(heart, view, phase, spacing_mm=spacing_mm)[1] == LV, spacing_mm)
        pixels, edges = np.histogram(u, bins=disks)
        heights.append(edges[1] - edges[0])
        diameters.append(pixels * spacing_mm**2 / heights[-1])
    return float(np.pi / 4 * (diameters[0] * diameters[1]).sum() * np.mean(heights) / 1000)


def test_default_spacing_and_size_are_those_of_camus() -> None:
    heart = HEARTS[0]
    image, labels = render(heart, "4CH", 0.0)
    view = heart.views["4CH"]
    width_mm = 2 * view.depth_mm * np.sin(np.deg2rad(view.half_angle_deg))
    assert image.shape == labels.shape == (round(view.depth_mm / 0.308), round(width_mm / 0.308))
    assert image.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0])
def test_anatomy(view: str, phase: float) -> None:
    for heart in HEARTS:
        labels = render(heart, view, phase, spacing_mm=1.0)[1]
        cavity = labels == LV
        assert set(np.unique(labels)) == {BACKGROUND, LV, MYO, LA}
        assert all(label(labels == structure, np.ones((3, 3)))[1] == 1 for structure in (LV, MYO, LA))
        assert np.array_equal(binary_fill_holes(cavity), cavity)
        # The wall encloses the cavity, and where it does not lies the atrium, behind a straight mitral plane.
        rim = binary_dilation(cavity) & ~cavity
        assert np.count_nonzero(labels[rim] == BACKGROUND) < 8  # at the two hinges of the valve
        mitral = along_axis_mm(heart, view, rim & (labels != MYO), 1.0)
        assert np.ptp(mitral) < 3
        assert mitral.min() > np.quantile(along_axis_mm(heart, view, cavity, 1.0), 0.97)
        rows = [np.nonzero(labels == structure)[0].mean() for structure in (LV, LA)]
        assert rows[0] < rows[1]


@pytest.mark.parametrize("spacing_mm", [0.308, 1.0])
def test_no_frame_is_anatomically_impossible(spacing_mm: float) -> None:
    """By the criteria that the evaluation counts; and the atrium meets the wall as seldom as in real masks."""
    for heart in HEARTS:
        for view in VIEWS:
            for phase in (0.0, 0.5, 1.0):
                labels = render(heart, view, phase, spacing_mm=spacing_mm)[1]
                masks = {"LV": labels == LV, "MYO": labels == MYO, "LA": labels == LA}
                spacing = (spacing_mm, spacing_mm)
                assert not [name for name, wrong in anatomical_errors(masks, spacing).items() if wrong]
                touching = masks["MYO"] & binary_dilation(masks["LA"], np.ones((3, 3)))
                assert touching.sum() < 10


@pytest.mark.parametrize("view", VIEWS)
def test_ventricle_shrinks_while_the_atrium_fills(view: str) -> None:
    for heart in HEARTS:
        counts = [np.bincount(render(heart, view, phase, spacing_mm=1.0)[1].ravel()) for phase in (0, 0.3, 0.7, 1)]
        lv, la = np.array([(count[LV], count[LA]) for count in counts]).T
        assert (np.diff(lv) < 0).all()
        assert (np.diff(la) > 0).all()
        assert Section(heart, view, 1.0).length_mm < Section(heart, view, 0.0).length_mm


def test_volumes_and_ef_are_those_of_simpson_over_the_masks() -> None:
    for heart in HEARTS[:4]:
        edv, esv = (simpson_ml(heart, phase, 0.308) for phase in (0.0, 1.0))
        assert edv == pytest.approx(heart.edv_ml, rel=0.02)
        assert esv == pytest.approx(heart.esv_ml, rel=0.02)
        assert 100 * (1 - esv / edv) == pytest.approx(heart.ef_percent, abs=1)
        assert 100 * (1 - heart.esv_ml / heart.edv_ml) == pytest.approx(heart.ef_percent)


def test_hearts_vary_and_stay_in_the_sector() -> None:
    hearts = [camus_heart(SEED, patient) for patient in range(1, 301)]
    ef = np.array([heart.ef_percent for heart in hearts])
    edv = np.array([heart.edv_ml for heart in hearts])
    assert ef.min() < 25 and ef.max() > 70
    assert edv.min() < 75 and edv.max() > 130
    assert np.corrcoef(ef, edv)[0, 1] < -0.2
    assert {heart.views["2CH"].quality for heart in hearts} == {"Good", "Medium", "Poor"}
    assert any(heart.views["2CH"].es_first for heart in hearts)
    for heart in hearts:
        section = Section(heart, "4CH", 0.0)
        x, y = np.arange(-100.0, 100.0)[None, :], np.arange(0.0, 200.0)[:, None]
        cavity = section.labels(x, y) == LV
        assert (cavity & section.in_sector(x, y)).sum() > 0.97 * cavity.sum()


def test_a_coarser_grid_shows_the_same_heart() -> None:
    for heart in HEARTS:
        fine, coarse = (
            np.bincount(render(heart, "2CH", 0.4, spacing_mm=mm)[1].ravel())[1:] * mm**2 for mm in (0.308, 1.0)
        )
        np.testing.assert_allclose(coarse, fine, rtol=0.02)


def test_image_looks_like_ultrasound() -> None:
    for heart in HEARTS:
        image, labels = render(heart, "4CH", 0.0)
        height, width = image.shape
        section = Section(heart, "4CH", 0.0)
        x = (np.arange(width)[None, :] - (width - 1) / 2) * 0.308
        outside = ~section.in_sector(x, np.arange(height)[:, None] * 0.308)
        assert 0.3 < outside.mean() < 0.6
        assert (image[outside] == 0).all()
        assert (labels[outside] != LA).all()
        assert 20 < np.median(image[labels == LV]) < np.median(image[labels == MYO]) < 200
        assert image[labels == LV].std() > 10
        assert image.max() > 150


def test_speckle_is_new_in_each_frame() -> None:
    first, again, next_frame = (render(HEARTS[0], "4CH", 0.0, frame=frame, spacing_mm=1.0) for frame in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], next_frame[0])
    assert np.array_equal(first[1], next_frame[1])


def test_poorer_quality_has_less_contrast() -> None:
    contrasts = []
    for quality in ("Good", "Medium", "Poor"):
        pairs = [render(changed(heart, quality=quality), "4CH", 0.0, spacing_mm=1.0) for heart in HEARTS]
        contrasts.append(np.mean([image[labels == MYO].mean() - image[labels == LV].mean() for image, labels in pairs]))
    assert contrasts[0] > contrasts[1] + 5 > contrasts[2] + 10


def test_gain_and_attenuation() -> None:
    for heart in HEARTS:
        dark, bright = (render(changed(heart, gain_db=db), "4CH", 0.0, spacing_mm=1.0)[0].mean() for db in (-3, 3))
        assert bright > dark + 10
        clear, faded = (
            render(changed(heart, attenuation_db_per_mm=value), "4CH", 0.0, spacing_mm=1.0)[0] for value in (0.0, 0.1)
        )
        deep = len(clear) * 3 // 4
        assert clear[deep:].mean() > faded[deep:].mean() + 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("view", "3CH"), ("contraction", 1.1), ("contraction", float("nan")), ("frame", 0), ("spacing_mm", 10.0)],
)
def test_render_names_the_bad_argument(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r}:"):
        render(**{"heart": HEARTS[0], "view": "4CH", "contraction": 0.0, name: value})
