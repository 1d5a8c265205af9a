"""MetaImage (.mhd with a file of pixels, .mha): headers that can be read in one way only, pixels that are all there.

SimpleITK ignores what follows ElementDataFile, opens any path that is named there, and leaves whatever is in memory
where compressed pixels are damaged. So what it makes of a file is compared with what we read.
Source: MetaIO's documentation of the format.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.errors import SourceError
from nnunet_echo.data.nifti import MAX_BYTES, check_promise, compare_bytes

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LINE = re.compile(r"([A-Za-z_]\w{0,79})[ \t]*=[ \t]*([ -~]{0,1000}?)[ \t\r]*", re.ASCII)
MAX_HEADER = 2**16
REQUIRED = ("NDims", "DimSize", "ElementSpacing", "ElementType", "ElementDataFile")
MATRICES, ORIGINS = ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin")
# Keys with one value that can be read. The value of the others is a description, or is read below.
FIXED = {
    "ObjectType": "Image",
    "BinaryData": "True",
    "HeaderSize": "0",
    "HeaderSizePerSlice": "0",
    "ElementNumberOfChannels": "1",
    "ElementToIntensityFunctionSlope": "1",
    "ElementToIntensityFunctionOffset": "0",
    "DistanceUnits": "mm",
}
MEANT = (
    *REQUIRED,
    *FIXED,
    "CompressedData",
    "CompressedDataSize",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    *MATRICES,
    *ORIGINS,
    "ElementSize",
)


@dataclass(frozen=True)
class MetaImage:
    """What a file holds: the pixels, slowest axis first, and the spacing, fastest first."""

    pixels: ndarray
    spacing: tuple[float, ...]


def read_meta_image(path: Path, name: str, limit: int = MAX_BYTES) -> MetaImage:
    """Read a .mhd or .mha file. Raises `SourceError`, naming the file `name`, where header or pixels leave a doubt."""
    with path.open("rb") as file:
        start = file.read(MAX_HEADER)
        header, rest = _split(start, name)
        fields = _fields(header, name)
        sizes, spacing, order = _geometry(fields, name)
        dtype = np.dtype(order + TYPES[fields["ElementType"]])
        expected = math.prod(sizes) * dtype.itemsize
        check_promise(name, expected, limit)
        raw = fields["ElementDataFile"]
        if raw == "LOCAL":
            file.seek(len(start) - len(rest))
            data = _pixels(file, fields, name, expected)
        else:
            if rest.strip() or path.suffix.lower() == ".mha":
                raise SourceError(
                    f"{name}: {'something follows' if rest.strip() else 'a .mha file names'} its "
                    "ElementDataFile. Copy the file again."
                )
            if raw != path.with_suffix(Path(raw).suffix).name or raw == path.name:
                raise SourceError(
                    f"{name}: its ElementDataFile {raw!r} is not a file of the same folder and name. "
                    "Copy both files again."
                )
            if not (path.parent / raw).is_file():
                raise SourceError(f"{name}: its data file {raw} is missing. Copy both files again.")
            with (path.parent / raw).open("rb") as pixels:
                data = _pixels(pixels, fields, name, expected)
    return MetaImage(np.frombuffer(data, dtype).reshape(sizes[::-1]), spacing)


def compare_with_itk(ours: MetaImage, image: sitk.Image, name: str) -> None:
    """Raise `SourceError` unless SimpleITK read the same pixels and spacing."""
    pixels = sitk.GetArrayViewFromImage(image)
    if not (
        pixels.shape == ours.pixels.shape
        and pixels.dtype == ours.pixels.dtype.newbyteorder("=")
        and np.array_equal(pixels, ours.pixels, equal_nan=pixels.dtype.kind == "f")
        and np.allclose(image.GetSpacing(), ours.spacing, rtol=1e-12, atol=0)
    ):
        raise SourceError(f"{name}: its header can be read in more than one way. Write the file again.")


def _split(start: bytes, name: str) -> tuple[bytes, bytes]:
    """The header, which ends with the line of ElementDataFile, and what follows."""
    match = re.search(rb"^ElementDataFile[^\n]*(\n|$)", start, re.MULTILINE)
    if match is None:
        raise SourceError(f"{name}: damaged MetaImage header (no ElementDataFile). Copy the file again.")
    return start[: match.end()], start[match.end() :]


def _fields(header: bytes, name: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    meant = {key.lower(): key for key in MEANT}
    for line in header.decode("latin-1").rstrip("\r\n").split("\n"):
        match = LINE.fullmatch(line)
        if match is None:
            raise SourceError(
                f"{name}: damaged MetaImage header: {line[:60]!r} is not KEY = VALUE. Copy the file again."
            )
        key, value = match.groups()
        if key in fields:
            raise SourceError(f"{name}: its header has {key} twice. Copy the file again.")
        if meant.get(key.lower(), key) != key:
            raise SourceError(f"{name}: its header has {key} for {meant[key.lower()]}. Correct it.")
        fields[key] = value
    missing = [key for key in REQUIRED if key not in fields]
    if missing:
        raise SourceError(f"{name}: damaged MetaImage header (no {', '.join(missing)}). Copy the file again.")
    for key, only in FIXED.items():
        if fields.get(key, only) != only:
            raise SourceError(
                f"{name}: its header has {key} = {fields[key][:60]}; only {only} is read. Write the file "
                "again without it."
            )
    return fields


def _geometry(fields: dict[str, str], name: str) -> tuple[tuple[int, ...], tuple[float, ...], str]:
    """Sizes and spacing, x first, and the byte order for numpy."""
    try:
        axes = int(fields["NDims"])
        sizes = tuple(int(length) for length in fields["DimSize"].split())
        spacing = _numbers(fields["ElementSpacing"])
        lists = {key: _numbers(fields[key]) for key in (*MATRICES, *ORIGINS, "ElementSize") if key in fields}
    except ValueError as error:
        raise SourceError(f"{name}: damaged MetaImage header ({error}). Copy the file again.") from error
    if (
        not 2 <= axes <= 4
        or {len(sizes), len(spacing)} != {axes}
        or min(sizes) < 1
        or any(len(numbers) != (axes**2 if key in MATRICES else axes) for key, numbers in lists.items())
    ):
        raise SourceError(
            f"{name}: damaged MetaImage header (NDims {axes}, DimSize {fields['DimSize'][:60]}, "
            f"ElementSpacing {fields['ElementSpacing'][:60]}). Copy the file again."
        )
    if not all(length > 0 for length in spacing):
        raise SourceError(
            f"{name}: spacing {fields['ElementSpacing'][:60]}; each must be a positive number. Copy the "
            "file again, or correct its header."
        )
    for same in (
        MATRICES,
        ORIGINS,
        ("ElementSpacing", "ElementSize"),
        ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
    ):
        if len({fields[key] for key in same if key in fields}) > 1:
            raise SourceError(
                f"{name}: its header has different {' and '.join(key for key in same if key in fields)}, "
                "which mean the same. Copy the file again."
            )
    for key in ("CompressedData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
        if fields.get(key, "False") not in ("True", "False"):
            raise SourceError(
                f"{name}: its header has {key} = {fields[key][:60]}; True or False is needed. Copy the file again."
            )
    if fields["ElementType"] not in TYPES:
        raise SourceError(
            f"{name}: its ElementType is {fields['ElementType'][:60]!r}; {', '.join(TYPES)} are read. Convert it."
        )
    swapped = "True" in (fields.get("BinaryDataByteOrderMSB"), fields.get("ElementByteOrderMSB"))
    return sizes, spacing, ">" if swapped else "<"


def _numbers(text: str) -> tuple[float, ...]:
    """The finite numbers in `text`, each written as one."""
    if not all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word, re.ASCII) for word in text.split()):
        raise ValueError(f"{text[:60]!r} are not numbers")
    return tuple(float(word) for word in text.split())


def _pixels(file: BinaryIO, fields: dict[str, str], name: str, expected: int) -> bytes:
    """The bytes of the pixels from here to the end of the file, decompressed, and never many more than expected."""
    if fields.get("CompressedData", "False") == "False":
        data = file.read(expected + 1)
    else:
        decompressor = zlib.decompressobj()
        try:
            data = decompressor.decompress(file.read(expected + 2**16), expected + 1)
        except zlib.error as error:
            raise SourceError(f"{name}: damaged compressed pixels ({error}). Copy the file again.") from error
        if len(data) == expected and (not decompressor.eof or decompressor.unused_data):
            raise SourceError(f"{name}: damaged compressed pixels (no end, or more after it). Copy the file again.")
    compare_bytes(name, len(data), expected)
    return data
