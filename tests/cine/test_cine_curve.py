"""Areas, lengths and volumes frame by frame, of shapes that are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from beating import a_heart, drawn_masks, drawn_sector
from drawn_ventricles import ISOTROPIC, draw, ellipse

from nnunet_echo.cine.curve import COLUMNS, measure_curve, structure_values
from nnunet_echo.cine.masks import Masks, write_nifti

LABELS = {"LV": 1, "MYO": 2, "LA": 3}


def heart_curve(spacing: float = 0.5, contraction: tuple[float, ...] = (0.0, 1.0), seed: int = 5, **options: object):
    masks = Masks(drawn_masks(a_heart(seed), "4CH", np.array(contraction), spacing))
    return measure_curve(masks, LABELS, spacing_mm=(spacing, spacing), **options)


def test_volumes_and_lengths_of_a_drawn_heart() -> None:
    heart, values = a_heart(5), heart_curve().values
    assert values["lv_length"] == pytest.approx(
        [heart.long_axis_mm, heart.long_axis_mm * (1 - heart.shortening)], rel=0.02
    )
    assert 100 * (1 - values["lv_volume"][1] / values["lv_volume"][0]) == pytest.approx(heart.ef_percent, abs=1)
    # One view stands for both: the volume is that of its own diameter, twice.
    single = heart.edv_ml * heart.views["4CH"].diameter_mm / heart.views["2CH"].diameter_mm
    assert values["lv_volume"][0] == pytest.approx(single, rel=0.03)


def test_wall_is_as_thick_as_it_was_drawn() -> None:
    heart, values = a_heart(5), heart_curve().values
    drawn = heart.views["4CH"].wall_mm
    assert 0.85 * drawn < values["wall_thickness"][0] < 1.05 * drawn
    assert values["wall_thickness"][1] > values["wall_thickness"][0]


def test_wall_of_a_ring() -> None:
    row, column = np.mgrid[:100, :100]
    radius = np.hypot(row - 50, column - 50)
    mask = np.select([radius < 20, radius < 32], [1, 2], 0)
    curve = measure_curve(Masks([mask]), LABELS, spacing_mm=(0.5, 0.5))
    assert curve.values["wall_thickness"][0] == pytest.approx(6, abs=0.35)


def test_atrium_by_its_own_axis() -> None:
    """A half ellipse below the mitral plane: pi/4 d^2 times 2/3 of its length."""
    y, x = np.mgrid[:200, :160] + 0.5
    lv = (y < 100) & (((x - 80) / 30) ** 2 + ((y - 100) / 80) ** 2 < 1)
    la = (y >= 100) & (((x - 80) / 30) ** 2 + ((y - 100) / 60) ** 2 < 1)
    curve = measure_curve(Masks([lv + 3 * la]), LABELS, spacing_mm=(1.0, 1.0))
    assert curve.values["la_length"][0] == pytest.approx(60, abs=1.5)
    assert curve.values["la_area"][0] == np.count_nonzero(la)
    assert curve.values["la_volume"][0] == pytest.approx(np.pi / 4 * 60**2 * 60 * 2 / 3 / 1000, rel=0.03)


def test_without_scale_everything_is_in_pixels() -> None:
    in_mm = heart_curve()
    in_px = measure_curve(Masks(drawn_masks(a_heart(5), "4CH", np.array([0.0, 1.0]), 0.5)), LABELS)
    for name, power in COLUMNS.items():
        scaled = in_px.values[name] * 0.5**power / (1000 if power == 3 else 1)
        assert scaled == pytest.approx(in_mm.values[name], rel=1e-9)
    assert (in_px.column("lv_volume"), in_mm.column("lv_volume")) == ("lv_volume_px3", "lv_volume_ml")
    assert (in_px.column("lv_length"), in_mm.column("la_area")) == ("lv_length_px", "la_area_mm2")


def test_labels_decide_what_is_measured() -> None:
    assert structure_values({"background": 0, "lv": 1, "LA": (3, 4), "RV": 2}) == {"LV": (1,), "LA": (3, 4)}
    lv, _ = draw(ellipse, 80, 45, spacing=ISOTROPIC)
    curve = measure_curve(Masks([lv.astype(np.uint8)]), {"LV": 1}, spacing_mm=ISOTROPIC)
    assert set(curve.values) == {"lv_area", "lv_length", "lv_volume"}
    assert set(measure_curve(Masks([lv]), {"RV": 1}).values) == set()


def test_a_frame_without_ventricle_is_nan() -> None:
    curve = measure_curve(Masks([np.zeros((20, 20), np.uint8), np.full((20, 20), 3, np.uint8)]), LABELS)
    assert [shape.flag for shape in curve.shapes] == ["empty", "empty"]
    assert np.isnan(curve.values["lv_area"]).all() and np.isnan(curve.values["la_area"][0])
    assert curve.values["la_area"][1] == 400


def test_edge_of_the_sector_and_pieces() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:50, 20:40] = 1
    sector = np.ones((60, 60), bool)
    whole = measure_curve(Masks([mask]), LABELS, sector=sector)
    sector[:, 40:] = False
    cut = measure_curve(Masks([mask]), LABELS, sector=sector)
    assert whole.on_edge[0] == 0 and 0.25 < cut.on_edge[0] < 0.4
    mask[55:58, 5:8] = 1
    assert measure_curve(Masks([mask]), LABELS).stray[0] == pytest.approx(9 / 809)
    assert measure_curve(Masks([mask]), LABELS).values["lv_area"][0] == 800
    mask[2:6, :] = 3
    assert measure_curve(Masks([mask]), LABELS).la_cut[0]
    assert not whole.la_cut[0]


def test_violations_of_anatomy_are_counted() -> None:
    assert heart_curve(contraction=(0.0,)).violations[0] == 0
    mask = drawn_masks(a_heart(5), "4CH", np.array([0.0]))[0].copy()
    mask[2:5, 2:5] = 1
    assert measure_curve(Masks([mask]), LABELS, spacing_mm=(1.0, 1.0)).violations[0] > 0


def test_where_the_picture_is_does_not_matter() -> None:
    """Frames are cropped to the heart: the same numbers with more black around."""
    mask = drawn_masks(a_heart(5), "4CH", np.array([0.4]))[0]
    small, large = (measure_curve(Masks([m]), LABELS, spacing_mm=(1.0, 1.0)) for m in (mask, np.pad(mask, 37)))
    for name in COLUMNS:
        assert small.values[name] == pytest.approx(large.values[name], rel=1e-9)


def test_drawn_sector_is_that_of_the_heart() -> None:
    masks = drawn_masks(a_heart(5), "4CH", np.array([0.0]))
    sector = drawn_sector(a_heart(5), "4CH", masks[0].shape)
    assert (sector | ~np.isin(masks[0], [1, 3])).all()


def test_masks_come_back_as_they_went_in() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 4, (30, 20), np.uint8) for _ in range(5)]
    masks = Masks(SimpleNamespace(mask=frame, entropy=k / 10) for k, frame in enumerate(frames))
    assert all((a == b).all() for a, b in zip(masks, frames, strict=True))
    assert masks.entropy is not None and masks.entropy.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert Masks(frames).entropy is None


@pytest.mark.parametrize(
    "frame",
    [np.zeros((3, 4, 5), np.uint8), np.zeros((4, 5)), np.full((4, 5), 300), np.full((4, 5), -1), np.zeros((5, 4), int)],
)
def test_frames_that_are_no_label_maps(frame: np.ndarray) -> None:
    masks = Masks([np.zeros((4, 5), np.uint8)])
    with pytest.raises(ValueError, match="masks: "):
        masks.append(frame)


def test_nifti_has_spacing_and_frame_time(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4, (6, 30, 20), np.uint8)
    write_nifti(tmp_path / "masks.nii.gz", Masks(frames), (0.5, 0.25), 0.02)
    image = sitk.ReadImage(str(tmp_path / "masks.nii.gz"))
    assert (sitk.GetArrayFromImage(image) == frames).all()
    assert image.GetSpacing() == pytest.approx((0.25, 0.5, 0.02))
    write_nifti(tmp_path / "pixels.nii.gz", Masks(frames), None, None)
    assert sitk.ReadImage(str(tmp_path / "pixels.nii.gz")).GetSpacing() == (1, 1, 1)
