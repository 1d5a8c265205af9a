"""A first pass over a clip's frames: every one decodes, none is unlike its neighbours, and no colour shows flow.

JPEG and uncompressed pixels have no checksum. What damage does to them is a frame, or a part of one, that differs from
the frame before and from the one after while these two are alike; between beats of a heart that does not happen. It is
reported, never repaired. A single changed pixel cannot be told from speckle by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.clips.clip import Finding

_BLOCKS = 40  # along the longer side
_SHARE = 0.01  # of the blocks have to stand out: a valve's leaflet moves through fewer
_LEAST_JUMP = 8.0  # grey levels of a block's mean
_FACTOR = 4.0  # over the clip's usual jump
FLOW = "it shows colour Doppler: tissue is grey, flow red and blue"
SAMPLES = 8  # frames whose colours are looked at


def unlike_neighbours(frames: Iterable[ndarray]) -> tuple[int, list[int]]:
    """How many frames (H, W) there are, and the numbers, from 1, of those that stand out; in the memory of three."""
    jumps: list[float] = []
    window: list[ndarray] = []
    count = 0
    for frame in frames:
        count += 1
        window = [*window[-2:], _blocks(frame)]
        if count == 3:
            jumps.append(_jump_at_end(*window))
        if count >= 3:
            jumps.append(_jump(*window))
    if count < 3:
        return count, []
    jumps.append(_jump_at_end(*reversed(window)))
    limit = max(_LEAST_JUMP, _FACTOR * float(np.median(jumps)))
    jumps[0], jumps[-1] = jumps[0] / 2, jumps[-1] / 2  # one neighbour says less than two
    return count, [number for number, jump in enumerate(jumps, 1) if jump > limit]


def survey_findings(unlike: Sequence[int]) -> list[Finding]:
    """What is to be said of the frames that stand out."""
    if not unlike:
        return []
    numbers = ", ".join(map(str, unlike[:5])) + (f" and {len(unlike) - 5} more" if len(unlike) > 5 else "")
    text = f"Frame {numbers}: unlike the one before and the one after, as a damaged frame is. Look at the clip."
    return [Finding("frame_unlike_neighbours", text)]


def sampled(count: int) -> list[int]:
    """The indices of at most `SAMPLES` frames, evenly spread.

    >>> sampled(3)
    [0, 1, 2]
    """
    return sorted(set(np.linspace(0, count - 1, SAMPLES).round().astype(int).tolist()))


def shows_flow(frames: Iterator[ndarray], region: tuple[int, int, int, int] | None) -> bool:
    """Whether one of these pictures (H, W, 3), red, green, blue, has the colours of flow among the grey of tissue.

    Flow is strongly red, orange or blue while tissue is grey. A picture that is tinted as a whole is not flow, and
    green is the colour of traces and text.
    """
    return any(_flow_share(frame, region) > 0.02 for frame in frames)


def _flow_share(frame: ndarray, region: tuple[int, int, int, int] | None) -> float:
    if region is not None:
        frame = frame[region[0] : region[1], region[2] : region[3]]
    values = frame.reshape(-1, 3).astype(np.int16)
    high, low = values.max(axis=1), values.min(axis=1)
    lit = high > 40
    if lit.sum() < 100:
        return 0.0
    values, high, low = values[lit], high[lit], low[lit]
    saturation = (high - low) / high
    if (saturation < 0.2).mean() < 0.2:
        return 0.0
    red, green, blue = values.T
    flow = (saturation > 0.5) & (np.maximum(red, blue) > green * 1.3)
    shades = np.unique(values[flow] >> 4, axis=0, return_counts=True)[1]
    # Flow has many shades, a bar of the screen one or two.
    return 0.0 if len(shades) == 0 or shades.max() > 0.5 * shades.sum() else float(flow.mean())


def _blocks(frame: ndarray) -> ndarray:
    """The means of square blocks, `_BLOCKS` along the longer side; a rest at the end of an axis is left out."""
    side = max(1, max(frame.shape) // _BLOCKS)
    rows, columns = max(1, frame.shape[0] // side), max(1, frame.shape[1] // side)
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    cut = frame[: rows * height, : columns * width].reshape(rows, height, -1).sum(axis=1, dtype=np.uint32)
    return cut.reshape(rows, columns, width).sum(axis=2) / (height * width)


def _jump(before: ndarray, here: ndarray, after: ndarray) -> float:
    """How far the blocks that stand out most lie off both neighbours, less what these differ."""
    return _most(np.minimum(np.abs(here - before), np.abs(here - after)) - np.abs(after - before))


def _jump_at_end(end: ndarray, second: ndarray, third: ndarray) -> float:
    """The same of the first or the last frame, which has one neighbour."""
    return _most(np.abs(end - second) - np.abs(second - third))


def _most(off: ndarray) -> float:
    """What at least `_SHARE` of the blocks exceed."""
    rank = max(1, round(off.size * _SHARE))
    return float(np.partition(off.ravel(), -rank)[-rank])
