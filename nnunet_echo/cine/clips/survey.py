"""A first pass over a clip's frames: every one decodes, none is unlike its neighbours, none of its grey is lost, and
no colour shows flow.

JPEG and uncompressed pixels have no checksum. What damage does to them is a frame, or a part of one, that differs from
the frame before and from the one after while these two are alike; between beats of a heart that does not happen. It is
reported, never repaired. A single changed pixel cannot be told from speckle by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.cine.clips.clip import Finding

_BLOCKS = 40  # along the longer side
_TIMES = 3.0  # the usual change of a block from frame to frame, and one grey level
_LEAST = 3.0  # grey levels
_SHARE = 0.01  # of the blocks: a valve's leaflet moves through fewer
LEAST_LEVELS, LEAST_BRIGHT = 32, 48
FLOW = "it shows colour Doppler: tissue is grey, flow red and blue"
SAMPLES = 8  # frames whose colours are looked at


def unlike_neighbours(frames: Iterable[ndarray]) -> tuple[int, list[int]]:
    """How many frames (H, W) there are, and the numbers, from 1, of those that stand out.

    Kept in memory are the frames in blocks, 1 to 2 kB each. A block is measured by what it usually does: the black
    around a sector never changes, a mitral valve does all the time.
    """
    kept, shape, count = bytearray(), (0, 0), 0
    for frame in frames:
        blocks = _blocks(frame)
        kept += blocks.tobytes()
        shape, count = blocks.shape, count + 1
    if count < 3:
        return count, []
    off = np.zeros(count)
    for row in np.moveaxis(np.frombuffer(kept, np.uint8).reshape(count, *shape), 1, 0):
        off += _standing_out(row.astype(np.float32))
    return count, (np.flatnonzero(off > _SHARE * shape[0] * shape[1]) + 1).tolist()


def _standing_out(grey: ndarray) -> ndarray:
    """How many of the blocks (T, B) stand out in each frame: (T,)."""
    steps = np.abs(np.diff(grey, axis=0))
    limit = np.maximum(_LEAST, _TIMES * (np.median(steps, axis=0) + 1))
    off = np.empty_like(grey)
    off[1:-1] = np.minimum(steps[:-1], steps[1:]) - np.abs(grey[2:] - grey[:-2])
    # One neighbour says less than two.
    off[0], off[-1] = (steps[0] - steps[1]) / 2, (steps[-1] - steps[-2]) / 2
    return (off > limit).sum(axis=1)


def survey_findings(unlike: Sequence[int]) -> list[Finding]:
    """What is to be said of the frames that stand out."""
    if not unlike:
        return []
    numbers = ", ".join(map(str, unlike[:5])) + (f" and {len(unlike) - 5} more" if len(unlike) > 5 else "")
    text = f"Frame {numbers}: unlike the one before and the one after, as a damaged frame is. Look at the clip."
    return [Finding("frame_unlike_neighbours", text)]


def counting_levels(
    frames: Iterable[ndarray], region: tuple[int, int, int, int] | None, levels: ndarray
) -> Iterator[ndarray]:
    """The same frames (H, W) uint8; `levels` (256,) counts the pixels of each grey in their region as they pass."""
    y0, y1, x0, x1 = region or (None,) * 4
    for frame in frames:
        levels += np.bincount(frame[y0:y1, x0:x1].ravel(), minlength=256)
        yield frame


def level_findings(levels: ndarray) -> list[Finding]:
    """What is to be said of a clip of so many pixels (256,) of each grey: that it has fewer shades than an echo.

    Values of 12 bits in a file that says 16, without a window, become 17 levels up to 16, on which a network still
    finds something. Real loops have about 100 to 250, up to white; these limits are ours: under 32 levels, or nothing
    brighter than 47, a fifth of the range. Text within the region can hide a dark picture from this.

    >>> [finding.name for finding in level_findings(np.bincount(np.arange(16), minlength=256))]
    ['few_grey_levels']
    """
    there = np.flatnonzero(levels)
    if len(there) >= LEAST_LEVELS and there[-1] >= LEAST_BRIGHT:
        return []
    text = (
        f"All frames together have {len(there)} grey levels, the brightest is {there[-1]} of 255: shades are lost, or "
        "the file does not say which values are white. Numbers of such a picture are not to be trusted."
    )
    return [Finding("few_grey_levels", text)]


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
    step = max(1, max(frame.shape) // 256)  # flow is no matter of single pixels
    values = frame[::step, ::step].reshape(-1, 3).astype(np.int16)
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
    """The means of square blocks, at most `_BLOCKS` along the longer side, as uint8."""
    return np.asarray(Image.fromarray(frame).reduce(-(-max(frame.shape) // _BLOCKS)))
