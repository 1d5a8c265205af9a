"""The folders of a source: walked through once, and what in them looks like a case and is not taken."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_echo.data.errors import printable
from nnunet_echo.data.findings import NOT_TAKEN, Note


def walk_folders(top: Path, enter: Callable[[str], bool]) -> Iterator[tuple[Path, list[str]]]:
    """`top` and the folders below it with the names of their subfolders; those that `enter` rejects are not entered.

    Links are followed once. Raises `FileNotFoundError` where `top` is not a folder, `OSError` for an unreadable one.

    >>> Path("data/patient0001").mkdir(parents=True)
    >>> Path("data/thumbnails").mkdir()
    >>> [folder.as_posix() for folder, _ in walk_folders(Path("data"), enter=lambda name: name != "thumbnails")]
    ['data', 'data/patient0001']
    """
    if not top.is_dir():
        hint = " Unpack the archive first." if top.is_file() else ""
        raise FileNotFoundError(f"source folder {top} does not exist or is not a folder.{hint}")

    def stop(error: OSError) -> None:
        raise error

    seen = set()
    for folder, subfolders, _ in os.walk(top, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield Path(folder), list(subfolders)
        subfolders[:] = filter(enter, subfolders)


def overlooked(
    top: Path, known: Callable[[Path], bool], suspicious: re.Pattern[str], case: re.Pattern[str], hint: str
) -> tuple[list[Note], list[Note]]:
    r"""What below `top` is `suspicious` by its name and not `known`, refused or as warnings; `hint` says what to do.

    `known` gets paths relative to `top`. A folder stands for all that is in it, unless some of that is known. Refused
    is what is named like a `case`, unless a known file or folder has the same name but for case, zeros and what marks a
    copy, such as "(1)": that case is there.

    >>> for name in ("patient0001", "patient02"):
    ...     Path("data", name).mkdir(parents=True)
    >>> known = re.compile(r"patient\d{4}")
    >>> refused, warnings = overlooked(
    ...     Path("data"),
    ...     lambda path: bool(known.fullmatch(path.name)),
    ...     suspicious=re.compile("patient"),
    ...     case=re.compile(r"patient\d+"),
    ...     hint="not read under this name. Rename it like patient0001.",
    ... )
    >>> [note.message for note in refused], warnings
    (['patient02: not read under this name. Rename it like patient0001.'], [])
    """
    seen, names = set(), set()

    def look(folder: Path) -> tuple[list[Path], bool]:
        try:
            entries = sorted(folder.iterdir()) if (real := os.path.realpath(folder)) not in seen else []
        except OSError:
            return [], False
        seen.add(real)
        found, something_known = [], False
        for path in entries:
            if path.name.startswith((".", "__")):
                continue
            inner, inner_known = look(path) if path.is_dir() else ([], False)
            if known(path.relative_to(top)):
                names.add(_plain_name(path.name))
                something_known = True
            elif suspicious.search(path.name) and not inner_known:
                inner = [path]
            found += inner
            something_known |= inner_known
        return found, something_known

    refused: list[Note] = []
    warnings: list[Note] = []
    for path in look(top)[0]:
        lost = case.search(path.name) and _plain_name(path.name) not in names
        relative = printable(path.relative_to(top))
        (refused if lost else warnings).append(Note(NOT_TAKEN, relative, f"{relative}: {hint}"))
    return refused, warnings


def _plain_name(name: str) -> str:
    stem = re.sub(r"\(\d+\)|\b(copy|kopie)\b", "", name.lower()).partition(".")[0]
    return " ".join(part.lstrip("0") for part in re.findall(r"[a-z]+|\d+", stem))
