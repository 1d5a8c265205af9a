"""From the logits of a frame to its label map in the frame's own pixels: nnU-Net's formula, where it matters.

nnU-Net interpolates each class's logits linearly in 64 bits (scikit-image's resize, SciPy's zoom), rounds them to 16
and takes the largest. Interpolation is a mean with weights that are not negative. So where the four pixels around a
point agree on the largest class, by more than rounding can change, the point has that class too. Only the rest, a seam
along each edge, is computed. K: classes; h, w: the logits' size; H, W: the frame's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy import ndarray

_UNDECIDED = 255
# A number of 16 bits is rounded by at most 2**-11 of its size, and two are compared: twice what is needed.
_ROUNDING = 2.0**-9
_SMALLEST = 2.0**-23  # numbers next to 0 are 2**-24 apart
_LARGEST_SEAM = 0.35  # share of the points; above it nnU-Net's own function is faster


def labels_of(logits: ndarray, size: Sequence[int]) -> ndarray | None:
    """The label map (H, W) uint8 that nnU-Net gives logits (K, h, w) float16 of a frame of `size` (H, W).

    None where nnU-Net's own function has to do it: logits that are not finite, 255 classes or more, more seam than
    gain, or a SciPy that rounds in another way than this module.

    >>> lv = np.repeat([[-4, -3, 5, 9, 9, 9]], 6, axis=0).astype(np.float16)
    >>> labels_of(np.stack([-lv, lv]), (6, 12))[0].tolist()
    [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    values = logits.astype(np.float32)  # exact, and compared far faster than 16 bits
    classes = len(values)
    if classes >= _UNDECIDED or not np.isfinite(values).all():
        return None
    if values.shape[1:] == tuple(size):
        return values.argmax(0).astype(np.uint8)
    if size[0] * size[1] < values[0].size or not _rounds_like_scipy():
        return None
    y, x = (_corners(n, out) for n, out in zip(values.shape[1:], size, strict=True))
    labels = _agreed(values)[y.first][:, x.first]
    rows, columns = np.nonzero(labels == _UNDECIDED)
    if len(rows) > _LARGEST_SEAM * labels.size:
        return None
    exact = logits.astype(np.float64)
    low, high = exact.min((1, 2))[:, None], exact.max((1, 2))[:, None]  # to which scikit-image clips
    seam = np.clip(_interpolate(exact, y.at(rows), x.at(columns)), low, high).astype(np.float16)
    labels[rows, columns] = seam.argmax(0)
    return labels


class _Axis:
    """Of each point along an axis the two pixels around it, and their weights."""

    def __init__(self, first: ndarray, second: ndarray, weight: ndarray) -> None:
        self.first, self.second, self.weight = first, second, weight

    def at(self, points: ndarray) -> _Axis:
        return _Axis(self.first[points], self.second[points], self.weight[points])


def _corners(n: int, out: int) -> _Axis:
    """As SciPy's zoom with ``grid_mode=True, mode="nearest"`` has them for `n` pixels and `out` points."""
    position = (np.arange(out) + 0.5) * (n / out) - 0.5
    floor = np.floor(position)
    first = floor.astype(np.intp)  # -1 beyond the first pixel, which then counts twice
    return _Axis(np.clip(first, 0, n - 1), np.clip(first + 1, 0, n - 1), position - floor)


def _agreed(values: ndarray) -> ndarray:
    """(h, w) uint8: the class of all points between a pixel and its neighbours below and to the right, or 255."""
    best, second = values[0], np.full(values.shape[1:], -np.inf, np.float32)
    code = np.zeros(values.shape[1:], np.uint8)
    for number, value in enumerate(values[1:], start=1):
        larger = value > best
        second = np.where(larger, best, np.maximum(second, value))
        best = np.maximum(best, value)
        code[larger] = number
    code[best - second <= _ROUNDING * np.abs(values).max() + _SMALLEST] = _UNDECIDED
    for axis in (0, 1):
        neighbour = np.concatenate([np.delete(code, 0, axis), code.take([-1], axis)], axis)
        code = np.where(code == neighbour, code, np.uint8(_UNDECIDED))
    return code


def _interpolate(values: ndarray, y: _Axis, x: _Axis) -> ndarray:
    """(K, n): `values` (K, h, w) at n points, each product and sum in SciPy's order."""
    total: ndarray | float = 0.0
    for rows, weight_y in ((y.first, 1 - y.weight), (y.second, y.weight)):
        for columns, weight_x in ((x.first, 1 - x.weight), (x.second, x.weight)):
            total = total + values[:, rows, columns] * weight_y * weight_x
    return np.asarray(total)


@cache
def _rounds_like_scipy() -> bool:
    """Whether this machine's SciPy gives the numbers of `_interpolate` to the last bit, asked once."""
    from scipy.ndimage import zoom

    values = np.random.default_rng(0).normal(size=(1, 23, 31))
    for size in ((61, 47), (9, 40)):
        factors = [out / n for n, out in zip(values.shape[1:], size, strict=True)]
        expected = zoom(values[0], factors, order=1, mode="nearest", grid_mode=True)
        rows, columns = np.divmod(np.arange(size[0] * size[1]), size[1])
        y, x = (_corners(n, out) for n, out in zip(values.shape[1:], size, strict=True))
        if expected.shape != size or (_interpolate(values, y.at(rows), x.at(columns)) != expected.ravel()).any():
            return False
    return True
