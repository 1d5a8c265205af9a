"""Beats of hearts whose ED and ES are known."""

from __future__ import annotations

import numpy as np
import pytest
from beating import Beating, complete_beats, fibrillating, steady
from numpy import ndarray

from nnunet_echo.cine.beats import Beat, find_beats, find_rhythm

EF, FAC = 0.6, 0.42  # of volume and of area
RATES_HZ, BPM = (30, 50, 80, 100), (40, 60, 90, 130, 180)


def area_of(contraction: ndarray) -> ndarray:
    return 3000 * (1 - FAC * contraction)


def check(beating: Beating, fps: float, noise: float, seconds: float = 6.0) -> None:
    """Every complete beat is found, and nothing else; ED and ES within a frame, with noise within 33 ms as well."""
    times = np.arange(0, seconds, 1 / fps)
    contraction = beating.contraction(times)
    grain = np.random.default_rng(0).standard_normal(len(times))
    rhythm = find_rhythm(times, area_of(contraction) + noise * FAC * 3000 * grain)
    assert rhythm.method == "beats", rhythm
    allowed = max(1, round(0.033 * fps)) if noise else 1
    truth = complete_beats(beating, times)
    assert truth
    volume = 1 - EF * contraction
    errors = []
    for ed, es in truth:
        beat = min(rhythm.beats, key=lambda beat: abs(beat.es - es))
        assert abs(beat.ed - ed) <= allowed and abs(beat.es - es) <= allowed
        found, true = (1 - volume[b] / volume[a] for a, b in ((beat.ed, beat.es), (ed, es)))
        errors.append(100 * (found - true))
    assert abs(np.median(errors)) <= 1
    every = beating.es_s
    assert all(min(abs(times[beat.es] - every)) <= (allowed + 0.5) / fps for beat in rhythm.beats)
    assert len(truth) <= len(rhythm.beats) <= len(truth) + 1  # one at the end may be complete and not surely so


@pytest.mark.parametrize("noise", [0, 0.005, 0.01])
@pytest.mark.parametrize("fps", RATES_HZ)
@pytest.mark.parametrize("bpm", BPM)
def test_every_beat_of_a_steady_heart(bpm: int, fps: int, noise: float) -> None:
    check(steady(bpm, 6), fps, noise)


@pytest.mark.parametrize("noise", [0, 0.005, 0.01])
@pytest.mark.parametrize("fps", RATES_HZ)
@pytest.mark.parametrize(("bpm", "seed"), [(55, 0), (75, 1), (100, 2), (130, 3), (55, 3), (75, 3), (130, 5)])
def test_every_beat_of_an_irregular_heart(bpm: int, seed: int, fps: int, noise: float) -> None:
    """In the last three the curve is most like itself not one beat later, but two, or five."""
    check(fibrillating(bpm, 6, seed), fps, noise)


@pytest.mark.parametrize("noise", [0, 0.01])
@pytest.mark.parametrize("fps", RATES_HZ)
@pytest.mark.parametrize("intervals", [(0.55, 1.05), (0.7, 1.0), (0.38, 0.75), (0.6, 0.6, 1.2), (0.5, 0.9, 0.9)])
def test_bigeminy_and_trigeminy_are_not_taken_for_one_beat(
    intervals: tuple[float, ...], fps: int, noise: float
) -> None:
    """What comes back after all of these is the whole group: half or a third of the true heart rate."""
    beating = Beating(intervals * 6, -0.13)
    check(beating, fps, noise)
    rhythm = find_rhythm(times := np.arange(0, 6, 1 / fps), area_of(beating.contraction(times)))
    assert rhythm.irregular and rhythm.heart_rate == pytest.approx(60 / np.mean(intervals), rel=0.05)


def test_a_clip_of_one_contraction_has_no_period_to_look_within() -> None:
    """It begins in systole, as large as the ventricle rests in diastole; the ED is that after the rest."""
    times = np.arange(0, 1.34, 1 / 25)
    beating = Beating((1.14,) * 3, start=-0.12 * 1.14)
    rhythm = find_rhythm(times, area_of(beating.contraction(times)))
    assert rhythm.method == "extremes"
    assert abs(times[rhythm.beats[0].ed] - beating.ed_s[1]) <= 1 / 25


@pytest.mark.parametrize("bpm", BPM)
def test_the_ejection_fraction_is_the_hearts_own(bpm: int) -> None:
    """Not only that of its frames: at 12 frames a beat and more, sampling costs at most a point."""
    fps = max(50, bpm * 12 // 60)
    times = np.arange(0, 6, 1 / fps)
    contraction = steady(bpm, 6, start=-0.137).contraction(times)
    volume = 1 - EF * contraction
    efs = [100 * (1 - volume[beat.es] / volume[beat.ed]) for beat in find_beats(times, area_of(contraction))]
    assert abs(np.median(efs) - 100 * EF) <= 1


def test_irregular_rhythm_is_said() -> None:
    times = np.arange(0, 8, 1 / 50)
    for beating, irregular in ((steady(75, 8), False), (fibrillating(75, 8, 1), True)):
        assert find_rhythm(times, area_of(beating.contraction(times))).irregular is irregular


@pytest.mark.parametrize(("bpm", "fps"), [(180, 30), (40, 100)])
def test_steady_rhythm_is_not_called_irregular_for_the_length_of_a_frame(bpm: int, fps: int) -> None:
    times = np.arange(0, 8, 1 / fps)
    rhythm = find_rhythm(times, area_of(steady(bpm, 8).contraction(times)))
    assert not rhythm.irregular
    assert rhythm.heart_rate == pytest.approx(bpm, rel=0.02)
    assert rhythm.period_s == pytest.approx(60 / bpm, rel=0.05)


def test_ends_of_the_clip_hold_no_beat() -> None:
    """From mid systole to mid diastole: of four contractions two lie between two EDs."""
    beating = Beating((0.8,) * 6, start=-0.2)
    times = np.arange(0, 2.75, 1 / 50)
    rhythm = find_rhythm(times, area_of(beating.contraction(times)))
    assert [(b.ed, b.es, b.next_ed) for b in rhythm.beats] == [(30, 45, 70), (70, 85, 110)]
    assert rhythm.incomplete >= 1
    assert rhythm.heart_rate == pytest.approx(75)


def test_a_clip_of_less_than_a_beat_has_none() -> None:
    times = np.arange(0, 0.7, 1 / 50)
    rhythm = find_rhythm(times, area_of(Beating((0.8,) * 3, start=-0.1).contraction(times)))
    assert (rhythm.method, rhythm.why, rhythm.beats) == ("none", "no_complete_beat", ())


@pytest.mark.parametrize("noise", [0, 0.01])
@pytest.mark.parametrize("fps", [25, 50])
@pytest.mark.parametrize("bpm", [50, 75, 110])
@pytest.mark.parametrize("beats", [1, 2, 3])
def test_a_clip_from_r_wave_to_r_wave_is_all_beats(beats: int, bpm: int, fps: int, noise: float) -> None:
    """One, two or three beats as scanners store them: those at the ends count, and are said."""
    times = np.arange(0, beats * 60 / bpm + 0.5 / fps, 1 / fps)
    contraction = Beating((60 / bpm,) * (beats + 2)).contraction(times)
    grain = np.random.default_rng(0).standard_normal(len(times))
    rhythm = find_rhythm(times, area_of(contraction) + noise * FAC * 3000 * grain)
    assert (rhythm.method, len(rhythm.beats), rhythm.incomplete) == ("beats", beats, 0)
    assert rhythm.at_ends == min(beats, 2)
    assert rhythm.beats[0].ed <= 0.06 * fps
    assert rhythm.heart_rate == pytest.approx(bpm, rel=0.1)
    volume = 1 - EF * contraction
    for beat in rhythm.beats:
        assert 100 * (1 - volume[beat.es] / volume[beat.ed]) == pytest.approx(100 * EF, abs=3)


@pytest.mark.parametrize("first", [0.08, 0.12])
def test_an_end_that_is_not_as_large_as_the_ed_inside_is_none(first: float) -> None:
    """The clip begins in systole, `first` seconds after an ED, and ends with one."""
    times = np.arange(0, 2.4 - first + 0.01, 1 / 50)
    rhythm = find_rhythm(times, area_of(Beating((0.8,) * 4, start=-first).contraction(times)))
    assert [beat.ed for beat in rhythm.beats] == [round(50 * (0.8 * k - first)) for k in (1, 2)]
    assert (rhythm.at_ends, rhythm.incomplete) == (1, 1)


@pytest.mark.parametrize("fps", [30, 100])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.65])
def test_a_part_of_a_beat_is_no_beat(share: float, fps: int) -> None:
    """However alike its ends are: at an ED the ventricle rests, and falls or fills at the ends of these."""
    times = np.arange(0, share, 1 / fps)
    for start in np.arange(0.02, 1, 0.02):
        area = area_of(Beating((1.0,) * 3, start=-start).contraction(times))
        assert find_rhythm(times, area).method != "beats", start


@pytest.mark.parametrize("noise", [0, 0.01])
@pytest.mark.parametrize(("start", "seconds"), [(0.2, 1.0), (0.7, 0.75)])
def test_a_short_clip_that_shows_ed_and_es_has_both(start: float, seconds: float, noise: float) -> None:
    """No beat from ED to ED: from mid systole to the next, or from diastole to the next filling."""
    times = np.arange(0, seconds, 1 / 50)
    contraction = Beating((1.0,) * 4, start=-start).contraction(times)
    grain = np.random.default_rng(0).standard_normal(len(times))
    rhythm = find_rhythm(times, area_of(contraction) + noise * FAC * 3000 * grain)
    assert (rhythm.method, rhythm.why, len(rhythm.beats)) == ("extremes", "no_complete_beat", 1)
    (beat,) = rhythm.beats
    assert beat.next_ed is None and np.isnan(rhythm.heart_rate)
    assert abs(beat.ed - np.argmin(contraction)) <= 1 and abs(beat.es - np.argmax(contraction)) <= 1
    volume = 1 - EF * contraction
    assert 100 * (1 - volume[beat.es] / volume[beat.ed]) == pytest.approx(100 * EF, abs=3)


def test_a_clip_shorter_than_any_beat_has_none() -> None:
    """Frames at a rate that cannot be: the curve turns, but no heart is as fast."""
    times = np.arange(0, 2, 1 / 30) / 10
    assert find_rhythm(times, area_of(steady(75, 2).contraction(10 * times))).why == "no_complete_beat"


def test_an_extreme_at_an_end_of_a_short_clip_is_none() -> None:
    """The ventricle may have been larger before, or smaller after."""
    beating = Beating((1.0,) * 4, start=-0.05)
    for seconds in (0.25, 0.6):  # in systole; from after ED to diastole
        times = np.arange(0, seconds, 1 / 50)
        rhythm = find_rhythm(times, area_of(beating.contraction(times)))
        assert (rhythm.method, rhythm.why) == ("none", "no_complete_beat")


def test_a_longer_clip_needs_a_beat() -> None:
    times = np.arange(0, 3.0, 1 / 50)
    slow = 3000 + 500 * np.sin(2 * np.pi * times / 3)  # turns at both, once
    assert find_rhythm(times * 0.7, slow).method == "extremes"
    assert find_rhythm(times, slow).method == "none"


def test_a_beat_that_ends_with_the_clip_begins_at_its_own_ed() -> None:
    """From 0.4 s before ED to the next ED: the clip begins in diastole, and not with the beat."""
    times = np.arange(0, 1.21, 1 / 50)
    rhythm = find_rhythm(times, area_of(Beating((0.8,) * 3, start=-0.4).contraction(times)))
    assert rhythm.at_ends == 1 and [(beat.ed, beat.es) for beat in rhythm.beats] == [(20, 35)]


def test_two_contractions_make_no_beat_at_the_ends() -> None:
    times = np.arange(0, 1.3, 1 / 50)
    rhythm = find_rhythm(times, area_of(Beating((0.8,) * 4, start=-0.1).contraction(times)))
    assert not rhythm.at_ends and all(beat.ed > 0 for beat in rhythm.beats)


def test_one_complete_beat_is_one() -> None:
    times = np.arange(0, 1.15, 1 / 50)
    rhythm = find_rhythm(times, area_of(Beating((0.8,) * 4, start=-0.7).contraction(times)))
    assert [(b.ed, b.es, b.next_ed) for b in rhythm.beats] == [(5, 20, 45)] and not rhythm.at_ends


@pytest.mark.parametrize("seed", range(8))
def test_noise_has_no_beats(seed: int) -> None:
    for count in (16, 20, 30, 60, 120, 200, 400):
        grain = np.random.default_rng(seed).standard_normal(count)
        assert find_rhythm(np.arange(count) / 50, 3000 + 100 * grain).method == "none"


def test_a_drift_has_no_beats() -> None:
    times = np.arange(0, 4, 1 / 50)
    assert find_rhythm(times, 3000 + 100 * times).why == "no_complete_beat"
    rise = 3000 + 300 * times + 200 * np.exp(-(((times - 2) / 0.3) ** 2)) - 300 * np.exp(-(((times - 2.5) / 0.1) ** 2))
    assert find_rhythm(times, rise).method == "none"  # one dip, and as it goes on the ventricle is larger than before


def test_single_contraction_that_does_not_return_is_none() -> None:
    times = np.arange(0, 1.15, 1 / 50)
    area = area_of(Beating((0.8,) * 4, start=-0.7).contraction(times))
    area[20:] = area[20] + 0.4 * (area[20:] - area[20])  # fills to 40 % only, and contracts again
    assert find_rhythm(times, area).why == "not_cyclic"


def test_without_times_the_extremes_count_and_say_so() -> None:
    area = area_of(steady(75, 3).contraction(np.arange(0, 3, 1 / 50)))
    rhythm = find_rhythm(None, area)
    assert rhythm.beats == (Beat(int(area.argmax()), int(area.argmin())),)
    assert (rhythm.method, rhythm.why) == ("extremes", "no_times")
    assert np.isnan(rhythm.heart_rate)


def test_too_few_frames_a_second_give_extremes_as_well() -> None:
    for fps, method in ((14, "extremes"), (17, "beats")):
        times = np.arange(0, 6, 1 / fps)
        rhythm = find_rhythm(times, area_of(steady(60, 6).contraction(times)))
        assert rhythm.method == method
    assert find_beats(np.arange(0, 6, 1 / 14), area_of(steady(60, 6).contraction(np.arange(0, 6, 1 / 14)))) == []


def test_frames_without_a_ventricle_are_bridged() -> None:
    times = np.arange(0, 4, 1 / 50)
    area = area_of(steady(75, 4).contraction(times))
    plain = find_beats(times, area)
    area[[3, 62]], area[100] = 0, np.nan
    assert find_beats(times, area) == plain


def test_one_failed_frame_is_no_systole() -> None:
    times = np.arange(0, 4, 1 / 50)
    area = area_of(steady(75, 4).contraction(times))
    plain = [beat.es for beat in find_beats(times, area)]
    area[plain[0] + 22] = 200  # in diastole
    assert [beat.es for beat in find_beats(times, area)] == plain


def test_no_beat_goes_across_a_gap() -> None:
    times = np.arange(0, 6, 1 / 50)
    contraction = steady(75, 6).contraction(times)
    kept = np.ones(len(times), bool)
    kept[130:150] = False
    whole, cut = (find_beats(times[k], area_of(contraction[k])) for k in (np.ones_like(kept), kept))
    ends = [(times[kept][beat.ed], times[kept][beat.next_ed]) for beat in cut]
    assert 0 < len(cut) < len(whole)
    assert not any(start < times[140] < stop for start, stop in ends)


def test_frames_need_not_be_evenly_spaced() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.012, 0.028, 300))
    beating = steady(75, 7)
    beats = find_beats(times, area_of(beating.contraction(times)))
    assert len(beats) >= 5
    for beat in beats:
        assert min(abs(times[beat.es] - beating.es_s)) < 0.03
        assert min(abs(times[beat.ed] - beating.ed_s)) < 0.03


@pytest.mark.parametrize(("area", "why"), [([5.0], "one_frame"), ([0, 0, 0], "no_motion"), ([4.0] * 80, "no_motion")])
def test_what_does_not_beat(area: list[float], why: str) -> None:
    rhythm = find_rhythm(np.arange(len(area)) / 50, area)
    assert (rhythm.method, rhythm.why) == ("none", why)


@pytest.mark.filterwarnings("error")
def test_two_frames_are_no_beat() -> None:
    assert find_rhythm(np.array([0.0, 0.02]), [900.0, 700.0]).why == "no_complete_beat"
