"""The outline of the left ventricle and its straight stretch; `camus` against the script that it follows."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from drawn_ventricles import ragged

from nnunet_echo.evaluation.left_ventricle.outline import main_part, straight_stretch, straight_stretches, trace
from nnunet_echo.evaluation.left_ventricle.volume import lv_shape


@pytest.mark.parametrize("seed", range(4))
def test_outline_is_that_of_marching_squares(seed: int) -> None:
    measure = pytest.importorskip("skimage.measure")
    for mask in (ragged(seed), main_part(np.random.default_rng(seed).random((30, 40)) < 0.6)):
        theirs = max(measure.find_contours(np.pad(mask, 1).astype(float), 0.5), key=len)[:-1] - 1
        ours, beyond = trace(mask)
        first = int(np.flatnonzero((theirs == ours[0]).all(axis=1))[0])
        np.testing.assert_array_equal(ours, np.roll(theirs, -first, axis=0))
        assert not np.pad(mask, 1)[tuple(beyond.T + 1)].any()
        assert (np.abs(beyond - ours).sum(axis=1) == 0.5).all()


@pytest.mark.parametrize("tolerance", [2.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_straight_stretch_is_the_longest_of_all_pairs(seed: int, tolerance: float) -> None:
    points, _ = trace(ragged(seed))
    best, ends = 0.0, None
    for j, i in itertools.product(range(len(points)), repeat=2):
        drop, left = points[j, 0] - points[i, 0], points[i, 1] - points[j, 1]
        reach = math.hypot(drop, left)
        if j < i + 2 or left <= 0 or abs(drop) > left or reach <= best:
            continue
        between = points[i + 1 : j] - points[i]
        if (np.abs(drop * between[:, 1] + left * between[:, 0]) / reach <= tolerance).all():
            best, ends = reach, (i, j)
    assert straight_stretch(points, tolerance) == ends


def test_a_ragged_outline_needs_little_memory() -> None:
    """Pairs of all its points would take gigabytes."""
    points, _ = trace(main_part(np.random.default_rng(0).random((512, 512)) < 0.6))
    assert len(points) > 9000
    tracemalloc.start()
    try:
        i, j = straight_stretch(points, 8)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert j > i + 1


def test_a_stretch_may_begin_with_a_spur_across_it() -> None:
    """At 45 degrees: flatter lines pass too far from the spur, those at both ends of the range of slopes do not."""
    slope = -np.arange(1, 21)[:, None] * np.array([[1.0, 1.0]])
    for down in (1, -1):
        points = np.vstack([[[0, 0], [1.1, -0.15]], slope]) * (down, 1)
        assert straight_stretch(points, 1.0) == (0, 21)


def test_equally_long_stretches_are_all_found() -> None:
    mask = np.zeros((30, 50), bool)
    mask[5:15, 5:45] = True
    mask[15:18, [*range(6, 20), *range(30, 44)]] = True  # two feet
    stretches = straight_stretches(trace(mask)[0], 0.4)
    columns = [sorted(trace(mask)[0][list(ends), 1].tolist()) for ends in stretches]
    assert columns == [[30, 43], [6, 19]]
    assert straight_stretch(trace(mask)[0], 0.4) == stretches[0]


@pytest.mark.parametrize("seed", range(3))
def test_camus_shape_is_what_the_script_does(seed: int) -> None:
    """Its steps one by one, as docs/reference/metrics.md lists them, on the outline of scikit-image."""
    measure = pytest.importorskip("skimage.measure")
    mask = ragged(seed)
    points = measure.find_contours(mask.astype(float), 0.5)[0]
    i, j = straight_stretch(points, 8)
    base = points[i + round((j - i) / 2)]
    apex = max(points, key=lambda point: math.dist(point, base))
    length = math.dist(apex, base)
    diameters = []
    for disk in range(20):
        start, diameter = base + disk / 20 * (apex - base), 0.0
        for side in (1, -1):
            across, offset = side * np.array([base[1] - apex[1], apex[0] - base[0]]) / length, 8.0
            while True:
                row, column = np.round(start + offset * across).astype(int)
                if not (0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]):
                    break
                offset += 0.5
            diameter += offset
        diameters.append(diameter)
    ours = lv_shape(mask, (0.308, 0.308), method="camus")
    assert ours.length == pytest.approx(0.308 * length)
    assert ours.diameters == pytest.approx(0.308 * np.array(diameters))


def test_main_part() -> None:
    mask = np.zeros((8, 9), bool)
    assert not main_part(mask).any()
    mask[1:5, 1:5] = True
    expected = mask.copy()
    mask[2, 3] = False
    mask[5, 5] = mask[7, 8] = True  # by a corner only; apart
    np.testing.assert_array_equal(main_part(mask), expected)
