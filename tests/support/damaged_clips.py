"""Clips of every kind damaged at random, and what comes of them. It asserts nothing: PYTEST_DONT_REWRITE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clip_files import write_clip
from numpy import ndarray
from numpy.random import Generator

from nnunet_echo.cine.clips import ClipError, read_clip

COMPRESSED = ["jpeg.dcm", "rle.dcm", "jpeg 2000.dcm", "jpeg-ls.dcm"]
FILES = [*COMPRESSED, "explicit.dcm", "deflated.dcm", "a.avi", "a.mp4", "a.gif", "a.nii.gz", "a.mhd", "folder"]
SEEDS = 25


def change(number: int) -> Callable[[Generator, bytes], bytes]:
    def apply(rng: Generator, data: bytes) -> bytes:
        changed = bytearray(data)
        for place in rng.integers(0, len(data), number):
            changed[place] ^= int(rng.integers(1, 256))
        return bytes(changed)

    return apply


def blank(rng: Generator, data: bytes) -> bytes:
    start = int(rng.integers(0, max(1, len(data) - 200)))
    return data[:start] + bytes(len(data[start : start + 200])) + data[start + 200 :]


# What each does, and whether the file can hold other pixels without a sign of it.
DAMAGES: dict[str, tuple[Callable[[Generator, bytes], bytes], bool]] = {
    "one byte changed": (change(1), True),
    "20 bytes changed": (change(20), True),
    "200 bytes zero": (blank, True),
    "cut off": (lambda rng, data: data[: int(rng.integers(0, len(data)))], False),
    "bytes added": (lambda rng, data: data + rng.bytes(int(rng.integers(1, 60))), False),
    "a part lost": (lambda rng, data: data[: (at := int(rng.integers(0, len(data))))] + data[at + 50 :], False),
}


def read(path: Path) -> tuple[ndarray, set[str]]:
    clip = read_clip(path)
    return np.stack(list(clip.frames())), {finding.name for finding in clip.findings}


def outcome(path: Path, whole: ndarray, known: set[str]) -> tuple[str, float]:
    """What came of a damaged clip, and the largest share of a frame's pixels that are off."""
    try:
        frames, names = read(path)
    except ClipError:
        return "error", 0.0
    if np.array_equal(frames, whole):
        return "same", 0.0
    if names - known:
        return "finding", 0.0
    if frames.shape != whole.shape:
        return "silent", 1.0
    return "silent", float((np.abs(frames.astype(int) - whole) > 8).mean(axis=(1, 2)).max())


@dataclass
class Damaged:
    """A clip while it is damaged, by what, and what came of it."""

    path: Path
    seed: int
    damage: str
    unnoticed: bool
    found: str
    off: float


def damaged_clips(folder: Path, name: str, frames: ndarray) -> Iterator[Damaged]:
    """The clip `name` of these frames (T, H, W), damaged `SEEDS` times, one after the other."""
    path = folder / name
    write_clip(path, frames)
    whole, known = read(path)
    files = sorted(path.iterdir()) if path.is_dir() else sorted(folder.glob("a.*")) or [path]
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, FILES.index(name)])
        damage = list(DAMAGES)[rng.integers(len(DAMAGES))]
        apply, unnoticed = DAMAGES[damage]
        victim = files[rng.integers(len(files))]
        data = victim.read_bytes()
        victim.write_bytes(apply(rng, data))
        yield Damaged(path, seed, damage, unnoticed, *outcome(path, whole, known))
        victim.write_bytes(data)
