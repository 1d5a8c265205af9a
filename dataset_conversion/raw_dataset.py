"""The one writer of nnU-Net raw datasets.

A reader (reader.py) lists `Case`s without opening an image; `write_dataset` reads, checks and writes them in parallel:

    DatasetXXX_NAME/imagesTr  labelsTr  imagesTs  labelsTs  cases.csv  splits_final.json
    DatasetXXX_NAME/conversion_report.txt  conversion_report.json  dataset.json

What a user can rely on:
- a file has its name only once it is whole: it is written in the folder `.unfinished`, verified and renamed;
- dataset.json is removed first and written last, so a killed conversion is not taken for a dataset; the same command
  again completes it, and the bytes depend neither on kills, nor on the number of workers, nor on earlier runs;
- cases of an earlier conversion that the new one does not have are removed, by the list in conversion_report.json;
  files that are not on the list are never removed or overwritten: the conversion refuses to start.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.dataset_conversion.folders import update_preprocessed_splits
from nnunet_echo.dataset_conversion.images import Frame, SourceError, check_pair, write_image
from nnunet_echo.dataset_conversion.parallel import map_in_order
from nnunet_echo.dataset_conversion.report import Note, Report
from nnunet_echo.dataset_conversion.splits import Fold, FoldMaker, splits_by_patient

FILE_ENDING = ".nii.gz"
IMAGE_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
SCRATCH = ".unfinished"
REPORT = "conversion_report.json"
OUR_FILE = re.compile(r"(imagesTr|imagesTs)/[A-Za-z0-9_-]+_0000\.nii\.gz|(labelsTr|labelsTs)/[A-Za-z0-9_-]+\.nii\.gz")


@dataclass(frozen=True)
class Case:
    """One case to be: who it is, and `read`, which opens its files in a worker process (so it must be picklable)."""

    case_id: str
    patient: str
    source: str
    read: Callable[[], Frame]
    test: bool = False
    table: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What became of a case: its refusal, or its geometry (x, y order), warnings, each label's area (or
    volume, of a sequence), and the facts that its reader found in the files.

    Lengths are in the dataset's unit, millimetres or (`spacing_unit` "px") pixels.
    """

    refusal: str = ""
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    labelled: bool = False
    label_sizes: Mapping[int, float] = field(default_factory=dict)
    warnings: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def patient_of(case_id: str, dataset_json: Mapping[str, object]) -> str:
    """The patient of a case by the dataset's `case_id_pattern`; without a pattern each case is its own patient.

    Raises `ValueError` when the pattern does not match the whole case id.
    """
    pattern = dataset_json.get("case_id_pattern")
    if pattern is None:
        return case_id
    match = re.fullmatch(str(pattern), case_id)
    if match is None:
        raise ValueError(f"case id {case_id!r} does not match the dataset's case_id_pattern {pattern!r}")
    return match["patient"]


def case_table(folder: Path) -> dict[str, dict[str, str]]:
    """Case -> its row in the cases.csv that `write_dataset` wrote to the folder; empty where there is none."""
    path = folder / "cases.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def five_folds_of_cases(cases: Sequence[str], dataset_json: Mapping[str, object]) -> list[Fold] | None:
    """Five folds of cases by patient; None where no `case_id_pattern` tells which cases share one."""
    if "case_id_pattern" not in dataset_json:
        return None
    patients = {case: patient_of(case, dataset_json) for case in cases}
    folds = splits_by_patient(sorted(set(patients.values())), dict.fromkeys(patients.values(), ()))
    return [{side: [case for case in cases if patients[case] in fold[side]] for side in fold} for fold in folds]


def write_dataset(folder: Path, cases: Sequence[Case], dataset_json: Mapping[str, object], *, converter: str,
                  options: Mapping[str, object], make_folds: FoldMaker, refused: Sequence[Note] = (),
                  warnings: Sequence[Note] = (),
                  review: Callable[[Mapping[str, Written]], list[Note]] = lambda written: [],
                  workers: int | None = None) -> Report:
    """Read, check and write all cases, then the table, the splits, the report and last dataset.json.

    `dataset_json` lacks only numTraining. `make_folds` gets the patients of training cases and returns folds of them,
    or raises `ValueError` when it cannot. `refused` and `warnings` are what the reader found already; `review` may add
    warnings that compare cases. Raises `FileExistsError` for a folder with files that we did not write, `OSError` when
    the target cannot be written, `RuntimeError` when a worker process dies.
    """
    plan = sorted(cases, key=lambda case: case.case_id)
    _check_plan(plan, dataset_json)
    make_folds(_training_patients(plan))  # before anything is touched
    convert = partial(_convert, folder=folder, labels=dataset_json["labels"])
    results = map_in_order(convert, plan, title=folder.name, workers=workers)  # checks `workers`, begins when asked
    earlier = _claim(folder, converter, {name for case in plan for name in _file_names(case)})
    written = dict(zip((case.case_id for case in plan), results, strict=True))

    refused = [*refused, *(Note("unusable file", case.case_id, written[case.case_id].refusal)
                           for case in plan if written[case.case_id].refusal)]
    done = [case for case in plan if not written[case.case_id].refusal]
    warnings = [*warnings, *(Note(kind, case.case_id, text) for case in done
                             for kind, text in written[case.case_id].warnings)]
    warnings += review({case.case_id: written[case.case_id] for case in done})

    splits, unusable = [], ""
    try:
        splits = _splits_of_cases(done, make_folds(_training_patients(done)))
    except ValueError as error:
        unusable = f"too many cases were refused: {error}"
    training = sum(not case.test for case in done)
    report = Report(folder, converter, dict(options), training, len(done) - training, len({c.patient for c in done}),
                    len(splits), tuple(sorted(refused)), tuple(sorted(warnings)), unusable)

    files = {name for case in done for name in _file_names(case, written[case.case_id].labelled)}
    for name in earlier - files:
        (folder / name).unlink(missing_ok=True)
    _write_text(folder, "cases.csv", _table(done, written, dataset_json.get("spacing_unit", "mm")))
    _write_text(folder, "conversion_report.txt", report.as_text())
    _write_json(folder, REPORT, {**report.as_json(), "finished": True, "files": sorted(files)})
    if not unusable:
        _write_json(folder, "splits_final.json", splits)
        update_preprocessed_splits(folder)
        _write_json(folder, "dataset.json", {**dataset_json, "numTraining": training})
    (folder / SCRATCH).rmdir()
    return report


def _check_plan(plan: Sequence[Case], dataset_json: Mapping[str, object]) -> None:
    """Our readers' promises; path safety hangs on the first."""
    ids = [case.case_id for case in plan]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", case_id) for case_id in ids), "case ids are names, never paths"
    assert len(ids) == len(set(ids)), "case ids are unique"
    assert all(patient_of(case.case_id, dataset_json) == case.patient for case in plan)
    assert not {case.patient for case in plan if case.test} & _training_patients(plan), "a patient in train and test"


def _training_patients(cases: Sequence[Case]) -> set[str]:
    return {case.patient for case in cases if not case.test}


def _claim(folder: Path, converter: str, planned: set[str]) -> set[str]:
    """Make the folder ours and unfinished. Returns the image files that an earlier conversion may have left there."""
    earlier: set[str] = set()
    entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if entries - {SCRATCH}:
        try:
            content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            listed, owner = content["files"], content["converter"].split()[0]
        except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise FileExistsError(f"{folder} exists without a readable {REPORT}, so this converter did not write it; "
                                  "move it away or choose another dataset id") from error
        if owner != converter.split()[0]:
            raise FileExistsError(f"{folder} was written by {owner}; move it away or choose another dataset id")
        earlier = {name for name in listed if OUR_FILE.fullmatch(name)}
        there = {f"{part}/{path.name}" for part in IMAGE_FOLDERS for path in (folder / part).glob("*")}
        foreign = sorted(there - earlier)
        if foreign:
            raise FileExistsError(f"{folder} holds {len(foreign)} file(s) that this converter did not write, first "
                                  f"{foreign[0]}; nnU-Net would take them for cases: move them away")
    try:
        (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot create {folder} ({error.strerror or error})") from error
    for leftover in (folder / SCRATCH).iterdir():
        leftover.unlink()
    # First of all, so that the folder is known as ours whenever we are stopped from here on.
    _write_json(folder, REPORT, {"converter": converter, "finished": False, "files": sorted(earlier | planned)})
    for part in IMAGE_FOLDERS:
        (folder / part).mkdir(exist_ok=True)
    for name in ("dataset.json", "splits_final.json"):
        (folder / name).unlink(missing_ok=True)
    return earlier | planned


def _convert(case: Case, folder: Path, labels: Mapping[str, int]) -> Written:
    """Read, check and write one case, in a worker. Only what happens while reading is the source's fault."""
    try:
        frame = case.read()
        image, label, warnings = check_pair(frame, labels)
    except SourceError as error:
        return Written(refusal=str(error))
    except (OSError, RuntimeError, ValueError) as error:  # whatever the file holds, it ends as a named refusal
        return Written(refusal=f"{case.source}: {type(error).__name__}: {error}")
    image_name, *label_name = _file_names(case, label is not None)
    areas = {}
    if label is not None:
        write_image(label, folder / label_name[0], folder / SCRATCH)
        values, counts = np.unique(sitk.GetArrayViewFromImage(label), return_counts=True)
        pixel = float(np.prod(label.GetSpacing()))
        areas = {int(value): int(count) * pixel for value, count in zip(values, counts, strict=True)}
    write_image(image, folder / image_name, folder / SCRATCH)
    return Written("", image.GetSize(), image.GetSpacing(), label is not None, areas, tuple(warnings), frame.facts)


def _file_names(case: Case, labelled: bool = True) -> list[str]:
    part = "Ts" if case.test else "Tr"
    image = f"images{part}/{case.case_id}_0000{FILE_ENDING}"
    return [image, f"labels{part}/{case.case_id}{FILE_ENDING}"] if labelled else [image]


def _splits_of_cases(done: Sequence[Case], folds: Sequence[Fold]) -> list[Fold]:
    training = [case for case in done if not case.test]
    sides = [{side: set(fold[side]) for side in ("train", "val")} for fold in folds]
    assert not any(fold["train"] & fold["val"] for fold in sides), "a patient on both sides of a fold"
    return [{side: [case.case_id for case in training if case.patient in patients] for side, patients in fold.items()}
            for fold in sides]


def _table(done: Sequence[Case], written: Mapping[str, Written], unit: str) -> str:
    """cases.csv; spacing and size are in x y order, the size in pixels."""
    columns = [*done[0].table, *written[done[0].case_id].facts] if done else []
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["case", "patient", *columns, f"spacing_{unit}", "size", "source", "split"])
    for case in done:
        result = written[case.case_id]
        rows.writerow([case.case_id, case.patient, *case.table.values(), *result.facts.values(),
                       " ".join(f"{length:.6g}" for length in result.spacing),
                       " ".join(map(str, result.size)), case.source, "ts" if case.test else "tr"])
    return text.getvalue()


def _write_json(folder: Path, name: str, content: object) -> None:
    _write_text(folder, name, json.dumps(content, indent=2) + "\n")


def _write_text(folder: Path, name: str, content: str) -> None:
    temporary = folder / SCRATCH / name
    try:
        temporary.write_text(content, encoding="utf-8", newline="")
        os.replace(temporary, folder / name)
    except OSError as error:
        raise OSError(f"cannot write {folder / name} ({error}); is the disk full or read-only?") from error
