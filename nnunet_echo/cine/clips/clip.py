"""What a clip is to everything that reads one: grey frames, their times, the size of a pixel, and what is wrong.

H, W: rows and columns of a frame; T: frames. A clip holds no pixels. It says how to decode them, so that a clip of any
length needs the memory of one frame, and can be gone through more than once. Nothing in it names a patient: no tag, no
date, no UID, no path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from nnunet_echo.data.errors import SourceError, printable

TIME_SOURCES = (
    "FrameTimeVector",
    "FrameTime",
    "CineRate",
    "RecommendedDisplayFrameRate",
    "container",
    "by the user",
    "none",
)
SPACING_SOURCES = ("ultrasound region", "PixelSpacing", "file", "by the user", "none")


class ClipError(ValueError):
    """A file that is no clip, or one that cannot be read completely: `file`, the `rule` it breaks, and the `remedy`.

    >>> print(ClipError("loop.dcm", "frame 7 of 30 is damaged", "Copy the file again"))
    loop.dcm: frame 7 of 30 is damaged. Copy the file again.
    """

    def __init__(self, file: str, rule: str, remedy: str) -> None:
        super().__init__(file, rule, remedy)
        self.file, self.rule, self.remedy = file, rule, remedy

    def __str__(self) -> str:
        return f"{self.file}: {self.rule}. {self.remedy}."


def as_clip_error(name: str, error: SourceError, remedy: str = "") -> ClipError:
    """What a reader of other files raised, of clip `name`: the first sentence is the rule, the rest the remedy.

    `remedy` takes its place where that of a clip is another one.

    >>> print(as_clip_error("loop.avi", SourceError("loop.avi: holds no frames. Copy the file again.")))
    loop.avi: holds no frames. Copy the file again.
    """
    text = str(error).removeprefix(f"{printable(name)}: ").removesuffix(".")
    rule, _, rest = text.partition(". ")
    return ClipError(name, rule, remedy or rest or "Copy the file again")


@dataclass(frozen=True)
class Finding:
    """Something a reader of the numbers has to know, such as a scale that was refused.

    `name` is for programs, such as "scale_outside_image"; `text` is a sentence, which never repeats a text of the file.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Clip:
    """Frames of one view, and what the file says of them.

    `frames` starts a fresh pass at each call and gives (H, W) uint8, the luma of ITU-R BT.601; it raises `ClipError`
    where a frame cannot be decoded. `times_s` (T,) are seconds from the first frame, each later than the one before.
    `spacing_mm` is the height and the width of a pixel. `region` is y0, y1, x0, x1: the rows y0 to y1 - 1 and columns
    x0 to x1 - 1 that hold the picture of tissue. What is None is unknown or was refused, and a finding says why.

    >>> clip = clip_of(np.zeros((3, 4, 5), np.uint8), fps=50)
    >>> clip.count, clip.shape, clip.times_s.tolist(), clip.time_source
    (3, (4, 5), [0.0, 0.02, 0.04], 'by the user')
    """

    shape: tuple[int, int]
    frames: Callable[[], Iterator[ndarray]]
    count: int
    times_s: ndarray | None = None
    time_source: str = "none"
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str = "none"
    region: tuple[int, int, int, int] | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` where fields contradict each other: that is a mistake of the reader, not of the file."""
        if self.count < 1:
            raise ValueError(f"count={self.count}: a clip has at least one frame.")
        if self.time_source not in TIME_SOURCES or (self.times_s is None) != (self.time_source == "none"):
            raise ValueError(f"time_source={self.time_source!r}: must be one of {TIME_SOURCES}, 'none' without times.")
        if self.spacing_source not in SPACING_SOURCES or (self.spacing_mm is None) != (self.spacing_source == "none"):
            raise ValueError(
                f"spacing_source={self.spacing_source!r}: must be one of {SPACING_SOURCES}, 'none' without a spacing."
            )
        if self.times_s is not None and (self.times_s.shape != (self.count,) or not (np.diff(self.times_s) > 0).all()):
            raise ValueError(f"times_s: must be {self.count} increasing numbers, got {self.times_s.shape}.")
        if self.region is not None:
            y0, y1, x0, x1 = self.region
            if not (0 <= y0 < y1 <= self.shape[0] and 0 <= x0 < x1 <= self.shape[1]):
                raise ValueError(f"region={self.region}: must lie within {self.shape[0]} x {self.shape[1]} pixels.")

    def with_findings(self, *findings: Finding) -> Clip:
        """The same clip with these findings after its own."""
        return replace(self, findings=self.findings + findings)


def clip_of(frames: ndarray, *, fps: float | None = None, spacing_mm: tuple[float, float] | None = None) -> Clip:
    """A clip of an array (T, H, W) uint8 in memory, its times and spacing "by the user"."""
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames: must be (T, H, W) uint8, got {frames.dtype} {frames.shape}.")
    return Clip(
        shape=(frames.shape[1], frames.shape[2]),
        frames=lambda: iter(frames),
        count=len(frames),
        times_s=None if fps is None else np.arange(len(frames)) / fps,
        time_source="none" if fps is None else "by the user",
        spacing_mm=spacing_mm,
        spacing_source="none" if spacing_mm is None else "by the user",
    )
