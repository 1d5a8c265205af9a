"""The folder that a conversion writes to: locked while it does, and refused where something would be lost.

A dataset's conversion_report.json names its source, its options and its files. The folder is taken for another's when
these options differ from those of this conversion, when it has cases that this source does not have, or when pictures
or masks in it are not those that this source gives. So a source that was moved stays the same source, and one that
changed, at the same place, is another. Data that nnU-Net has preprocessed are compared in the same way, by their
gt_segmentations: training on them would be training on other cases.

The lock is the file .DatasetXXX.lock beside the folder, of one dataset id, held by flock, which ends with its process
however that ends, on NFS too. On a file system without locks, and on Windows, a warning takes its place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_echo.data.findings import Note
from nnunet_echo.nnunet.folders import OLD, free_name, preprocessed_splits, update_preprocessed_splits

FILE_ENDING = ".nii.gz"
IMAGE_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
SCRATCH = ".unfinished"
REPORT = "conversion_report.json"
BY_HAND = ("dataset.json", "splits_final.json")  # what users edit
OUR_FILE = re.compile(r"(imagesTr|imagesTs)/[A-Za-z0-9_-]+_0000\.nii\.gz|(labelsTr|labelsTs)/[A-Za-z0-9_-]+\.nii\.gz")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other conversion out of the dataset id of `folder`, DatasetXXX_NAME. Raises `OSError`, which says who
    has it."""
    try:
        import fcntl
    except ImportError:
        _warn_of_no_lock(folder, "this system has no flock")
        yield
        return
    path = folder.parent / f".{folder.name[:10]}.lock"
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    lock = _open_locked(path, folder, fcntl)
    try:
        try:
            os.ftruncate(lock, 0)
            os.write(lock, owner.encode())
        except OSError as error:
            raise OSError(f"cannot write {path} ({error.strerror}). Is the disk full or read-only?") from error
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: who opened it meanwhile looks again
        os.close(lock)


def _open_locked(path: Path, folder: Path, fcntl: ModuleType) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(f"cannot create {path} ({error.strerror}).") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(lock, 1000).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise BlockingIOError(
                f"{folder} is being written by {owner}. Wait until that conversion has ended, or "
                "choose another dataset id with -d."
            ) from error
        except OSError as error:
            _warn_of_no_lock(folder, str(error))
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # its owner removed it between our opening and our locking


def _warn_of_no_lock(folder: Path, reason: str) -> None:
    logging.getLogger(__name__).warning(
        "%s cannot be locked (%s). See that no other conversion writes to it.", folder, reason
    )


@dataclass(frozen=True)
class Earlier:
    """What an earlier conversion left in a folder: its record, its files by that, and those of them that are there."""

    record: Mapping[str, Any] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    there: frozenset[str] = frozenset()

    def other_options(self, record: Mapping[str, Any]) -> list[str]:
        """How its options differ from those of this conversion's record; empty where none of its files is there."""
        before, now = (_all_options(json.loads(json.dumps(content))) for content in (self.record, record))
        if not self.there or not before:
            return []
        return [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in {**before, **now}
            if _plain(before.get(name)) != _plain(now.get(name))
        ]


def look(folder: Path, converter: str) -> Earlier:
    """What is in the folder. Raises `FileExistsError` where that is not, or not only, the work of this converter."""
    try:
        entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise OSError(f"cannot read {folder} ({error.strerror or error}).") from error
    if not entries - {SCRATCH}:
        return Earlier()
    try:
        record = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        owner = record["converter"].split()[0]
        files = {name for name in record["files"] if OUR_FILE.fullmatch(name)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError) as error:
        raise FileExistsError(
            f"{folder} exists without a readable {REPORT}, so this converter did not write it. "
            "Move it away or choose another dataset id."
        ) from error
    if owner != converter.split()[0]:
        raise FileExistsError(f"{folder} was written by {owner}. Move it away or choose another dataset id.")
    # Others, such as the .DS_Store of a Mac, nnU-Net passes over, and we do.
    there = {f"{part}/{path.name}" for part in IMAGE_FOLDERS for path in (folder / part).glob(f"*{FILE_ENDING}")}
    if foreign := sorted(there - files):
        raise FileExistsError(
            f"{folder} holds {len(foreign)} file(s) that this converter did not write, first "
            f"{foreign[0]}; nnU-Net would take them for cases. Move them away."
        )
    return Earlier(record, frozenset(files), frozenset(there))


def begin(folder: Path, record: Mapping[str, Any], earlier: Earlier, planned: Collection[str], replace: bool) -> None:
    """Make the folder ours and unfinished; with `replace` without the files of the earlier conversion."""
    try:
        (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot create {folder} ({error.strerror or error}).") from error
    for leftover in (folder / SCRATCH).iterdir():
        leftover.unlink()
    _try_renaming(folder)
    # First of all, so that the folder is known as ours whenever we are stopped from here on.
    write_json(folder, REPORT, {**record, "finished": False, "files": sorted(earlier.files | set(planned))})
    for part in IMAGE_FOLDERS:
        (folder / part).mkdir(exist_ok=True)
    if not replace:  # nobody knows yet whether they were edited by hand: `give_way` sees
        for name in BY_HAND:
            if (folder / name).exists():
                os.replace(folder / name, free_name(folder / f"{name}{OLD}"))
    stale = [*sorted(earlier.files), *BY_HAND, "cases.csv", "conversion_report.txt"] if replace else []
    for name in stale:
        (folder / name).unlink(missing_ok=True)


def give_way(folder: Path, contents: Mapping[str, str]) -> list[Note]:
    """Before `contents` of the files BY_HAND are written: bring the split to nnU-Net's preprocessed data as well.

    Says what a hand, or an earlier run, had written otherwise, and where that is now.
    """
    old = [old for name, content in contents.items() for old in _drop_equal(folder / name, content.encode())]
    old += filter(None, [update_preprocessed_splits(folder.name, contents["splits_final.json"].encode())])
    return [
        Note(
            "kept beside",
            path.name.partition(OLD)[0],
            f"it was not what this conversion writes; what it was is {path} now. Take from it what you need.",
        )
        for path in old
    ]


def _drop_equal(path: Path, content: bytes) -> list[Path]:
    """What `path` was before, PATH.old and so on, where that is something else; removes what is not."""
    kept = []
    for old in sorted(path.parent.glob(f"{path.name}{OLD}*")):
        if old.read_bytes() == content:
            old.unlink()
        else:
            kept.append(old)
    return kept


def _try_renaming(folder: Path) -> None:
    """Files get their names by being renamed, which is impossible across file systems."""
    for part in IMAGE_FOLDERS:
        if not (folder / part).exists():
            continue
        trial, renamed = folder / SCRATCH / part, folder / part / SCRATCH
        try:
            trial.touch()
            os.replace(trial, renamed)
            renamed.unlink()
        except OSError as error:
            trial.unlink(missing_ok=True)
            raise OSError(
                f"cannot write {folder / part} ({error.strerror}). It must be a folder on the file system of "
                f"{folder}, since files are written there and renamed. To keep the data elsewhere, make "
                f"{folder.name} itself a link."
            ) from error


def write_json(folder: Path, name: str, content: object) -> None:
    write_text(folder, name, as_json(content))


def as_json(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"


def write_text(folder: Path, name: str, content: str) -> None:
    temporary = folder / SCRATCH / name
    try:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(temporary, folder / name)
    except OSError as error:
        raise OSError(f"cannot write {folder / name} ({error}). Is the disk full or read-only?") from error


def preprocessed_masks(name: str) -> Path | None:
    """nnU-Net's copies of the training masks in its preprocessed data of the dataset `name`; None without any."""
    splits = preprocessed_splits(name)
    masks = splits and splits.with_name("gt_segmentations")
    return masks if masks and any(masks.glob(f"*{FILE_ENDING}")) else None


def missing_in_preprocessed(folder: Path, training: Sequence[str]) -> list[Note]:
    """A warning where the preprocessed data of a dataset lack training cases."""
    masks = preprocessed_masks(folder.name)
    if masks is None:
        return []
    missing = [case for case in training if not (masks / f"{case}{FILE_ENDING}").exists()]
    if not missing:
        return []
    text = f"{masks.parent} lacks {len(missing)} training cases, such as {missing[0]}"
    return [Note("not preprocessed", folder.name, f"{text}. Preprocess again before you train.")]


def set_aside(folder: Path) -> Path:
    """Rename a folder DatasetXXX_NAME, so that nnU-Net finds it no more; returns what it is called then."""
    number = 1
    while (new := folder.with_name(f"replaced_{number}_{folder.name}")).exists():
        number += 1
    os.replace(folder, new)
    return new


def _all_options(record: Mapping[str, Any]) -> dict[str, Any]:
    options = record.get("options")
    return {**options, "split_file_sha256": record.get("split_file_sha256")} if isinstance(options, dict) else {}


def _plain(value: object) -> object:
    return sorted(value, key=str) if isinstance(value, list) else value
