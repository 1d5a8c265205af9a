"""Attributes of frames, whether a sequence moves smoothly, end diastole and end systole; their tables."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from drawn_hearts import BASE, LABELS, MIDDLE, heart, label_map, rows

from nnunet_echo.cli.main import main
from nnunet_echo.evaluation.anatomy import CRITERIA
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

pytest_plugins = ("drawn_hearts",)


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


def test_tables_of_sequences(cine_references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(cine_references, tmp_path / "predictions")
    path = predictions / "p2_4CH_11.nii.gz"
    image = sitk.ReadImage(str(path))
    swollen = sitk.GetImageFromArray(label_map(heart(half_width=40, height=90, wall=10, la_half_width=20)))
    swollen.CopyInformation(image)
    sitk.WriteImage(swollen, str(path))
    out = tmp_path / "out"
    assert main(["evaluate", str(predictions), str(cine_references), "-o", str(out), "--workers", "1"]) == 0

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


def test_published_limits_on_request(cine_references: Path) -> None:
    evaluation = evaluate(cine_references, cine_references, consistency_limits="painchaud2022", workers=1)
    assert evaluation.summary["sequences"]["limits_from"] == "painchaud2022"
    assert evaluation.summary["sequences"]["limits"]["lv_area"]["threshold"] == 0.016
    with pytest.raises(ValueError, match="consistency_limits='ted'"):
        evaluate(cine_references, cine_references, consistency_limits="ted", workers=1)
    path = cine_references / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spacing_unit": "px"}))
    with pytest.raises(ValueError, match="needs images with a spacing in mm"):
        evaluate(cine_references, cine_references, consistency_limits="painchaud2022", workers=1)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?P<patient>p\d)_(?P<view>(?P<frame>4CH))_\d+", "its frame is '4CH'"),
        (r"(?P<patient>p\d)_4CH_(?P<frame>\d)\d?", "are both p1 1; one frame of each is needed"),
    ],
)
def test_patterns_that_do_not_number_frames(pattern: str, message: str, cine_references: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "case_id_pattern": pattern}))
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(cine_references, cine_references, dataset_json=path, workers=1)


def test_every_column_is_documented(cine_references: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-zA-Z0-9_]+)`", text))
    evaluation = evaluate(cine_references, cine_references, workers=1)
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


def test_a_gap_between_frames_is_refused(cine_references: Path, tmp_path: Path) -> None:
    predictions = shutil.copytree(cine_references, tmp_path / "predictions")
    (predictions / "p1_4CH_7.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"p1 4CH: frames \[1, 3, 5, 9, .* not evenly spaced"):
        evaluate(predictions, cine_references, subset=True, workers=1)
