"""A folder of images and masks as somebody has them: hearts of a phantom, drawn plainly, as files of any kind.

It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

LABELS = ("LV=1", "MYO=2", "LA=3")
PATIENTS = r"(?P<patient>p\d+)_(?P<view>[24]CH)_(?P<phase>ED|ES)"


def heart(radius: float, seed: int = 0, shape: tuple[int, int] = (64, 48)) -> tuple[ndarray, ndarray]:
    """An image (H, W) and its mask: a ventricle with its wall, open at the base, an atrium below."""
    rows, columns = np.indices(shape)
    y, x = (rows - 24) / 1.6, columns - 23.5
    inner, outer = np.hypot(x, y) < radius, np.hypot(x, y) < radius + 4
    mask = np.zeros(shape, np.uint8)
    mask[np.hypot(x, (rows - 36)) < radius - 1] = 3
    mask[outer & (rows < 34)] = 2
    mask[inner & (rows < 34)] = 1
    noise = np.random.default_rng(seed).integers(0, 40, shape)
    return (np.array([30, 5, 180, 20])[mask] + noise).astype(np.uint8), mask


def write_own_images(folder: Path, patients: int = 6) -> Path:
    """images/pNN_VIEW_PHASE.png and masks/ of the same names, four images of each patient."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for patient in range(1, patients + 1):
        for view in ("2CH", "4CH"):
            for phase, radius in (("ED", 11 + patient / 4), ("ES", 8 + patient / 4)):
                name = f"p{patient:02d}_{view}_{phase}.png"
                image, mask = heart(radius, seed=100 * patient + 10 * int(view[0]) + len(phase))
                Image.fromarray(image).save(folder / "images" / name)
                Image.fromarray(mask).save(folder / "masks" / name)
    return folder
