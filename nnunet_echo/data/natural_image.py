"""PNG, BMP, TIFF and JPEG: images without a spacing. nnU-Net reads the first two as they are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.data.errors import SourceError, printable

NATURAL_ENDINGS = (".png", ".bmp")
KINDS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 2**26


def read_natural_image(path: Path, name: str, *, colours: bool = False) -> tuple[ndarray, str]:
    """The pixels (H, W), or (H, W, channels) of colours, and Pillow's mode; of a palette ("P") its indices.

    With `colours` whatever the file holds comes as (H, W, 4), red, green, blue and opacity. Raises `SourceError`,
    naming the file `name`.

    >>> Image.fromarray(np.eye(3, 4, dtype=np.uint8)).save("ED.png")
    >>> pixels, mode = read_natural_image(Path("ED.png"), "ED.png")
    >>> pixels.shape, mode
    ((3, 4), 'L')
    """
    name, kind = printable(name), KINDS[path.suffix.lower()]
    if not path.is_file():  # opening a pipe would wait for ever
        raise SourceError(f"{name} is missing or not a file.")
    try:
        with Image.open(path, formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            if getattr(image, "n_frames", 1) > 1:
                raise SourceError(f"{name}: {image.n_frames} frames; one 2D image is needed. Write each to a file.")
            pixels = np.asarray(image.convert("RGBA") if colours else image)
            if kind == "PNG":
                verify_png(path, name)
            return pixels.astype(np.uint8) if pixels.dtype == bool else pixels, image.mode
    except SourceError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, Image.DecompressionBombError) as why:
        raise SourceError(
            f"{name}: cannot be read; truncated, too large or not a {kind} file ({printable(why)}). Copy it again."
        ) from why


def verify_png(path: Path, name: str) -> None:
    """Raise `SourceError`, naming the file `name`, for a PNG that is cut off or damaged.

    >>> Image.fromarray(np.eye(3, 4, dtype=np.uint8)).save("whole.png")
    >>> verify_png(Path("whole.png"), "whole.png")
    >>> cut = Path("cut.png")
    >>> size = cut.write_bytes(Path("whole.png").read_bytes()[:-2])
    >>> verify_png(cut, "cut.png")
    Traceback (most recent call last):
        ...
    nnunet_echo.data.errors.SourceError: cut.png: truncated or damaged PNG. Copy the file again.
    """
    if not _png_is_complete(path):
        raise SourceError(f"{name}: truncated or damaged PNG. Copy the file again.")


def _png_is_complete(path: Path) -> bool:
    """Whether every chunk of a PNG has its checksum, up to the last; Pillow does not look at those of the pixels."""
    data, position, kind = path.read_bytes(), 8, b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if data[end : end + 4] != struct.pack(">I", zlib.crc32(data[position + 4 : end])):
            return False
        position = end + 4
    return kind == b"IEND"
