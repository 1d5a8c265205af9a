"""The cases of a fold: kept beside its results when its training starts, compared with the split as it is later.

nnU-Net reads the split again at each start. So a training that goes on after the split was changed, or only validates,
may meet a patient that it was trained on. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from nnunet_echo.nnunet.folders import PREPROCESSED, replace_file
from nnunet_echo.nnunet.logs import logged_split, read_json

RECORD = "split.json"  # in the folder of a fold: {"train": [case, ...], "val": [case, ...]}
REMEDY = (
    "Train the fold again in an empty folder (move the old one away, or set nnUNet_results to another), or bring "
    "the old split back"
)

Cases = Mapping[str, Sequence[str]]  # "train" and "val" -> cases


def read_splits(file: Path) -> list[dict[str, list[str]]]:
    """The folds of a splits_final.json. Raises `FileNotFoundError` without it and `ValueError` where it is none."""
    try:
        folds = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{file} is not there; `nnunet-echo convert`, `nnunet-echo crossval` or nnU-Net's training write it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}). Convert the dataset again.") from error
    if not isinstance(folds, list) or not folds or not all(map(_is_fold, folds)):
        raise ValueError(
            f'{file} is not a list of folds, each with the lists of cases "train" and "val". Convert the dataset again.'
        )
    return folds


def read_folds(dataset: str) -> list[dict[str, list[str]]]:
    """Training and validation cases of each fold of DatasetXXX_NAME, as nnU-Net will read them.

    Raises as `read_splits`, and `ValueError` without nnUNet_preprocessed.
    """
    return read_splits(preprocessed_folder() / dataset / "splits_final.json")


def preprocessed_folder() -> Path:
    """The folder in nnUNet_preprocessed. Raises `ValueError` when that is not set."""
    if not os.environ.get(PREPROCESSED):
        raise ValueError("nnUNet_preprocessed is not set. Set it (export nnUNet_preprocessed=/path).")
    return Path(os.environ[PREPROCESSED])


def cases_of_fold(dataset: str, fold: str) -> Cases | None:
    """What the split has for a fold; None for fold ``all``, and where there is no split or no such fold."""
    try:
        return read_folds(dataset)[int(fold)]
    except (ValueError, OSError, IndexError):
        return None


def keep_cases(folder: Path, cases: Cases) -> None:
    """Write the record of a training that starts."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / RECORD, json.dumps({side: list(cases[side]) for side in ("train", "val")}, indent=1))


def has_record(folder: Path) -> bool:
    """Whether the cases of the training in a folder are known."""
    return (folder / RECORD).exists()


def other_split(folder: Path, now: Cases, patient: Callable[[str], str] = str) -> str:
    """What shows that the fold in a folder was trained, or validated, on other cases than those of `now`; "" if none.

    Without a record, nnU-Net's log has the numbers of cases, and the predictions of its validation have names.
    """
    train, validation = frozenset(now["train"]), frozenset(now["val"])
    if has_record(folder):
        kept = read_json(folder / RECORD)
        if not _is_fold(kept):
            return f"its {RECORD} is damaged, so nobody knows what it was trained on"
        if set(kept["train"]) != train or set(kept["val"]) != validation:
            return _difference(kept, train, validation, patient)
    else:
        logged = logged_split(folder)
        if logged and logged != (len(train), len(validation)):
            return (
                f"it has {logged[0]} training and {logged[1]} validation cases, not {len(train)} and {len(validation)}"
            )
    if strangers := sorted(_validated(folder) - validation):
        return f"it validates {strangers[0]} ({len(strangers)} such cases)"
    return ""


def _difference(kept: Cases, train: Iterable[str], validation: Iterable[str], patient: Callable[[str], str]) -> str:
    old_train, old_validation, new_train, new_validation = (
        {_named(case, patient) for case in cases} for cases in (kept["train"], kept["val"], train, validation)
    )
    if leaked := sorted((old_train - old_validation) & new_validation):  # in fold_all both are the same
        return f"it was trained on {leaked[0]} ({len(leaked)} such patients), whom the split now has it validate"
    changed = sorted((old_train ^ new_train) | (old_validation ^ new_validation))
    example = f", the first that differs is {changed[0]}" if changed else ""
    return (
        f"it was trained with {len(kept['train'])} training and {len(kept['val'])} validation cases, the split now "
        f"has {len(set(train))} and {len(set(validation))}{example}"
    )


def _named(case: str, patient: Callable[[str], str]) -> str:
    try:
        return patient(case)
    except ValueError:  # a name of another conversion
        return case


def _validated(folder: Path) -> set[str]:
    """Cases that nnU-Net predicted, or lists in its summary, in the validation of a fold."""
    dataset_json = read_json(folder.parent / "dataset.json")
    ending = dataset_json.get("file_ending") if isinstance(dataset_json, dict) else None
    ending = ending if isinstance(ending, str) and ending else ".nii.gz"
    names = {path.name for path in (folder / "validation").glob("*")}
    summary = read_json(folder / "validation" / "summary.json")
    listed = summary.get("metric_per_case") if isinstance(summary, dict) else None
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("prediction_file"), str):
            names.add(re.split(r"[/\\]", entry["prediction_file"])[-1])  # also of a training on Windows
    # A Mac leaves ._CASE beside CASE on disks of other systems.
    return {name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(".")}


def _is_fold(content: object) -> TypeGuard[Cases]:
    return isinstance(content, dict) and all(
        isinstance(content.get(side), list) and all(isinstance(case, str) for case in content[side])
        for side in ("train", "val")
    )
