"""The type of a clip: what it refuses, what it gives."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_echo.cine.clips import Clip, ClipError, Finding
from nnunet_echo.cine.clips.clip import clip_of

FRAMES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_a_clip_of_an_array_gives_its_frames_each_time() -> None:
    clip = clip_of(FRAMES, fps=25, spacing_mm=(0.5, 0.4))
    for _ in range(2):
        assert np.array_equal(list(clip.frames()), FRAMES)
    assert (clip.count, clip.shape) == (2, (3, 4))
    assert clip.times_s.tolist() == [0, 0.04]
    assert (clip.time_source, clip.spacing_source) == ("by the user", "by the user")
    bare = clip_of(FRAMES)
    assert (bare.times_s, bare.time_source) == (None, "none")
    assert (bare.spacing_mm, bare.spacing_source) == (None, "none")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"count": 0}, "count=0"),
        ({"time_source": "FrameTime"}, "time_source"),
        ({"times_s": np.arange(2.0)}, "time_source"),
        ({"times_s": np.arange(2.0), "time_source": "a guess"}, "time_source"),
        ({"times_s": np.arange(3.0), "time_source": "FrameTime"}, "times_s"),
        ({"times_s": np.zeros(2), "time_source": "FrameTime"}, "times_s"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_source"),
        ({"spacing_source": "file"}, "spacing_source"),
        ({"spacing_mm": (1.0, 1.0), "spacing_source": "a guess"}, "spacing_source"),
        ({"region": (0, 4, 0, 4)}, "region"),
        ({"region": (2, 2, 0, 4)}, "region"),
    ],
)
def test_a_clip_that_contradicts_itself_is_refused(fields: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Clip(**{"shape": (3, 4), "frames": lambda: iter(FRAMES), "count": 2} | fields)


def test_an_array_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        clip_of(FRAMES / 2)
    with pytest.raises(ValueError, match="must be"):
        clip_of(FRAMES[0])


def test_findings_are_appended() -> None:
    clip = clip_of(FRAMES).with_findings(Finding("a", "A.")).with_findings(Finding("b", "B."))
    assert [finding.name for finding in clip.findings] == ["a", "b"]


def test_an_error_names_file_rule_and_remedy() -> None:
    error = ClipError("x.dcm", "it is empty", "Copy it again")
    assert isinstance(error, ValueError)
    assert str(error) == "x.dcm: it is empty. Copy it again."
    assert (error.file, error.rule, error.remedy) == ("x.dcm", "it is empty", "Copy it again")
