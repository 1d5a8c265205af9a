"""Anatomical criteria: one violation for each, and their table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import shared
from drawn_hearts import COLUMNS, LABELS, MIDDLE, ROWS, heart
from numpy import ndarray

from nnunet_echo.evaluation.anatomy import CRITERIA, anatomical_errors, anatomical_measures
from nnunet_echo.evaluation.evaluate import evaluate

pytest_plugins = ("drawn_hearts",)


def set_to(masks: dict[str, ndarray], structure: str | None, rows: slice, columns: slice) -> dict[str, ndarray]:
    """That rectangle becomes `structure`, or background."""
    for name, mask in masks.items():
        mask[rows, columns] = name == structure
    return masks


def violated(masks: dict[str, ndarray], spacing: tuple[float, float] = (1, 1)) -> set[str]:
    return {name for name, error in anatomical_errors(masks, spacing).items() if error}


def square(row: int, column: int, side: int = 1) -> tuple[slice, slice]:
    return slice(row, row + side), slice(column, column + side)


def thinned() -> dict[str, ndarray]:
    """A wall of 20 pixels with one place of 1 pixel."""
    masks = heart(wall=20)
    for row in range(92, 100):
        inner = np.flatnonzero(masks["LV"][row]).max() + 2
        masks["MYO"][row, inner:] = False
    return masks


def unwalled() -> dict[str, ndarray]:
    """Without the lower part of one wall."""
    masks = heart()
    masks["MYO"][88:, MIDDLE:] = False
    return masks


# One synthetic violation for each criterion, with everything that it violates.
DAMAGE: dict[str, tuple[Callable[[], dict[str, ndarray]], set[str]]] = {
    "nothing": (heart, set()),
    "hole in LV": (lambda: set_to(heart(), None, *square(90, 80)), {"holes_in_lv", "holes_in_lv_epi"}),
    "hole in LA": (lambda: set_to(heart(), None, *square(140, 80)), {"holes_in_la"}),
    "hole in MYO": (lambda: set_to(heart(), None, *square(110, 115, 2)), {"holes_in_lv_epi"}),
    "speck of LV": (lambda: set_to(heart(), "LV", *square(3, 80)), {"fragments_of_lv"}),
    "speck of MYO": (lambda: set_to(heart(), "MYO", *square(3, 80)), {"fragments_of_myo"}),
    "speck of LA": (lambda: set_to(heart(), "LA", *square(195, 80)), {"fragments_of_la"}),
    "gap LV-MYO": (lambda: set_to(heart(), None, slice(100, 106), slice(107, 112)), {"gap_lv_myo", "holes_in_lv_epi"}),
    "gap LV-LA": (lambda: set_to(heart(), None, slice(118, 120), slice(76, 82)), {"gap_lv_la"}),
    "no wall": (unwalled, {"frontier_lv_background"}),
    "LA under MYO": (lambda: heart(la_half_width=44), {"frontier_myo_la"}),
    "thin wall": (lambda: heart(wall=6), {"width_ratio_lv_myo"}),
    "wall almost cut": (thinned, {"erosion_ratio_myo"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_violation_for_each_criterion(damage: str) -> None:
    make, expected = DAMAGE[damage]
    masks = make()
    assert violated(masks) == expected
    assert violated({name: mask[:, ::-1] for name, mask in masks.items()}) == expected


def test_every_criterion_has_its_violation() -> None:
    assert set().union(*(expected for _, expected in DAMAGE.values())) == set(CRITERIA)
    assert len(CRITERIA) == 12


def test_gap_between_lv_and_la_is_not_one_between_lv_and_myo() -> None:
    """The public code looks between LV and MYO twice, and so misses it."""
    measures = anatomical_measures(DAMAGE["gap LV-LA"][0](), (1, 1))
    assert (measures["gap_lv_la"], measures["gap_lv_myo"]) == (12, 0)


def test_gap_inside_a_closed_ring_counts_and_a_small_one_does_not() -> None:
    row, column = np.mgrid[:ROWS, :COLUMNS]
    radius = np.hypot(row - 100, column - 80)
    masks = {"LV": radius < 30, "MYO": (radius > 33) & (radius < 50)}
    between = np.count_nonzero((radius >= 30) & (radius <= 33))
    assert anatomical_measures(masks, (1, 1))["gap_lv_myo"] == between
    small = ROWS * COLUMNS // 2**14
    masks = set_to(heart(), None, slice(119, 120), slice(80, 80 + small))
    assert anatomical_measures(masks, (1, 1))["gap_lv_la"] == 0
    masks = set_to(heart(), None, slice(119, 120), slice(80, 81 + small))
    assert anatomical_measures(masks, (1, 1))["gap_lv_la"] == small + 1


def test_missing_structures() -> None:
    nothing = np.zeros((ROWS, COLUMNS), bool)
    assert violated(heart() | {"MYO": nothing}) == {"frontier_lv_background", "width_ratio_lv_myo", "erosion_ratio_myo"}
    assert violated(heart() | {"LA": nothing}) == {"frontier_lv_background"}
    assert violated(dict.fromkeys(("LV", "MYO", "LA"), nothing)) == {"width_ratio_lv_myo", "erosion_ratio_myo"}
    assert set(anatomical_errors({"LV": heart()["LV"]}, (1, 1))) == {"holes_in_lv", "fragments_of_lv"}
    assert anatomical_errors({"RV": nothing}, (1, 1)) == {}
    with pytest.raises(ValueError, match=r"LA int64 \(200, 160\): all must be bool"):
        anatomical_errors(heart() | {"LA": nothing.astype(int)}, (1, 1))
    with pytest.raises(ValueError, match="of one shape"):
        anatomical_errors(heart() | {"LA": nothing[1:]}, (1, 1))


@pytest.mark.parametrize(("start", "wrong"), [(105, False), (104, True)])
def test_the_frontier_may_be_0_4_of_the_width(start: int, wrong: bool) -> None:
    """No less, and not much more."""
    masks = heart()
    masks["MYO"][start:, MIDDLE:] = False
    value = anatomical_measures(masks, (1, 1))["frontier_lv_background"]
    assert value == (0.45 if wrong else 0.4)
    assert ("frontier_lv_background" in violated(masks)) == wrong


def test_values_on_square_pixels_and_at_the_edge_of_the_frame() -> None:
    masks = heart()
    tall = {name: np.repeat(mask, 2, axis=0) for name, mask in masks.items()}
    double = {name: np.repeat(mask, 2, axis=1) for name, mask in tall.items()}
    assert anatomical_measures(tall, (0.5, 1)) == anatomical_measures(double, (0.5, 0.5))
    top = int(np.nonzero(masks["MYO"])[0].min())
    assert top > 1
    cropped = {name: mask[top:] for name, mask in masks.items()}
    assert anatomical_measures(cropped, (1, 1)) == anatomical_measures(masks, (1, 1))
    without_frame = {name: mask[top + 14 :, 50:110] for name, mask in masks.items()}  # LV at the edge on three sides
    assert anatomical_measures(without_frame, (1, 1))["frontier_lv_background"] < 0.2


def test_tables_of_anatomy(cine_references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(cine_references, tmp_path / "predictions")
    path = predictions / "p1_4CH_5.nii.gz"
    image = sitk.ReadImage(str(path))
    image[80, 3] = LABELS["LV"]
    image[80, 135] = 0
    sitk.WriteImage(image, str(path))
    evaluation = evaluate(predictions, cine_references, workers=1)
    row = next(row for row in evaluation.anatomy if row["case"] == "p1_4CH_5")
    assert (row["prediction_violations"], row["prediction_criteria"]) == (2, "holes_in_la fragments_of_lv")
    assert (row["reference_violations"], row["reference_criteria"]) == (0, "")
    assert evaluation.summary["anatomy"] == {
        "prediction": {
            "frames": 18,
            "frames_with_errors": 1,
            "rate": 1 / 18,
            "criteria": {"fragments_of_lv": 1, "holes_in_la": 1},
        },
        "reference": {"frames": 18, "frames_with_errors": 0, "rate": 0, "criteria": {}},
    }


def test_real_references_are_possible() -> None:
    """Of the first 40 masks of CAMUS's 4CH view hardly any violates a criterion."""
    paths = sorted(shared("data", "camus_4ch", "database_nifti").glob("*/*_gt.nii.gz"))[:40]
    found = []
    for path in paths:
        image = sitk.ReadImage(str(path))
        labels = sitk.GetArrayFromImage(image)
        found.append(
            violated({name: labels == value for name, value in LABELS.items() if value}, image.GetSpacing()[::-1])
        )
    assert sum(map(bool, found)) <= 2
