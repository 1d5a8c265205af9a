"""What comes of damaged clips: refused, flagged, or measured, and by how much the numbers are then off.

300 clips, 12 kinds of file, 25 times each, damaged at random (`tests/support/damaged_clips.py`), through `nnunet-echo
cine` with a network that has learned drawn hearts for seconds. Prints one table, in Markdown.

    python benchmarks/cine_damages.py        # with the extra `test`
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from clip_files import write_clip  # noqa: E402
from damaged_clips import FILES, damaged_clips  # noqa: E402
from trained_phantom import beating_loop, numbers_of, write_phantom_model  # noqa: E402

from nnunet_echo.cine.model import CineModel  # noqa: E402

OUTCOMES = ("error", "finding", "same", "silent")  # in the words of `damaged_clips`


def main() -> None:
    print("| file | refused | flagged | unchanged frames | other pixels, unsaid | EF off, points | area off, % |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    frames, found = beating_loop()[0], Counter[str]()
    worst = np.zeros(2)
    with tempfile.TemporaryDirectory() as place:
        model = CineModel.load(write_phantom_model(Path(place, "model")))
        for name in FILES:
            here, moved = Counter[str](), np.zeros(2)
            for folder in (whole := Path(place, name, "whole"), damaged := Path(place, name, "damaged")):
                folder.mkdir(parents=True)
            write_clip(whole / name, frames)
            ef, area, _ = numbers_of(model, whole / name)
            for clip in damaged_clips(damaged, name, frames):
                here[clip.found] += 1
                if clip.found == "silent":
                    other_ef, other_area, _ = numbers_of(model, clip.path)
                    off = abs(other_ef - ef), 100 * float(np.nanmax(np.abs(other_area / area - 1)))
                    moved = np.maximum(moved, off)
            found.update(here)
            worst = np.maximum(worst, moved)
            print(row(name, here, moved), flush=True)
    print(row("all", found, worst))


def row(name: str, found: Counter[str], moved: np.ndarray) -> str:
    numbers = [*(str(found[outcome]) for outcome in OUTCOMES), f"{moved[0]:.2f}", f"{moved[1]:.1f}"]
    return f"| {name} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
