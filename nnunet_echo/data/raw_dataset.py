"""The one writer of nnU-Net raw datasets.

A reader (reader.py) lists `Case`s without opening an image; `write_dataset` reads, checks and writes them in parallel:

    DatasetXXX_NAME/imagesTr  labelsTr  imagesTs  labelsTs  cases.csv  splits_final.json
    DatasetXXX_NAME/conversion_report.txt  conversion_report.json  dataset.json

What a user can rely on:
- a file has its name only once it is whole: it is written in the folder `.unfinished`, verified and renamed;
- dataset.json is removed first and written last, so a killed conversion is not taken for a dataset; the same command
  again completes it, and the bytes depend neither on kills, nor on the number of workers, nor on earlier runs, but for
  the place of the source, which conversion_report.json names;
- the conversion of another source, or with other options, is replaced on request alone (target.py);
- files that are not on the list in conversion_report.json are never removed or overwritten: the conversion refuses to
  start.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.findings import Note, Report
from nnunet_echo.data.images import Frame, SourceError, check_pair, read_image, write_image
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.data.source_folders import shown
from nnunet_echo.data.splits import Fold, FoldMaker, splits_by_patient
from nnunet_echo.data.tables import read_rows, write_rows
from nnunet_echo.data.target import (
    FILE_ENDING,
    REPORT,
    SCRATCH,
    as_json,
    begin,
    give_way,
    locked,
    look,
    missing_in_preprocessed,
    preprocessed_masks,
    set_aside,
    write_json,
    write_text,
)
from nnunet_echo.nnunet.folders import new_dataset_folder


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
        return {row["case"]: row for row in read_rows(file)}


def five_folds_of_cases(cases: Sequence[str], dataset_json: Mapping[str, object]) -> list[Fold] | None:
    """Five folds of cases by patient; None where no `case_id_pattern` tells which cases share one."""
    if "case_id_pattern" not in dataset_json:
        return None
    patients = {case: patient_of(case, dataset_json) for case in cases}
    folds = splits_by_patient(sorted(set(patients.values())), dict.fromkeys(patients.values(), ()))
    return [{side: [case for case in cases if patients[case] in fold[side]] for side in fold} for fold in folds]


def write_dataset(
    folder: Path,
    cases: Sequence[Case],
    dataset_json: Mapping[str, object],
    *,
    converter: str,
    source: Path,
    options: Mapping[str, object],
    make_folds: FoldMaker,
    refused: Sequence[Note] = (),
    warnings: Sequence[Note] = (),
    split_file_sha256: str | None = None,
    review: Callable[[Mapping[str, Written]], list[Note]] = lambda written: [],
    workers: int | None = 1,
    progress: bool = False,
    replace: bool = False,
) -> Report:
    """Read, check and write all cases, then the table, the splits, the report and last dataset.json.

    `dataset_json` lacks only numTraining. `make_folds` gets the patients of training cases and returns folds of them,
    or raises `ValueError` when it cannot. `refused` and `warnings` are what the reader found already; `review` may add
    warnings that compare cases. Raises `FileExistsError` for a folder with files that we did not write, and, without
    `replace`, for one that holds the conversion of another source; `BlockingIOError` while another conversion writes
    there, `OSError` when the target cannot be written, `RuntimeError` when a worker process dies.
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
        "source": shown(source.absolute()),
    }
    with locked(folder):
        new_dataset_folder(folder.parent, int(folder.name[7:10]), folder.name[11:])  # nobody took the id meanwhile
        ours, moved = _begin(
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

        files = {name for case in done for name in _file_names(case, written[case.case_id].labelled)}
        for name in ours - files:
            (folder / name).unlink(missing_ok=True)
        write_text(folder, "cases.csv", _table(done, written, dataset_json.get("spacing_unit", "mm")))
        write_text(folder, "conversion_report.txt", report.as_text())
        write_json(folder, REPORT, {**record, **report.as_json(), "finished": True, "files": sorted(files)})
        if not unusable:
            for name, content in contents.items():  # dataset.json last: it makes the folder a dataset
                write_json(folder, name, content)
        (folder / SCRATCH).rmdir()
        return report


def _begin(
    folder: Path,
    plan: Sequence[Case],
    labels: Mapping[str, int],
    record: Mapping[str, object],
    refused: Sequence[Note],
    replace: bool,
    **processes: object,
) -> tuple[set[str], list[Note]]:
    """Make the folder ours and unfinished, unless something in it or in nnU-Net's preprocessed data would be lost.

    Returns the image files that may be there from now on, by their list, and what is to be said. Raises
    `FileExistsError`, naming both sources, in that case and without `replace`.
    """
    earlier, masks = look(folder, str(record["converter"])), preprocessed_masks(folder.name)
    planned = {name for case in plan for name in _file_names(case)}
    named = tuple(f"{note.subject}_" for note in refused)  # their loss is told already
    gone = {name for name in earlier.there - planned if not f"{Path(name).name.split('.')[0]}_".startswith(named)}
    foreign = (
        {
            path
            for path in masks.glob(f"*{FILE_ENDING}")
            if f"labelsTr/{path.name}" not in planned and not f"{path.name.split('.')[0]}_".startswith(named)
        }
        if masks
        else set()
    )
    if earlier.there or masks:
        compare = partial(_compare, folder=folder, labels=labels, masks=masks)
        different = {path for paths in map_in_order(compare, plan, title="comparing", **processes) for path in paths}
        foreign |= {path for path in different if path.parent == masks}
        different -= foreign
    else:
        different = set()
    changes = earlier.other_options(record)
    changes += [f"{len(gone)} of its files belong to no case of now, such as {min(gone)}"] if gone else []
    changes += (
        [
            f"{len(different)} of its files hold something else than this source gives, such as "
            f"{min(different).relative_to(folder)}"
        ]
        if different
        else []
    )
    if changes and not replace:
        raise FileExistsError(
            f"{folder} holds the conversion of {earlier.record.get('source', 'an unknown source')}, "
            f"which that of {record['source']} would replace: {'; '.join(changes)}. Choose another "
            "dataset id with -d, or give --replace"
        )
    if foreign and not replace:
        raise FileExistsError(
            f"{masks.parent} was preprocessed from other cases than {record['source']} gives: "
            f"{len(foreign)} mask(s) differ, such as {min(foreign)}; nnU-Net would train on them. "
            "Choose another dataset id with -d, or give --replace, which renames that folder"
        )
    begin(folder, record, earlier, planned, replace=bool(changes))
    notes = (
        [
            Note(
                "preprocessed data set aside",
                folder.name,
                f"renamed to {set_aside(masks.parent).name}, for it was "
                f"preprocessed from other cases: preprocess again ({masks.parent})",
            )
        ]
        if foreign
        else []
    )
    return planned | earlier.files, notes


def _check_plan(plan: Sequence[Case], dataset_json: Mapping[str, object]) -> None:
    """Our readers' promises; path safety hangs on the first."""
    ids = [case.case_id for case in plan]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", case_id) for case_id in ids), "case ids are names, never paths"
    assert len(ids) == len(set(ids)), "case ids are unique"
    assert all(patient_of(case.case_id, dataset_json) == case.patient for case in plan)
    assert not {case.patient for case in plan if case.test} & _training_patients(plan), "a patient in train and test"


def _training_patients(cases: Sequence[Case]) -> set[str]:
    return {case.patient for case in cases if not case.test}


def _compare(case: Case, folder: Path, labels: Mapping[str, int], masks: Path | None) -> list[Path]:
    """The files of an earlier conversion, and of nnU-Net's preprocessed data, that the case would not give today.

    A file or a source that cannot be read is no difference: the one is written again, the other refused by name.
    """
    image, mask = (folder / name for name in _file_names(case))
    there = [path for path in (image, mask, *([masks / mask.name] if masks and not case.test else [])) if path.exists()]
    try:
        now = check_pair(case.read(), labels)[:2] if there else ()
    except (OSError, RuntimeError, ValueError):
        return []
    return [path for path in there if not _same(path, now[path != image])]


def _same(path: Path, now: sitk.Image | None) -> bool:
    try:
        before = read_image(path, path.name)
    except SourceError:
        return True
    return (
        now is not None
        and before.GetSize() == now.GetSize()
        and np.allclose(before.GetSpacing(), now.GetSpacing(), rtol=1e-5)
        and np.array_equal(*map(sitk.GetArrayViewFromImage, (before, now)))
    )


def _convert(case: Case, folder: Path, labels: Mapping[str, int]) -> Written:
    """Read, check and write one case, in a worker. Only what happens while reading is the source's fault."""
    try:
        frame = case.read()
        image, label, warnings = check_pair(frame, labels)
    except SourceError as error:
        return Written(refusal=str(error))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:  # whatever it holds, a named refusal
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
    return [
        {side: [case.case_id for case in training if case.patient in patients] for side, patients in fold.items()}
        for fold in sides
    ]


def _table(done: Sequence[Case], written: Mapping[str, Written], unit: str) -> str:
    """cases.csv; spacing and size are in x y order, the size in pixels."""
    columns = [*done[0].table, *written[done[0].case_id].facts] if done else []
    text = io.StringIO()
    rows = [["case", "patient", *columns, f"spacing_{unit}", "size", "source", "split"]]
    for case in done:
        result = written[case.case_id]
        rows.append(
            [
                case.case_id,
                case.patient,
                *case.table.values(),
                *result.facts.values(),
                " ".join(f"{length:.6g}" for length in result.spacing),
                " ".join(map(str, result.size)),
                case.source,
                "ts" if case.test else "tr",
            ]
        )
    write_rows(text, rows)
    return text.getvalue()
