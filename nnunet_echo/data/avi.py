"""Frames of Motion JPEG videos in AVI files.

An AVI file is RIFF: chunks of a four-letter name, a length and that many bytes, some of them lists of chunks. In Motion
JPEG each chunk 00dc or 00db of the list `movi` is one frame, a JPEG of its own. So the n-th frame is the n-th such
chunk, exactly, and no other frame has to be decoded. The chunks are followed from the first to the end of the list, so
that a file which is cut off, or damaged between its frames, is noticed; the index at its end is not needed.
JPEG has no checksum: bytes changed within the picture data of a frame can go unnoticed.

Not PyAV or OpenCV: after a damaged chunk they go on at the next that they recognise, and every later frame takes the
place of the one before it; OpenCV does not report a file that is cut off either. They are not faster, and bring 100 to
150 MB. docs/records/reliability.md has the figures.
Source: Microsoft, AVI RIFF File Format.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.data.errors import SourceError


def read_frames(
    path: Path, name: str, frames: Sequence[int], shape: tuple[int, int], expected: int | None = None
) -> ndarray:
    """These frames, counted from 0, as (T, H, W) uint8; colour becomes grey by the weights of ITU-R 601.

    Raises `SourceError`, naming the file `name`, for a file that is missing, incomplete or not Motion JPEG, for a
    frame that it does not have, that cannot be decoded or is not of `shape` (H, W), and for another number of frames
    than `expected`.

    >>> from nnunet_echo.dataset_conversion.echonet.phantom import mjpeg_avi
    >>> jpeg = io.BytesIO()
    >>> Image.new("L", (112, 112), 200).save(jpeg, "JPEG")
    >>> _ = Path("cine.avi").write_bytes(mjpeg_avi([jpeg.getvalue()] * 20, fps=50))
    >>> read_frames(Path("cine.avi"), "cine.avi", [0, 19], shape=(112, 112)).shape
    (2, 112, 112)
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise SourceError(f"{name} is missing or not a file.")
    try:
        with path.open("rb") as file:
            chunks = list(_frame_chunks(file, name))
            if expected is not None and len(chunks) != expected:
                raise SourceError(
                    f"{name}: {len(chunks)} frames where {expected} are listed; it is another or a "
                    "changed video, whose frame numbers mean nothing. Copy the original file."
                )
            return np.stack([_decode(file, name, chunks, frame, shape) for frame in frames])
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror or error}). Copy it again.") from error


@dataclass(frozen=True)
class AviHeader:
    """What an AVI file says of its first stream. `shape` is (H, W); `fps` is 0 where it has no rate.

    `announced` is the number of its frames by its header. `chunks`: where each frame begins in the file, and its
    length; of Motion JPEG only.
    """

    codec: bytes
    shape: tuple[int, int]
    fps: float
    announced: int
    chunks: tuple[tuple[int, int], ...]


def read_header(path: Path, name: str) -> AviHeader:
    """The header of an AVI file, all of whose chunks are there. Raises `SourceError` as `read_frames` does."""
    with path.open("rb") as file:
        header, movie = _lists(file, name)
        codec = _codec(header).upper()
        chunks = tuple(_frames_of(file, movie, name)) if codec == b"MJPG" else ()
        main, stream, picture = (header.find(kind) for kind in (b"avih", b"strh", b"strf"))
        if min(main, stream, picture) < 0 or picture + 20 > len(header) or stream + 44 > len(header):
            raise SourceError(f"{name}: its header is damaged. Copy the file again.")
        scale, rate, _, announced = struct.unpack_from("<4I", header, stream + 28)
        width, height = struct.unpack_from("<2i", header, picture + 12)
        return AviHeader(codec, (abs(height), width), rate / scale if scale else 0.0, announced, chunks)


def read_video(path: Path, name: str) -> Iterator[ndarray]:
    """The frames of Motion JPEG, one after another, as (H, W) uint8. Raises `SourceError` as `read_frames` does."""
    header = read_header(path, name)
    with path.open("rb") as file:
        for frame in range(len(header.chunks)):
            yield _decode(file, name, header.chunks, frame, header.shape)


def _frame_chunks(file: BinaryIO, name: str) -> Iterator[tuple[int, int]]:
    """Where each frame's JPEG begins in the file, and its length."""
    header, movie = _lists(file, name)
    if (codec := _codec(header)).upper() != b"MJPG":
        raise SourceError(
            f"{name}: its codec is {codec.decode('ascii', 'replace')!r}, not MJPG as in the release. "
            "Copy the original file."
        )
    yield from _frames_of(file, movie, name)


def _lists(file: BinaryIO, name: str) -> tuple[bytes, tuple[int, int]]:
    """The list hdrl, and where the chunks of the list movi begin and end."""
    kind, riff_length, form = struct.unpack("<4sI4s", _read(file, 0, 12, name))
    if kind != b"RIFF" or form != b"AVI ":
        raise SourceError(f"{name}: not an AVI file. Copy the original file.")
    found = file.seek(0, io.SEEK_END)
    if found < riff_length + 8:
        raise SourceError(f"{name}: truncated: {found} bytes of {riff_length + 8}. Copy the file again.")
    header, movie = b"", None
    for position, kind, length in _chunks(file, 12, riff_length + 8, name):
        form = _read(file, position + 8, 4, name) if kind == b"LIST" else b""
        if form == b"hdrl":
            header = _read(file, position, length + 8, name)
        elif form == b"movi":
            movie = position + 12, position + 8 + length
            break
    if movie is None:
        raise SourceError(f"{name}: holds no frames. Copy the file again.")
    return header, movie


def _frames_of(file: BinaryIO, movie: tuple[int, int], name: str) -> Iterator[tuple[int, int]]:
    for position, kind, length in _chunks(file, *movie, name):
        if kind in (b"00dc", b"00db"):
            yield position + 8, length


def _codec(header: bytes) -> bytes:
    """The compression of the bitmap header of the first stream, in the list hdrl."""
    start = header.find(b"strf")
    return header[start + 24 : start + 28] if start >= 0 else b""


def _chunks(file: BinaryIO, position: int, end: int, name: str) -> Iterator[tuple[int, bytes, int]]:
    """(position, name, length) of the chunks from `position` to exactly `end`."""
    while position < end:
        kind, length = struct.unpack("<4sI", _read(file, position, 8, name))
        following = position + 8 + length + length % 2
        if not kind.isalnum() or following > end + 1:
            raise SourceError(f"{name}: damaged at byte {position}. Copy the file again.")
        yield position, kind, length
        position = following


def _read(file: BinaryIO, position: int, length: int, name: str) -> bytes:
    file.seek(position)
    data = file.read(length)
    if len(data) < length:
        raise SourceError(f"{name}: truncated or damaged at byte {position + len(data)}. Copy the file again.")
    return data


def _decode(
    file: BinaryIO, name: str, chunks: Sequence[tuple[int, int]], frame: int, shape: tuple[int, int]
) -> ndarray:
    if not 0 <= frame < len(chunks):
        raise SourceError(
            f"{name}: frame {frame} is traced, but it has frames 0 to {len(chunks) - 1}. Copy the original file."
        )
    jpeg = io.BytesIO(_read(file, *chunks[frame], name))
    try:
        with Image.open(jpeg, formats=["JPEG"]) as image:
            found = image.height, image.width
            pixels = np.asarray(image.convert("L")) if found == shape else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{name}: frame {frame} is not a complete JPEG ({error}). Copy the file again.") from error
    if pixels is None:
        raise SourceError(
            f"{name}: frame {frame} has {found[0]} x {found[1]} pixels, not {shape[0]} x {shape[1]}. "
            "Copy the original file."
        )
    return pixels
