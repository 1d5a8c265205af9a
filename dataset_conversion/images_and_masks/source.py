"""The images and masks in a folder: which folders, which belong together, whose they are.

A case is called like its image: the path below the folder of images, without its ending, `/` as `_`, and `-` for all
but letters, digits, _ and -. A mask has the name of its image, or that with one of `MASK_SUFFIXES`; an image may have
one of `IMAGE_SUFFIXES`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.errors import printable
from nnunet_echo.data.findings import NOT_TAKEN
from nnunet_echo.data.patients import GROUPS, patient_pattern
from nnunet_echo.data.reader import Reading
from nnunet_echo.data.source_folders import walk_folders
from nnunet_echo.data.splits import SUBSETS
from nnunet_echo.data.tables import read_table

from .files import ENDINGS

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "frames", "imagestr")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentations", "gt", "labelstr")
IMAGE_SUFFIXES = re.compile(r"[_.-](image|img|0000)$", re.IGNORECASE)
MASK_SUFFIXES = re.compile(r"[_.-](masks?|gt|labels?|seg|segmentation|annotation)$", re.IGNORECASE)
VIDEOS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".mpg", ".mpeg", ".webm", ".gif")
DATA_OF_A_HEADER = (".raw", ".zraw")


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths relative to the source, and the name of their case."""

    name: str
    image: str
    mask: str


@dataclass(frozen=True)
class Listed:
    """A row of the table of patients."""

    patient: str
    groups: Mapping[str, str]
    subset: str


@dataclass(frozen=True)
class Patients:
    """How the patient of a case is found: by dataset.json's `pattern`, or first by a table, image -> row."""

    pattern: str
    groups: tuple[str, ...] = ()
    table: Mapping[str, Listed] = field(default_factory=dict)

    def case_id(self, pair: Pair) -> str:
        """Raises `ValueError` for an image whose patient is not known."""
        if not self.table:
            if not patient_of(pair.name, {"case_id_pattern": self.pattern}):
                raise ValueError("the pattern finds an empty patient")
            return pair.name
        row = self.row(pair)
        if row is None:
            raise ValueError("the table has no row with this image")
        return "_".join([self.table[row].patient, *self.table[row].groups.values(), pair.name])

    def row(self, pair: Pair) -> str | None:
        """The image's name in the table: its path, the name of the file, with or without its ending, or the case's."""
        path = Path(pair.image)
        return next((name for name in (pair.image, path.name, stem(path.name), pair.name) if name in self.table), None)


def image_and_mask_folders(source: Path, images: str | None, masks: str | None) -> tuple[Path, Path]:
    """Both folders, given or guessed by name. Raises `FileNotFoundError` or `ValueError`, naming what is there."""
    entries = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = []
    for option, given, known in (("--images", images, IMAGE_FOLDERS), ("--masks", masks, MASK_FOLDERS)):
        if given is not None:
            folder = source / given
            if not folder.resolve().is_relative_to(source.resolve()):
                raise ValueError(f"{option} {given}: it must lie inside {source}.")
            if not folder.is_dir():
                raise FileNotFoundError(f"{option} {given}: {folder} is not there or no folder.")
            found.append(folder)
            continue
        named = [path for path in entries if path.name.lower() in known]
        if len(named) > 1:
            raise ValueError(f"{source} has {' and '.join(path.name for path in named)}. Choose one with {option}.")
        if not named:
            there = ", ".join(printable(path.name) for path in entries) or "no folders"
            raise FileNotFoundError(
                f"{source} has no folder called {', '.join(known[:-1])} or {known[-1]}, but "
                f"{there}. Name it with {option} DIR ({option} . for {source.name} itself)."
            )
        found.append(named[0])
    return found[0], found[1]


def pairs(source: Path, images: Path, masks: Path, reading: Reading) -> list[Pair]:
    """Every image with its mask; what has none, and what is not an image, is noted in `reading` by name."""
    together = images.resolve() == masks.resolve()
    image_files = _files(source, images, reading, exclude=None if together else masks)
    mask_files = image_files if together else _files(source, masks, reading, exclude=images)
    if together:  # only the suffix tells them apart
        mask_files = {path: name for path, name in image_files.items() if MASK_SUFFIXES.search(name)}
        image_files = {path: name for path, name in image_files.items() if path not in mask_files}
    by_name: dict[str, set[str]] = defaultdict(set)
    for path, name in mask_files.items():
        for alias in {name, MASK_SUFFIXES.sub("", name)}:
            by_name[alias].add(path)
    found, used = [], defaultdict(list)
    for path, name in image_files.items():
        key = next((key for key in (name, IMAGE_SUFFIXES.sub("", name)) if key in by_name), None)
        if key is None:
            reading.refuse(
                "no mask",
                safe(name),
                f"{path}: no file in {_relative(masks, source)} has its name, or that with a suffix such as _mask.",
            )
        elif len(by_name[key]) > 1:
            for mask in by_name[key]:
                used[mask].append(path)
            reading.refuse(
                "several masks", safe(key), f"{path}: {' and '.join(sorted(by_name[key]))} could be its mask. Keep one."
            )
        else:
            (mask,) = by_name[key]
            used[mask].append(path)
            found.append(Pair(safe(key), path, mask))
    for mask in sorted(mask_files.keys() - used.keys()):
        reading.refuse(
            "no image", safe(mask_files[mask]), f"{mask}: no image in {_relative(images, source)} has its name."
        )
    return _without_collisions(found, used, reading)


def safe(name: str) -> str:
    """The name reduced to letters, digits, _ and -."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name.replace("/", "_"))


def stem(name: str) -> str:
    """The name of a file without its ending."""
    return name[: -len(_ending(name))] if _ending(name) else name


def read_patients(patients: str | None) -> Patients:
    """What --patients says: a table where it is a file or ends with .csv, else a regular expression.

    Raises `ValueError` for one that cannot be used.
    """
    if patients is None:
        return Patients(r"(?P<patient>.+)")
    if Path(patients).is_file() or patients.lower().endswith(".csv"):
        return _read_patient_table(Path(patients))
    pattern = patient_pattern(patients)
    return Patients(pattern, tuple(group for group in GROUPS if group in re.compile(pattern).groupindex))


def _read_patient_table(path: Path) -> Patients:
    header, rows = read_table(path, ("image", "patient"))
    groups = tuple(group for group in GROUPS if group in header)
    table: dict[str, Listed] = {}
    names: dict[str, str] = {}
    subsets: dict[str, str] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        image, name, subset = (row.get(column, "").strip() for column in ("image", "patient", "subset"))
        patient = re.sub(r"[^A-Za-z0-9]+", "-", name)
        values = {group: re.sub(r"[^A-Za-z0-9]+", "-", row[group].strip()) for group in groups}
        if not image or not name:
            raise ValueError(f"{where}: image is {image!r} and patient {name!r}; both are needed.")
        if values.get("frame", "0") and not values.get("frame", "0").isdecimal():
            raise ValueError(f"{where}: frame is {values['frame']!r}; it must be a number, or empty.")
        if subset not in ("", *SUBSETS):
            raise ValueError(f"{where}: subset is {subset!r}; it must be {', '.join(SUBSETS)}, or empty.")
        if image in table:
            raise ValueError(f"{where}: {image} is in the table already; each image has one row.")
        if names.setdefault(patient, name) != name:
            raise ValueError(
                f"{where}: patients {names[patient]!r} and {name!r} would both be called {patient}. Rename one of them."
            )
        if subsets.setdefault(patient, subset) != subset:
            raise ValueError(
                f"{where}: {name} is in subset {subsets[patient]!r} above and {subset!r} here; a patient "
                "belongs to one subset."
            )
        table[image] = Listed(patient, values, subset)
    if not table:
        raise ValueError(f"{path}: no rows; each image needs one.")
    # Parts without _ that are all there, if empty, so that a name can be read in one way only.
    optional = "".join(rf"(?P<{group}>{r'[0-9]*' if group == 'frame' else '[A-Za-z0-9-]*'})_" for group in groups)
    return Patients(rf"(?P<patient>[A-Za-z0-9-]+)_{optional}(?P<image>.+)", groups, table)


def _files(source: Path, folder: Path, reading: Reading, exclude: Path | None) -> dict[str, str]:
    """Path relative to the source -> name relative to the folder, without its ending, of all files that can be read."""
    found = {}
    outside = exclude and exclude.resolve()
    for place, _ in walk_folders(folder, lambda name: not name.startswith((".", "__"))):
        if outside and place.resolve().is_relative_to(outside) and not folder.resolve().is_relative_to(outside):
            continue
        for path in sorted(place.iterdir()):
            if path.is_dir() or path.name.startswith((".", "__")):
                continue
            relative, ending = _relative(path, source), path.suffix.lower()
            if _ending(path.name):
                found[relative] = stem(path.relative_to(folder).as_posix())
            elif ending in VIDEOS:
                reading.refuse(
                    "video",
                    safe(path.stem),
                    f"{printable(relative)}: a video; images of single frames are needed. Write its frames to files.",
                )
            elif ending not in DATA_OF_A_HEADER:
                reading.warn(
                    NOT_TAKEN,
                    printable(relative),
                    f"{printable(relative)}: no image of a kind that is read ({', '.join(ENDINGS)}).",
                )
    return found


def _without_collisions(found: list[Pair], used: Mapping[str, list[str]], reading: Reading) -> list[Pair]:
    """The pairs that share neither name nor mask with another."""
    names = defaultdict(list)
    for pair in found:
        names[pair.name.casefold()].append(pair.image)
    kept = []
    for pair in found:
        if len(used[pair.mask]) > 1:
            reading.refuse(
                "shared mask",
                pair.name,
                f"{pair.image}: {pair.mask} is the mask of {' and '.join(used[pair.mask])}; each image needs its own.",
            )
        elif len(alike := names[pair.name.casefold()]) > 1:
            reading.refuse(
                "name twice", pair.name, f"{pair.image}: {' and '.join(alike)} would be case {pair.name}. Rename them."
            )
        else:
            kept.append(pair)
    return kept


def _ending(name: str) -> str:
    return next((name[-len(ending) :] for ending in ENDINGS if name.lower().endswith(ending)), "")


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()
