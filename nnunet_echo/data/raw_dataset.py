"""The one writer of nnU-Net raw datasets.

A reader (reader.py) lists `Case`s without opening an image; `write_dataset` reads, checks and writes them in parallel:

    DatasetXXX_NAME/imagesTr  labelsTr  imagesTs  labelsTs  cases.csv  splits_final.json
    DatasetXXX_NAME/conversion_report.txt  conversion_report.json  dataset.json

What a user can rely on:
- a file has its name only once it is complete: it is written in the folder `.unfinished`, verified and renamed;
- dataset.json is removed first and written last, so a killed conversion is not taken for a dataset; the same command
  again completes it, and the bytes depend neither on kills, nor on the number of workers, nor on earlier runs, but for
  the place of the source, which conversion_report.json names;
- the conversion of another source, or with other options, is replaced only on request (earlier.py);
- files that are not on the list in conversion_report.json are never removed or overwritten: the conversion refuses to
  start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cases import Case, Written, file_names, patient_of, table_of
from nnunet_echo.data.earlier import begin_conversion
from nnunet_echo.data.errors import SourceError, printable
from nnunet_echo.data.findings import Note, Report
from nnunet_echo.data.images import check_pair, write_image
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.data.splits import Fold, FoldMaker
from nnunet_echo.data.target import (
    REPORT,
    SCRATCH,
    as_json,
    give_way,
    locked,
    missing_in_preprocessed,
    write_json,
    write_text,
)
from nnunet_echo.nnunet.folders import new_dataset_folder


def write_dataset(
    folder: Path,
    cases: Sequence[Case],
    dataset_json: Mapping[str, Any],
    *,
    converter: str,
    source: Path,
    options: Mapping[str, Any],
    make_folds: FoldMaker,
    refused: Sequence[Note] = (),
    warnings: Sequence[Note] = (),
    split_file_sha256: str | None = None,
    review: Callable[[Mapping[str, Written]], list[Note]] = lambda written: [],
    workers: int | None = 1,
    progress: bool = False,
    replace: bool = False,
) -> Report:
    r"""Read, check and write all cases, then the table, the splits, the report and last dataset.json.

    `dataset_json` lacks only numTraining. `make_folds` gets the patients of training cases and returns folds of them,
    or raises `ValueError` when it cannot. `refused` and `warnings` are what the reader found already; `review` may add
    warnings that compare cases. Raises `FileExistsError` for a folder with files that we did not write, and, without
    `replace`, for one that holds the conversion of another source; `BlockingIOError` while another conversion writes
    there, `OSError` when the target cannot be written, `RuntimeError` when a worker process dies.

    >>> from nnunet_echo.data.images import Frame
    >>> from nnunet_echo.data.splits import splits_by_patient
    >>> mask = np.zeros((64, 48), np.uint8)
    >>> mask[20:40, 20:30] = 1
    >>> def read():  # of every case the same, here
    ...     return Frame(sitk.GetImageFromArray(20 + 90 * mask), "ED.png", sitk.GetImageFromArray(mask), "ED_mask.png")
    >>> cases = [Case(f"p{number}_ED", f"p{number}", "ED.png", read) for number in range(4)]
    >>> content = {"labels": {"background": 0, "LV": 1}, "case_id_pattern": r"(?P<patient>p\d)_ED"}
    >>> def make_folds(patients):
    ...     return splits_by_patient(sorted(patients), dict.fromkeys(patients, ()), n_splits=2)
    >>> report = write_dataset(
    ...     Path("nnUNet_raw/Dataset799_Hearts"), cases, content, converter="hearts", source=Path("hearts"), options={},
    ...     make_folds=make_folds,
    ... )
    >>> report.training_cases, report.folds, report.exit_code
    (4, 2, 0)
    """
    plan = sorted(cases, key=lambda case: case.case_id)
    _check_plan(plan, dataset_json)
    make_folds(_training_patients(plan))  # before anything is touched
    convert = partial(_convert, folder=folder, labels=dataset_json["labels"])
    # Checks `workers`, begins when asked.
    results = map_in_order(convert, plan, title=folder.name, workers=workers, progress=progress)
    record = {
        "converter": converter,
        "options": dict(options),
        "split_file_sha256": split_file_sha256,
        "source": printable(source.absolute()),
    }
    with locked(folder):
        new_dataset_folder(folder.parent, int(folder.name[7:10]), folder.name[11:])  # nobody took the id meanwhile
        ours, moved = begin_conversion(
            folder, plan, dataset_json["labels"], record, refused, replace, workers=workers, progress=progress
        )
        written = dict(zip((case.case_id for case in plan), results, strict=True))

        refused = [
            *refused,
            *(
                Note("unusable file", case.case_id, written[case.case_id].refusal)
                for case in plan
                if written[case.case_id].refusal
            ),
        ]
        done = [case for case in plan if not written[case.case_id].refusal]
        warnings = [
            *warnings,
            *moved,
            *(Note(kind, case.case_id, text) for case in done for kind, text in written[case.case_id].warnings),
        ]
        warnings += review({case.case_id: written[case.case_id] for case in done})

        splits, unusable = [], ""
        try:
            splits = _splits_of_cases(done, make_folds(_training_patients(done)))
        except ValueError as error:
            unusable = (
                f"too many cases were refused: {error}"
                if done
                else f"all cases were refused, the first because of {min(refused).message}"
            )
            done = []
        warnings += missing_in_preprocessed(folder, [case.case_id for case in done if not case.test])
        training = sum(not case.test for case in done)
        if not unusable:
            contents = {"splits_final.json": splits, "dataset.json": {**dataset_json, "numTraining": training}}
            warnings += give_way(folder, {name: as_json(content) for name, content in contents.items()})
        report = Report(
            folder,
            converter,
            dict(options),
            training,
            len(done) - training,
            len({case.patient for case in done}),
            len(splits),
            tuple(sorted(refused)),
            tuple(sorted(warnings)),
            unusable,
        )

        files = {name for case in done for name in file_names(case, written[case.case_id].labelled)}
        for name in ours - files:
            (folder / name).unlink(missing_ok=True)
        write_text(folder, "cases.csv", table_of(done, written, dataset_json.get("spacing_unit", "mm")))
        write_text(folder, "conversion_report.txt", report.as_text())
        write_json(folder, REPORT, {**record, **report.as_json(), "finished": True, "files": sorted(files)})
        if not unusable:
            for name, content in contents.items():  # dataset.json last: it makes the folder a dataset
                write_json(folder, name, content)
        (folder / SCRATCH).rmdir()
        return report


def _check_plan(plan: Sequence[Case], dataset_json: Mapping[str, Any]) -> None:
    """Our readers' promises; path safety hangs on the first."""
    ids = [case.case_id for case in plan]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", case_id) for case_id in ids), "case ids are names, never paths"
    assert len(ids) == len(set(ids)), "case ids are unique"
    assert all(patient_of(case.case_id, dataset_json) == case.patient for case in plan)
    assert not {case.patient for case in plan if case.test} & _training_patients(plan), "a patient in train and test"


def _training_patients(cases: Sequence[Case]) -> set[str]:
    return {case.patient for case in cases if not case.test}


def _convert(case: Case, folder: Path, labels: Mapping[str, int]) -> Written:
    """Read, check and write one case, in a worker. Only what happens while reading is the source's fault."""
    try:
        frame = case.read()
        image, label, warnings = check_pair(frame, labels)
    except SourceError as error:
        return Written(refusal=str(error))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:  # whatever it holds, a named refusal
        return Written(refusal=f"{case.source}: {type(error).__name__}: {str(error).rstrip('.')}.")
    image_name, *label_name = file_names(case, label is not None)
    areas = {}
    if label is not None:
        write_image(label, folder / label_name[0], folder / SCRATCH)
        values, counts = np.unique(sitk.GetArrayViewFromImage(label), return_counts=True)
        pixel = float(np.prod(label.GetSpacing()))
        areas = {int(value): int(count) * pixel for value, count in zip(values, counts, strict=True)}
    write_image(image, folder / image_name, folder / SCRATCH)
    return Written("", image.GetSize(), image.GetSpacing(), label is not None, areas, tuple(warnings), frame.facts)


def _splits_of_cases(done: Sequence[Case], folds: Sequence[Fold]) -> list[Fold]:
    training = [case for case in done if not case.test]
    sides = [{side: set(fold[side]) for side in ("train", "val")} for fold in folds]
    assert not any(fold["train"] & fold["val"] for fold in sides), "a patient on both sides of a fold"
    return [
        {side: [case.case_id for case in training if case.patient in patients] for side, patients in fold.items()}
        for fold in sides
    ]
