"""What the page asks for: clips of a size and kind, their views, and what the user knows better than the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from nnunet_echo.cine.clips.images import ITK_ENDINGS
from nnunet_echo.cine.clips.video import ENDINGS
from nnunet_echo.cine.result import VIEWS

# Kinds of files that are told by their names; DICOM and GIF are told by what they hold. MHD is a header without pixels.
KNOWN_ENDINGS = tuple(ending for ending in (*ENDINGS, *ITK_ENDINGS) if ending != ".mhd")
_KEYS = ("sizes", "endings", "views", "spacing", "fps", "region", "smooth")


@dataclass(frozen=True)
class Wanted:
    """One or two clips to measure: `sizes` in bytes, `endings` of `KNOWN_ENDINGS` or "", and options of the measuring.

    >>> read_wanted({"sizes": [120], "endings": [".dcm"], "fps": 50}, limit_bytes=1000)
    Wanted(sizes=(120,), endings=('',), views=(), spacing=None, fps=50.0, region=None, smooth=False)
    """

    sizes: tuple[int, ...]
    endings: tuple[str, ...]
    views: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None
    fps: float | None = None
    region: int | None = None
    smooth: bool = False

    def names(self) -> tuple[str, ...]:
        """What the clips are called here, whatever the user calls them: such a name may hold that of a patient."""
        return tuple(f"clip_{number}{ending}" for number, ending in enumerate(self.endings, 1))


class TooLarge(ValueError):
    """A clip has more bytes than are accepted."""


def read_wanted(content: Any, limit_bytes: int) -> Wanted:
    """What is wanted, of JSON that may be anything. Raises `TooLarge`, and ValueError with a text for the page."""
    if not isinstance(content, Mapping) or not set(content) <= set(_KEYS):
        raise ValueError(f"expected {', '.join(_KEYS)}.")
    sizes, endings = content.get("sizes"), content.get("endings")
    if not _is_list(sizes, int, (1, 2)) or min(sizes) < 0:
        raise ValueError("sizes: expected the bytes of one clip, or of two.")
    if not _is_list(endings, str, (len(sizes),)):
        raise ValueError("endings: expected one for each clip.")
    if max(sizes) > limit_bytes:
        found, most = max(sizes) / 1e6, limit_bytes / 1e6
        raise TooLarge(f"A clip has {found:.1f} MB, and at most {most:.0f} MB are taken. Start with a larger --limit.")
    views = content.get("views") or []
    if views and (not _is_list(views, str, (len(sizes),)) or not set(views) <= {"", *VIEWS}):
        raise ValueError("views: expected 4CH or 2CH for each clip.")
    if len(sizes) == 2 and set(views) != set(VIEWS):
        raise ValueError("Two clips are the two views of one study: one 4CH, the other 2CH.")
    spacing, fps = content.get("spacing"), content.get("fps")
    region, smooth = content.get("region"), content.get("smooth", False)
    if spacing is not None and (not _is_list(spacing, (int, float), (2,)) or not all(map(_above_0, spacing))):
        raise ValueError("Pixel size: height and width must be above 0. Give both in mm.")
    if fps is not None and not _above_0(fps):
        raise ValueError("Frames per second: must be above 0.")
    if region is not None and (not _is_list([region], int, (1,)) or region < 1):
        raise ValueError("Region: must be a whole number from 1.")
    if not isinstance(smooth, bool):
        raise ValueError("smooth: expected true or false.")
    return Wanted(
        tuple(sizes),
        tuple(ending if ending in KNOWN_ENDINGS else "" for ending in endings),
        tuple(views) if any(views) else (),
        None if spacing is None else (float(spacing[0]), float(spacing[1])),
        None if fps is None else float(fps),
        region,
        smooth,
    )


def _is_list(value: Any, kind: type | tuple[type, ...], lengths: tuple[int, ...]) -> TypeGuard[list[Any]]:
    if not isinstance(value, list) or len(value) not in lengths:
        return False
    return all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def _above_0(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
