"""Is a NIfTI file complete? It is read as a stream, in little memory, up to the size that its header promises.

SimpleITK fills up what a file lacks, and replaces a spacing that is 0 or NaN by 1, without a word.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.errors import SourceError

BYTES = {
    2: 1,
    256: 1,
    4: 2,
    512: 2,
    8: 4,
    768: 4,
    16: 4,
    64: 8,
    1024: 8,
    1280: 8,
    128: 3,
    2304: 4,
}  # of a pixel, by datatype; the last two are colours, which the reader refuses by name
FLOATS = {16: "f4", 64: "f8"}
# More than any cine or frame of an echo needs; a header that promises more is damaged, or malicious.
MAX_BYTES, MAX_FRAME_BYTES = 2**30, 2**27
CHUNK = 2**20


def verify_nifti(path: Path, name: str, limit: int = MAX_BYTES) -> None:
    """Raise `SourceError`, naming the file `name`, unless header, spacing and pixels are all there and intact.

    Also for more than `limit` bytes of pixels; `OSError` where it cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            _verify(gzip.GzipFile(fileobj=file) if packed else file, name, limit)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{name}: truncated or damaged gzip data ({error}). Copy the file again.") from error


def names_unit(image: sitk.Image) -> bool:
    """Whether the file that an image was read from says the unit of its spacing; ITK takes mm where it does not.

    Of the formats that are read only NIfTI may leave it out: the lowest bits of xyzt_units are then 0.

    >>> names_unit(sitk.Image(4, 4, sitk.sitkUInt8))
    True
    """
    return not image.HasMetaDataKey("xyzt_units") or bool(int(image.GetMetaData("xyzt_units")) & 0x07)


def compare_bytes(name: str, found: int, expected: int) -> None:
    """Raise `SourceError` unless there are as many bytes of pixels as the header promises."""
    if found != expected:
        number = f"{found}" if found < expected else f"more than {expected}"
        raise SourceError(
            f"{name}: {'truncated' if found < expected else 'damaged'}: {number} bytes of pixels where "
            f"the header promises {expected}. Copy the file again."
        )


def check_promise(name: str, expected: int, limit: int) -> None:
    """Raise `SourceError` for a header that promises more bytes of pixels than `limit`."""
    if expected > limit:
        raise SourceError(
            f"{name}: the header promises {expected} bytes of pixels, more than an echo can have "
            f"({limit} are read). Copy the file again, or cut it."
        )


def _verify(stream: IO[bytes] | gzip.GzipFile, name: str, limit: int) -> None:
    header = stream.read(348)
    order = ">" if header[:4] == struct.pack(">i", 348) else "<"
    if len(header) < 348 or struct.unpack_from(order + "i", header)[0] != 348 or header[344:347] != b"n+1":
        size = f" ({len(header)} bytes)" if len(header) < 348 else ""
        raise SourceError(f"{name}: not a NIfTI-1 file{size}. Copy the file again.")
    axes, *sizes = struct.unpack_from(order + "8h", header, 40)
    kind, bits = struct.unpack_from(order + "2h", header, 70)
    offset = struct.unpack_from(order + "f", header, 108)[0]
    if not 1 <= axes <= 7 or min(sizes[:axes]) < 1 or BYTES.get(kind, 0) * 8 != bits or not 348 <= offset < 2**20:
        raise SourceError(
            f"{name}: damaged NIfTI header (size {' x '.join(map(str, sizes))}, datatype {kind}, {bits} "
            f"bits, pixels at byte {offset:g}). Copy the file again."
        )
    spacing = struct.unpack_from(order + "8f", header, 76)[1 : axes + 1]
    # An axis of slices or of time that was never measured has 0, which no length depends on.
    if not all(
        math.isfinite(length) and (length > 0 or length == 0 and axis > 1) for axis, length in enumerate(spacing)
    ):
        raise SourceError(
            f"{name}: spacing {' x '.join(f'{length:g}' for length in spacing)}; each must be a positive "
            "number. Copy the file again, or correct its header."
        )

    left = expected = math.prod(sizes[:axes]) * bits // 8
    check_promise(name, expected, limit)
    stream.read(int(offset) - 348)
    while left and (chunk := stream.read(min(left, CHUNK))):
        left -= len(chunk)
        whole = len(chunk) // (bits // 8) * (bits // 8)
        if kind in FLOATS and not np.isfinite(np.frombuffer(chunk[:whole], order + FLOATS[kind])).all():
            raise SourceError(f"{name}: holds NaN or infinite values. Copy the file again.")
    # Reading on to the end is what compares the checksum of a gzip file.
    compare_bytes(name, expected - left + len(stream.read(1)), expected)
