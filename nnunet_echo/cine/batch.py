"""Many clips of a folder: which they are, what each result is called, and their numbers in one table.

File names often hold a patient's name. So results are called clip_001, clip_002, ..., in the order of the names, and no
file of them says which clip was which: that is for whoever asked to note, from what the command prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_echo.cine.clips.images import by_numbers, entries_of, is_picture
from nnunet_echo.cine.report import TITLES
from nnunet_echo.cine.result import CineResult
from nnunet_echo.evaluation.output import Row

_DATA = (".raw", ".zraw")  # pixels that belong to an .mhd of the same name


def is_many(path: Path) -> bool:
    """Whether a path is a folder of clips; one of pictures for the most part is one clip, of which they are frames.

    What else is in such a folder is named when it is read.
    """
    entries = entries_of(path) if path.is_dir() else []
    return bool(entries) and 2 * sum(map(is_picture, entries)) <= len(entries)


def list_clips(folder: Path) -> list[Path]:
    """What a folder of clips holds, files and folders of pictures, in the order of the numbers in their names.

    Left out are what systems leave there (`entries_of`) and the pixel files of MetaImage. Nothing is opened.
    """
    entries = entries_of(folder)
    heads = {entry.stem for entry in entries if entry.suffix.lower() == ".mhd"}
    clips = [entry for entry in entries if entry.suffix.lower() not in _DATA or entry.stem not in heads]
    return sorted(clips, key=lambda path: by_numbers(path.name))


def name_results(count: int) -> list[str]:
    """Neutral names for so many results.

    >>> name_results(2)
    ['clip_001', 'clip_002']
    """
    digits = max(3, len(str(count)))
    return [f"clip_{number:0{digits}d}" for number in range(1, count + 1)]


def summary_rows(results: Iterable[tuple[str, CineResult | None]]) -> list[Row]:
    """Rows of summary.csv, one for each (name, result); None is a clip that was not measured, and has no numbers.

    Columns: clip, measured, view, frames, beats; every number that one of them has; refusals and flags by name.
    """
    rows = [_row(name, result) for name, result in results]
    there = {key for row in rows for key in row}
    ends = ("clip", "measured", "view", "frames", "beats"), ("refusals", "flags")
    columns = [*ends[0], *(name for name in TITLES if name in there), *ends[1]]
    return [{column: row.get(column, "") for column in columns} for row in rows]


def _row(name: str, result: CineResult | None) -> Row:
    if result is None:
        return {"clip": name, "measured": "no"}
    loop = result.loops[0]
    return {
        "clip": name,
        "measured": "yes",
        "view": loop.view,
        "frames": loop.clip.count,
        "beats": sum(not beat.refused for beat in loop.complete),
        **{number: float(value) for number, value in result.numbers.items()},
        "refusals": " ".join(dict.fromkeys(refusal.name for refusal in result.refusals)),
        "flags": " ".join(dict.fromkeys(flag.name for flag in result.flags)),
    }
