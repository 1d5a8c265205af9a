"""Score any folder of predicted label maps.

`Evaluation.write` writes these files, whose columns docs/reference/metrics.md defines:

    cases.csv      one row for each case and structure
    patients.csv   one row for each patient: EDV, ESV and EF of prediction and reference, by the same method
    anatomy.csv    one row for each case: which anatomical criteria prediction and reference violate
    frames.csv     one row for each frame of a sequence: Dice, areas, lengths, whether it fits its neighbours
    sequences.csv  one row for each sequence: inconsistent frames, end diastole and end systole by the area curve
    summary.json   means over patients, misses, agreement of EF, rates of errors, and what they were computed with

The grid is the files' own; distances use the spacing of the reference. An undefined value is an empty field. Nothing is
written unless every file could be evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy

from nnunet_echo import __version__
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.evaluation.anatomy import anatomical_errors
from nnunet_echo.evaluation.left_ventricle.volume import METHODS, LvShape, LvVolumes, lv_shape, lv_volumes
from nnunet_echo.evaluation.metrics import mask_metrics, metric_columns
from nnunet_echo.evaluation.motion import frame_attributes
from nnunet_echo.evaluation.output import Row, write_results
from nnunet_echo.evaluation.pairs import CaseId, Dataset, given_dataset, pair_cases, read_pair, recorded_ef
from nnunet_echo.evaluation.sequences import LIMITS, SIDES, sequence_tables
from nnunet_echo.evaluation.summary import (
    summarise_anatomy,
    summarise_sequences,
    summarise_structures,
    summarise_volumes,
)

if TYPE_CHECKING:
    from pandas import DataFrame

TABLES = ("cases", "patients", "anatomy", "frames", "sequences")
VOLUMES = ("edv_ml", "esv_ml", "ef_percent")


@dataclass(frozen=True)
class Evaluation:
    """The content of the files: rows for the tables, and the summary. Undefined numbers are NaN.

    `anatomy` is empty without LV, MYO and LA; `frames` and `sequences` are without LV or without frame numbers.
    """

    cases: list[Row]
    patients: list[Row]
    anatomy: list[Row]
    frames: list[Row]
    sequences: list[Row]
    summary: Row

    def write(self, out: Path) -> None:
        """Write summary.json and the tables that have rows to the folder `out`, made if need be.

        Tables that have none, of an earlier run, are removed.
        """
        write_results(out, self.summary, {name: getattr(self, name) for name in TABLES})

    def table(self, name: str) -> DataFrame:
        """One of the tables, such as "cases" or "patients", as a pandas DataFrame; see docs/reference/metrics.md.

        Raises `ValueError` for another name.
        """
        if name not in TABLES:
            raise ValueError(f"name={name!r}: there is no such table. Choose from {', '.join(TABLES)}.")
        import pandas

        return pandas.DataFrame(getattr(self, name))


def evaluate(
    predictions: str | Path,
    references: str | Path,
    *,
    dataset_json: str | Path | None = None,
    labels: Sequence[str] = (),
    patients: str | None = None,
    method: str = "ase",
    rounding: bool = False,
    subset: bool = False,
    consistency_limits: str = "references",
    workers: int | None = 1,
    progress: bool = False,
) -> Evaluation:
    """Compare the label maps in two folders, file by file of the same name: 2D frames, in NIfTI or PNG.

    `dataset_json` names the dataset's file where it is neither in or beside `references` nor in `predictions`; `labels`
    such as "LV=1", and `patients`, say what it would where there is none (`pairs.labelled_folder`); `method` and
    `rounding` are those of `lv_volumes`; `subset` allows references without a prediction; `consistency_limits` is
    "references", for limits from the references of these cases, or "painchaud2022". `workers` are processes (None: one
    for each processor; a script that asks for more than one needs the usual `if __name__ == "__main__":`), `progress`
    draws a bar.

    Distances are in mm, or in pixels where dataset.json says so, volumes in mL, ejection fractions in percent. Raises
    `ValueError` or `OSError`, naming the file, for whatever cannot be compared.

    >>> import nnunet_echo
    >>> evaluation = nnunet_echo.evaluate("predictions", "references")
    >>> evaluation.table("cases").groupby("structure")["dice"].mean().round(2).to_dict()
    {'LA': 0.96, 'LV': 0.95, 'LV_EPI': 0.97, 'MYO': 0.89}
    >>> list(evaluation.table("patients").filter(like="ef_percent"))
    ['prediction_ef_percent', 'reference_ef_percent', 'recorded_ef_percent']
    """
    predictions, references = Path(predictions), Path(references)
    dataset, path = given_dataset(references, dataset_json, labels, patients, predictions)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}.")
    if rounding and dataset.unit == "px":
        raise ValueError(f"rounding=True: {path or references} has lengths in pixels, which give no mL. Leave it out.")
    if consistency_limits not in LIMITS or (consistency_limits == "painchaud2022" and dataset.unit == "px"):
        raise ValueError(
            f"consistency_limits={consistency_limits!r}: expected one of {', '.join(LIMITS)}; painchaud2022 needs "
            "images with a spacing in mm."
        )
    on_record = recorded_ef(path) if path else {}
    cases, unpredicted = pair_cases(predictions, references, dataset, subset=subset)
    work = partial(_evaluate_case, predictions=predictions, references=references, dataset=dataset, method=method)
    results = list(map_in_order(work, cases, title="evaluate", workers=workers, progress=progress))

    rows = [row for result in results for row in result.rows]
    of_patients = _patient_rows(cases, [result.shapes for result in results], dataset, method, rounding, on_record)
    anatomy = [result.anatomy for result in results if result.anatomy]
    moving = [(case, result) for case, result in zip(cases, results, strict=True) if result.attributes]
    frames, sequences, limits = sequence_tables(
        [case for case, _ in moving],
        [result.attributes for _, result in moving],
        [{row["structure"]: row["dice"] for row in result.rows} for _, result in moving],
        dataset.unit,
        consistency_limits,
    )
    columns = list(metric_columns(dataset.unit).values())
    summary = {
        "nnunet_echo": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "predictions": str(predictions),
        "references": str(references),
        "dataset_json": path and str(path),
        "cases": len(cases),
        "patients": len(of_patients),
        "references_without_prediction": unpredicted,
        "unit": dataset.unit,
        "hd95": "max of the two directed 95th percentiles",
        "averages": "frames of a patient, then patients",
        "structures": summarise_structures(rows, columns),
        "ejection_fraction": {"method": method, "rounding": rounding, **summarise_volumes(of_patients)}
        if "LV" in dataset.structures
        else None,
        "anatomy": {side: summarise_anatomy(anatomy, side) for side in SIDES} if anatomy else None,
        "sequences": {"limits_from": consistency_limits, "limits": limits}
        | {side: summarise_sequences(sequences, side) for side in SIDES}
        if sequences
        else None,
        "warnings": _warnings(dataset, cases, [result.spacing for result in results], of_patients),
    }
    return Evaluation(rows, of_patients, anatomy, frames, sequences, summary)


@dataclass(frozen=True)
class _Result:
    rows: list[Row]
    shapes: dict[str, LvShape]
    anatomy: Row
    attributes: dict[str, dict[str, float]]
    spacing: tuple[float, float]


def _evaluate_case(case: CaseId, predictions: Path, references: Path, dataset: Dataset, method: str) -> _Result:
    """All rows of a case, and its ventricle measured in prediction and reference, in a worker."""
    file = f"{case.name}{dataset.file_ending}"
    *maps, spacing = read_pair(predictions / file, references / file, dataset)
    masks = [{name: np.isin(labels, values) for name, values in dataset.structures.items()} for labels in maps]
    columns = metric_columns(dataset.unit)
    rows = []
    for structure in dataset.structures:
        pair = masks[0][structure], masks[1][structure]
        values = mask_metrics(*pair, spacing)
        rows.append(
            {
                "case": case.name,
                "patient": case.patient,
                "view": case.view,
                "phase": case.phase,
                "structure": structure,
                **{column: values[name] for name, column in columns.items()},
                "prediction_empty": int(not pair[0].any()),
                "reference_empty": int(not pair[1].any()),
            }
        )
    anatomy: Row = {}
    if {"LV", "MYO", "LA"} & dataset.structures.keys():
        errors = {
            side: [name for name, violated in anatomical_errors(mask, spacing).items() if violated]
            for side, mask in zip(SIDES, masks, strict=True)
        }
        anatomy = {
            "case": case.name,
            "patient": case.patient,
            "view": case.view,
            "phase": case.phase,
            **{f"{side}_violations": len(names) for side, names in errors.items()},
            **{f"{side}_criteria": " ".join(names) for side, names in errors.items()},
        }
    shapes: dict[str, LvShape] = {}
    attributes: dict[str, dict[str, float]] = {}
    if "LV" in dataset.structures:
        shapes = {
            side: lv_shape(mask["LV"], spacing, method=method, myocardium=mask.get("MYO"))
            for side, mask in zip(SIDES, masks, strict=True)
        }
        if case.frame is not None:
            attributes = {side: frame_attributes(mask, spacing) for side, mask in zip(SIDES, masks, strict=True)}
    return _Result(rows, shapes, anatomy, attributes, spacing)


def _patient_rows(
    cases: Sequence[CaseId],
    shapes: Sequence[Mapping[str, LvShape]],
    dataset: Dataset,
    method: str,
    rounding: bool,
    on_record: Mapping[str, float],
) -> list[Row]:
    """patients.csv; without a spacing in mm there are no volumes in mL, only EF."""
    frames: dict[str, dict[tuple[str, str], Mapping[str, LvShape]]] = {}
    for case, measured in zip(cases, shapes, strict=True):
        frames.setdefault(case.patient, {})[case.view, case.phase] = measured
    rows = []
    for patient, of_patient in frames.items():
        volumes = {
            side: lv_volumes(
                {key: measured[side] for key, measured in of_patient.items() if measured},
                method=method,
                rounding=rounding,
            )
            for side in SIDES
        }
        row: Row = {
            "patient": patient,
            "method": f"{method}, rounded" if rounding else method,
            "planes": volumes["reference"].planes,
        }
        for side in SIDES:
            row |= {f"{side}_{name}": _value(volumes[side], name, dataset.unit) for name in VOLUMES}
        row["recorded_ef_percent"] = on_record.get(patient, math.nan)
        rows.append(row | {f"{side}_flags": " ".join(volumes[side].flags) for side in SIDES})
    return rows


def _value(volumes: LvVolumes, name: str, unit: str) -> float:
    return math.nan if unit == "px" and name.endswith("_ml") else getattr(volumes, name)


def _warnings(
    dataset: Dataset, cases: Sequence[CaseId], spacings: Sequence[tuple[float, float]], patients: Sequence[Row]
) -> list[str]:
    warnings = []
    ones = sum(spacing == (1.0, 1.0) for spacing in spacings)
    if dataset.unit == "mm" and ones:
        warnings.append(
            f'{ones} reference(s) have a spacing of 1 x 1 mm; if that means "unknown", distances and '
            'volumes are wrong. Say "spacing_unit": "px" in dataset.json.'
        )
    if "LV" in dataset.structures and not any(row["planes"] for row in patients):
        phases = ", ".join(sorted({case.phase or "none" for case in cases}))
        warnings.append(
            f"no patient has an EF, which needs the phases ED and ES of one view; by case_id_pattern the "
            f"names of the cases give: {phases}."
        )
    coarse = sum("coarse" in f"{row['reference_flags']} {row['prediction_flags']}" for row in patients)
    if coarse:
        warnings.append(
            f"EF by camus is not to be trusted in {coarse} of {len(patients)} patients, whose masks have "
            "too few pixels for it (flag coarse); --ef-method ase does not need them."
        )
    return warnings
