"""The masks of a clip, kept small: a label map of 480 x 640 pixels takes some kilobytes.

T: frames; H, W: rows and columns. `Masks` holds what a model gave for each frame, so that curves, pages and files
can be made from one pass of the network, and 2,000 frames need no more memory than 200.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

_UINT8, _MM, _NIFTI_HEADER = 2, 2, 352
_DESCRIPTION = b"Label map of a cine; the third axis is time, in seconds where known"


class Masks:
    """Label maps (H, W) uint8 of one clip, in order, compressed; `entropy` (T,) or None where the model gave none.

    Takes arrays, and objects with `mask` and `entropy`. Raises ValueError for frames of different sizes.

    >>> masks = Masks([np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint8)])
    >>> len(masks), masks.shape, int(masks[1].sum())
    (2, (4, 5), 20)
    """

    def __init__(self, frames: Iterable[Any] = ()) -> None:
        self.shape: tuple[int, int] = (0, 0)
        self._packed: list[bytes] = []
        self._entropy: list[float] = []
        for frame in frames:
            self.append(frame)

    def append(self, frame: Any) -> None:
        """One frame more."""
        mask = np.asarray(getattr(frame, "mask", frame))
        if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer) and mask.dtype != bool:
            raise ValueError(f"masks: a frame is {mask.dtype} {mask.shape}; label maps are whole numbers (H, W).")
        if mask.size and not 0 <= mask.min() <= mask.max() <= 255:
            raise ValueError(f"masks: labels from {mask.min()} to {mask.max()}; they must lie between 0 and 255.")
        if self._packed and mask.shape != self.shape:
            raise ValueError(f"masks: frame {len(self)} has {mask.shape} pixels, those before have {self.shape}.")
        self.shape = (mask.shape[0], mask.shape[1])
        self._packed.append(zlib.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), 1))
        entropy = getattr(frame, "entropy", None)
        self._entropy.append(np.nan if entropy is None else float(entropy))

    @property
    def entropy(self) -> ndarray | None:
        """Mean entropy of each frame, as the model gave it."""
        return None if np.isnan(self._entropy).all() else np.array(self._entropy)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> ndarray:
        return np.frombuffer(zlib.decompress(self._packed[index]), np.uint8).reshape(self.shape)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[index] for index in range(len(self)))


def write_nifti(path: Path, masks: Masks, spacing_mm: tuple[float, float] | None, step_s: float | None) -> None:
    """Write the masks as NIfTI-1 (x, y, t), which SimpleITK reads as an array (T, H, W); frame by frame.

    `spacing_mm` is that of rows and of columns; 1 without a unit where it is None. The step of t is in seconds.
    """
    (height, width), (down, across) = masks.shape, spacing_mm or (1.0, 1.0)
    header = bytearray(_NIFTI_HEADER)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, width, height, len(masks), 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _UINT8, 8)
    struct.pack_into("<8f", header, 76, 1, across, down, step_s or 1.0, 1, 1, 1, 1)
    struct.pack_into("<2f", header, 108, _NIFTI_HEADER, 1)
    header[123] = _MM if spacing_mm else 0
    struct.pack_into("80s", header, 148, _DESCRIPTION)
    struct.pack_into("<h", header, 254, 1)  # sform: rows run downwards, as in images
    struct.pack_into("<12f", header, 280, -across, 0, 0, 0, 0, -down, 0, 0, 0, 0, step_s or 1.0, 0)
    header[344:348] = b"n+1\0"
    # Neither a file name nor a date in the gzip header.
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        packed.write(header)
        for mask in masks:
            packed.write(mask.tobytes())
