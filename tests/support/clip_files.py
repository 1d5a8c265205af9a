"""A small cine of the phantom, written as any kind of clip; and the real DICOM files that pydicom's packages bring."""

from __future__ import annotations

import struct
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy import ndarray
from PIL import Image

from nnunet_echo.phantom import sample_heart
from nnunet_echo.phantom.cine import draw_cine
from nnunet_echo.phantom.dicom import write_dicom_cine

FPS = 50.0
SPACING_MM = (1.5, 1.5)


@cache
def phantom_frames(count: int = 8, spacing_mm: float = SPACING_MM[0]) -> ndarray:
    """(T, H, W) uint8 of one view, of even size; read-only, since it is shared."""
    cine = draw_cine(sample_heart(np.random.default_rng(3)), "4CH", range(1, count + 1), spacing_mm, spacing_mm)
    frames = np.stack([image for image, _ in cine.values()])
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2].copy()
    frames.setflags(write=False)
    return frames


def coloured(frames: ndarray) -> ndarray:
    """(T, H, W, 3): the same frames in RGB, with some coloured text that stands still."""
    rgb = np.repeat(frames[..., None], 3, axis=3)
    rgb[:, 2:6, 2:12] = (0, 200, 0)
    return rgb


def write_mp4(path: Path, frames: ndarray, *, codec: str = "libx264", fps: float = FPS, times: list[int] | None = None):
    """A video by PyAV; `times` are those of the frames in units of 1 ms."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "4", "preset": "ultrafast"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            kind = "rgb24" if pixels.ndim == 3 else "gray"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind)
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_avi(path: Path, frames: ndarray, fps: float = FPS, quality: int = 95) -> None:
    """Motion JPEG in AVI, as small as the format allows."""
    import io

    chunks = b""
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        chunks += _chunk(b"00dc", buffer.getvalue())
    count, height, width = frames.shape[:3]
    rate = round(fps * 1000)
    main = struct.pack("<14I", round(1e6 / fps), 0, 0, 16, count, 0, 1, 0, width, height, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack("<10I4H", 0, 0, 0, 1000, rate, 0, count, 0, 0, 0, 0, 0, width, height)
    picture = struct.pack("<IiiHH4s5I", 40, width, height, 1, 24, b"MJPG", 0, 0, 0, 0, 0)
    streams = _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", picture))
    body = _list(b"hdrl", _chunk(b"avih", main) + streams) + _list(b"movi", chunks)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body)


def write_gif(path: Path, frames: ndarray, duration_ms: int = 20) -> None:
    pictures = [Image.fromarray(frame, "L") for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration_ms, loop=0, optimize=False)


def write_folder(folder: Path, frames: ndarray, ending: str = ".png") -> None:
    folder.mkdir()
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"frame_{number}{ending}")  # so that 10 comes before 2 by letters


def write_volume(path: Path, frames: ndarray, spacing_mm: tuple[float, float] = SPACING_MM) -> None:
    image = sitk.GetImageFromArray(frames)
    image.SetSpacing([spacing_mm[1], spacing_mm[0], 1.0])
    sitk.WriteImage(image, str(path), path.name.endswith(".gz"))


def write_clip(path: Path, frames: ndarray) -> None:
    """By the ending of the name; a folder without one."""
    writers = {".mp4": write_mp4, ".mov": write_mp4, ".avi": write_avi, ".gif": write_gif, "": write_folder}
    if path.suffix == ".dcm":
        syntax = path.stem if path.stem != "loop" else "explicit"
        write_dicom_cine(path, frames, spacing_mm=SPACING_MM, frame_time_ms=1000 / FPS, syntax=syntax)
    elif path.suffix in (".nii", ".gz", ".mhd", ".mha"):
        write_volume(path, frames)
    else:
        writers[path.suffix](path, frames)


def real_file(name: str) -> Path:
    """A DICOM file of the packages pydicom or pydicom-data; skips the test where neither has it."""
    import pydicom.data

    own = Path(pydicom.data.__file__).parent / "test_files" / name
    if own.exists():
        return own
    data_store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    path = Path(data_store.__file__).parent / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is in neither pydicom nor pydicom-data")
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(kind: bytes, data: bytes) -> bytes:
    return b"LIST" + struct.pack("<I", len(data) + 4) + kind + data
