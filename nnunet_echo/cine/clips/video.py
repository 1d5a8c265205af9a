"""Videos: Motion JPEG in AVI by the package's own reader, everything else by PyAV (extra `video`).

Headers of videos count their frames wrongly at times (edit lists, frames out of order), so frames are counted by
decoding them, and each keeps its own time. PyAV goes on after damage where it can, and a cut file ends early without a
word; so the boxes of an MP4 and the chunks of an AVI must come out even, and a count that differs is reported. A video
has no scale.
Sources: ISO/IEC 14496-12, 4.2 (boxes); Microsoft, AVI RIFF File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.clips.clip import Clip, ClipError, Finding, as_clip_error
from nnunet_echo.cine.clips.scale import aspect_findings
from nnunet_echo.cine.clips.survey import FLOW, sampled, shows_flow
from nnunet_echo.cine.clips.timing import rate_findings
from nnunet_echo.data.avi import read_header, read_video
from nnunet_echo.data.errors import SourceError

COPY = "Copy the file again"
_BOXED = (".mp4", ".mov", ".m4v")
ENDINGS = (".avi", *_BOXED, ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts")


def read_avi_or_video(path: Path, name: str) -> Clip:
    """The clip in a video file. Raises `ClipError`."""
    if path.suffix.lower() == ".avi":
        try:
            header = read_header(path, name)
        except SourceError as error:
            raise as_clip_error(name, error) from error
        if header.codec == b"MJPG":
            if not header.chunks:
                raise ClipError(name, "it has no frames", COPY)
            times = np.arange(len(header.chunks)) / header.fps if header.fps > 0 and len(header.chunks) > 1 else None
            findings = _no_scale(header.announced, len(header.chunks))
            missing = [Finding("time_missing", "The file has no frame rate.")] if len(header.chunks) > 1 else []
            return Clip(
                shape=header.shape,
                frames=partial(_motion_jpeg, path, name),
                count=len(header.chunks),
                times_s=times,
                time_source="none" if times is None else "container",
                findings=(*findings, *(missing if times is None else rate_findings(times))),
            )
    elif path.suffix.lower() in _BOXED:
        _check_boxes(path, name)
    return _by_pyav(path, name)


def decode_grey(
    opened: Callable[[], Any], name: str, shape: tuple[int, int] | None = None, count: int | None = None
) -> Iterator[ndarray]:
    """The frames (H, W) uint8 of the first video stream; `ClipError` for another shape, or another number of them."""
    number = 0
    for frame in _decoded(opened, name):
        grey = frame.to_ndarray(format="gray")
        number += 1
        if shape is not None and grey.shape != shape:
            raise ClipError(name, f"frame {number} has {grey.shape[0]} x {grey.shape[1]} pixels, not {shape}", COPY)
        yield grey
    if count is not None and number != count:
        raise ClipError(name, f"{number} frames can be decoded where {count} are announced", COPY)


def decode_rgb(opened: Callable[[], Any], name: str, taken: list[int]) -> Iterator[ndarray]:
    """These frames, counted from 0, as (H, W, 3) uint8."""
    wanted = set(taken)
    for index, frame in enumerate(_decoded(opened, name)):
        if index in wanted:
            yield frame.to_ndarray(format="rgb24")


def _by_pyav(path: Path, name: str) -> Clip:
    times, shape, announced, aspect = [], None, 0, 1.0
    opened = partial(str, path)
    for frame in _decoded(opened, name):
        stream_shape = frame.height, frame.width
        if shape not in (None, stream_shape):
            raise ClipError(name, f"frame {len(times) + 1} is of another size", "Cut the video where its size changes")
        shape = stream_shape
        times.append(frame.time)
    announced, aspect = _announced(opened, name)
    if shape is None:
        raise ClipError(name, "it has no frames that can be decoded", COPY)
    findings = _no_scale(announced, len(times)) + aspect_findings(aspect)
    known: ndarray | None = None
    if len(times) > 1:
        if any(time is None for time in times):
            findings.append(Finding("time_missing", "The file does not say when its frames were taken."))
        else:
            known = np.asarray(times, float) - times[0]
            if not (np.diff(known) > 0).all():
                raise ClipError(name, "the times of its frames do not increase", "Write the video again")
            findings += rate_findings(known)
            steps = np.diff(known)
            if steps.max() > 1.5 * np.median(steps):
                findings.append(Finding("frames_missing", "Between some frames more time passes than between others."))
    if shows_flow(decode_rgb(opened, name, sampled(len(times))), None):
        raise ClipError(name, FLOW, "Export the loop without colour")
    return Clip(
        shape=shape,
        frames=partial(decode_grey, opened, name, shape, len(times)),
        count=len(times),
        times_s=known,
        time_source="none" if known is None else "container",
        findings=tuple(findings),
    )


def _decoded(opened: Callable[[], Any], name: str) -> Iterator[Any]:
    av = _pyav(name)
    number = 0
    try:
        with av.open(opened(), options={"err_detect": "explode"}) as container:
            if not container.streams.video:
                raise ClipError(name, "it has no picture", "Give a video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # whoever reads clips has other uses for the cores
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                number += 1
                if frame.is_corrupt:
                    raise ClipError(name, f"frame {number} is damaged", COPY)
                yield frame
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, ClipError):
            raise
        kind = type(error).__name__
        raise ClipError(name, f"it is no video, or damaged after frame {number} ({kind})", COPY) from error


def _announced(opened: Callable[[], Any], name: str) -> tuple[int, float]:
    with _pyav(name).open(opened()) as container:
        stream = container.streams.video[0]
        return stream.frames, float(stream.codec_context.sample_aspect_ratio or 1)


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ClipError(
            name, "it is a video, whose decoder is not installed", "Run: pip install 'nnunet-echo[video]'"
        ) from error
    av.logging.set_level(None)  # it would quote the file
    return av


def _motion_jpeg(path: Path, name: str) -> Iterator[ndarray]:
    try:
        yield from read_video(path, name)
    except SourceError as error:
        raise as_clip_error(name, error) from error


def _no_scale(announced: int, found: int) -> list[Finding]:
    """What is to be said of any video; `announced` is 0 where the header does not count its frames."""
    findings = [Finding("scale_missing", "A video does not say how large a pixel is.")]
    if announced not in (0, found):
        findings.append(Finding("frame_count_differs", f"{found} frames are there, the header has {announced}."))
    return findings


def _check_boxes(path: Path, name: str) -> None:
    """Raise `ClipError` unless the boxes of an MP4 or MOV end where the file ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            file.seek(position)
            head = file.read(16).ljust(16, b"\0")
            length, kind = struct.unpack(">I4s", head[:8])
            length = struct.unpack(">Q", head[8:])[0] if length == 1 else length or size - position
            if not kind.isalnum() or length < 8 or position + length > size:
                raise ClipError(name, f"it is cut off or damaged at byte {position}", COPY)
            position += length
