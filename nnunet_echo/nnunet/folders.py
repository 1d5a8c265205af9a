"""Where nnU-Net keeps a dataset (nnUNet_raw, nnUNet_preprocessed, nnUNet_results).

nnU-Net itself is not imported.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

OLD = ".old"  # behind the name of a file that gave way to another
RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"


def nnunet_folder(variable: str) -> Path | None:
    """The folder in nnUNet_raw, nnUNet_preprocessed or nnUNet_results; None where it is not set.

    Raises `ValueError` for a tilde: a shell replaces it, nnU-Net and Python do not, and what we expanded here nnU-Net
    would look for elsewhere.
    """
    value = os.environ.get(variable)
    return _no_tilde(value, f"{variable} is") if value else None


def check_folders() -> None:
    """Raise `ValueError` where one of nnU-Net's variables has a tilde, for all that reads them."""
    for variable in (RAW, PREPROCESSED, RESULTS):
        nnunet_folder(variable)


def raw_folder(given: str | Path | None = None) -> Path:
    """The folder given, else the one in nnUNet_raw. Raises `ValueError` when neither is there, or for a tilde."""
    folder = _no_tilde(given, "--raw is") if given else nnunet_folder(RAW)
    if not folder:
        raise ValueError("nnUNet_raw is not set. Set it (export nnUNet_raw=/path) or give the folder with --raw.")
    return folder


def new_dataset_folder(raw: Path, dataset_id: int, name: str) -> Path:
    """The folder DatasetXXX_NAME to be written below `raw`.

    Raises `ValueError` for an id that nnU-Net cannot use or that one of its folders has under another name: it finds
    datasets by their id and stops when two share one.
    """
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"dataset id {dataset_id}: nnU-Net takes 1 to 999.")
    folder = f"Dataset{dataset_id:03d}_{name}"
    for place in filter(None, (raw, *map(nnunet_folder, (RAW, PREPROCESSED, RESULTS)))):
        others = [path for path in place.glob(f"Dataset{dataset_id:03d}*") if path.name != folder and path.is_dir()]
        if others:
            raise ValueError(f"dataset id {dataset_id} is taken by {others[0]}. Choose another id with -d.")
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
        raise FileNotFoundError(f"no dataset {dataset} in {folder}. Give an id, a name (Dataset751_CAMUS) or a path.")
    if len(found) > 1:
        raise ValueError(
            f"dataset id {dataset} is used by {', '.join(path.name for path in found)}; nnU-Net needs one "
            "folder an id. Rename the others."
        )
    return found[0]


def preprocessed_splits(name: str) -> Path | None:
    """Where nnU-Net's training reads the splits of the dataset called `name`; None before it was preprocessed."""
    preprocessed = nnunet_folder(PREPROCESSED)
    if not preprocessed or not (preprocessed / name).is_dir():
        return None
    return preprocessed / name / "splits_final.json"


def update_preprocessed_splits(name: str, content: bytes) -> Path | None:
    """Bring the splits of the dataset `name` to nnUNet_preprocessed/DATASET, where that exists already.

    Otherwise nnU-Net's planner copies them there (2.8 and later). It keeps a file that is there and stops when that
    differs, so ours replaces it; the other file stays beside it as splits_final.json.old, and that name is returned.
    """
    target, old = preprocessed_splits(name), None
    if target is None:
        return None
    if target.is_file() and target.read_bytes() != content:
        old = free_name(target.with_name(f"splits_final.json{OLD}"))
        os.replace(target, old)
    replace_file(target, content)
    return old


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file that nobody ever sees half written, whoever else writes it at the same time; text as UTF-8."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def free_name(path: Path) -> Path:
    """The path, or with the first number behind it that makes it a new one."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}{number}")
    return free


def _no_tilde(folder: str | Path, what: str) -> Path:
    if str(folder).startswith("~"):
        raise ValueError(
            f"{what} {str(folder)!r}: nobody expands the ~ in it, so it would be a folder of that name. "
            f"Write the path in full or with $HOME, as in {str(folder).replace('~', '$HOME', 1)}."
        )
    return Path(folder)
