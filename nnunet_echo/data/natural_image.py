"""PNG and BMP, the images without a spacing that nnU-Net reads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.data.errors import SourceError, printable

NATURAL_ENDINGS = (".png", ".bmp")
MAX_PIXELS = 2**26


def read_natural_image(path: Path, name: str) -> tuple[ndarray, str]:
    """The pixels (H, W), or (H, W, channels) of colours, and Pillow's mode; of a palette ("P") its indices.

    Raises `SourceError`, naming the file `name`.
    """
    name, kind = printable(name), path.suffix[1:].upper()
    if not path.is_file():  # opening a pipe would wait for ever
        raise SourceError(f"{name} is missing or not a file")
    try:
        with Image.open(path, formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            pixels = np.asarray(image)
            return pixels.astype(np.uint8) if pixels.dtype == bool else pixels, image.mode
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, Image.DecompressionBombError) as why:
        raise SourceError(f"{name}: cannot be read; truncated, too large or not a {kind} file "
                          f"({printable(str(why))})") from why
