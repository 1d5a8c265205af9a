"""What a download of EchoNet-Dynamic holds, by its two tables; no video is opened here.

    FileList.csv         FileName, EF, ESV, EDV, FrameHeight, FrameWidth, FPS, NumberOfFrames, Split
    VolumeTracings.csv   FileName, X1, Y1, X2, Y2, Frame: one line of a tracing a row
    Videos/NAME.avi      one video of one patient

FileName has the ending .avi in the second table, and in the first of some copies. Rows are read one by one. A row that
cannot be used costs its video, never the table. The videos may lie in any folder below the tables, and end in .AVI;
a path for a FileName is one that ends in the video's own, or its end; Split may be VALID for VAL.
Source: Ouyang et al., Nature 580, 2020, and the data of that paper.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from nnunet_echo.data.errors import printable
from nnunet_echo.data.findings import Note
from nnunet_echo.data.source_folders import overlooked, walk_folders
from nnunet_echo.data.tables import finite, number_between, read_table, whole_number

LIST, TRACINGS, VIDEOS = "FileList.csv", "VolumeTracings.csv", "Videos"
NAME = re.compile(r"[A-Za-z0-9-]+")  # what may become part of a file name of ours
SUBSETS = ("TRAIN", "VAL", "TEST")
SIZE = (112, 112)
COORDINATES = ("X1", "Y1", "X2", "Y2")
FARTHEST = 1000  # pixels from the corner; a point may lie outside of the picture, but no tracing is as far away
SPLITS = {**{subset: subset for subset in SUBSETS}, "VALID": "VAL", "VALIDATION": "VAL"}
VIDEO_LIKE = re.compile(r"\.(avi|mp4|m4v|mov|mkv|mpe?g|wmv|webm)$", re.IGNORECASE)
SUSPICIOUS = re.compile(rf"{VIDEO_LIKE.pattern}|\.(zip|rar|7z|tgz|tar(\.\w+)?)$", re.IGNORECASE)
Files = dict[str, list[Path]]


@dataclass
class Video:
    """One row of FileList.csv with its tracings, frame -> rows; `problem` says why it cannot be used, if so.

    `subset` is TRAIN, VAL or TEST, or empty where the table has no column Split; `size` the (height, width) it claims.
    """

    name: str
    subset: str
    ef_percent: float | None
    frames: int | None
    size: tuple[int, int]
    problem: str = ""
    rows: dict[int, array] = field(default_factory=dict)
    path: str = ""  # of its file, below the folder of the tables

    def tracing(self, frame: int) -> ndarray:
        """(N, 4) x1 y1 x2 y2, in the order of the table."""
        return np.array(self.rows[frame]).reshape(-1, 4)


def find_source(source: Path) -> Path:
    """The folder with both tables, `source` or below it.

    Raises `FileNotFoundError` when there is none and `ValueError` when there are several.
    """
    found = [folder for folder, _ in walk_folders(source, _may_hold_tables) if (folder / LIST).is_file()]
    if not found:
        raise FileNotFoundError(
            f"no {LIST} below {source}; expected the unpacked EchoNet-Dynamic download with "
            f"{LIST}, {TRACINGS} and {VIDEOS}/."
        )
    if points := [folder for folder in found if _has_points(folder / TRACINGS)]:
        raise ValueError(
            f"{points[0] / TRACINGS} has the columns X and Y: tracings as points, as in "
            f"EchoNet-Pediatric. They are not read; EchoNet-Dynamic has {', '.join(COORDINATES)}."
        )
    if len(found) > 1:
        raise ValueError(f"{LIST} is in {found[0]} and in {found[1]}. Give the folder of one copy as the source.")
    if not (found[0] / TRACINGS).is_file():
        raise FileNotFoundError(f"{found[0]} has no {TRACINGS} beside {LIST}; without it there is no mask.")
    return found[0]


def read_videos(root: Path) -> tuple[dict[str, Video], bool, list[Note], list[Note]]:
    """The videos by name, whether the release's split is known, what was refused already, and the warnings.

    Raises `ValueError` for a table that cannot be read completely.
    """
    videos: dict[str, Video] = {}
    refused: list[Note] = []
    warnings: list[Note] = []
    files = _video_files(root)
    header, rows = read_table(root / LIST, ("FileName", "EF"))
    first: dict[str, tuple[Video, dict[str, str]]] = {}  # by name without case: files of both would be one
    for line, row in rows:
        where, name = f"{LIST}, line {line}", _name(row["FileName"], files)
        if name is None:
            refused.append(Note("unusable row", where, f"{where}: FileName is {row['FileName']!r}, not a plain name."))
            continue
        video, values = first.setdefault(name.lower(), (_video(name, row, where, files, warnings), row))
        if values is row:
            videos[name] = video
        elif name == video.name and values == {**row, "FileName": values["FileName"]}:
            warnings.append(Note("row twice", name, f"{where}: repeats an earlier row."))
        else:
            video.problem = f"{where}: names it again ({name}), with other values."
    if refused and not videos:
        raise ValueError(f"no row of {root / LIST} can be used; the first: {refused[0].message}")
    _read_tracings(root / TRACINGS, videos, files, refused)
    for kinds, more in zip((refused, warnings), _unlisted(root, videos), strict=True):
        kinds += more
    return videos, "Split" in header, refused, warnings


def _video_files(root: Path) -> Files:
    """The paths of all .avi below `root`, by their names without ending and in lower case.

    Raises `FileNotFoundError`, which says what is there, when there is none.
    """
    files: Files = {}
    for folder, _ in walk_folders(root, lambda name: not name.startswith((".", "__"))):
        for name in sorted(os.listdir(folder)):
            stem, ending = os.path.splitext(name)
            if ending.lower() == ".avi":
                files.setdefault(stem.lower(), []).append((folder / name).relative_to(root))
    if not files:
        named, _ = overlooked(root, lambda path: False, SUSPICIOUS, VIDEO_LIKE, "")
        there = [note.subject for note in named] or sorted(
            printable(name) for name in os.listdir(root) if not name.startswith(".")
        )
        raise FileNotFoundError(
            f"no videos, {VIDEOS}/NAME.avi, beside {LIST} in {root} or below it; there is "
            f"{', '.join(there[:8])}{' and more' * (len(there) > 8)}."
        )
    return files


def _unlisted(root: Path, videos: Mapping[str, Video]) -> tuple[list[Note], list[Note]]:
    """Videos, and what may hold some, that belong to no row, refused or as warnings."""
    taken = {video.path for video in videos.values()}
    return overlooked(
        root,
        lambda path: path.as_posix() in taken,
        SUSPICIOUS,
        VIDEO_LIKE,
        f"a video that no row of {LIST} names, or an archive, not taken. List it, unpack it or move it away.",
    )


def _has_points(tracings: Path) -> bool:
    try:
        with tracings.open(encoding="utf-8-sig", errors="replace") as file:
            header = {name.strip().strip('"').upper() for name in file.readline(10_000).split(",")}
    except OSError:
        return False
    return {"X", "Y"} <= header


def _may_hold_tables(name: str) -> bool:
    return name != VIDEOS and not name.startswith((".", "__"))


def _video(name: str, row: dict[str, str], where: str, files: Files, warnings: list[Note]) -> Video:
    ef = number_between(row["EF"], 0, 100)
    if ef is None:
        warnings.append(Note("EF unknown", name, f"{where}: EF is {row['EF']!r}, not a number in 0..100; left empty."))
    frames = whole_number(row.get("NumberOfFrames", ""))
    if frames is None:
        warnings.append(Note("frames unknown", name, f"{where}: no NumberOfFrames to compare the video with."))
    height, width = whole_number(row.get("FrameHeight", "")), whole_number(row.get("FrameWidth", ""))
    size = SIZE if height is None or width is None else (height, width)
    subset = row.get("Split", "").strip().upper()
    usual, here = Path(VIDEOS, f"{name}.avi"), files.get(name.lower(), [])
    paths = [usual] if usual in here or not here else [path for path in here if path.stem == name] or here
    video = Video(name, SPLITS.get(subset, subset), ef, frames, size, path=paths[0].as_posix())
    if len(paths) > 1:
        video.problem = f"{where}: there are {paths[0].as_posix()} and {paths[1].as_posix()}. Keep one of them."
    if "Split" in row and video.subset not in SUBSETS:
        video.problem = f"{where}: Split is {row['Split']!r}, not {', '.join(SUBSETS)}."
    return video


def _read_tracings(path: Path, videos: dict[str, Video], files: Files, refused: list[Note]) -> None:
    unnamed: dict[str, str] = {}
    unlisted: dict[str, str] = {}
    for line, row in read_table(path, ("FileName", *COORDINATES, "Frame"))[1]:
        where, name = f"{TRACINGS}, line {line}", _name(row["FileName"], files)
        if name is None:
            unnamed.setdefault(row["FileName"], where)
        elif name not in videos:
            unlisted.setdefault(name, where)
        else:
            video, frame = videos[name], whole_number(row["Frame"])
            values = [finite(row[key]) for key in COORDINATES]
            if frame is None or not all(value is not None and abs(value) <= FARTHEST for value in values):
                texts = ", ".join(f"{key} {row[key]!r}" for key in (*COORDINATES, "Frame"))
                video.problem = video.problem or f"{where}: not four coordinates and a frame: {texts}."
            else:
                video.rows.setdefault(frame, array("d")).extend(values)
    refused += [
        Note("unusable row", where, f"{where}: FileName is {text!r}, not a plain name.")
        for text, where in unnamed.items()
    ]
    refused += [Note("not listed", name, f"{where}: is traced, but not in {LIST}.") for name, where in unlisted.items()]


def _name(text: str, files: Files) -> str | None:
    """The name of a video in the column FileName; None where it is none, nor a path that ends in a video's own or is
    the end of it."""
    path = re.sub(r"\.avi$", "", text.strip(), flags=re.IGNORECASE).replace("\\", "/")
    name = path.rpartition("/")[2]
    own = [f"/{file.with_suffix('').as_posix()}".lower() for file in files.get(name.lower(), [])]
    ours = f"/{path.lower().lstrip('/')}"
    if name != path and not any(ours.endswith(file) or file.endswith(ours) for file in own):
        return None
    return name if NAME.fullmatch(name) else None
