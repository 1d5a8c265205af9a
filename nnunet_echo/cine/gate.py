"""The quality gate: which numbers of a cine are not shown, and what a reader of the others has to know.

A refusal names the numbers it takes away and its reason; a flag leaves them and says what to mind. No number passes
without the gate: `result.CineResult` has each one, or a refusal that names it.

Refused for a clip      no_lv_label, one_frame, no_motion, lv_missing, not_cyclic, no_complete_beat, no_sound_beat: all
                        numbers. The clip's own scale_*, or no_scale: mm and mL. no_times, frame_rate_low: heart
                        rate and range of EF. la_cut, la_missing, wall_missing: that chamber's numbers
Refused for one beat    lv_empty, no_base, lv_cut, lv_in_pieces, axis, esv_above_edv, at its ED or ES
Refused for two views   biplane_views, biplane_same, biplane_no_ef, biplane_no_scale, biplane_no_rate, biplane_lengths,
                        biplane_rates
Flags                   the clip's own, rate_high, irregular, few_beats, few_frames, incomplete_beats, beat_at_ends,
                        by_extremes, lv_missing_some, lv_pieces, anatomy, motion, methods_disagree, base_doubtful,
                        entropy_high, sector_small, sector_whole, study_not_checked, beats_refused, time_gap

Limits are stated below; those of beats and of biplane follow Lang et al., J Am Soc Echocardiogr 28:1-39, 2015 in kind,
not in value: they are ours, and unofficial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.beats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, Beat, Rhythm
from nnunet_echo.cine.clips.clip import Clip, Finding
from nnunet_echo.cine.curve import LvCurve
from nnunet_echo.evaluation.left_ventricle.volume import LvShape
from nnunet_echo.evaluation.motion import PAINCHAUD_2022, inconsistent_frames

MISSING = 0.05  # of the frames may be without LV
ON_EDGE = 0.05  # of the LV's outline may lie on the edge of the sector
STRAY = 0.1  # of the LV may lie outside its largest piece
SHORTENING = (-0.05, 0.4)  # of the long axis from ED to ES; below 0 by what outlines are uncertain
FRAMES = 0.1  # of the frames may break a rule of anatomy or of motion
SECTOR, WHOLE = 0.1, 0.95  # of the picture
BEAT_FRAMES = 12  # of a beat, at least: with fewer, ED and ES lie between frames
METHODS = 10.0  # percentage points of EF between disks and area-length
LENGTHS, RATES = 0.2, 0.1  # between two views, of the larger one

_WHY = {
    "no_lv_label": "The model has no label LV.",
    "one_frame": "The clip has one frame; an ejection fraction needs a beat.",
    "no_motion": "No ventricle is there to follow, or it does not change from frame to frame.",
    "not_cyclic": "The area of the ventricle does not rise and fall in cycles.",
    "no_complete_beat": "No beat lies in the clip completely, from one end diastole to the next. Export two beats or "
    "more.",
    "no_times": "The times of the frames are not known; give the frame rate.",
    "frame_rate_low": f"The clip has less than {LOWEST_RATE_HZ:g} frames a second.",
}
_BEAT = {
    "lv_empty": "no ventricle",
    "no_base": "no mitral plane found",
    "lv_cut": "the ventricle reaches the edge of the sector or of the picture",
    "lv_in_pieces": "the ventricle is in pieces",
    "axis": "the long axis grows, or shortens by more than 40 %",
    "esv_above_edv": "the volume at end systole is above that at end diastole",
}


@dataclass(frozen=True)
class Refusal:
    """Numbers that are not shown, and why: `name` for programs, `text` for people."""

    name: str
    numbers: tuple[str, ...]
    text: str


def beat_doubt(curve: LvCurve, beat: Beat) -> str:
    """The first reason against a beat's volumes, one of the names above, or ""."""
    shapes = [curve.shapes[frame] for frame in (beat.ed, beat.es)]
    for name, flag in (("lv_empty", "empty"), ("no_base", "no_base"), ("lv_cut", "cut")):
        if any(flag in shape.flag.split() for shape in shapes):
            return name
    if any(curve.on_edge[frame] > ON_EDGE for frame in (beat.ed, beat.es)):
        return "lv_cut"
    if any(curve.stray[frame] > STRAY for frame in (beat.ed, beat.es)):
        return "lv_in_pieces"
    low, high = SHORTENING
    if not low <= 1 - shapes[1].length / shapes[0].length <= high:
        return "axis"
    volumes = curve.values["lv_volume"][[beat.ed, beat.es]]
    return "" if volumes[1] <= volumes[0] else "esv_above_edv"


def describe_doubt(name: str) -> str:
    """A beat's reason in words.

    >>> describe_doubt("no_base")
    'no mitral plane found'
    """
    return _BEAT[name]


def rhythm_refusal(clip: Clip, curve: LvCurve | None, rhythm: Rhythm, numbers: tuple[str, ...]) -> Refusal | None:
    """Why a clip has no EF whatever its beats look like; `numbers` are those that hang on it."""
    if curve is None:
        return Refusal("no_lv_label", numbers, _WHY["no_lv_label"])
    if clip.count < 2:
        return Refusal("one_frame", numbers, _WHY["one_frame"])
    missing = _missing(curve)
    if missing > MISSING:
        return Refusal("lv_missing", numbers, f"{missing:.0%} of the frames show no ventricle.")
    return Refusal(rhythm.why, numbers, _WHY[rhythm.why]) if rhythm.method == "none" else None


def no_beat_refusal(rhythm: Rhythm, numbers: tuple[str, ...]) -> Refusal | None:
    """Why numbers that beats have are not there, though there is an EF."""
    return Refusal(rhythm.why, numbers, _WHY[rhythm.why]) if rhythm.method == "extremes" else None


def no_sound_beat(doubts: Sequence[str], rhythm: Rhythm, numbers: tuple[str, ...]) -> Refusal:
    """Every beat is refused, for these reasons; or, where no beat is complete, the largest and the smallest frame."""
    reasons = "; ".join(_BEAT[name] for name in dict.fromkeys(doubts))
    what = "No beat can be measured at end diastole and end systole"
    if rhythm.method == "extremes":
        what = "No beat is complete, and its largest and smallest frame cannot be measured"
    return Refusal("no_sound_beat", numbers, f"{what}: {reasons}.")


def scale_refusal(clip: Clip, numbers: tuple[str, ...]) -> Refusal | None:
    """No mm and no mL without a scale; the reason is the clip's, where it has one."""
    if clip.spacing_mm is not None or not numbers:
        return None
    own = [finding for finding in clip.findings if finding.name.startswith("scale_")]
    if own:
        return Refusal(own[0].name, numbers, own[0].text)
    return Refusal("no_scale", numbers, "The size of a pixel is not known.")


def clip_flags(
    clip: Clip, curve: LvCurve, rhythm: Rhythm, sector: ndarray, entropy_limit: float | None
) -> list[Finding]:
    """What to mind of a clip's numbers."""
    flags = list(clip.findings)

    def flag(name: str, when: bool, text: str) -> None:
        if when:
            flags.append(Finding(name, text))

    steps = np.diff(clip.times_s) if clip.times_s is not None and clip.count > 1 else np.array([0.02])
    rate, beats = 1 / float(np.median(steps)), len(rhythm.beats)
    told = any(finding.name == "frame_rate_high" for finding in clip.findings)
    flag("rate_high", rate > HIGHEST_RATE_HZ and not told, f"{rate:.0f} frames a second are more than scanners give.")
    flag("time_gap", bool((steps > 2.5 * np.median(steps)).any()), "Frames are missing in time; no beat goes across.")
    flag(
        "by_extremes",
        rhythm.method == "extremes",
        f"ED and ES are the largest and the smallest frame of the clip, and not those of a beat: "
        f"{_WHY.get(rhythm.why, '')} The ejection fraction is unreliable.",
    )
    flag("irregular", rhythm.irregular, "The rhythm is irregular: read the list of beats, not one number.")
    least = 5 if rhythm.irregular else 3
    flag(
        "few_beats", rhythm.method == "beats" and beats < least, f"Complete beats: {beats}; {least} or more are better."
    )
    intervals = [beat.duration_s for beat in rhythm.beats if beat.next_ed]
    frames = round(float(np.median(intervals)) * rate) if intervals else BEAT_FRAMES
    flag(
        "few_frames",
        frames < BEAT_FRAMES,
        f"A beat has {frames} frames: ED and ES may lie between them, and the ejection fraction is then too "
        "low, by up to 2.3 points in drawn hearts. Export the loop at the rate at which it was taken.",
    )
    flag(
        "incomplete_beats",
        rhythm.incomplete > 0,
        f"Contractions at the ends of the clip, or at a gap, that belong to no complete beat: {rhythm.incomplete}.",
    )
    flag(
        "beat_at_ends",
        rhythm.at_ends > 0,
        f"Beats that begin or end where the clip does: {rhythm.at_ends} of {beats}. If end diastole lies outside the "
        f"clip, their EF is too low, and their heart rate too high.",
    )
    missing = _missing(curve)
    flag("lv_missing_some", missing > 0, f"{missing:.1%} of the frames show no ventricle.")
    pieces = float(np.mean(curve.stray > 0.01))
    flag("lv_pieces", pieces > FRAMES, f"In {pieces:.0%} of the frames the ventricle has more than one piece.")
    impossible = float(np.mean(curve.violations > 0))
    flag("anatomy", impossible > FRAMES, f"{impossible:.0%} of the frames break a rule of anatomy.")
    jerky = _jerky(curve)
    flag("motion", jerky > FRAMES, f"{jerky:.0%} of the frames do not fit those beside them.")
    doubtful = float(
        np.mean([bool({"base_doubtful", "base_from_outline"} & set(s.flag.split())) for s in curve.shapes])
    )
    flag("base_doubtful", doubtful > FRAMES, f"In {doubtful:.0%} of the frames the mitral plane is in doubt.")
    share = float(sector.mean())
    flag(
        "sector_whole",
        share > WHOLE,
        "The sector could not be told from the rest of the picture: film and report show all of it, and names that "
        "are written there. Look at them before you pass them on.",
    )
    flag("sector_small", share < SECTOR, f"The sector fills {share:.1%} of the picture.")
    if entropy_limit is not None and curve.entropy is not None:
        mean = float(np.nanmean(curve.entropy))
        flag("entropy_high", mean > entropy_limit, f"The model is less sure ({mean:.3f}) than it was in training.")
    return flags


def biplane_refusal(
    views: Sequence[str],
    clips: Sequence[Clip],
    shapes: Sequence[LvShape | None],
    rates: Sequence[float],
    numbers: tuple[str, ...],
) -> Refusal | None:
    """Why two clips give no biplane EF. `shapes` are the averaged ventricles at ED, None where a view has no EF."""

    def refuse(name: str, text: str) -> Refusal:
        return Refusal(name, numbers, text)

    if sorted(views) != ["2CH", "4CH"]:
        return refuse("biplane_views", "Biplane needs one clip of each, 4CH and 2CH. Name the views.")
    if _same(*clips):
        return refuse("biplane_same", "Both clips have the same frames; biplane needs two views.")
    first, second = shapes
    if first is None or second is None:
        return refuse("biplane_no_ef", "One of the two views has no ejection fraction.")
    if any(clip.spacing_mm is None for clip in clips):
        return refuse("biplane_no_scale", "Two views are put together in mm, and the scale of one is not known.")
    if not np.isfinite(rates).all():
        return refuse("biplane_no_rate", "The heart rate of one of the two views is not known.")
    lengths = sorted((first.length, second.length))
    if lengths[0] < (1 - LENGTHS) * lengths[1]:
        return refuse(
            "biplane_lengths",
            f"The long axes differ by more than {LENGTHS:.0%} ({lengths[0]:.0f} and {lengths[1]:.0f} mm): one view is "
            "foreshortened, or of another heart.",
        )
    if min(rates) < (1 - RATES) * max(rates):
        return refuse(
            "biplane_rates", f"Heart rates differ by more than {RATES:.0%} ({min(rates):.0f} and {max(rates):.0f})."
        )
    return None


def _same(one: Clip, other: Clip) -> bool:
    if (one.count, one.shape) != (other.count, other.shape):
        return False
    return all(np.array_equal(*frames) for frames in zip(one.frames(), other.frames(), strict=True))


def _missing(curve: LvCurve) -> float:
    return float(np.mean([shape.flag.split()[:1] == ["empty"] for shape in curve.shapes]))


def _jerky(curve: LvCurve) -> float:
    """Share of frames that are inconsistent by the limits of Painchaud et al. 2022; 0 without mm, in which they are."""
    if curve.unit != "mm":
        return 0.0
    names = [name for name in ("lv_area", "lv_length", "myo_area") if name in curve.values]
    found = inconsistent_frames({name: curve.values[name].tolist() for name in names}, PAINCHAUD_2022)
    return float(np.any(list(found.values()), axis=0).mean())
