"""Hearts of simple shapes, in which every measure is known.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy import ndarray

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}

ROWS, COLUMNS = 200, 160

BASE, MIDDLE = 120, 80  # the mitral plane lies between rows BASE - 1 and BASE


def heart(wall: int = 14, half_width: float = 30, la_half_width: int = 26, height: int = 80) -> dict[str, ndarray]:
    """LV (half an ellipse), MYO around it, LA below: masks that violate nothing."""
    row, column = np.mgrid[:ROWS, :COLUMNS] + 0.5
    u, v = BASE - row, np.abs(column - MIDDLE)
    lv = (u > 0) & (np.hypot(u / height, v / half_width) < 1)
    epi = (u > 0) & (np.hypot(u / (height + wall), v / (half_width + wall)) < 1)
    la = (u < 0) & (u > -40) & (v < la_half_width)
    return {"LV": lv, "MYO": epi & ~lv, "LA": la}


PATTERN = r"(?P<patient>p\d)_(?P<view>4CH)_(?P<frame>\d+)"


def label_map(masks: dict[str, ndarray]) -> ndarray:
    return sum(masks[name] * value for name, value in LABELS.items() if value).astype(np.uint8)


@pytest.fixture
def cine_references(tmp_path: Path) -> Path:
    """Two patients: nine frames of a contraction, numbered in steps of 2 and without leading zeros."""
    folder = tmp_path / "references"
    folder.mkdir()
    for patient, height in (("p1", 80), ("p2", 70)):
        for time in range(9):
            phase = (1 - math.cos(math.pi * time / 8)) / 2
            image = sitk.GetImageFromArray(
                label_map(heart(half_width=30 - 8 * phase, height=height - round(8 * phase), la_half_width=20))
            )
            image.SetSpacing((0.9, 0.9))
            sitk.WriteImage(image, str(folder / f"{patient}_4CH_{2 * time + 1}.nii.gz"))
    (folder / "dataset.json").write_text(
        json.dumps({"labels": LABELS, "file_ending": ".nii.gz", "case_id_pattern": PATTERN})
    )
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
