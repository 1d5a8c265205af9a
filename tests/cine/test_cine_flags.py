"""What is said of numbers that stay: flags of a clip and of its masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from beating import Beating
from cine_results import GREY, LABELS, SEED, drawn, drawn_beating, drawn_clip, drawn_result, flags, refused, with_masks
from numpy import ndarray

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips.clip import clip_of


def test_flags_of_bad_masks() -> None:
    def specks(masks: ndarray) -> None:
        masks[::4, 12:15, 60:63] = 1

    assert {"lv_pieces", "anatomy"} <= flags(with_masks(specks))

    def jerk(masks: ndarray) -> None:
        for mask in masks[::3]:
            row = np.flatnonzero((mask == 1).any(axis=1))[0]
            mask[row : row + 5][mask[row : row + 5] == 1] = 2

    assert "motion" in flags(with_masks(jerk))
    assert "motion" not in flags(drawn_result())


def test_flags_of_the_clip() -> None:
    masks, frames, _ = drawn()
    tiny = np.zeros(masks[0].shape, bool)
    tiny[:3, :3] = True
    assert "sector_small" in flags(drawn_result.__wrapped__(sector=tiny))
    assert "sector_whole" in flags(drawn_result.__wrapped__(sector=np.ones_like(tiny)))
    assert "sector_whole" not in flags(drawn_result())
    assert "rate_high" in flags(analyse(drawn_clip(frames, 300), masks, LABELS))
    clip = drawn_clip(frames)
    times = clip.times_s.copy()
    times[60:] += 0.5
    assert "time_gap" in flags(analyse(replace(clip, times_s=times), masks, LABELS))


def test_few_beats_are_said() -> None:
    assert "few_beats" not in flags(drawn_result())
    masks, frames, _ = drawn()
    assert "few_beats" in flags(analyse(drawn_clip(frames[:70]), masks[:70], LABELS))


def test_a_clip_of_one_beat_has_an_ef_and_says_so() -> None:
    """From one ED to the next, as scanners store a beat."""
    whole = drawn_result()
    assert "beat_at_ends" not in flags(whole)
    masks, frames, _ = drawn()
    beat = whole.loops[0].beats[0].beat
    assert beat.next_ed is not None
    span = slice(beat.ed, beat.next_ed + 1)
    result = analyse(drawn_clip(frames[span]), masks[span], LABELS)
    assert {"beat_at_ends", "few_beats"} <= flags(result) and not refused(result)
    assert "clip does: 1 of 1" in next(flag.text for flag in result.flags if flag.name == "beat_at_ends")
    assert result.numbers["ef_percent"] == pytest.approx(whole.numbers["ef_percent"], abs=1)
    assert result.numbers["heart_rate"] == pytest.approx(whole.numbers["heart_rate"], rel=0.05)


def test_a_model_that_is_unsure_is_flagged() -> None:
    class Frame:
        def __init__(self, mask: ndarray) -> None:
            self.mask, self.entropy = mask, 0.3

    masks, frames, _ = drawn()
    for limit, flagged in ((0.25, True), (0.35, False), (None, False)):
        result = analyse(drawn_clip(frames), map(Frame, masks), LABELS, entropy_limit=limit)
        assert ("entropy_high" in flags(result)) is flagged
    assert result.frame_rows()[0]["entropy"] == 0.3


def test_a_clip_without_change_in_its_picture_has_no_sector() -> None:
    masks, _, _ = drawn()
    still = clip_of(np.repeat(GREY[masks[0]][None], len(masks), axis=0), fps=30)
    assert "sector_small" in flags(analyse(still, masks, LABELS))


@pytest.mark.parametrize(("fps", "few"), [(20, True), (24, True), (30, False)])
def test_few_frames_in_a_beat_are_said(fps: float, few: bool) -> None:
    """Of 12 in a beat at least: at 140 a minute, 9, 10 and 13."""
    masks, frames, _ = drawn("4CH", SEED, 140, fps, 2.0)
    result = analyse(drawn_clip(frames, fps), masks, LABELS)
    assert not refused(result) and ("few_frames" in flags(result)) is few


@pytest.mark.parametrize(("intervals", "few"), [((0.5, 0.5, 0.9), True), ((0.5, 0.9, 0.9), False)])
def test_it_is_the_median_of_the_beats_that_counts(intervals: tuple[float, ...], few: bool) -> None:
    """At 20 frames a second: 10 and 18 in a beat."""
    masks, frames, _ = drawn_beating(Beating(intervals * 3, start=-0.13), "4CH", SEED, 20, 5)
    result = analyse(drawn_clip(frames, 20), masks, LABELS)
    found = [beat.beat.duration_s * 20 for beat in result.loops[0].beats]
    assert min(found) < 11.5 and max(found) > 12.5 and ("few_frames" in flags(result)) is few
