"""Numbers of drawn hearts, and every reason not to show one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beating import a_heart, fibrillating
from cine_results import LABELS, SEED, drawn, drawn_beating, drawn_clip, drawn_result, flags, refused, with_masks
from numpy import ndarray

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips.clip import Finding
from nnunet_echo.cine.gate import Refusal
from nnunet_echo.cine.result import CineResult

LA = {"la_area_mm2", "la_volume_ml"}
ALL = {
    "ef_percent",
    "ef_percent_lowest",
    "ef_percent_highest",
    "heart_rate",
    "edv_ml",
    "esv_ml",
    "wall_thickness_ed_mm",
} | LA


@pytest.mark.parametrize(("bpm", "fps", "seed"), [(40, 30, 5), (75, 30, 1), (110, 50, 7), (180, 100, 5)])
def test_ejection_fraction_of_a_drawn_heart(bpm: float, fps: float, seed: int) -> None:
    masks, frames, contraction = drawn("4CH", seed, bpm, fps, 3.4 if bpm < 60 else 2.0, 1.0)
    result = analyse(drawn_clip(frames, fps, 1.0), masks, {"LV": 1}, view="4CH")
    heart = a_heart(seed)
    assert result.numbers["ef_percent"] == pytest.approx(heart.ef_percent, abs=1)
    assert result.numbers["heart_rate"] == pytest.approx(bpm, rel=0.03)
    for beat in result.loops[0].beats:
        assert contraction[beat.beat.ed] < 0.02 and contraction[beat.beat.es] > 0.97


@pytest.mark.parametrize("seed", [1, 2])
def test_ejection_fraction_of_an_irregular_heart(seed: int) -> None:
    masks, frames, _ = drawn_beating(fibrillating(90, 4, seed), "4CH", SEED, 50, 4)
    result = analyse(drawn_clip(frames, 50), masks, {"LV": 1}, view="4CH")
    assert result.numbers["ef_percent"] == pytest.approx(a_heart(SEED).ef_percent, abs=1)
    assert "irregular" in flags(result)


def test_a_sound_loop_has_all_its_numbers() -> None:
    result = drawn_result()
    assert set(result.numbers) == ALL and not result.refusals and result.exit_code == 0
    heart, numbers = a_heart(SEED), result.numbers
    assert numbers["ef_percent_lowest"] <= numbers["ef_percent"] <= numbers["ef_percent_highest"]
    single = heart.edv_ml * heart.views["4CH"].diameter_mm / heart.views["2CH"].diameter_mm
    assert numbers["edv_ml"] == pytest.approx(single, rel=0.03)
    assert numbers["esv_ml"] == pytest.approx(single * (1 - heart.ef_percent / 100), rel=0.05)
    assert flags(result) <= {"incomplete_beats", "few_beats"}


def test_without_a_scale_there_is_an_ef_and_no_ml() -> None:
    result = drawn_result(spacing=None)
    assert refused(result) == {"no_scale": {"edv_ml", "esv_ml", "wall_thickness_ed_mm"} | LA}
    assert result.numbers["ef_percent"] == pytest.approx(drawn_result().numbers["ef_percent"], abs=1e-6)
    assert result.exit_code == 1


def test_the_reason_of_the_clip_is_the_reason_of_the_refusal() -> None:
    masks, frames, _ = drawn()
    clip = drawn_clip(frames, spacing=None).with_findings(Finding("scale_outside_image", "It was resized."))
    result = analyse(clip, masks, {"LV": 1}, view="4CH")
    assert result.refusals == (Refusal("scale_outside_image", ("edv_ml", "esv_ml"), "It was resized."),)
    assert "scale_outside_image" in flags(result)


def test_without_times_ef_is_by_extremes_and_there_is_no_heart_rate() -> None:
    result = drawn_result(fps=None)
    of_beats = {"ef_percent_lowest", "ef_percent_highest", "heart_rate"}
    assert refused(result) == {"no_times": of_beats}
    assert "by_extremes" in flags(result)
    assert result.numbers["ef_percent"] == pytest.approx(a_heart(SEED).ef_percent, abs=1)
    assert refused(drawn_result(fps=12)) == {"frame_rate_low": of_beats}


def test_a_short_clip_without_a_beat_has_an_ef_and_no_heart_rate() -> None:
    """From one systole to the next: ES and ED lie in it, in this order."""
    whole = drawn_result()
    masks, frames, _ = drawn()
    first, second = (beat.beat.es for beat in whole.loops[0].beats[:2])
    span = slice(first - 4, second - 3)
    result = analyse(drawn_clip(frames[span]), masks[span], LABELS)
    assert refused(result) == {"no_complete_beat": {"ef_percent_lowest", "ef_percent_highest", "heart_rate"}}
    assert "by_extremes" in flags(result) and result.exit_code == 1
    assert result.numbers["ef_percent"] == pytest.approx(whole.numbers["ef_percent"], abs=1)


def test_one_frame_has_no_ef() -> None:
    masks, frames, _ = drawn()
    result = analyse(drawn_clip(frames[:1]), masks[:1], LABELS)
    assert refused(result) == {"one_frame": ALL}
    assert len(result.frame_rows()) == 1


def test_less_than_a_beat_has_no_ef() -> None:
    masks, frames, _ = drawn()
    assert refused(analyse(drawn_clip(frames[:22]), masks[:22], LABELS)) == {"no_complete_beat": ALL}


def test_labels_without_a_ventricle_have_no_ef() -> None:
    masks, frames, _ = drawn()
    result = analyse(drawn_clip(frames), masks, {"RV": 1, "LA": 3})
    assert set(refused(result)) == {"no_lv_label"}
    assert not any(np.isfinite(list(result.numbers.values())))


def test_frames_without_ventricle() -> None:
    def lose(count: int) -> Any:
        def change(masks: ndarray) -> None:
            masks[1 : 1 + count][masks[1 : 1 + count] == 1] = 0

        return change

    assert refused(with_masks(lose(6))) == {"lv_missing": ALL}
    few = with_masks(lose(3))
    assert not few.refusals and "lv_missing_some" in flags(few)


def test_a_ventricle_that_does_not_beat() -> None:
    assert refused(with_masks(lambda masks: masks.__setitem__(slice(None), masks[0]))) == {"no_motion": ALL}

    def shuffle(masks: ndarray) -> None:
        masks[:] = masks[np.random.default_rng(0).permutation(len(masks))]

    assert refused(with_masks(shuffle)) == {"not_cyclic": ALL}


def one_bad(result: CineResult) -> tuple[list[str], set[str]]:
    return [beat.refused for beat in result.loops[0].beats if beat.refused], flags(result)


@pytest.mark.parametrize("name", ["lv_cut", "lv_in_pieces", "axis"])
def test_a_bad_beat_is_refused_and_the_others_stay(name: str) -> None:
    first = drawn_result().loops[0].beats[0].beat

    def change(masks: ndarray) -> None:
        frame = masks[first.es]
        rows, columns = np.nonzero(frame == 1)
        y = np.arange(len(frame))[:, None]
        if name == "lv_in_pieces":
            frame[-len(rows) // 100 - 3 :, -30:] = 1
        elif name == "lv_cut":  # at the right border of the picture
            frame[:] = np.roll(frame, frame.shape[1] - 1 - columns.max(), axis=1)
        else:  # half as long
            frame[(frame == 1) & (y < rows.min() + np.ptp(rows) / 2)] = 2

    result = with_masks(change)
    bad, found = one_bad(result)
    assert bad == [name] and "beats_refused" in found
    row = result.beat_rows()[0]
    assert (
        row["refused"] == name and row["reason"] and np.isnan([row["ef_percent"], row["edv_ml"], row["esv_ml"]]).all()
    )
    assert result.numbers["ef_percent"] == pytest.approx(a_heart(SEED).ef_percent, abs=1)


def test_a_beat_without_mitral_plane() -> None:
    """A mask hardly ever has none; the gate is asked directly."""
    from nnunet_echo.cine.gate import beat_doubt
    from nnunet_echo.evaluation.left_ventricle.volume import LvShape

    loop = drawn_result().loops[0]
    beat, shapes = loop.beats[0].beat, list(loop.curve.shapes)
    for flag in ("no_base", "empty", "cut"):
        shapes[beat.ed] = LvShape(flag=flag)
        expected = {"no_base": "no_base", "empty": "lv_empty", "cut": "lv_cut"}[flag]
        assert beat_doubt(replace(loop.curve, shapes=tuple(shapes)), beat) == expected
    volume = loop.curve.values["lv_volume"].copy()
    volume[beat.es] = volume[beat.ed] + 1
    assert beat_doubt(replace(loop.curve, values=loop.curve.values | {"lv_volume": volume}), beat) == "esv_above_edv"
    assert beat_doubt(loop.curve, beat) == ""


def test_no_sound_beat_is_no_ef_and_says_why() -> None:
    masks, frames, _ = drawn()
    sector = np.ones(masks[0].shape, bool)
    columns = np.flatnonzero((np.stack(masks) == 1).any(axis=(0, 1)))
    sector[:, columns[-1] - 6 :] = False  # the sector's edge goes through the ventricle
    stacked = np.stack(masks) * sector
    result = analyse(drawn_clip(frames), stacked, LABELS, view="4CH", sector=sector)
    assert refused(result) == {"no_sound_beat": ALL}
    assert "edge of the sector" in result.refusals[0].text
    assert result.refusals[0].text.startswith("No beat can be measured at end diastole and end systole: ")
    assert {beat.refused for beat in result.loops[0].beats} == {"lv_cut"}
    result = analyse(drawn_clip(frames, fps=None), stacked, LABELS, view="4CH", sector=sector)
    assert refused(result) == {"no_sound_beat": ALL}
    assert result.refusals[0].text.startswith("No beat is complete, and its largest and smallest frame cannot be mea")
    assert result.summary()["clips"][0]["beats_refused"] == 0  # the pair that is refused is no beat


def test_an_atrium_that_is_cut_or_lost() -> None:
    def cut(masks: ndarray) -> None:
        for mask in masks:
            rows, columns = np.nonzero(mask == 3)
            middle = int(columns.mean())
            mask[rows.min() + 3 :, middle - 2 : middle + 3] = 3

    assert refused(with_masks(cut)) == {"la_cut": LA}
    assert refused(with_masks(lambda masks: masks.__setitem__(masks == 3, 0))) == {"la_missing": LA}
    assert "wall_missing" in refused(with_masks(lambda masks: masks.__setitem__(masks == 2, 0)))


@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: [x[:-1] for x in m]])
def test_masks_of_another_clip_are_refused(change: Any) -> None:
    masks, frames, _ = drawn()
    with pytest.raises(ValueError, match="masks: .* Predict every frame"):
        analyse(drawn_clip(frames), change(masks), LABELS)


def test_a_number_without_reason_cannot_be_made() -> None:
    result = drawn_result(spacing=None)
    with pytest.raises(RuntimeError, match="edv_ml"):
        replace(result, refusals=())
    with pytest.raises(RuntimeError, match="ef_percent"):
        replace(result, refusals=(*result.refusals, Refusal("x", ("ef_percent",), "")))
