"""What reading a clip costs: python benchmarks/cine_decoding.py

CPU milliseconds a frame, the median of five passes on one thread, over the frames of the phantom drawn 640 x 480 in
grey and in colour, in each compression that the package reads; the sector; and the first pass of read_clip.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.clips.dicom import read_dicom
from nnunet_echo.cine.clips.sector import find_sector
from nnunet_echo.phantom import sample_heart
from nnunet_echo.phantom.cine import draw_cine
from nnunet_echo.phantom.dicom import write_dicom_cine

FRAMES, REPEATS = 30, 5


def decoding() -> dict[str, float]:
    """CPU ms a frame of 640 x 480, by what is done."""
    grey = _frames()
    colour = np.repeat(grey[..., None], 3, axis=3)
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for syntax in ("jpeg", "explicit", "rle", "jpeg 2000", "jpeg-ls"):
            for kind, frames in (("grey", grey), ("colour", colour)):
                path = Path(folder) / f"{syntax} {kind}.dcm"
                try:
                    write_dicom_cine(path, frames, syntax=syntax)
                    clip = read_dicom(path, path.name)
                except (ImportError, RuntimeError, ValueError):  # no encoder or decoder here
                    continue
                results[f"{syntax}, {kind}"] = _ms_a_frame(lambda clip=clip: sum(1 for _ in clip.frames()))
        path = Path(folder) / "jpeg colour.dcm"
        results["jpeg, colour: read_clip"] = _ms_a_frame(lambda: read_clip(path))
        results["jpeg, colour: find_sector"] = _ms_a_frame(lambda: find_sector(read_dicom(path, path.name)))
    return results


def _frames() -> np.ndarray:
    """(T, 480, 640) uint8: the phantom in the middle of a black picture."""
    cine = draw_cine(sample_heart(np.random.default_rng(0)), "4CH", range(1, FRAMES + 1), 0.36, 0.36)
    frames = np.zeros((FRAMES, 480, 640), np.uint8)
    for index, (image, _) in enumerate(cine.values()):
        image = image[:480, :640]
        top, left = (480 - image.shape[0]) // 2, (640 - image.shape[1]) // 2
        frames[index, top : top + image.shape[0], left : left + image.shape[1]] = image
    return frames


def _ms_a_frame(run: Callable[[], object]) -> float:
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        spent.append(1000 * (time.process_time() - start) / FRAMES)
    return statistics.median(spent)


def main() -> int:
    """Print the table."""
    for what, milliseconds in decoding().items():
        print(f"{what:28s} {milliseconds:6.2f} ms a frame")
    return 0


if __name__ == "__main__":
    sys.exit(main())
