"""Image files of a conversion: read, checked and written completely or not at all.

SimpleITK opens a truncated or damaged file without an error (what is missing becomes zero, NaN too), and reports
nothing when a full disk cuts off what it writes. So each file is looked at before it is read and after it is written
(verify.py). Orientation is never changed. Arrays are (rows, columns), or (frames, rows, columns) of a
sequence; SimpleITK's sizes and spacings are (x, y) or (x, y, t).
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.errors import SourceError, is_utf8, printable, some, times
from nnunet_echo.data.meta_image import compare_with_itk
from nnunet_echo.data.nifti import MAX_BYTES, MAX_FRAME_BYTES, verify_nifti
from nnunet_echo.data.verify import verify_image

# Of a pixel's side. Echo has 0.1 to 1 mm, resized frames up to 4.4 mm (cine.py). Less is a spacing in metres or
# centimetres, more one in micrometres.
PLAUSIBLE_MM = (0.05, 10.0)


@dataclass(frozen=True)
class Frame:
    """One image, or one sequence, as read, and its mask where there is one.

    The names, relative to the source, go into messages. `warnings` are (kind, message), `facts` columns of cases.csv
    that only the files tell.

    >>> image = sitk.GetImageFromArray(np.zeros((64, 48), np.uint8))
    >>> Frame(image, "p1/ED.png", label=image, label_name="p1/ED_mask.png").image.GetSize()  # x, y
    (48, 64)
    """

    image: sitk.Image
    image_name: str
    label: sitk.Image | None = None
    label_name: str = ""
    warnings: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def read_image(path: Path, name: str, unit: str = "mm", limit: int = MAX_BYTES) -> sitk.Image:
    """Read an image of one component a pixel, with a spacing in `unit` ("mm" or "px") that can be.

    Raises `SourceError` with `name` in it, also where pixels that the header promises are missing or damaged, or more
    than `limit` bytes.

    >>> image = sitk.GetImageFromArray(np.zeros((64, 48), np.uint8))
    >>> image.SetSpacing((0.3, 0.3))
    >>> sitk.WriteImage(image, "ED.nii.gz")
    >>> read_image(Path("ED.nii.gz"), "ED.nii.gz").GetSize()
    (48, 64)
    """
    name = printable(name)
    if not path.is_file():  # reading a pipe would wait for ever
        raise SourceError(f"{name} is missing or not a file.")
    try:
        meta = verify_image(path, name, limit)
        image = sitk.ReadImage(_itk_path(path))
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror or error}). Copy it again.") from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".").replace(str(path), name)
        raise SourceError(f"{name}: SimpleITK cannot read it ({reason}). Copy the file again.") from error
    except MemoryError as error:
        raise SourceError(f"{name}: its pixels do not fit into memory. Cut it, or use fewer workers.") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise SourceError(
            f"{name}: {image.GetNumberOfComponentsPerPixel()} values a pixel; one grey value is needed. "
            "Convert it to grey."
        )
    if meta is not None:
        compare_with_itk(meta, image, name)
    check_spacing(image.GetSpacing(), name, unit)
    return image


def check_spacing(spacing: tuple[float, ...], name: str, unit: str) -> None:
    """Raise `SourceError` for a spacing, x and y first, that is not a number above 0 or, in mm, not that of an echo.

    Further axes are slices or time, whose step is free: nnU-Net itself writes 999.

    >>> check_spacing((0.3, 0.3), "ED.nii.gz", "mm")
    >>> check_spacing((300.0, 300.0), "ED.nii.gz", "mm")
    Traceback (most recent call last):
        ...
    nnunet_echo.data.errors.SourceError: ED.nii.gz: spacing 300 x 300 mm, but pixels of an echo are ...
    """
    if not all(math.isfinite(length) and length > 0 for length in spacing):
        raise SourceError(f"{name}: spacing {times(spacing)}; each must be a positive number. Correct the header.")
    low, high = PLAUSIBLE_MM
    if unit == "mm" and not all(low <= length <= high for length in spacing[:2]):
        raise SourceError(
            f"{name}: spacing {times(spacing[:2])} mm, but pixels of an echo are {low:g} to {high:g} mm "
            "wide. Correct a header in another unit than mm. Images without a scale have spacing 1, and "
            'their dataset.json says "spacing_unit": "px".'
        )


def read_frame(path: Path, name: str, unit: str = "mm") -> sitk.Image:
    """Read one 2D image, as `read_image` and `as_frame` do.

    >>> image = sitk.GetImageFromArray(np.zeros((1, 64, 48), np.uint8))  # one slice is a 2D image, too
    >>> image.SetSpacing((0.3, 0.3, 1.0))
    >>> sitk.WriteImage(image, "ED.nii.gz")
    >>> read_frame(Path("ED.nii.gz"), "ED.nii.gz").GetSize()
    (48, 64)
    """
    return as_frame(read_image(path, name, unit, MAX_FRAME_BYTES), name)


def as_frame(image: sitk.Image, name: str) -> sitk.Image:
    """The 2D image in an image whose further axes have length 1, as in the .mhd release: (x, y, 1) -> (x, y).

    Spacing, origin and direction of x and y stay what they are. Raises `SourceError` for more than one slice.
    """
    size = image.GetSize()
    if any(length != 1 for length in size[2:]):
        raise SourceError(
            f"{name}: {times(size)} pixels; one 2D frame was expected, not a sequence or volume. "
            "Write each frame to a file."
        )
    while image.GetDimension() > 2:
        try:
            image = sitk.Extract(image, [*image.GetSize()[:-1], 0])
        except RuntimeError as error:  # the plane is oblique: its two axes by themselves are not a rotation
            raise SourceError(
                f"{name}: the image plane is tilted in space; one upright frame was expected. Resample it upright."
            ) from error
    return image


def read_pair(root: Path, image: str, label: str | None) -> Frame:
    """Read the 2D image and mask (or None) at these paths relative to `root`. Raises `SourceError` as `read_frame`.

    >>> image = sitk.GetImageFromArray(np.zeros((64, 48), np.uint8))
    >>> for name in ("ED.nii.gz", "ED_gt.nii.gz"):
    ...     sitk.WriteImage(image, name)
    >>> frame = read_pair(Path("."), "ED.nii.gz", "ED_gt.nii.gz")
    >>> frame.image.GetSize(), frame.label_name
    ((48, 64), 'ED_gt.nii.gz')
    """
    frame = read_frame(root / image, image)
    if label is None:
        return Frame(frame, image)
    return Frame(frame, image, read_frame(root / label, label), label)


def to_uint8(image: sitk.Image, name: str) -> sitk.Image:
    """Cast to uint8. Raises `SourceError` when a value is not a whole number in 0..255, so nothing is ever lost.

    >>> to_uint8(sitk.GetImageFromArray(np.array([[0.0, 255.0]])), "ED.nii.gz").GetPixelIDTypeAsString()
    '8-bit unsigned integer'
    >>> to_uint8(sitk.GetImageFromArray(np.array([[0.5]])), "ED.nii.gz")
    Traceback (most recent call last):
        ...
    nnunet_echo.data.errors.SourceError: ED.nii.gz: values 0.5..0.5 are not all whole numbers in ...
    """
    values = sitk.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    integral = values.dtype.kind in "ui" or (values == np.floor(values)).all()
    if not (low >= 0 and high <= 255 and integral):  # so that NaN fails, too
        raise SourceError(
            f"{name}: values {low:g}..{high:g} are not all whole numbers in 0..255. "
            "Convert the original file instead of a rescaled copy."
        )
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
            raise SourceError(f"{where}: every pixel is {pixels.min()}; the image has no content. Leave it out.")
    if set(np.unique(sitk.GetArrayViewFromImage(image)).tolist()) <= set(labels.values()):
        raise SourceError(
            f"{frame.image_name}: holds nothing but label values; it is a mask, not an image. Give the image."
        )
    if frame.label is None:
        return image, None, list(frame.warnings)

    check_grid(frame)
    label = to_uint8(frame.label, frame.label_name)
    without: dict[str, list[str]] = {name: [] for name in labels if name not in ("background", "ignore")}
    for where, pixels in _frames(label, frame.label_name):
        present = check_labels(pixels, where, labels.values())
        if present == {0}:
            raise SourceError(f"{where}: the mask is empty (background only). Draw it, or leave the image out.")
        if labels.get("ignore") not in present:
            for structure in without:
                without[structure] += [where] * (labels[structure] not in present)
    warnings = [
        *frame.warnings,
        *(
            ("structure missing", f"{where[0]}: the mask has no {structure}; {len(where)} such frame(s) in the case.")
            for structure, where in without.items()
            if where
        ),
    ]
    if not np.allclose(frame.label.GetOrigin(), image.GetOrigin(), rtol=0, atol=1e-3):
        warnings.append(
            (
                "origin differs",
                f"{frame.label_name}: origin {times(frame.label.GetOrigin())} mm, image "
                f"{times(image.GetOrigin())} mm; the image's is used.",
            )
        )
    label.CopyInformation(image)
    return image, label, warnings


def check_labels(pixels: ndarray, name: str, allowed: Collection[int]) -> set[int]:
    """The values of a mask. Raises `SourceError` when one is not `allowed`.

    >>> sorted(check_labels(np.array([[0, 1], [1, 2]]), "ED_mask.png", allowed={0, 1, 2}))
    [0, 1, 2]
    """
    present = set(np.unique(pixels).tolist())
    if unknown := sorted(present - set(allowed)):
        raise SourceError(
            f"{name}: unknown labels {some(unknown, limit=8)}; allowed are {sorted(allowed)}. Correct the mask."
        )
    return present


def check_grid(frame: Frame) -> None:
    """Raise `SourceError` unless image and mask have the same size, spacing and direction.

    >>> image, label = sitk.Image(48, 64, sitk.sitkUInt8), sitk.Image(48, 60, sitk.sitkUInt8)
    >>> check_grid(Frame(image, "ED.png", label, "ED_mask.png"))
    Traceback (most recent call last):
        ...
    nnunet_echo.data.errors.SourceError: ED_mask.png: size 48 x 60, but the image ED.png has 48 x 64; ...
    """
    image, label = frame.image, frame.label
    assert label is not None
    for what, ours, theirs, tolerance in (
        ("size", label.GetSize(), image.GetSize(), 0.0),
        ("spacing", label.GetSpacing(), image.GetSpacing(), 1e-4),
        ("direction", label.GetDirection(), image.GetDirection(), 1e-3),
    ):
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=0, atol=tolerance):
            raise SourceError(
                f"{frame.label_name}: {what} {times(ours)}, but the image {frame.image_name} has "
                f"{times(theirs)}; mask and image must lie on one grid. Resample the mask."
            )


def write_image(image: sitk.Image, target: Path, scratch: Path) -> None:
    """Write `target` (.nii.gz) so that it exists completely or not at all: first in `scratch`, verified, then renamed.

    The bytes depend only on the image. Raises `OSError` with the target's path, for example on a full disk.
    """
    temporary = scratch / f"{os.getpid()}_{target.name}"
    try:
        sitk.WriteImage(image, _itk_path(temporary), useCompression=True)
        verify_nifti(temporary, target.name)
        os.replace(temporary, target)
    except (RuntimeError, SourceError, OSError) as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        raise OSError(f"cannot write {printable(target)} ({reason}). Is the disk full or read-only?") from error


def _frames(image: sitk.Image, name: str) -> Iterator[tuple[str, ndarray]]:
    """The pixels (H, W) of a 2D image, or of each frame of a sequence, with what messages call them."""
    pixels = sitk.GetArrayViewFromImage(image)
    if pixels.ndim == 2:
        yield name, pixels
    else:
        yield from ((f"{name}, frame {number} of the case", frame) for number, frame in enumerate(pixels, 1))


def _itk_path(path: Path) -> str:
    """The path for SimpleITK. Raises `OSError` for one that is not UTF-8, where it would end the process (SIGABRT)."""
    if not is_utf8(path):
        raise OSError(f"the path {printable(path)} is not UTF-8. Rename the folder or file.")
    return str(path)
