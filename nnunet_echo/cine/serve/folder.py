"""The one folder that clips and results lie in while the page is served: for its owner's eyes, and gone at the end.

What a kill -9 leaves, the next start removes: a folder whose lock nobody holds is abandoned.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "nnunet-echo-serve-"
_LOCK = "lock"
_YOUNG_S = 60.0  # a folder may be this old before its lock is missed


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder (mode 0700) where temporary files go; removed with all it holds. Those abandoned before go first.

    Raises RuntimeError where it cannot be removed.
    """
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _try_lock(lock)
        yield folder
    finally:
        remove(folder)
        os.close(lock)
        if folder.exists():
            raise RuntimeError(f"{folder}: could not be removed, and may hold clips. Delete it.")


def remove_abandoned() -> None:
    """Remove such folders of this user whose process is gone; does nothing on systems without such locks."""
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                if _is_abandoned(folder):
                    remove(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; twice, as a thread may have added a file meanwhile."""
    for _ in range(2):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(folder: Path) -> bool:
    about = folder.lstat()
    if not hasattr(os, "getuid") or about.st_uid != os.getuid() or folder.is_symlink():
        return False
    if time.time() - about.st_mtime < _YOUNG_S:
        return False
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _try_lock(lock)
    finally:
        os.close(lock)


def _try_lock(file: int) -> bool:
    """Whether the lock is ours now; never, where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
