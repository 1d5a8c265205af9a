"""Anatomical criteria of frames, temporal consistency of sequences, and their tables from `evaluate`."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import shared
from numpy import ndarray

from nnunet_echo.cli.main import main
from nnunet_echo.evaluation.anatomy import CRITERIA, anatomical_errors, anatomical_measures
from nnunet_echo.evaluation.evaluate import evaluate
from nnunet_echo.evaluation.left_ventricle.volume import lv_shape
from nnunet_echo.evaluation.motion import (
    ATTRIBUTES,
    PAINCHAUD_2022,
    Limits,
    consistency_errors,
    ed_es_frames,
    frame_attributes,
    inconsistent_frames,
    limits_of,
)

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
ROWS, COLUMNS = 200, 160
BASE, MIDDLE = 120, 80  # the mitral plane lies between rows BASE - 1 and BASE


def heart(wall: int = 14, half_width: float = 30, la_half_width: int = 26, height: int = 80) -> dict[str, ndarray]:
    """LV (half an ellipse), MYO around it, LA below: masks that violate nothing."""
    row, column = np.mgrid[:ROWS, :COLUMNS] + 0.5
    u, v = BASE - row, np.abs(column - MIDDLE)
    lv = (u > 0) & (np.hypot(u / height, v / half_width) < 1)
    epi = (u > 0) & (np.hypot(u / (height + wall), v / (half_width + wall)) < 1)
    la = (u < 0) & (u > -40) & (v < la_half_width)
    return {"LV": lv, "MYO": epi & ~lv, "LA": la}


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
    with pytest.raises(ValueError, match=r"LA int64 \(200, 160\); all must be bool"):
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


def test_attributes_of_a_known_shape() -> None:
    masks, spacing = heart(), (0.8, 0.5)
    found = frame_attributes(masks, spacing)
    assert list(found) == list(ATTRIBUTES)
    assert found["lv_area"] == pytest.approx(math.pi / 2 * 80 * 30 * 0.4, rel=0.01)
    assert found["myo_area"] == pytest.approx(math.pi / 2 * (94 * 44 - 80 * 30) * 0.4, rel=0.01)
    assert found["lv_length"] == lv_shape(masks["LV"], spacing, myocardium=masks["MYO"]).length
    assert found["lv_base_width"] == pytest.approx(60 * 0.5, abs=1)
    assert found["lv_orientation"] == pytest.approx(0, abs=0.1)
    assert found["epi_center_x"] == pytest.approx((MIDDLE - 0.5) * 0.5, abs=0.1)
    assert found["epi_center_y"] == pytest.approx((BASE - 0.5 - 94 * 4 / (3 * math.pi)) * 0.8, abs=0.2)
    assert set(frame_attributes({"LV": masks["LV"]}, spacing)) == {"lv_area", "lv_length", "lv_orientation"}


@pytest.mark.parametrize("degrees", [-30, 10, 25])
def test_orientation_is_measured_in_mm(degrees: float) -> None:
    spacing = (0.5, 1.0)
    row, column = (np.indices((240, 120)) - np.array([120, 60])[:, None, None]) * np.array(spacing)[:, None, None]
    angle = np.radians(degrees)  # the lower end to the right
    along, across = row * np.cos(angle) + column * np.sin(angle), column * np.cos(angle) - row * np.sin(angle)
    found = frame_attributes({"LV": np.hypot(along / 45, across / 20) < 1}, spacing)
    assert found["lv_orientation"] == pytest.approx(degrees, abs=0.2)


def test_an_empty_frame_has_area_0_and_no_shape() -> None:
    empty = np.zeros((20, 20), bool)
    found = frame_attributes({"LV": empty, "MYO": empty}, (1, 1))
    assert (found.pop("lv_area"), found.pop("myo_area")) == (0, 0)
    assert all(map(math.isnan, found.values()))


def test_error_is_the_distance_from_the_neighbours_mean() -> None:
    errors = consistency_errors([10, 14, 12, 30, 50], Limits(10, 50, 0))
    np.testing.assert_allclose(errors, [0, (14 - 11) / 40, (12 - 22) / 40, (30 - 31) / 40, 0])
    assert len(consistency_errors([1.0], Limits(0, 1, 0))) == 1


def test_limits_are_those_of_the_worst_reference() -> None:
    sequences = [
        {"lv_area": [10, 14, 12]},
        {"lv_area": [20, 30, 50], "lv_length": [math.nan] * 3},
        {"lv_area": [50, 20, math.nan]},
    ]
    limits = limits_of(sequences)
    assert limits == {"lv_area": Limits(10, 50, 5 / 40)}
    assert not any(inconsistent_frames(sequence, limits)["lv_area"].any() for sequence in sequences[:2])


def test_a_constant_sequence_has_no_errors() -> None:
    still = {name: [limit.lowest] * 9 for name, limit in PAINCHAUD_2022.items()}
    assert not np.any(list(inconsistent_frames(still, PAINCHAUD_2022).values()))
    unmoved = limits_of([still])
    assert not np.any(list(inconsistent_frames(still, unmoved).values()))


@pytest.mark.parametrize("place", range(7))
def test_one_wrong_frame_flags_itself_and_its_neighbours_at_most(place: int) -> None:
    area = 3000 + 1000 * np.cos(np.linspace(0, math.pi, 7))
    limits = limits_of([{"lv_area": area}])
    area[place] *= 1.3
    flagged = set(np.flatnonzero(inconsistent_frames({"lv_area": area}, limits)["lv_area"]))
    assert flagged
    assert flagged <= {place - 1, place, place + 1} - {0, 6}
    assert place in flagged or place in (0, 6)


def test_a_frame_that_cannot_be_measured_is_inconsistent_but_at_the_ends() -> None:
    limits = {"lv_length": Limits(50, 100, 0.1)}
    nan = math.nan
    flags = inconsistent_frames({"lv_length": [nan, 80, 80, nan, 80, 80, nan]}, limits)["lv_length"]
    assert flags.tolist() == [False, False, False, True, False, False, False]


def test_published_limits_are_in_mm() -> None:
    assert set(PAINCHAUD_2022) == set(ATTRIBUTES)
    assert PAINCHAUD_2022["lv_length"].highest == pytest.approx(94.4, abs=0.1)
    assert PAINCHAUD_2022["lv_area"].highest == pytest.approx(5332, abs=1)


def test_ed_and_es_by_area() -> None:
    assert ed_es_frames([30, 40, 20, 10, 25]) == (1, 3)
    assert ed_es_frames([10, 20, 40]) == (2, 0)  # starts in systole
    assert ed_es_frames([40, 0, 20, math.nan, 40, 20]) == (0, 2)
    assert ed_es_frames([0, 0]) is None
    assert ed_es_frames([]) is None


PATTERN = r"(?P<patient>p\d)_(?P<view>4CH)_(?P<frame>\d+)"


def label_map(masks: dict[str, ndarray]) -> ndarray:
    return sum(masks[name] * value for name, value in LABELS.items() if value).astype(np.uint8)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Two patients: nine frames of a contraction, numbered in steps of 2 and without leading zeros."""
    folder = tmp_path / "references"
    folder.mkdir()
    for patient, height in (("p1", 80), ("p2", 70)):
        for time in range(9):
            phase = (1 - math.cos(math.pi * time / 8)) / 2
            image = sitk.GetImageFromArray(
                label_map(heart(half_width=30 - 8 * phase, height=height - round(8 * phase), la_half_width=20))
            )
            image.SetSpacing((0.9, 0.9))
            sitk.WriteImage(image, str(folder / f"{patient}_4CH_{2 * time + 1}.nii.gz"))
    (folder / "dataset.json").write_text(
        json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "case_id_pattern": PATTERN})
    )
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_sequences(references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(references, tmp_path / "predictions")
    path = predictions / "p2_4CH_11.nii.gz"
    image = sitk.ReadImage(str(path))
    swollen = sitk.GetImageFromArray(label_map(heart(half_width=40, height=90, wall=10, la_half_width=20)))
    swollen.CopyInformation(image)
    sitk.WriteImage(swollen, str(path))
    out = tmp_path / "out"
    assert main(["evaluate", str(predictions), str(references), "-o", str(out), "--workers", "1"]) == 0

    frames = rows(out / "frames.csv")
    assert [row["frame"] for row in frames] == [str(2 * time + 1) for time in range(9)] * 2
    flagged = {row["case"]: row["prediction_inconsistent"].split() for row in frames if row["prediction_inconsistent"]}
    assert "lv_area" in flagged.pop("p2_4CH_11")
    assert set(flagged) <= {"p2_4CH_9", "p2_4CH_13"}
    assert {row["reference_inconsistent"] for row in frames} == {""}
    hit = next(row for row in frames if row["case"] == "p2_4CH_11")
    cases = {row["structure"]: row["dice"] for row in rows(out / "cases.csv") if row["case"] == "p2_4CH_11"}
    assert {name: hit[f"dice_{name}"] for name in cases} == cases
    assert float(hit["dice_LV"]) < 0.9
    expected = frame_attributes(heart(half_width=40, height=90, wall=10), (0.9, 0.9))
    assert float(hit["prediction_lv_area_mm2"]) == pytest.approx(expected["lv_area"], rel=1e-5)
    assert float(hit["prediction_lv_orientation_deg"]) == pytest.approx(expected["lv_orientation"], abs=1e-5)

    first, second = rows(out / "sequences.csv")
    assert (first["patient"], first["view"], first["frames"]) == ("p1", "4CH", "9")
    assert (first["prediction_inconsistent_frames"], first["prediction_ed_frame"], first["prediction_es_frame"]) == (
        "0",
        "1",
        "17",
    )
    assert (second["prediction_ed_frame"], second["reference_ed_frame"], second["reference_es_frame"]) == (
        "11",
        "1",
        "17",
    )
    count = 1 + len(flagged)
    assert int(second["prediction_inconsistent_frames"]) == count
    assert float(second["prediction_inconsistent_rate"]) == pytest.approx(count / 9, rel=1e-5)
    assert float(second["prediction_error_to_threshold"]) > 2
    assert max(float(row["reference_error_to_threshold"]) for row in (first, second)) == pytest.approx(1)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sequences"]["prediction"] == pytest.approx(
        {
            "sequences": 2,
            "sequences_with_errors": 1,
            "frames": 18,
            "inconsistent_frames": count,
            "rate": count / 18,
            "rate_in_sequences_with_errors": count / 9,
        }
    )
    assert summary["sequences"]["reference"]["rate_in_sequences_with_errors"] is None
    assert set(summary["sequences"]["limits"]) == set(ATTRIBUTES)


def test_tables_of_anatomy(references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(references, tmp_path / "predictions")
    path = predictions / "p1_4CH_5.nii.gz"
    image = sitk.ReadImage(str(path))
    image[80, 3] = LABELS["LV"]
    image[80, 135] = 0
    sitk.WriteImage(image, str(path))
    evaluation = evaluate(predictions, references, workers=1)
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


def test_published_limits_on_request(references: Path) -> None:
    evaluation = evaluate(references, references, consistency_limits="painchaud2022", workers=1)
    assert evaluation.summary["sequences"]["limits_from"] == "painchaud2022"
    assert evaluation.summary["sequences"]["limits"]["lv_area"]["threshold"] == 0.016
    with pytest.raises(ValueError, match="consistency_limits is 'ted'"):
        evaluate(references, references, consistency_limits="ted", workers=1)
    path = references / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spacing_unit": "px"}))
    with pytest.raises(ValueError, match="needs images with a spacing in mm"):
        evaluate(references, references, consistency_limits="painchaud2022", workers=1)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?P<patient>p\d)_(?P<view>(?P<frame>4CH))_\d+", "its frame is '4CH'"),
        (r"(?P<patient>p\d)_4CH_(?P<frame>\d)\d?", "are both p1 1; one frame of each is needed"),
    ],
)
def test_patterns_that_do_not_number_frames(pattern: str, message: str, references: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "case_id_pattern": pattern}))
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(references, references, dataset_json=path, workers=1)


def test_every_column_is_documented(references: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-zA-Z0-9_]+)`", text))
    evaluation = evaluate(references, references, workers=1)
    summaries = [evaluation.summary[part]["prediction"] for part in ("anatomy", "sequences")]
    names = {
        *CRITERIA,
        *evaluation.anatomy[0],
        *evaluation.sequences[0],
        *evaluation.frames[0],
        *summaries[0],
        *summaries[1],
    }
    assert names - documented == {"dice_LA", "dice_LV_EPI", "prediction_epi_center_y_mm"} | {
        name for name in names - documented if name.startswith("reference_")
    }


def test_a_gap_between_frames_is_refused(references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(references, tmp_path / "predictions")
    (predictions / "p1_4CH_7.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"p1 4CH: frames \[1, 3, 5, 9, .* not evenly spaced"):
        evaluate(predictions, references, subset=True, workers=1)


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
