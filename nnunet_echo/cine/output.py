"""The folder of a result: it appears when all in it is written, and what cannot be one is refused before any work."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new(out: Path, *, many: bool = False) -> Path:
    """Where the result `out` will lie, links followed; with `many` it is a folder of results that are to come.

    Raises FileExistsError for a folder that has anything in it, or a file, and ValueError where no folder can be made,
    which is tried, and for one that a result cannot replace: the current one, or one on which a disk is mounted.

    >>> check_new(Path("new")) == Path("new").resolve()
    True
    """
    try:
        place = Path(os.path.realpath(out))
        if place.is_symlink():
            raise ValueError(f"{out}: is a link that leads to itself. Choose another folder.")
        there = place.exists()
        if there and (not place.is_dir() or any(place.iterdir())):
            raise FileExistsError(f"{out}: is there already and not empty; it is not replaced. Choose another folder.")
        if there and not many and (place == Path.cwd() or place.is_mount()):
            raise ValueError(f"{out}: is the current folder, or a mounted one. Name a new folder in it.")
        parent = place if there and many else place.parent
        while not parent.exists():
            parent = parent.parent
        trial = _unfinished(parent, place.name)
        try:
            (trial / place.relative_to(parent)).mkdir(parents=True, exist_ok=True)
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(f"{out}: no folder can be made there ({error.strerror}). Choose another.") from error
    return place


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, which becomes `out` at the end, and goes where anything is raised.

    Raises as `check_new`.

    >>> with new_folder(Path("new")) as unfinished:
    ...     (unfinished / "file").touch()
    >>> [path.name for path in Path("new").iterdir()]
    ['file']
    """
    place = check_new(out)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(place.parent, place.name)
    try:
        yield unfinished
        unfinished.chmod(0o777 & ~_umask())
        os.rename(unfinished, place)  # onto nothing, or an empty folder
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _unfinished(parent: Path, name: str) -> Path:
    """A hidden folder for what becomes `name`, of which it has no more than a name may."""
    return Path(tempfile.mkdtemp(prefix=f".{name[:40]}.unfinished.", dir=parent))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
