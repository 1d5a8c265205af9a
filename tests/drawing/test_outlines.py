"""Outlines of masks, as points and as SVG paths."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nnunet_echo.drawing.outlines import drawn_structures, outline, svg_path


def test_outlines_enclose_their_mask() -> None:
    """Shoelace over the path: a disk with a hole and a far pixel, to the area and place of the mask."""
    y, x = np.mgrid[:80, :100]
    distance = np.hypot(y - 40, x - 45)
    mask = (distance < 30) & (distance > 10)
    mask[2, 95] = True
    parts = [
        np.cumsum(np.array(re.findall(r"-?[\d.]+", part), float).reshape(-1, 2), axis=0)
        for part in svg_path(mask).split("M")[1:]
    ]
    assert len(parts) == 3
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - np.roll(p[:, 0], -1) * p[:, 1])) / 2 for p in parts]
    outer, hole, pixel = sorted(areas, reverse=True)
    assert outer - hole == pytest.approx(mask.sum() - 1, rel=0.02)
    assert pixel == pytest.approx(0.5, abs=0.3)  # a diamond through the middles of its sides
    big = parts[int(np.argmax(areas))]
    assert (big.min(axis=0) + big.max(axis=0)) / 2 == pytest.approx((45.5, 40.5), abs=0.3)  # pixel centres are at .5
    assert sum(map(len, parts)) < 120
    assert svg_path(np.zeros((5, 5), bool)) == ""


def test_the_ring_between_two_outlines_is_not_drawn() -> None:
    assert list(drawn_structures({"LV": (1,), "MYO": (2,), "LV_EPI": (1, 2)})) == ["LV", "LV_EPI"]
    assert list(drawn_structures({"MYO": (2,), "LA": (3,)})) == ["MYO", "LA"]


def test_points_and_path_are_the_same_outline() -> None:
    (line,) = outline(np.pad(np.ones((7, 9), bool), 3))
    assert line[0].tolist() == line[-1].tolist()
    assert line.min(axis=0).tolist() == [3, 3] and line.max(axis=0).tolist() == [12, 10]  # x to the right, y down
    start, steps = svg_path(np.pad(np.ones((7, 9), bool), 3))[1:-1].split("l")
    points = np.cumsum(np.array(f"{start} {steps}".split(), float).reshape(-1, 2), axis=0)
    np.testing.assert_allclose(points, line[:-1], atol=0.3)  # each step is rounded
    assert outline(np.zeros((3, 3), bool)) == []
