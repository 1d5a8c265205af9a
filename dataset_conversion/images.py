"""Image files of a conversion: read them whole or not at all, check them, write them whole or not at all.

SimpleITK opens a truncated or damaged NIfTI file without an error (what is missing becomes zero, NaN too), and reports
nothing when a full disk cuts off what it writes. So `verify_file` looks at each file before it is read and after it is
written. Orientation is never changed. Arrays are (rows, columns), or (frames, rows, columns) of a sequence; SimpleITK's
sizes and spacings are (x, y) or (x, y, t).
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

META_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
              "MET_FLOAT": 4, "MET_DOUBLE": 8}
NIFTI_FLOATS = {16: "f4", 64: "f8"}


class SourceError(ValueError):
    """A source file that cannot become a case. The message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Frame:
    """One image, or one sequence, as read, and its mask where there is one.

    The names, relative to the source, go into messages. `warnings` are (kind, message), `facts` columns of cases.csv
    that only the files tell.
    """

    image: sitk.Image
    image_name: str
    label: sitk.Image | None = None
    label_name: str = ""
    warnings: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def verify_file(path: Path, name: str) -> None:
    """Raise `SourceError`, naming the file `name`, unless every pixel that the header promises is there and intact."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise SourceError(f"{name} is missing or not a file")
    try:
        if path.suffix == ".mhd":
            _verify_meta_image(path, name)
        else:
            _verify_nifti(path, name)
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror or error})") from error


def read_image(path: Path, name: str) -> sitk.Image:
    """Read a verified image of one component a pixel. Raises `SourceError` with `name` in it."""
    verify_file(path, name)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].replace(str(path), name)
        raise SourceError(f"{name}: SimpleITK cannot read it ({reason})") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise SourceError(f"{name}: {image.GetNumberOfComponentsPerPixel()} values a pixel; one grey value is needed")
    return image


def as_frame(image: sitk.Image, name: str) -> sitk.Image:
    """The 2D image in an image whose further axes have length 1, as in the .mhd release: (x, y, 1) -> (x, y).

    Spacing, origin and direction of x and y stay what they are. Raises `SourceError` for more than one slice.
    """
    size = image.GetSize()
    if any(length != 1 for length in size[2:]):
        raise SourceError(f"{name}: {_text(size)} pixels; one 2D frame was expected, not a sequence or volume")
    while image.GetDimension() > 2:
        try:
            image = sitk.Extract(image, [*image.GetSize()[:-1], 0])
        except RuntimeError as error:  # the plane is oblique: its two axes alone are no rotation
            raise SourceError(f"{name}: the image plane is tilted in space; one upright frame was expected") from error
    return image


def read_pair(root: Path, image: str, label: str | None) -> Frame:
    """Read the 2D image and mask at these paths relative to `root`."""
    frame = as_frame(read_image(root / image, image), image)
    if label is None:
        return Frame(frame, image)
    return Frame(frame, image, as_frame(read_image(root / label, label), label), label)


def to_uint8(image: sitk.Image, name: str) -> sitk.Image:
    """Cast to uint8. Raises `SourceError` when a value is not a whole number in 0..255, so nothing is ever lost."""
    values = sitk.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255 and (values == np.floor(values)).all()):  # so that NaN fails, too
        raise SourceError(f"{name}: values {low:g}..{high:g} are not all whole numbers in 0..255, as in the release; "
                          "convert the original file instead of a rescaled copy")
    return sitk.Cast(image, sitk.sitkUInt8)


def check_pair(frame: Frame, labels: Mapping[str, int]) -> tuple[sitk.Image, sitk.Image | None, list[tuple[str, str]]]:
    """Check a frame, or each frame of a sequence, and bring it to the form that is written.

    `labels` maps every structure, background included, and "ignore" to its value. Returns the uint8 image, the uint8
    mask on the image's grid (None without one) and the warnings as (kind, message). Raises `SourceError` for a pair
    that would teach a network nonsense: an image without content or of labels, another grid than the mask's, unknown
    labels, an empty mask.
    """
    image = to_uint8(frame.image, frame.image_name)
    for where, pixels in _frames(image, frame.image_name):
        if pixels.min() == pixels.max():
            raise SourceError(f"{where}: every pixel is {pixels.min()}; the image has no content")
    if set(np.unique(sitk.GetArrayViewFromImage(image)).tolist()) <= set(labels.values()):
        raise SourceError(f"{frame.image_name}: holds nothing but label values; it is a mask, not an image")
    if frame.label is None:
        return image, None, list(frame.warnings)

    check_grid(frame)
    label = to_uint8(frame.label, frame.label_name)
    without: dict[str, list[str]] = {name: [] for name in labels if name not in ("background", "ignore")}
    for where, pixels in _frames(label, frame.label_name):
        present = check_labels(pixels, where, labels.values())
        if present == {0}:
            raise SourceError(f"{where}: the mask is empty (background only)")
        if labels.get("ignore") not in present:
            for structure in without:
                without[structure] += [where] * (labels[structure] not in present)
    warnings = [*frame.warnings, *(("structure missing", f"{where[0]}: the mask has no {structure}; {len(where)} such "
                                    "frame(s) in the case") for structure, where in without.items() if where)]
    if not np.allclose(frame.label.GetOrigin(), image.GetOrigin(), rtol=0, atol=1e-3):
        warnings.append(("origin differs", f"{frame.label_name}: origin {_text(frame.label.GetOrigin())} mm, image "
                         f"{_text(image.GetOrigin())} mm; the image's is used"))
    label.CopyInformation(image)
    return image, label, warnings


def check_labels(pixels: ndarray, name: str, allowed: Collection[int]) -> set[int]:
    """The values of a mask. Raises `SourceError` when one is not `allowed`."""
    present = set(np.unique(pixels).tolist())
    if unknown := sorted(present - set(allowed)):
        raise SourceError(f"{name}: unknown labels {_some(unknown)}; allowed are {sorted(allowed)}")
    return present


def check_grid(frame: Frame) -> None:
    """Raise `SourceError` unless image and mask have the same size, spacing and direction."""
    image, label = frame.image, frame.label
    for what, ours, theirs, tolerance in (
        ("size", label.GetSize(), image.GetSize(), 0.0),
        ("spacing", label.GetSpacing(), image.GetSpacing(), 1e-4),
        ("direction", label.GetDirection(), image.GetDirection(), 1e-3),
    ):
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=0, atol=tolerance):
            raise SourceError(f"{frame.label_name}: {what} {_text(ours)}, but the image {frame.image_name} has "
                              f"{_text(theirs)}; mask and image must lie on one grid")


def write_image(image: sitk.Image, target: Path, scratch: Path) -> None:
    """Write `target` (.nii.gz) so that it exists whole or not at all: first in `scratch`, verified, then renamed.

    The bytes depend on the image alone. Raises `OSError` with the target's path, for example on a full disk.
    """
    temporary = scratch / f"{os.getpid()}_{target.name}"
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        verify_file(temporary, target.name)
        os.replace(temporary, target)
    except (RuntimeError, SourceError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"cannot write {target} ({reason}); is the disk full or read-only?") from error


def _frames(image: sitk.Image, name: str) -> Iterator[tuple[str, ndarray]]:
    """The pixels (H, W) of a 2D image, or of each frame of a sequence, with what messages call them."""
    pixels = sitk.GetArrayViewFromImage(image)
    if pixels.ndim == 2:
        yield name, pixels
    else:
        yield from ((f"{name}, frame {number} of the case", frame) for number, frame in enumerate(pixels, 1))


def _verify_nifti(path: Path, name: str) -> None:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{name}: truncated or damaged gzip data ({error}); copy the file again") from error
    order = ">" if data[:4] == struct.pack(">i", 348) else "<"
    if len(data) < 348 or struct.unpack_from(order + "i", data)[0] != 348 or data[344:347] != b"n+1":
        raise SourceError(f"{name}: not a NIfTI-1 file ({len(data)} bytes); copy the file again")
    axes, *sizes = struct.unpack_from(order + "8h", data, 40)
    kind, bits = struct.unpack_from(order + "2h", data, 70)
    offset = struct.unpack_from(order + "f", data, 108)[0]
    if not 1 <= axes <= 7 or min(sizes[:axes]) < 1 or bits < 8 or not 348 <= offset < 2**20:
        raise SourceError(f"{name}: damaged NIfTI header (size {_text(sizes)}, {bits} bits); copy the file again")
    _compare_bytes(name, len(data) - int(offset), math.prod(sizes[:axes]) * bits // 8)
    if kind in NIFTI_FLOATS and not np.isfinite(np.frombuffer(data, order + NIFTI_FLOATS[kind], -1, int(offset))).all():
        raise SourceError(f"{name}: holds NaN or infinite values; copy the file again")


def _verify_meta_image(path: Path, name: str) -> None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    try:
        raw = fields["ElementDataFile"]
        pixels = math.prod(int(length) for length in fields["DimSize"].split())
        expected = pixels * META_BYTES[fields["ElementType"]]
    except (KeyError, ValueError) as error:
        raise SourceError(f"{name}: damaged MetaImage header ({error}); copy the file again") from error
    if raw == "LOCAL":  # pixels in the same file, which SimpleITK checks
        return
    if raw != path.with_suffix(Path(raw).suffix).name:
        raise SourceError(f"{name}: its ElementDataFile {raw!r} is not a file of the same folder and name")
    if not (path.parent / raw).is_file():
        raise SourceError(f"{name}: its data file {raw} is missing")
    if fields.get("CompressedData", "False") != "True" and "HeaderSize" not in fields:
        _compare_bytes(name, (path.parent / raw).stat().st_size, expected)


def _compare_bytes(name: str, found: int, expected: int) -> None:
    if found != expected:
        kind = "truncated" if found < expected else "damaged"
        raise SourceError(f"{name}: {kind}: {found} bytes of pixels where the header promises {expected}; "
                          "copy the file again")


def _text(numbers: tuple[float, ...] | list[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _some(values: list[int], limit: int = 8) -> str:
    return f"{values[:limit]}{' and more' if len(values) > limit else ''}"
