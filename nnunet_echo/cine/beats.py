"""Heart beats in the area curve of the left ventricle: where it is largest (ED) and smallest (ES), in seconds.

End systole (ES) is a minimum of the smoothed curve that is deep enough and far enough from the next; end diastole (ED)
the maximum before it, after the ES before and, at the ends of the clip, within one and a half periods. A beat is
complete when its ED, its ES and the ED after lie inside the clip, or at an end of it that is as large as the EDs
inside, or, with none inside, as the other end: scanners store beats from R wave to R wave. What else lies at the ends
is counted and not measured.

The curve is smoothed for this search alone: a median of three frames, then a polynomial of degree 2 over 70 ms or a
tenth of the period (Savitzky and Golay, Anal. Chem. 36:1627-1639, 1964), which shifts nothing in time; a parabola over
90 ms then puts ED and ES in place. Frames are looked for, never values: areas and volumes are those of the masks.

T: frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy.signal import find_peaks, medfilt, savgol_filter

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 15.0, 200.0
_SHORTEST_S, _LONGEST_S = 0.33, 2.4  # between beats: 180 and 25 a minute
_LEAST_DISTANCE = 0.55  # of the period, between two ES
_PROMINENCE = 0.4  # of the curve's range from the 5th to the 95th percentile
_WINDOW_S, _WINDOW_PERIODS = 0.07, 0.1
_FINE_S = 0.09  # of the parabola by which a peak found is put in place
_ONSET = 0.1  # of that range: so far the curve must fall after the last ED, or it may be still rising
_CYCLIC, _ALIKE, _JITTER, _RETURN = 0.3, 0.7, 0.2, 0.3
_CLOSED = 0.1  # of that range: so far an end of the clip may be from other EDs and be one itself
_REST_S, _REST = 0.04, 0.2  # about an ED the curve is flat: so much of the range it changes at most in so long
_GAP = 2.5  # frames: a longer step is a gap, and no beat goes across
_IRREGULAR = 0.2  # of the mean: the range of the intervals beyond what a frame's length explains


@dataclass(frozen=True)
class Beat:
    """Frames, from 0, of one beat: `ed`, `es` and the ED after, `next_ed`; None by extremes of the clip.

    >>> Beat(3, 15, 40, 0.74).ed
    3
    """

    ed: int
    es: int
    next_ed: int | None = None
    duration_s: float = float("nan")


@dataclass(frozen=True)
class Rhythm:
    """The beats of a clip. `method` is "beats", "extremes" (largest and smallest frame of the clip) or "none".

    `why` is the reason of the last two: "no_times", "frame_rate_low", "one_frame", "no_motion", "no_complete_beat" or
    "not_cyclic". `cyclic` is the correlation of the curve with itself a period later, NaN in clips too short for it.
    `incomplete` counts ES that were found and belong to no complete beat; `at_ends` beats whose ED is an end of the
    clip.
    """

    beats: tuple[Beat, ...] = ()
    method: str = "none"
    why: str = ""
    period_s: float = float("nan")
    cyclic: float = float("nan")
    incomplete: int = 0
    irregular: bool = False
    at_ends: int = 0

    @property
    def heart_rate(self) -> float:
        """Beats a minute: 60 over the mean interval from ED to ED; NaN without one."""
        intervals = [beat.duration_s for beat in self.beats if beat.next_ed is not None]
        return 60 / float(np.mean(intervals)) if intervals else float("nan")


def find_beats(times_s: ndarray, area: ndarray) -> list[Beat]:
    """The complete beats of an area curve (T,) at `times_s` (T,); none where `find_rhythm` says why not.

    >>> times = np.arange(150) / 50
    >>> beats = find_beats(times, 30 + 8 * np.cos(2 * np.pi * (times - 0.2)))  # 60 a minute, ED at 0.2 s
    >>> [(beat.ed, beat.es) for beat in beats]
    [(10, 35), (60, 85)]
    """
    rhythm = find_rhythm(times_s, area)
    return list(rhythm.beats) if rhythm.method == "beats" else []


def find_rhythm(times_s: ndarray | None, area: Sequence[float] | ndarray) -> Rhythm:
    """Beats of an area curve (T,), any unit, NaN or 0 where there is no ventricle; `times_s` (T,) increasing, or None.

    Without times, or at less than 15 frames a second, ED and ES are the largest and the smallest frame of the clip. So
    they are in a clip too short for a beat, of at most 2.4 s, if the ventricle turns at both: it grows to the one and
    shrinks to the other inside the clip.
    """
    values = np.asarray(area, float)
    known = np.flatnonzero(np.nan_to_num(values) > 0)
    if len(known) < 2:
        return Rhythm(why="one_frame" if len(values) < 2 else "no_motion")
    values = np.interp(np.arange(len(values)), known, values[known])
    if np.ptp(values) <= 1e-9 * values.max():
        return Rhythm(why="no_motion")
    extremes = (Beat(int(np.argmax(values)), int(np.argmin(values))),)
    if times_s is None:
        return Rhythm(extremes, "extremes", "no_times")
    step = float(np.median(np.diff(times_s)))
    if 1 / step < LOWEST_RATE_HZ:
        return Rhythm(extremes, "extremes", "frame_rate_low")
    if len(values) < 3 or times_s[-1] - times_s[0] < _SHORTEST_S:
        return Rhythm(why="no_complete_beat")

    # Frames need not be evenly spaced; the search is.
    grid = np.arange(times_s[0], times_s[-1] + step / 2, step)
    curve = np.interp(grid, times_s, values)
    cyclic, lag = _autocorrelation(curve, step)
    window = _WINDOW_S if np.isnan(lag) else max(_WINDOW_S, _WINDOW_PERIODS * lag * step)
    smooth = _smooth(curve, round(window / step))
    low, high = np.percentile(smooth, [5, 95])
    deep = _PROMINENCE * (high - low)
    troughs = find_peaks(-smooth, distance=max(1, _LEAST_DISTANCE * _SHORTEST_S / step), prominence=deep)[0]
    if len(troughs) > 1:
        # Not the lag at which the curve is most like itself: where intervals differ, that may be two beats, or five.
        lag = float(np.median(np.diff(troughs)))
        troughs = find_peaks(-smooth, distance=max(1, _LEAST_DISTANCE * lag), prominence=deep)[0]
    troughs = troughs.tolist()
    found = _complete(smooth, troughs, lag if len(troughs) > 1 else np.nan, high - low, max(1, round(_REST_S / step)))
    fine, reach = _parabola(curve, round(_FINE_S / step)), max(1, round(window / 2 / step))
    found = [
        (_near(fine, ed, reach), _near(-fine, es, reach), _near(fine, after, reach), end)
        for ed, es, after, end in found
    ]

    frames = np.searchsorted((times_s[1:] + times_s[:-1]) / 2, grid)
    late = np.flatnonzero(np.diff(times_s) > _GAP * step)
    beats, at_ends = [], 0
    for ed, es, following, at_end in found:
        first, last = int(frames[ed]), int(frames[following])
        if not ((late >= first) & (late < last)).any():
            beats.append(Beat(first, int(frames[es]), last, float(times_s[last] - times_s[first])))
            at_ends += at_end
    facts = {"period_s": lag * step, "cyclic": cyclic, "incomplete": len(troughs) - len(beats)}
    # One contraction has no period: the ventricle must be as large after it as it was before.
    returns = len(troughs) < 2 and all(abs(smooth[a] - smooth[b]) <= _RETURN * (high - low) for a, _, b, _ in found)
    cycles = cyclic >= _CYCLIC or _alike(smooth, troughs) >= _ALIKE or returns
    jittery = _jitter(curve) > _JITTER
    turns = _turns(smooth, _ONSET * (high - low)) if not found and times_s[-1] - times_s[0] <= _LONGEST_S else None
    if turns and not jittery:
        part = Beat(*(int(frames[_near(sign * fine, k, reach)]) for sign, k in zip((1, -1), turns, strict=True)))
        return Rhythm((part,), "extremes", "no_complete_beat", **facts)  # type: ignore[arg-type]
    if not cycles or jittery:
        return Rhythm(why="not_cyclic", **facts)  # type: ignore[arg-type]
    if not beats:
        return Rhythm(why="no_complete_beat", **facts)  # type: ignore[arg-type]
    intervals = np.array([beat.duration_s for beat in beats])
    spread = np.ptp(intervals) - 2 * step
    irregular = len(beats) > 1 and bool(spread > _IRREGULAR * intervals.mean())
    return Rhythm(tuple(beats), "beats", irregular=irregular, at_ends=at_ends, **facts)  # type: ignore[arg-type]


def _smooth(curve: ndarray, window: int) -> ndarray:
    """A median of three, against single frames that failed, then a parabola through `window` samples."""
    steady = curve.copy()
    steady[1:-1] = medfilt(curve, 3)[1:-1]
    return _parabola(steady, window)


def _parabola(curve: ndarray, window: int) -> ndarray:
    """The curve by parabolas through `window` samples, or itself where three samples would be all."""
    window |= 1
    return savgol_filter(curve, window, 2) if 3 < window <= len(curve) else curve


def _near(curve: ndarray, index: int, reach: int) -> int:
    """Where a curve is highest, at most `reach` samples from `index`."""
    start = max(0, index - reach)
    return start + int(np.argmax(curve[start : index + reach + 1]))


def _autocorrelation(curve: ndarray, step: float) -> tuple[float, float]:
    """The correlation of the curve with itself a period later, and that period in samples; both NaN if too short.

    A multiple of the period correlates as well: the first lag is taken that comes near the best one.
    """
    lags = np.arange(max(2, int(0.9 * _SHORTEST_S / step)), min(round(_LONGEST_S / step), len(curve) * 2 // 3) + 1)
    if len(lags) < 3:
        return np.nan, np.nan
    found = np.array([_correlation(curve[:-lag], curve[lag:]) for lag in lags])
    peaks = [k for k in range(1, len(lags) - 1) if found[k] >= found[k - 1] and found[k] > found[k + 1]]
    if not peaks:
        return np.nan, np.nan
    best = max(found[k] for k in peaks)
    first = next(k for k in peaks if found[k] >= (0.85 * best if best > 0 else best))
    return float(found[first]), float(lags[first])


def _jitter(curve: ndarray) -> float:
    """How far frames lie from those beside them, over the range of the curve: 0.3 in white noise."""
    low, high = np.percentile(curve, [5, 95])
    noise = np.sqrt(np.mean(np.diff(curve, 2) ** 2) / 6)  # the variance of 1, -2, 1 times white noise
    return float(noise / (high - low)) if high > low else np.inf


def _correlation(first: ndarray, second: ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size > 0 else 0.0


def _alike(smooth: ndarray, troughs: Sequence[int]) -> float:
    """How alike contractions are where their intervals are not, as in atrial fibrillation: aligned at ES."""
    if len(troughs) < 3:
        return np.nan
    reach = max(2, round(0.4 * float(np.min(np.diff(troughs)))))
    parts = [smooth[k - reach : k + reach + 1] for k in troughs if reach <= k < len(smooth) - reach]
    found = [_correlation(a, b) for a, b in zip(parts, parts[1:], strict=False)]
    return float(np.median(found)) if found else np.nan


def _turns(smooth: ndarray, least: float) -> tuple[int, int] | None:
    """Where the curve is largest and smallest, if it turns at both: it is `least` away from them before and behind."""
    turns = int(np.argmax(smooth)), int(np.argmin(smooth))
    away = (part for k in turns for part in (abs(smooth[:k] - smooth[k]), abs(smooth[k:] - smooth[k])))
    return turns if all(part.max(initial=0) >= least for part in away) else None


def _complete(
    smooth: ndarray, troughs: Sequence[int], period: float, size: float, rest: int
) -> list[tuple[int, int, int, bool]]:
    """ED, ES and the following ED of each complete beat, in samples, and whether an ED is an end of the clip.

    `size` is the range of the curve, `rest` the samples about an ED in which it is flat.
    """
    last = len(smooth) - 1
    reach = last if np.isnan(period) else round(1.5 * period)
    peaks, inside = [], []
    for k in range(len(troughs) + 1):
        start = troughs[k - 1] if k else max(0, troughs[0] - reach if troughs else 0)
        stop = troughs[k] if k < len(troughs) else min(last, start + reach)
        if k:
            start = max(start, stop - reach) if k < len(troughs) else start
        peak = start + int(np.argmax(smooth[start : stop + 1]))
        falls = k < len(troughs) or smooth[peak] - smooth[peak:].min() >= _ONSET * size
        peaks.append(peak)
        inside.append(start < peak < stop and falls)
    known = smooth[[peak for peak, within in zip(peaks, inside, strict=True) if within]]
    complete = list(inside)
    for end, other in ((0, -1), (-1, 0)):
        usual = np.median(known) if len(known) else smooth[peaks[other]]
        near = smooth[max(0, peaks[end] - rest) : peaks[end] + rest + 1]
        complete[end] |= bool(abs(smooth[peaks[end]] - usual) <= _CLOSED * size and np.ptp(near) <= _REST * size)
    return [
        (peaks[k], trough, peaks[k + 1], not (inside[k] and inside[k + 1]))
        for k, trough in enumerate(troughs)
        if complete[k] and complete[k + 1]
    ]
