"""The cases of a dataset: who each is, whose, in which files, and the table of them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_echo.data.images import Frame
from nnunet_echo.data.splits import Fold, splits_by_patient
from nnunet_echo.data.tables import read_rows, write_rows
from nnunet_echo.data.target import FILE_ENDING


@dataclass(frozen=True)
class Case:
    """One case to be: who it is, and `read`, which opens its files in a worker process (so it must be picklable).

    >>> import SimpleITK as sitk
    >>> def read():
    ...     return Frame(sitk.Image(48, 64, sitk.sitkUInt8), "p1.png")
    >>> Case("Hearts_p1_ED", patient="Hearts_p1", source="p1.png", read=read, table={"phase": "ED"}).test
    False
    """

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

    >>> Written(size=(48, 64), spacing=(0.3, 0.3), labelled=True, label_sizes={1: 12.6}).label_sizes[1]  # mm²
    12.6
    """

    refusal: str = ""
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    labelled: bool = False
    label_sizes: Mapping[int, float] = field(default_factory=dict)
    warnings: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def patient_of(case_id: str, dataset_json: Mapping[str, Any]) -> str:
    r"""The patient of a case by the dataset's `case_id_pattern`; without a pattern each case is its own patient.

    Raises `ValueError` when the pattern does not match the complete case id.

    >>> pattern = r"(?P<patient>CAMUS_patient\d{4})_(2CH|4CH)_(ED|ES)"
    >>> patient_of("CAMUS_patient0001_4CH_ED", {"case_id_pattern": pattern})
    'CAMUS_patient0001'
    """
    pattern = dataset_json.get("case_id_pattern")
    if pattern is None:
        return case_id
    match = re.fullmatch(str(pattern), case_id)
    if match is None:
        raise ValueError(f"case id {case_id!r} does not match the dataset's case_id_pattern {pattern!r}.")
    return match["patient"]


def case_table(folder: Path) -> dict[str, dict[str, str]]:
    """Case -> its row in the cases.csv that `write_dataset` wrote to the folder; empty where there is none."""
    path = folder / "cases.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in read_rows(file)}


def five_folds_of_cases(cases: Sequence[str], dataset_json: Mapping[str, Any]) -> list[Fold] | None:
    """Five folds of cases by patient; None where no `case_id_pattern` tells which cases share one."""
    if "case_id_pattern" not in dataset_json:
        return None
    patients = {case: patient_of(case, dataset_json) for case in cases}
    folds = splits_by_patient(sorted(set(patients.values())), dict.fromkeys(patients.values(), ()))
    return [{side: [case for case in cases if patients[case] in fold[side]] for side in fold} for fold in folds]


def file_names(case: Case, labelled: bool = True) -> list[str]:
    """The files of a case below its dataset: the image and, where it is `labelled`, the mask."""
    part = "Ts" if case.test else "Tr"
    image = f"images{part}/{case.case_id}_0000{FILE_ENDING}"
    return [image, f"labels{part}/{case.case_id}{FILE_ENDING}"] if labelled else [image]


def table_of(done: Sequence[Case], written: Mapping[str, Written], unit: str) -> str:
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
