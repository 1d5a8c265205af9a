"""The loop with outlines, as a film: MP4 by PyAV where the extra [video] is installed, else an animated WebP by Pillow.

Pixels outside the sector are black, for that is where screens have names, dates and the ECG. The outlines are those of
the report, in its colours.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from nnunet_echo.cine.result import Loop
from nnunet_echo.drawing.outlines import drawn_structures, outline
from nnunet_echo.drawing.style import structure_colours

SIDE = 640  # pixels at most, of a film
_STEP_S = 0.04  # where times are not known: 25 frames a second
_WEBP_QUALITY = 70
_CODECS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}


def sector_frames(loop: Loop) -> Iterator[ndarray]:
    """The frames (H, W) uint8 of a clip, black outside its sector."""
    return (np.where(loop.sector, frame, 0).astype(np.uint8) for frame in loop.clip.frames())


def shown_structures(loop: Loop) -> dict[str, tuple[int, ...]]:
    """Structure -> label values, as outlines are drawn: the myocardium as the epicardium around it."""
    found = dict(loop.structures)
    if {"LV", "MYO"} <= found.keys():
        found["LV_EPI"] = found["LV"] + found["MYO"]
    return drawn_structures(found)


def overlay_frames(loop: Loop, side: int = SIDE) -> Iterator[Image.Image]:
    """RGB pictures with outlines, square pixels, at most `side` on the longer side, both sides even."""
    down, across = loop.clip.spacing_mm or (1.0, 1.0)
    height, width = loop.clip.shape[0] * down, loop.clip.shape[1] * across
    scale = min(side, max(loop.clip.shape)) / max(height, width)
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    factor = np.array(size) / (loop.clip.shape[1], loop.clip.shape[0])
    structures = shown_structures(loop)
    colours = structure_colours(structures)
    for frame, mask in zip(sector_frames(loop), loop.masks, strict=True):
        picture = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR).convert("RGB")
        pencil = ImageDraw.Draw(picture)
        for name, values in structures.items():
            for line in outline(np.isin(mask, values), thinned=False):
                pencil.line([tuple(point) for point in (line * factor).tolist()], fill=colours[name], width=2)
        yield picture


def write_overlay(path: Path, loop: Loop) -> Path:
    """Write `path` with .mp4 or .webp added, and return that; frames are shown as long as they took."""
    try:
        import av  # noqa: F401
    except ImportError:
        return write_webp(path.with_name(f"{path.name}.webp"), loop)
    return write_mp4(path.with_name(f"{path.name}.mp4"), loop)


def write_webp(path: Path, loop: Loop) -> Path:
    """An animated WebP, which every browser plays."""
    first, *others = overlay_frames(loop)
    durations = [max(1, round(step * 1000)) for step in _steps(loop)]
    buffer = io.BytesIO()
    first.save(
        buffer, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=_WEBP_QUALITY, method=2
    )
    path.write_bytes(buffer.getvalue())
    return path


def write_mp4(path: Path, loop: Loop) -> Path:
    """An MP4 of H.264 where PyAV has an encoder for it, else MPEG-4; each frame has the time of its own.

    Raises RuntimeError without PyAV.
    """
    try:
        import av
    except ImportError as error:
        raise RuntimeError("MP4 is written by PyAV. Install it: pip install 'nnunet-echo[video]'.") from error
    from fractions import Fraction

    # In ms, each at least one behind the one before: steps may be shorter, times must not be equal.
    ticks = np.arange(loop.clip.count)
    starts = np.maximum.accumulate(np.round(1000 * np.cumsum([0.0, *_steps(loop)[:-1]])) - ticks) + ticks
    name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # Bit-exact: no version and no date in the file.
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart", "fflags": "+bitexact"}) as film:
        stream = None
        for picture, start in zip(overlay_frames(loop), starts, strict=True):
            if stream is None:
                stream = film.add_stream(name, rate=Fraction(1 / _steps(loop)[0]).limit_denominator(1000))
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000)
                stream.codec_context.thread_count = 1  # few frames: more threads give nothing
                stream.options = _CODECS[name]
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = int(start), Fraction(1, 1000)
            film.mux(stream.encode(frame))
        if stream is not None:
            film.mux(stream.encode())
    return path


def _steps(loop: Loop) -> list[float]:
    """Seconds that each frame is shown: until the next one, the last as long as most."""
    times = loop.clip.times_s
    if times is None or len(times) < 2:
        return [_STEP_S] * loop.clip.count
    return [*np.diff(times).tolist(), float(np.median(np.diff(times)))]
