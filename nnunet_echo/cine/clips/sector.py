"""The sector: the part of the picture where echoes change from frame to frame.

Text, scales and logos stand still; tissue and speckle do not. What changes is the sector, and at its side the trace of
the ECG, a clock, a moving bar. The largest connected part of what changes is kept, filled to its convex hull, since a
sector has no dents and standing shadows lie within it, and cut to the ultrasound region.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy import ndimage
from skimage.morphology import convex_hull_image

from nnunet_echo.cine.clips.clip import Clip

_CHANGE = 1.0  # standard deviation over time, in grey levels; the dark sides of a sector have 1 to 2, still text 0
_LIT = 10  # grey level, for a clip of one frame
_GAP, _THREAD = 3, 2  # pixels: gaps that are closed, and bridges that are cut


def find_sector(clip: Clip) -> ndarray:
    """The sector as (H, W) bool, from one pass over the clip's frames, in the memory of a few.

    A clip of one frame does not change; of that, the largest lit part is taken. All False where nothing changes.
    """
    # Squares of 16 bits fit 2 ** 16 times into 32.
    total = np.zeros(clip.shape, np.int32)
    squares = np.zeros(clip.shape, np.uint32 if clip.count < 2**16 else np.uint64)
    first = np.zeros(clip.shape, np.int16)
    count = 0
    for frame in clip.frames():
        if count == 0:
            first = frame.astype(np.int16)
        change = frame - first
        total += change
        np.abs(change, out=change)
        squares += np.square(change.view(np.uint16))
        count += 1
    if count == 1:
        changing: ndarray = first > _LIT
    else:
        variance = (squares - total.astype(np.float64) ** 2 / count) / (count - 1)
        changing = variance > _CHANGE**2
    return _largest_part(changing, clip.region)


def _largest_part(changing: ndarray, region: tuple[int, int, int, int] | None) -> ndarray:
    inside = np.ones_like(changing)
    if region is not None:
        inside[:] = False
        inside[region[0] : region[1], region[2] : region[3]] = True
    changing = changing & inside
    around = np.pad(changing, _GAP)  # so that closing does not wear off the border
    closed = ndimage.binary_closing(around, iterations=_GAP)[_GAP:-_GAP, _GAP:-_GAP]
    opened = ndimage.binary_opening(closed, iterations=_THREAD)
    parts, number = ndimage.label(opened)
    if number == 0:
        return np.zeros_like(changing)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return convex_hull_image(largest)  # of what lies in a rectangle, which holds the hull too
