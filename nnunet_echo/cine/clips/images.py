"""Clips of image files: NIfTI and MetaImage (x, y, t), GIF, and a folder of pictures, one for each frame.

NIfTI and MetaImage are read as a whole for each pass, since both may be compressed. A folder's frames are in the order
of the numbers in their names.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from PIL import Image

from nnunet_echo.cine.clips.clip import Clip, ClipError, Finding, as_clip_error
from nnunet_echo.cine.clips.colour import RGB, luma
from nnunet_echo.cine.clips.scale import find_scale
from nnunet_echo.cine.clips.timing import rate_findings
from nnunet_echo.data.cine import as_cine
from nnunet_echo.data.errors import SourceError, printable, some
from nnunet_echo.data.images import as_frame, read_image, to_uint8
from nnunet_echo.data.natural_image import KINDS, read_natural_image
from nnunet_echo.data.nifti import names_unit

COPY = "Copy the file again"
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # of Windows
ITK_ENDINGS = (".nii", ".nii.gz", ".mhd", ".mha")
_TIME_UNITS = (8, 16, 24)  # in xyzt_units of NIfTI-1: seconds, milliseconds, microseconds


def read_volume(path: Path, name: str) -> Clip:
    """The clip in a NIfTI or MetaImage file: (x, y), (x, y, t) or (x, y, 1, t), whole numbers 0 to 255.

    The spacing of a NIfTI that names no unit of length counts as mm, and is flagged, since nibabel never names one.
    A pixel of 1 x 1 of no unit is no scale: files have that where nobody knows one, such as our own masks.nii.gz.
    MetaImage is always in mm here: its reader refuses other units.
    """
    image, step_s, has_unit = _volume(path, name)
    pixels = sitk.GetArrayViewFromImage(image)
    told = image.GetSpacing()[1::-1]
    if not has_unit and told == (1, 1):
        text = "The file names no unit of length, and its pixels are 1 x 1, as those of unknown size."
        spacing, source, findings = None, "none", [Finding("scale_missing", text)]
    else:
        spacing, source, findings = find_scale(None, pixels.shape[1:], pixel_spacing=told)
    if not has_unit and spacing is not None:
        text = f"The file names no unit of length; its pixels of {spacing[0]:.4g} x {spacing[1]:.4g} are taken for mm."
        findings.append(Finding("scale_unit_assumed", text))
    count = len(pixels)
    times = None if step_s is None or count == 1 else np.arange(count) * step_s
    if times is not None:
        findings += rate_findings(times)
    elif count > 1:
        findings.append(Finding("time_missing", "The file does not say when its frames were taken."))
    return Clip(
        shape=(pixels.shape[1], pixels.shape[2]),
        frames=partial(_volume_frames, path, name),
        count=count,
        times_s=times,
        time_source="none" if times is None else "container",
        spacing_mm=spacing,
        spacing_source="none" if source == "none" else "file",
        findings=tuple(findings),
    )


def read_gif(path: Path, name: str) -> Clip:
    """The clip in a GIF file."""
    durations_ms, shape, count = [], (0, 0), 0
    for image in _gif(path, name):
        shape, count = (image.height, image.width), count + 1
        durations_ms.append(image.info.get("duration", 0))
    findings = [Finding("scale_missing", "A GIF does not say how large a pixel is.")]
    times = None
    if count > 1 and min(durations_ms[:-1]) > 0:
        times = np.concatenate([[0.0], np.cumsum(durations_ms[:-1])]) / 1000
        findings += rate_findings(times)
    elif count > 1:
        findings.append(Finding("time_missing", "The file does not say when its frames were taken."))
    return Clip(
        shape=shape,
        frames=partial(_gif_frames, path, name),
        count=count,
        times_s=times,
        time_source="none" if times is None else "container",
        findings=tuple(findings),
    )


def read_folder(folder: Path, name: str) -> Clip:
    """The clip whose frames are the pictures in a folder, beside which there is nothing that `entries_of` lists."""
    paths = sorted(entries_of(folder), key=lambda path: by_numbers(path.name))
    pictures = [path for path in paths if is_picture(path)]
    remedy = f"Give a folder of pictures of one kind: {', '.join(KINDS)}"
    if not pictures:
        there = some([printable(path.name) for path in paths])
        raise ClipError(name, f"the folder holds {'no pictures, but ' + there if there else 'nothing'}", remedy)
    if len(pictures) < len(paths):
        others = some([printable(path.name) for path in paths if path not in pictures])
        raise ClipError(name, f"the folder holds {others} beside its pictures", "Move it elsewhere, or remove it")
    if len(endings := {path.suffix.lower() for path in paths}) > 1:
        raise ClipError(name, f"the folder holds pictures of several kinds, {', '.join(sorted(endings))}", remedy)
    shape = _picture(paths[0], 1, name).shape
    findings = [
        Finding("scale_missing", "Pictures do not say how large a pixel is."),
        Finding("time_missing", "Pictures do not say when they were taken."),
    ]
    numbers = [int(found[-1]) for path in paths if (found := re.findall(r"\d+", path.stem))]
    if len(numbers) != len(paths) or numbers != list(range(numbers[0], numbers[0] + len(paths))):
        text = "The numbers in the names of the pictures do not follow one another: some may be missing."
        findings.append(Finding("frames_missing", text))
    return Clip(
        shape=shape,
        frames=partial(_pictures, paths, shape, name),
        count=len(paths),
        findings=tuple(findings[: 1 if len(paths) == 1 else None]),
    )


def entries_of(folder: Path) -> list[Path]:
    """What a folder holds, without what systems leave in it: hidden files, such as .DS_Store, and `SYSTEM_FILES`."""
    entries = folder.iterdir()
    return [path for path in entries if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES]


def is_picture(path: Path) -> bool:
    """Whether it is a file that is called like a picture."""
    return path.suffix.lower() in KINDS and path.is_file()


def by_numbers(name: str) -> list[str | int]:
    """A key to sort names by, in which numbers count by their value.

    >>> sorted(["frame_10.png", "frame_9.png", "frame_²_1.png"], key=by_numbers)
    ['frame_9.png', 'frame_10.png', 'frame_²_1.png']
    """
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]


def _has_time(image: sitk.Image) -> bool:
    return image.HasMetaDataKey("xyzt_units") and int(image.GetMetaData("xyzt_units")) & 0x38 in _TIME_UNITS


def _volume(path: Path, name: str) -> tuple[sitk.Image, float | None, bool]:
    """The image (x, y, t) of uint8, the seconds between frames where the file has them, whether it names its mm."""
    try:
        image, step_s = read_image(path, name, unit="px"), None  # find_scale says which mm can be
        has_unit = names_unit(image)
        if image.GetDimension() == 4 and _has_time(image):
            step_s = image.GetSpacing()[3]  # ITK makes seconds of it
        if image.GetDimension() == 2 or all(length == 1 for length in image.GetSize()[2:]):
            image, step_s = sitk.JoinSeries(as_frame(image, name)), None
        else:
            image = as_cine(image, name)
    except SourceError as error:
        raise as_clip_error(name, error) from error
    try:
        return to_uint8(image, name), step_s, has_unit
    except SourceError as error:
        raise as_clip_error(name, error, "Scale the grey to 0..255, round it, and save it as 8 bits") from error


def _volume_frames(path: Path, name: str) -> Iterator[ndarray]:
    image, _, _ = _volume(path, name)
    yield from sitk.GetArrayFromImage(image)


def _gif(path: Path, name: str) -> Iterator[Image.Image]:
    number = 0
    try:
        data_end = path.read_bytes()[-1:]
        with Image.open(path, formats=["GIF"]) as image:
            while True:
                try:
                    image.seek(number)
                except EOFError:
                    break
                image.load()
                number += 1
                yield image
    except (OSError, SyntaxError, ValueError, IndexError, zlib.error, Image.DecompressionBombError) as error:
        kind = type(error).__name__
        raise ClipError(name, f"it is no GIF, or damaged after frame {number} ({kind})", COPY) from error
    if data_end != b";":
        raise ClipError(name, f"it ends within frame {number}, or has something after its last frame", COPY)


def _gif_frames(path: Path, name: str) -> Iterator[ndarray]:
    for image in _gif(path, name):
        yield luma(np.asarray(image.convert("RGB")), RGB)


def _pictures(paths: list[Path], shape: tuple[int, int], name: str) -> Iterator[ndarray]:
    for number, path in enumerate(paths, 1):
        picture = _picture(path, number, name)
        if picture.shape != shape:
            raise ClipError(
                name, f"picture {number} has {picture.shape} pixels, the first one {shape}", "Give frames of one clip"
            )
        yield picture


def _picture(path: Path, number: int, name: str) -> ndarray:
    """Grey (H, W) uint8; 16 bits are scaled."""
    try:
        pixels, mode = read_natural_image(path, path.name)
        if mode in ("L", "1"):
            return pixels * 255 if mode == "1" else pixels
        if mode.startswith("I;16"):
            return np.rint(pixels / 257.0).astype(np.uint8)
        pixels, _ = read_natural_image(path, path.name, colours=True)
    except SourceError as error:
        raise ClipError(name, f"picture {number} cannot be read; it is damaged or cut off", COPY) from error
    if pixels[..., 3].min() < 255:
        raise ClipError(name, f"picture {number} is transparent in places", "Give pictures without transparency")
    return luma(pixels[..., :3], RGB)
