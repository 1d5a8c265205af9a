"""When each frame was taken, and which tag says so.

In this order: FrameTimeVector (0018,1065), FrameTime (0018,1063), both in ms; CineRate (0018,0040) and
RecommendedDisplayFrameRate (0008,2144), in frames a second, which are rates of playing and only stand in for the other
two. FrameIncrementPointer (0028,0009) says whether frames follow one another in time at all.
Sources: DICOM PS3.3, C.7.6.5 (Cine), C.7.6.6 (Multi-frame); PS3.6 (tags).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.clips.clip import Finding

FRAME_TIME, FRAME_TIME_VECTOR = 0x00181063, 0x00181065
USUAL_FPS = (15.0, 200.0)
POSSIBLE_FPS = (1.0, 1000.0)
DISAGREEMENT = 0.05


@dataclass(frozen=True)
class TimeTags:
    """What a DICOM file says of time; None: nothing. `pointer` are the tags that FrameIncrementPointer names."""

    vector_ms: Sequence[float] | None = None
    frame_ms: float | None = None
    cine_rate: float | None = None
    display_rate: float | None = None
    pointer: Sequence[int] | None = None


def find_times(tags: TimeTags, count: int) -> tuple[ndarray | None, str, list[Finding]]:
    """(T,) seconds from the first frame or None, which tag they come from, and what is wrong with them.

    >>> find_times(TimeTags(frame_ms=20.0), 3)[:2]
    (array([0.  , 0.02, 0.04]), 'FrameTime')
    """
    findings: list[Finding] = []
    if count == 1:
        return None, "none", findings
    if tags.pointer is not None and not {FRAME_TIME, FRAME_TIME_VECTOR} & set(tags.pointer):
        findings.append(Finding("frames_not_in_time", "FrameIncrementPointer says that frames are not steps in time."))
        return None, "none", findings
    found: dict[str, ndarray] = {}
    if tags.vector_ms is not None:
        steps = np.asarray(tags.vector_ms, float)
        if len(steps) == count and np.isfinite(steps).all() and (steps[1:] > 0).all():
            found["FrameTimeVector"] = np.concatenate([[0.0], np.cumsum(steps[1:])]) / 1000
        else:
            text = f"FrameTimeVector has {len(steps)} steps for {count} frames, or one that is not above 0."
            findings.append(Finding("time_vector_refused", text))
    for source, step_s in (
        ("FrameTime", _positive(tags.frame_ms, 1 / 1000)),
        ("CineRate", _inverse(_positive(tags.cine_rate))),
        ("RecommendedDisplayFrameRate", _inverse(_positive(tags.display_rate))),
    ):
        if step_s is not None:
            found[source] = np.arange(count) * step_s
    for source in list(found):
        if (impossible := rate_impossible(found[source], source)) is not None:
            findings.append(impossible)
            del found[source]
    if not found:
        findings.append(Finding("time_missing", "The file does not say when its frames were taken."))
        return None, "none", findings
    source = next(iter(found))
    ends = {name: times[-1] for name, times in found.items()}
    differing = [name for name, end in ends.items() if abs(end / ends[source] - 1) > DISAGREEMENT]
    if differing:
        text = f"{source} is used; {', '.join(differing)} differs from it by more than {DISAGREEMENT:.0%}."
        findings.append(Finding("time_sources_disagree", text))
    return found[source], source, findings + rate_findings(found[source])


def by_the_user(
    fps: float, count: int, known: ndarray | None, findings: Sequence[Finding] = ()
) -> tuple[ndarray | None, str, list[Finding]]:
    """The times of `fps`, which overrule those `known` from the file."""
    low, high = POSSIBLE_FPS
    if not low <= fps <= high:
        raise ValueError(f"fps={fps}: must be frames a second, from {low:g} to {high:g}.")
    if count == 1:
        return None, "none", []
    times = np.arange(count) / fps
    # What was said of the file's own times no longer matters; that its frames are no steps in time still does.
    kept = [finding for finding in findings if finding.name == "frames_not_in_time"]
    if known is not None and abs(known[-1] / times[-1] - 1) > DISAGREEMENT:
        text = f"{fps:g} frames a second by the user, {(count - 1) / known[-1]:.4g} in the file."
        kept.append(Finding("fps_differs_from_file", text))
    return times, "by the user", kept + rate_findings(times)


def rate_impossible(times_s: ndarray, source: str) -> Finding | None:
    """That (T,) seconds cannot be those of an echo, so that nothing is to be measured by them."""
    fps, (low, high) = 1 / float(np.median(np.diff(times_s))), POSSIBLE_FPS
    if low <= fps <= high:
        return None
    text = (
        f"{source} gives {fps:.4g} frames a second, not {low:g} to {high:g}. It may be in another unit; it is not used."
    )
    return Finding("frame_rate_impossible", text)


def rate_findings(times_s: ndarray) -> list[Finding]:
    """What is to be said of the frame rate of (T,) seconds."""
    fps = 1 / float(np.median(np.diff(times_s)))
    low, high = USUAL_FPS
    if fps < low:
        return [Finding("frame_rate_low", f"{fps:.4g} frames a second, below {low:g}: end systole can be missed.")]
    if fps > high:
        return [Finding("frame_rate_high", f"{fps:.4g} frames a second, above {high:g}, which is unusual.")]
    return []


def _positive(value: float | None, unit: float = 1.0) -> float | None:
    return value * unit if value is not None and np.isfinite(value) and value > 0 else None


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 / value
