"""Against flicker: the probabilities of a frame averaged with those of the frames beside it, weights 1-2-1.

It is asked for, never the default: what moves fast is moved less, so that a volume at its peak becomes smaller and at
its trough larger. The first and the last frame have one neighbour, and weights 2-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy import ndarray


def smooth_masks(probabilities: Iterable[ndarray]) -> Iterator[tuple[ndarray, ndarray]]:
    """For each frame of softmax probabilities (C, H, W): its label map, and that of the average; both (H, W) uint8.

    One frame behind its input; three frames are held at a time.

    >>> lone = [np.array([[[p]], [[1 - p]]]) for p in (0.9, 0.4, 0.9)]  # the second frame alone is of class 1
    >>> [(int(mask.item()), int(smooth.item())) for mask, smooth in smooth_masks(lone)]
    [(0, 0), (1, 0), (0, 0)]
    """
    before: ndarray | None = None
    now: ndarray | None = None
    for after in probabilities:
        if now is not None:
            yield _labels(now), _labels(_average(before, now, after))
        before, now = now, after
    if now is not None:
        yield _labels(now), _labels(_average(before, now, None))


def _average(before: ndarray | None, now: ndarray, after: ndarray | None) -> ndarray:
    return 2 * now + sum(frame for frame in (before, after) if frame is not None)


def _labels(probabilities: ndarray) -> ndarray:
    return np.argmax(probabilities, axis=0).astype(np.uint8)
