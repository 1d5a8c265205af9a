"""Folders: those of a source, and where nnU-Net keeps a dataset (nnUNet_raw, nnUNet_preprocessed, nnUNet_results).

nnU-Net itself is not imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"


def raw_folder(given: str | Path | None = None) -> Path:
    """The folder given, else the one in nnUNet_raw. Raises `ValueError` when neither is there."""
    folder = given or os.environ.get(RAW)
    if not folder:
        raise ValueError("nnUNet_raw is not set; set it (export nnUNet_raw=/path) or give the folder with --raw")
    return Path(folder)


def new_dataset_folder(raw: Path, dataset_id: int, name: str) -> Path:
    """The folder DatasetXXX_NAME to be written below `raw`.

    Raises `ValueError` for an id that nnU-Net cannot use or that one of its folders has under another name: it finds
    datasets by their id and stops when two share one.
    """
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"dataset id {dataset_id}: nnU-Net takes 1 to 999")
    folder = f"Dataset{dataset_id:03d}_{name}"
    places = [os.environ.get(variable) for variable in (RAW, PREPROCESSED, RESULTS)]
    for place in (raw, *(Path(place) for place in places if place)):
        others = [path for path in place.glob(f"Dataset{dataset_id:03d}*") if path.name != folder and path.is_dir()]
        if others:
            raise ValueError(f"dataset id {dataset_id} is taken by {others[0]}; choose another id with -d")
    return raw / folder


def find_dataset(dataset: str, raw: str | Path | None = None) -> Path:
    """The raw dataset folder meant by a path, a name such as Dataset751_CAMUS, or an id such as 751.

    Raises `FileNotFoundError` when there is none and `ValueError` when an id has several.
    """
    if Path(dataset).is_dir():
        return Path(dataset)
    folder = raw_folder(raw)
    pattern = f"Dataset{int(dataset):03d}_*" if re.fullmatch(r"\d{1,3}", dataset) else dataset
    found = sorted(path for path in folder.glob(pattern) if path.is_dir()) if "/" not in dataset else []
    if not found:
        raise FileNotFoundError(f"no dataset {dataset} in {folder}; give an id, a name (Dataset751_CAMUS) or a path")
    if len(found) > 1:
        raise ValueError(f"dataset id {dataset} is used by {', '.join(path.name for path in found)}; nnU-Net needs one "
                         "folder an id: rename the others")
    return found[0]


def preprocessed_splits(name: str) -> Path | None:
    """Where nnU-Net's training reads the splits of the dataset called `name`; None before it was preprocessed."""
    preprocessed = os.environ.get(PREPROCESSED)
    if not preprocessed or not (Path(preprocessed) / name).is_dir():
        return None
    return Path(preprocessed) / name / "splits_final.json"


def update_preprocessed_splits(folder: Path) -> None:
    """Bring the splits of the raw dataset `folder` to nnUNet_preprocessed/DATASET, where that exists already.

    Otherwise nnU-Net's planner copies them there (2.8 and later). It keeps a file that is there and stops when that
    differs, so ours replaces it; the other file stays beside it as splits_final.json.old.
    """
    target = preprocessed_splits(folder.name)
    if target is None:
        return
    content = (folder / "splits_final.json").read_bytes()
    if target.is_file() and target.read_bytes() != content:
        os.replace(target, target.with_name("splits_final.json.old"))
    temporary = target.with_name("splits_final.json.unfinished")
    temporary.write_bytes(content)
    os.replace(temporary, target)


def walk_folders(top: Path, enter: Callable[[str], bool]) -> Iterator[tuple[Path, list[str]]]:
    """`top` and the folders below it with the names of their subfolders; those that `enter` denies are not entered.

    Links are followed once. Raises `FileNotFoundError` where `top` is no folder and `OSError` for one that is closed.
    """
    if not top.is_dir():
        hint = "; unpack the archive first" if top.is_file() else ""
        raise FileNotFoundError(f"source folder {top} does not exist or is not a folder{hint}")

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
