"""Images and outlines for the report: small enough to be inside one HTML file.

An image becomes a WebP data URL of at most `side` pixels, a mask the outline of its regions as an SVG path in pixels of
the original image, so that one set of outlines fits any size. Outlines run half way between pixels and are thinned to
the points they need (Douglas and Peucker, Cartographica 10:112-122, 1973).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from nnunet_echo.evaluation.pairs import Dataset

TOLERANCE = 0.4  # pixels of the original, below the staircase of a mask's outline


@dataclass(frozen=True)
class Picture:
    """A frame: `source` is a data URL; `width`, `height` in pixels of its labels, `aspect` = width / height in mm."""

    source: str
    width: int
    height: int
    aspect: float


def read_picture(path: Path, frame: int | None, reference: Path, side: int, quality: int) -> Picture:
    """The image of a case, its grey values from least to most, reduced to at most `side` pixels on its longer side.

    `frame`, from 1, is that of a sequence in `path`. Outlines lie on the grid of the label map `reference`, which shows
    the same field of view, but may be finer than a sequence that was resized.
    """
    values = _pixels(path, path.stat().st_mtime_ns)
    values = (values if frame is None else values[frame - 1]).astype(float)
    low, high = values.min(), values.max()
    grey = Image.fromarray(np.uint8((values - low) * (255 / max(high - low, 1e-9))))
    grey.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    grey.save(file, "WEBP", quality=quality, method=6)
    source = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    grid = sitk.ImageFileReader()
    grid.SetFileName(str(reference))
    grid.ReadImageInformation()
    (width, height), (across, down) = grid.GetSize()[:2], grid.GetSpacing()[:2]
    return Picture(source, width, height, width * across / (height * down))


@lru_cache(maxsize=1)  # the frames of a sequence are drawn one after another
def _pixels(path: Path, written: int) -> ndarray:
    return np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def read_outlines(path: Path, dataset: Dataset) -> dict[str, str]:
    """Structure -> its outline in the label map of a file. Of LV and LV_EPI the ring between, MYO, is not drawn."""
    labels = np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    return {name: outline(np.isin(labels, values)) for name, values in drawn_structures(dataset).items()}


def drawn_structures(dataset: Dataset) -> Mapping[str, tuple[int, ...]]:
    """The structures whose outlines are drawn, with their labels."""
    skipped = "MYO" if "LV_EPI" in dataset.structures else ""
    return {name: values for name, values in dataset.structures.items() if name != skipped}


def outline(mask: ndarray) -> str:
    """The closed outlines of a mask (H, W), bool, as an SVG path: x to the right, y down, from the corner of the image.

    "" for an empty mask.
    """
    paths = []
    for line in find_contours(np.pad(mask, 1).astype(float), 0.5):  # row and column; pixel centres at .5
        points = np.round((approximate_polygon(line, TOLERANCE)[:, ::-1] - 0.5) * 10).astype(int)
        steps = " ".join(f"{x / 10:g} {y / 10:g}" for x, y in np.diff(points, axis=0)[:-1])
        paths.append(f"M{points[0, 0] / 10:g} {points[0, 1] / 10:g}l{steps}z")
    return "".join(paths)
