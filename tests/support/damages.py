"""Random damages of a download: each changes a copy of it in one way, drawn by a random number generator.

It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

TEXT = (".csv", ".cfg", ".txt", ".mhd")
TABLES = (".csv", ".txt")
PATHS = ("../../evil", "/etc/passwd", "..", "a/b", "C:\\evil", "patient0001/../x", "~", "x" * 300, "\u0661", "a\x1bb")
VALUES = ("nan", "inf", "-1", "", "1e999", "many", "0x1F", "1,5", "99999999999999999999")


def some_file(rng: Generator, source: Path, *endings: str) -> Path | None:
    """A file of the source, None where there is none of these endings; half of the time a picture if there is one."""
    files: dict[str, list[Path]] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file() and path.name != "PHANTOM.txt"):
        if not endings or path.name.endswith(endings):
            files.setdefault(path.suffix, []).append(path)
    if not files:
        return None
    kinds = sorted(set(files) - set(TEXT)) if rng.random() < 0.5 and set(files) - set(TEXT) else sorted(files)
    kind = files[kinds[rng.integers(len(kinds))]]
    return kind[rng.integers(len(kind))]


def on_bytes(change: Callable[[Generator, bytearray], object]) -> Callable[[Generator, Path], Path]:
    def apply(rng: Generator, source: Path) -> Path:
        path = some_file(rng, source)
        data = bytearray(path.read_bytes())
        path.write_bytes(change(rng, data) or data)
        return path

    return apply


def flip(count: int) -> Callable[[Generator, bytearray], None]:
    def change(rng: Generator, data: bytearray) -> None:
        for position in rng.integers(0, len(data), count):
            data[position] ^= int(rng.integers(1, 256))

    return change


def blank(rng: Generator, data: bytearray) -> None:
    start = int(rng.integers(0, len(data)))
    data[start : start + 200] = bytes(len(data[start : start + 200]))


def instead(make: Callable[[Path], object]) -> Callable[[Generator, Path], Path]:
    """Something else in the place of a file."""

    def apply(rng: Generator, source: Path) -> Path:
        path = some_file(rng, source)
        path.unlink()
        make(path)
        return path

    return apply


def empty(rng: Generator, source: Path) -> Path:
    path = some_file(rng, source)
    path.write_bytes(b"")
    return path


def swap(rng: Generator, source: Path) -> Path:
    """Two files of one kind exchange their places."""
    first = some_file(rng, source)
    second = some_file(rng, source, "".join(first.suffixes))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    return first


def rename(rng: Generator, source: Path) -> Path:
    path = some_file(rng, source)
    position = int(rng.integers(len(path.name)))
    name = path.name[:position] + "x7_"[rng.integers(3)] + path.name[position + 1 :]
    if not (path.parent / name).exists():
        path.rename(path.parent / name)
    return path


def misplace(rng: Generator, source: Path) -> Path:
    """A copy of a file in another folder."""
    path = some_file(rng, source)
    folders = sorted(folder for folder in source.rglob("*") if folder.is_dir())
    folder = folders[rng.integers(len(folders))]
    if not (folder / path.name).exists():
        shutil.copy(path, folder)
    return path


def lose_folder(rng: Generator, source: Path) -> Path:
    folders = sorted({path.parent for path in source.rglob("*") if path.is_file()} - {source})
    folder = folders[rng.integers(len(folders))]
    shutil.rmtree(folder)
    return folder


def double_folder(rng: Generator, source: Path) -> Path:
    folders = sorted({path.parent for path in source.rglob("*") if path.is_file()} - {source})
    folder = folders[rng.integers(len(folders))]
    shutil.copytree(folder, source / "again" / folder.name)
    return folder


def loop(rng: Generator, source: Path) -> Path:
    """A folder that is a link to one above it."""
    folders = sorted(folder for folder in source.rglob("*") if folder.is_dir())
    link = folders[rng.integers(len(folders))] / "loop"
    link.symlink_to((source, link.parent)[rng.integers(2)])
    return link


def on_text(change: Callable[[Generator, list[str]], list[str]], *endings: str) -> Callable[[Generator, Path], Path]:
    def apply(rng: Generator, source: Path) -> Path:
        path = some_file(rng, source, *endings) or some_file(rng, source, *TEXT)
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{line}\n" for line in change(rng, lines)), encoding="utf-8")
        return path

    return apply


def drop_rows(rng: Generator, lines: list[str]) -> list[str]:
    start, count = int(rng.integers(len(lines))), int(rng.choice([1, 1, 5, 21]))
    return lines[:start] + lines[start + count :]


def double_rows(rng: Generator, lines: list[str]) -> list[str]:
    start, count = int(rng.integers(len(lines))), int(rng.choice([1, 1, 5, 21]))
    return lines[: start + count] + lines[start : start + count] + lines[start + count :]


def shuffle_rows(rng: Generator, lines: list[str]) -> list[str]:
    """Rows in another order, all of them or a few neighbours; the header stays."""
    start = int(rng.integers(1, max(2, len(lines))))
    part = lines[start : start + int(rng.choice([2, 10, 10**6]))]
    return lines[:start] + [part[index] for index in rng.permutation(len(part))] + lines[start + len(part) :]


def _field(rng: Generator, lines: list[str], values: tuple[str, ...], first: bool) -> list[str]:
    """Another value in one field, of the first column or of the others, of one row; of a list, the row itself."""
    number = int(rng.integers(len(lines)))
    separator = next((mark for mark in (",", "=", ":") if mark in lines[number]), "")
    fields = lines[number].split(separator) if separator else [lines[number]]
    place = 0 if first and separator == "," else int(rng.integers(min(1, len(fields) - 1), len(fields)))
    fields[place] = values[rng.integers(len(values))]
    return [*lines[:number], separator.join(fields), *lines[number + 1 :]]


def recode(rng: Generator, source: Path) -> Path:
    """The same text in another encoding, with other line ends, or with a byte that is not UTF-8."""
    path = some_file(rng, source, *TEXT)
    text = path.read_text(encoding="utf-8")
    place = int(rng.integers(len(text)))
    recoded = (
        text.encode("utf-16"),
        text.encode("utf-8-sig"),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
        text[:place].encode() + b"\xe9" + text[place:].encode(),
        text.replace(",", ";").encode(),
        text[:place].encode() + b"\0" + text[place:].encode(),
    )
    path.write_bytes(recoded[rng.integers(len(recoded))])
    return path


# What each does, and whether the files that it leaves can hold another picture, mask or number without a sign of it:
# bytes of files without a checksum, and files of one size that changed places.
DAMAGES: dict[str, tuple[Callable[[Generator, Path], Path], bool]] = {
    "one byte changed": (on_bytes(flip(1)), True),
    "20 bytes changed": (on_bytes(flip(20)), True),
    "200 bytes zero": (on_bytes(blank), True),
    "cut off": (on_bytes(lambda rng, data: data[: int(rng.integers(0, len(data)))]), False),
    "bytes added": (on_bytes(lambda rng, data: data + rng.bytes(int(rng.integers(1, 60)))), False),
    "empty": (empty, False),
    "missing": (instead(lambda path: None), False),
    "a folder instead": (instead(Path.mkdir), False),
    "a link to itself instead": (instead(lambda path: path.symlink_to(path.name)), False),
    "a pipe instead": (instead(os.mkfifo), False),
    "swapped": (swap, True),
    "renamed": (rename, False),
    "misplaced": (misplace, False),
    "folder missing": (lose_folder, False),
    "folder twice": (double_folder, False),
    "folders in a circle": (loop, False),
    "rows dropped": (on_text(drop_rows, *TABLES), False),
    "rows doubled": (on_text(double_rows, *TABLES), False),
    "rows in another order": (on_text(shuffle_rows, *TABLES), False),
    "no number": (on_text(lambda rng, lines: _field(rng, lines, VALUES, False), *TEXT), False),
    "a path for a name": (on_text(lambda rng, lines: _field(rng, lines, PATHS, True), *TEXT), False),
    "another encoding": (recode, False),
}
