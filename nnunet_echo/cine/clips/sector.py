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

_CHANGE = 0.5  # grey levels from frame to frame, in the mean; still text has 0, the dark sides of a sector 1 to 2
_QUIET, _LOUDER = 10, 2.0  # so many percent of a picture are beside its sector; the sector changes so much more
_NEAR = 5  # pixels, along each axis
_LEAST = 0.05  # of the picture, that a sector fills
_GROUPS = 5  # of the clip's frames, in their order
_LIT = 10  # grey levels above the background, in a clip of one frame
_GAP, _THREAD = 3, 2  # pixels: gaps that are closed, and bridges that are cut


def find_sector(clip: Clip) -> ndarray:
    """The sector as (H, W) bool, from one pass over the clip's frames, in the memory of a few.

    A pixel's change is the median over groups of frames, so that a few frames that failed do not count, and is
    compared with that of the quietest tenth of the picture, which noise and compression change as well. A clip of one
    frame does not change; of that, the largest lit part is taken. All False where nothing changes.
    """
    groups = min(_GROUPS, clip.count - 1)
    if groups < 1:
        first = next(iter(clip.frames())).astype(np.int16)
        return _largest_part(first > np.percentile(first, _QUIET) + _LIT, clip.region)
    totals, steps = np.zeros((groups, *clip.shape), np.uint32), np.zeros(groups)
    before: ndarray | None = None
    for index, frame in enumerate(clip.frames()):
        now = frame.astype(np.int16)
        if before is not None:
            group = (index - 1) * groups // (clip.count - 1)
            totals[group] += np.abs(now - before).view(np.uint16)
            steps[group] += 1
        before = now
    # Over neighbours too, or the noise of a few frames would differ as much from pixel to pixel as from tissue.
    change = ndimage.median_filter(np.median(totals / steps[:, None, None], axis=0), _NEAR)
    louder = change > max(_CHANGE, _LOUDER * np.percentile(change, _QUIET))
    # With hardly anything louder than its tenth the picture is all sector, and has no background to compare with.
    return _largest_part(louder if louder.mean() > _LEAST else change > _CHANGE, clip.region)


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
