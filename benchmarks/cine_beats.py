"""Are the beats of drawn hearts found, and what does EF lose? Area curves of known contraction, with and without noise.

    python benchmarks/cine_beats.py

Steady hearts of 40 to 180 beats a minute and fibrillating ones, 30 to 100 frames a second, clips of 6 s that begin at
different moments. EF of a beat is that of the volumes at its frames: what masks that are right would give. Prints a
table in Markdown. Nothing is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from beating import Beating, complete_beats, fibrillating, steady  # noqa: E402

from nnunet_echo.cine.beats import find_rhythm  # noqa: E402

EF, AREA_MM2, AREA_CHANGE = 60.0, 3000.0, 0.42
SECONDS, STARTS = 6.0, 6
FRAMES_A_SECOND, RATES, MEAN_RATES = (30, 50, 80, 100), (40, 60, 90, 130, 180), (55, 75, 100, 130)


def hearts(irregular: bool) -> Iterator[Beating]:
    """Each begins at a moment of its own."""
    for number in range(STARTS):
        for rate in MEAN_RATES if irregular else RATES:
            yield fibrillating(rate, SECONDS, number) if irregular else steady(rate, SECONDS, start=-0.037 * number)


def clips(irregular: bool, noise: float) -> Iterator[dict[str, Any]]:
    """What was found in each clip, beside what is there; noise is a share of the change of area."""
    rng = np.random.default_rng(0)
    for beating in hearts(irregular):
        for rate in FRAMES_A_SECOND:
            times = np.arange(0, SECONDS, 1 / rate)
            contraction = beating.contraction(times)
            grain = noise * AREA_CHANGE * AREA_MM2 * rng.standard_normal(len(times))
            found = find_rhythm(times, AREA_MM2 * (1 - AREA_CHANGE * contraction) + grain)
            volumes = 1 - EF / 100 * contraction
            true = complete_beats(beating, times)
            beats = found.beats if found.method == "beats" else ()
            off = [min(max(abs(beat.ed - ed), abs(beat.es - es)) for beat in beats) for ed, es in true if beats]
            of_frames, measured = (
                float(np.median([100 * (1 - volumes[es] / volumes[ed]) for ed, es in pairs]))
                for pairs in (true, [(beat.ed, beat.es) for beat in found.beats])
            )
            yield {
                "beats": len(true),
                "found": sum(frames <= 3 for frames in off),
                "within": sum(frames <= 1 for frames in off),
                "frames": abs(measured - of_frames),
                "own": abs(measured - EF),
                "sparse": bool(min(np.diff(beating.ed_s)) * rate < 12),
            }


def main() -> None:
    print("| hearts | noise | beats | found | ED and ES within a frame | EF off its frames | EF off the heart's own |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for irregular in (False, True):
        for noise in (0.0, 0.005, 0.01):
            of = list(clips(irregular, noise))
            beats, found, within = (sum(clip[name] for clip in of) for name in ("beats", "found", "within"))
            frames = max(clip["frames"] for clip in of)
            own = [max(clip["own"] for clip in of if clip["sparse"] is sparse) for sparse in (False, True)]
            cells = [
                "fibrillating" if irregular else "steady",
                f"{100 * noise:g} %",
                beats,
                found,
                within,
                f"{frames:.1f}",
                f"{own[0]:.1f}, {own[1]:.1f} under 12 frames a beat",
            ]
            print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
