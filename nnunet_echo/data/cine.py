"""Sequences as 3D cases: the first frame is ED, the last ES, and time is the slowest axis.

Arrays are (T, H, W), images (x, y, t), so that nnU-Net sees one volume whose slices are frames. `dataset.json` says so
under "sequence", with the step of t and what the first and the last frame are.

The step of t is 5 for all, in the unit of the pixels, and not the time between two frames, because of what nnU-Net does
with a spacing:
- It resamples all cases to one spacing. If the step were the true time, cines of different frame rates would be
  interpolated in time, image and mask. With one value for all a frame stays a frame.
- Its planner takes the axis of the largest spacing for that of slices, which configuration 2d cuts into images and
  augmentation does not rotate into the others. So the step must be larger than any pixel. CAMUS has pixels of 0.31 mm,
  up to 4.4 mm at the smallest `size`; the 1.54 mm of the .mhd files and the 1.0 in use elsewhere (Ling et al., FIMH
  2023) are too small for cines of 112 x 112 pixels. Where a pixel is below 5 / 3, frames are resampled one by one.
- Its networks pool an axis once the others are half as coarse: at first only in space, which suits 10 to 30 frames.
Other values were not compared by what networks learn.

Sparse labels: every frame between the first and the last holds nnU-Net's ignore label, the highest value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from scipy import ndimage
from skimage.transform import resize

from nnunet_echo.data.errors import SourceError
from nnunet_echo.data.images import Frame

TIME_STEP = 5.0


def sequence_json(unit: str) -> dict[str, Any]:
    """The entry "sequence" of dataset.json, for lengths in `unit` ("mm" or "px").

    >>> sequence_json("mm")["time_step_mm"]
    5.0
    """
    return {
        "axis": "slowest: array (T, H, W), image (x, y, t)",
        "first": "ED",
        "last": "ES",
        f"time_step_{unit}": TIME_STEP,
        "time_step_is": "a constant, not the time between two frames",
    }


def sampled_frames(first: int, last: int, clip: int | None) -> list[int]:
    """The frames from `first` to `last`, which may be the lower number, or `clip` of them, evenly spaced, with both.

    Where there are fewer than `clip` some are taken twice.

    >>> sampled_frames(1, 18, None)[:3], sampled_frames(1, 18, 5), sampled_frames(18, 1, 3)
    ([1, 2, 3], [1, 5, 10, 14, 18], [18, 10, 1])
    """
    count = abs(last - first) + 1 if clip is None else clip
    return np.rint(np.linspace(first, last, count)).astype(int).tolist()


def as_cine(image: sitk.Image, name: str) -> sitk.Image:
    """The 3D image (x, y, t) in one that may have t as its fourth axis; its step of t, which is not used, becomes 1.

    Raises `SourceError` for anything else.

    >>> cine = sitk.GetImageFromArray(np.zeros((12, 1, 64, 48), np.uint8), isVector=False)  # (x, y, z, t)
    >>> cine.GetSize(), as_cine(cine, "cine.nii.gz").GetSize()
    ((48, 64, 1, 12), (48, 64, 12))
    """
    size = image.GetSize()
    if len(size) == 4 and size[2] == 1:
        image = sitk.Extract(
            image, [size[0], size[1], 0, size[3]], [0] * 4, sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX
        )
    if image.GetDimension() != 3 or image.GetSize()[2] < 2:
        raise SourceError(
            f"{name}: {' x '.join(map(str, size))} pixels; a sequence of 2D frames was expected. Give one."
        )
    image.SetSpacing([*image.GetSpacing()[:2], 1.0])
    return image


def make_case(
    cine: Frame, taken: Sequence[int], numbers: Sequence[int], *, size: int | None, unit: str, ignore: int | None = None
) -> Frame:
    """The case of the frames `taken` of a cine, whose images (x, y, t) are uint8, as the module's docstring describes.

    With `size` the complete field of view becomes `size` x `size` pixels, and a spacing in mm follows, so that lengths
    stay what they are; in pixels it is 1. With `ignore` the mask holds that value between the first and the last frame.
    Columns of cases.csv tell where ED and ES are, from 1, the frames' `numbers` in the source, and the cine's own size
    and spacing, for the way back (frames.py).

    >>> pixels = np.zeros((12, 64, 48), np.uint8)  # (T, H, W)
    >>> cine = Frame(sitk.GetImageFromArray(pixels), "cine.avi", sitk.GetImageFromArray(pixels), "masks")
    >>> case = make_case(cine, taken=[0, 5, 11], numbers=[1, 6, 12], size=32, unit="px", ignore=3)
    >>> case.image.GetSize(), case.image.GetSpacing()
    ((32, 32, 3), (1.0, 1.0, 5.0))
    >>> sitk.GetArrayFromImage(case.label).max(axis=(1, 2)).tolist(), case.facts["frames"]
    ([0, 3, 0], '1 6 12')
    """
    label = cine.label
    if label is not None:
        label = _take(label, taken, size, unit, partial(resize_labels, nearest=True))
        if ignore is not None:
            label[:, :, 1:-1] = ignore
    facts = {
        "ed": "1",
        "es": str(len(taken)),
        "frames": " ".join(map(str, numbers)),
        "cine_size": " ".join(map(str, cine.image.GetSize()[:2])),
        f"cine_spacing_{unit}": " ".join(f"{length:.6g}" for length in cine.image.GetSpacing()[:2]),
    }
    return replace(cine, image=_take(cine.image, taken, size, unit, resize_image), label=label, facts=facts)


def resize_image(frame: ndarray, shape: tuple[int, int]) -> ndarray:
    """(H, W) uint8 to `shape`: linear, smoothed first where it shrinks; the field of view stays the same."""
    return np.rint(resize(frame, shape, order=1, preserve_range=True, anti_aliasing=True)).astype(np.uint8)


def resize_labels(frame: ndarray, shape: tuple[int, int], nearest: bool = False) -> ndarray:
    """(H, W) uint8 to `shape`: each label interpolated linearly, the largest wins; or the nearest pixel's."""
    if nearest:
        return resize(frame, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.uint8)
    values = np.unique(frame)
    shares = [resize((frame == value).astype(float), shape, order=1, anti_aliasing=False) for value in values]
    return values[np.argmax(shares, axis=0)]


def stray_pixels(mask: ndarray) -> list[int]:
    """For each frame of a mask (T, H, W) how many pixels lie apart from the largest part of their label.

    Parts touch by a side or a corner.

    >>> mask = np.zeros((2, 8, 8), np.uint8)
    >>> mask[:, 2:5, 2:5] = 1
    >>> mask[1, 7, 7] = 1
    >>> stray_pixels(mask)
    [0, 1]
    """
    counts = []
    for frame in mask:
        stray = 0
        for value in set(np.unique(frame).tolist()) - {0}:
            parts, _ = ndimage.label(frame == value, np.ones((3, 3)))
            sizes = np.bincount(parts.ravel())[1:]
            stray += int(sizes.sum() - sizes.max())
        counts.append(stray)
    return counts


def _take(
    cine: sitk.Image,
    taken: Sequence[int],
    size: int | None,
    unit: str,
    resize_to: Callable[[ndarray, tuple[int, int]], ndarray],
) -> sitk.Image:
    frames = sitk.GetArrayViewFromImage(cine)[list(taken)]
    spacing, growth = np.array(cine.GetSpacing()), np.ones(3)
    if size is not None:
        growth[:2] = np.array(cine.GetSize()[:2]) / size
        frames = np.stack([resize_to(frame, (size, size)) for frame in frames])
    image = sitk.GetImageFromArray(frames)
    image.SetDirection(cine.GetDirection())
    # The corner of the field of view stays where it is, so the middle of the first pixel moves.
    image.SetOrigin(cine.TransformContinuousIndexToPhysicalPoint(((growth - 1) / 2).tolist()))
    image.SetSpacing([*(spacing * growth if unit == "mm" else spacing)[:2].tolist(), TIME_STEP])
    return image
