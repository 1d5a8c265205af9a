"""The outlines of masks: half way between pixels, with no more points than they need.

Coordinates are (x, y) in pixels from the corner of the image, x to the right and y down, so that the middle of the
first pixel is (0.5, 0.5). Points are thinned after Douglas and Peucker (Cartographica 10:112-122, 1973).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from skimage.measure import approximate_polygon, find_contours

from nnunet_echo.evaluation.pairs import Dataset

TOLERANCE = 0.4  # pixels of the original, below the staircase of a mask's outline
Structures = Mapping[str, tuple[int, ...]]


def drawn_structures(structures: Structures) -> dict[str, tuple[int, ...]]:
    """Those of `structures`, name -> label values, whose outlines are drawn.

    Where there is LV_EPI, MYO is not: the inner outline of the ring would lie on that of LV, the outer one is LV_EPI's.

    >>> list(drawn_structures({"LV": (1,), "MYO": (2,), "LA": (3,), "LV_EPI": (1, 2)}))
    ['LV', 'LA', 'LV_EPI']
    """
    skipped = "MYO" if "LV_EPI" in structures else ""
    return {name: values for name, values in structures.items() if name != skipped}


def outline(mask: ndarray, thinned: bool = True) -> list[ndarray]:
    """The closed outlines of a mask (H, W), bool, each (N, 2) with the first point again as the last; [] where empty.

    Not `thinned` they have a point for each side of a pixel; for a mask in scraps that takes a tenth of the time.

    >>> (line,) = outline(np.pad(np.ones((10, 20), bool), 5))
    >>> line.min(axis=0).tolist(), line.max(axis=0).tolist()
    ([5.0, 5.0], [25.0, 15.0])
    """
    lines = find_contours(np.pad(mask, 1).astype(float), 0.5)  # row and column; pixel centres at .5
    if thinned:
        lines = [approximate_polygon(line, TOLERANCE) for line in lines]
    return [line[:, ::-1] - 0.5 for line in lines]


def svg_path(mask: ndarray) -> str:
    """The outlines of a mask (H, W), bool, as an SVG path, to a tenth of a pixel; "" for an empty mask.

    >>> svg_path(np.ones((1, 1), bool))
    'M0.5 1l-0.5 -0.5 0.5 -0.5 0.5 0.5z'
    """
    paths = []
    for line in outline(mask):
        points = np.round(line * 10).astype(int)
        steps = " ".join(f"{x / 10:g} {y / 10:g}" for x, y in np.diff(points, axis=0)[:-1])
        paths.append(f"M{points[0, 0] / 10:g} {points[0, 1] / 10:g}l{steps}z")
    return "".join(paths)


def read_outlines(path: Path, dataset: Dataset) -> dict[str, str]:
    """Drawn structure -> its outline in the label map of a file, as an SVG path."""
    labels = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    return {name: svg_path(np.isin(labels, values)) for name, values in drawn_structures(dataset.structures).items()}
