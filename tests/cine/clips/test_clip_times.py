"""Times: which tag, in which order, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from clip_files import phantom_frames, write_dicom_cine, write_mp4

from nnunet_echo.cine.clips import ClipError, read_clip
from nnunet_echo.cine.clips.timing import FRAME_TIME, FRAME_TIME_VECTOR, TimeTags, by_the_user, find_times

FRAMES = phantom_frames(4)


@pytest.mark.parametrize(
    ("tags", "source", "step_ms", "named"),
    [
        (TimeTags(vector_ms=[0, 20, 20, 20], frame_ms=20, cine_rate=50, display_rate=50), "FrameTimeVector", 20, []),
        (TimeTags(frame_ms=20, cine_rate=51), "FrameTime", 20, []),
        (TimeTags(frame_ms=20, cine_rate=30), "FrameTime", 20, ["time_sources_disagree"]),
        (TimeTags(cine_rate=50, display_rate=25), "CineRate", 20, ["time_sources_disagree"]),
        (TimeTags(display_rate=25), "RecommendedDisplayFrameRate", 40, []),
        (TimeTags(frame_ms=0, cine_rate=50), "CineRate", 20, []),
        (TimeTags(frame_ms=float("nan"), cine_rate=-1, display_rate=50), "RecommendedDisplayFrameRate", 20, []),
        (TimeTags(vector_ms=[0, 20, 20], frame_ms=20), "FrameTime", 20, ["time_vector_refused"]),
        (TimeTags(vector_ms=[0, 20, 0, 20], frame_ms=20), "FrameTime", 20, ["time_vector_refused"]),
        (TimeTags(frame_ms=100), "FrameTime", 100, ["frame_rate_low"]),
        (TimeTags(frame_ms=4), "FrameTime", 4, ["frame_rate_high"]),
        (TimeTags(frame_ms=0.04, cine_rate=25), "CineRate", 40, ["frame_rate_impossible"]),
        (TimeTags(vector_ms=[0, 0.02, 0.02, 0.02], frame_ms=20), "FrameTime", 20, ["frame_rate_impossible"]),
        (TimeTags(frame_ms=40000), "none", None, ["frame_rate_impossible", "time_missing"]),
        (TimeTags(frame_ms=1), "FrameTime", 1, ["frame_rate_high"]),
        (TimeTags(frame_ms=1000), "FrameTime", 1000, ["frame_rate_low"]),
        (TimeTags(frame_ms=20, pointer=[FRAME_TIME]), "FrameTime", 20, []),
        (TimeTags(frame_ms=20, pointer=[0x00540010]), "none", None, ["frames_not_in_time"]),
        (TimeTags(pointer=[FRAME_TIME_VECTOR]), "none", None, ["time_missing"]),
        (TimeTags(), "none", None, ["time_missing"]),
    ],
)
def test_sources_of_time(tags: TimeTags, source: str, step_ms: float | None, named: list[str]) -> None:
    times, found, findings = find_times(tags, 4)
    assert (found, [finding.name for finding in findings]) == (source, named)
    assert times is None if step_ms is None else np.allclose(times, np.arange(4) * step_ms / 1000)


def test_a_vector_keeps_its_steps_and_the_first_is_no_step() -> None:
    times, _, _ = find_times(TimeTags(vector_ms=[7, 20, 30, 20]), 4)
    assert np.allclose(times, [0, 0.02, 0.05, 0.07])


def test_one_frame_has_no_time() -> None:
    assert find_times(TimeTags(frame_ms=20), 1) == (None, "none", [])
    assert by_the_user(50, 1, None) == (None, "none", [])


def test_rates_by_the_user() -> None:
    times, source, findings = by_the_user(50, 4, np.arange(4) / 25)
    assert np.allclose(times, np.arange(4) / 50) and source == "by the user"
    assert [finding.name for finding in findings] == ["fps_differs_from_file"]
    assert by_the_user(50, 4, np.arange(4) / 51)[2] == []
    for fps in (0, -1, float("nan"), float("inf"), 1e9, 1e-9, 1001):
        with pytest.raises(ValueError, match="fps="):
            by_the_user(fps, 4, None)


def test_tags_of_a_file(tmp_path: Path) -> None:
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, time_vector_ms=[0, 20, 30, 20], tags={"CineRate": 43})
    clip = read_clip(tmp_path / "a.dcm")
    assert clip.time_source == "FrameTimeVector" and np.allclose(clip.times_s, [0, 0.02, 0.05, 0.07])
    write_dicom_cine(tmp_path / "b.dcm", FRAMES, frame_time_ms=None, tags={"CineRate": 40})
    assert read_clip(tmp_path / "b.dcm").time_source == "CineRate"
    write_dicom_cine(tmp_path / "c.dcm", FRAMES, frame_time_ms=None, tags={"RecommendedDisplayFrameRate": 40})
    assert read_clip(tmp_path / "c.dcm").times_s[1] == 1 / 40
    write_dicom_cine(tmp_path / "d.dcm", FRAMES, tags={"FrameIncrementPointer": 0x00540010})
    clip = read_clip(tmp_path / "d.dcm")
    assert clip.time_source == "none" and [finding.name for finding in clip.findings] == ["frames_not_in_time"]
    # A rate by hand does not make slices a film.
    by_hand = read_clip(tmp_path / "d.dcm", fps=50)
    assert [finding.name for finding in by_hand.findings] == ["frames_not_in_time"]


def test_times_that_go_back_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mp4(tmp_path / "a.mkv", FRAMES)
    from nnunet_echo.cine.clips import video

    decoded = video._decoded

    class Frame:
        def __init__(self, frame: object, time: float) -> None:
            self.height, self.width, self.time = frame.height, frame.width, time

    monkeypatch.setattr(
        video, "_decoded", lambda *given: (Frame(frame, -index) for index, frame in enumerate(decoded(*given)))
    )
    with pytest.raises(ClipError, match="do not increase"):
        read_clip(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    ("code", "step", "seconds"), [(8, 0.02, 0.02), (16, 20.0, 0.02), (24, 20000.0, 0.02), (0, 20.0, None)]
)
def test_the_time_of_a_nifti(tmp_path: Path, code: int, step: float, seconds: float | None) -> None:
    image = sitk.JoinSeries([sitk.JoinSeries(sitk.GetImageFromArray(frame)) for frame in FRAMES], 0.0, step)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[123] = 2 | code  # mm, and the unit of time
    (tmp_path / "a.nii").write_bytes(data)
    clip = read_clip(tmp_path / "a.nii")
    assert np.array_equal(list(clip.frames()), FRAMES)
    assert clip.times_s is None if seconds is None else clip.times_s[1] == pytest.approx(seconds)
    assert clip.time_source == ("none" if seconds is None else "container")


def test_a_rate_that_no_echo_has_is_not_used(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.JoinSeries(sitk.GetImageFromArray(frame)) for frame in FRAMES], 0.0, 0.02)
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[123] = 2 | 16  # milliseconds, which were seconds
    (tmp_path / "a.nii").write_bytes(data)
    clip = read_clip(tmp_path / "a.nii")
    assert clip.times_s is None and clip.time_source == "none"
    assert [finding.name for finding in clip.findings] == ["frame_rate_impossible"]
    clip = read_clip(tmp_path / "a.nii", fps=50)
    assert clip.times_s[1] == 0.02 and "frame_rate_impossible" not in {finding.name for finding in clip.findings}
