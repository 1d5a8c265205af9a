"""Measure one set of label maps, without references: volumes, EF, areas, lengths, anatomy.

Definitions and flags are those of `evaluate` (docs/reference/metrics.md). Where names have frame numbers and no ED or
ES, the frame with the largest ventricle of a sequence is ED and that with the smallest ES; patients.csv has the flag
"phase_by_area_VIEW" then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_echo import __version__
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.evaluation.anatomy import anatomical_errors
from nnunet_echo.evaluation.left_ventricle.volume import METHODS, PHASES, LvShape, lv_shape, lv_volumes
from nnunet_echo.evaluation.motion import ed_es_frames, frame_attributes
from nnunet_echo.evaluation.output import Row, write_results
from nnunet_echo.evaluation.pairs import CaseId, Dataset, given_dataset, pair_cases, read_pair
from nnunet_echo.evaluation.sequences import attribute_columns

TABLES = ("cases", "patients", "anatomy")
MARK = "nnunet_echo_measure"  # in summary.json: whose tables these are
SIZES = ("lv_length", "lv_base_width", "lv_orientation")


@dataclass(frozen=True)
class Measurement:
    """The content of the files: rows for the tables, and the summary. Undefined numbers are NaN.

    `patients` is empty without LV, `anatomy` without LV, MYO and LA.
    """

    cases: list[Row]
    patients: list[Row]
    anatomy: list[Row]
    summary: Row

    def write(self, out: Path) -> None:
        """Write summary.json and the tables that have rows to the folder `out`, made if need be; remove older ones."""
        write_results(out, self.summary, {name: getattr(self, name) for name in TABLES})


def measure(
    masks: str | Path,
    *,
    dataset_json: str | Path | None = None,
    labels: Sequence[str] = (),
    patients: str | None = None,
    method: str = "ase",
    rounding: bool = False,
    workers: int | None = 1,
    progress: bool = False,
) -> Measurement:
    """Measure the label maps in the folder `masks`.

    Arguments and errors are as in `evaluate`.

    >>> import SimpleITK as sitk
    >>> Path("masks").mkdir()
    >>> mask = sitk.GetImageFromArray(np.pad(np.ones((40, 20), np.uint8), 20))
    >>> mask.SetSpacing((0.5, 0.5))
    >>> sitk.WriteImage(mask, "masks/p1_4CH_ED.nii.gz")
    >>> measure("masks", labels=["LV=1"]).cases[0]["LV_area_mm2"]
    200.0
    """
    masks = Path(masks)
    dataset, path = given_dataset(masks, dataset_json, labels, patients)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}.")
    if rounding and dataset.unit == "px":
        raise ValueError(f"rounding=True: {path or masks} has lengths in pixels, which give no mL. Leave it out.")
    cases, _ = pair_cases(masks, masks, dataset)
    work = partial(_measure_case, masks=masks, dataset=dataset, method=method)
    results = list(map_in_order(work, cases, title="measure", workers=workers, progress=progress))
    of_patients = (
        _patient_rows(cases, [shape for *_, shape in results if shape], dataset, method, rounding)
        if "LV" in dataset.structures
        else []
    )
    anatomy = [row for _, row, _ in results if row]
    found = [row["ef_percent"] for row in of_patients if not math.isnan(row["ef_percent"])]
    summary = {
        MARK: __version__,
        "masks": str(masks),
        "dataset_json": path and str(path),
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "unit": dataset.unit,
        "method": method,
        "rounding": rounding,
        "patients_with_ef": len(found),
        "ef_percent_mean": float(np.mean(found)) if found else math.nan,
        "ef_percent_sd": float(np.std(found, ddof=1)) if len(found) > 1 else math.nan,
        "frames_with_anatomical_errors": sum(bool(row["violations"]) for row in anatomy) if anatomy else None,
    }
    return Measurement([row for row, *_ in results], of_patients, anatomy, summary)


def _measure_case(case: CaseId, masks: Path, dataset: Dataset, method: str) -> tuple[Row, Row, LvShape | None]:
    """Its rows of cases.csv and anatomy.csv, and its ventricle, in a worker."""
    file = masks / f"{case.name}{dataset.file_ending}"
    labels, _, spacing = read_pair(file, file, dataset)
    found = {name: np.isin(labels, values) for name, values in dataset.structures.items()}
    who: Row = {"case": case.name, "patient": case.patient, "view": case.view, "phase": case.phase}
    row: Row = who | {"frame": "" if case.frame is None else case.frame}
    row |= {
        f"{name}_area_{dataset.unit}2": float(np.count_nonzero(mask) * np.prod(spacing)) for name, mask in found.items()
    }
    anatomy: Row = {}
    shape = None
    if {"LV", "MYO", "LA"} & found.keys():
        errors = [name for name, violated in anatomical_errors(found, spacing).items() if violated]
        anatomy = who | {"violations": len(errors), "criteria": " ".join(errors)}
    if "LV" in found:
        columns = attribute_columns(dataset.unit)
        attributes = frame_attributes(found, spacing)
        row |= {columns[name]: attributes[name] for name in SIZES if name in attributes}
        shape = lv_shape(found["LV"], spacing, method=method, myocardium=found.get("MYO"))
        row["flags"] = shape.flag
    return row, anatomy, shape


def _patient_rows(
    cases: Sequence[CaseId], shapes: Sequence[LvShape], dataset: Dataset, method: str, rounding: bool
) -> list[Row]:
    """patients.csv; without a spacing in mm there are no volumes in mL, only EF."""
    patients: dict[str, dict[str, list[tuple[CaseId, LvShape]]]] = {}
    for case, shape in zip(cases, shapes, strict=True):
        patients.setdefault(case.patient, {}).setdefault(case.view, []).append((case, shape))
    rows = []
    for patient, views in patients.items():
        measured: dict[tuple[str, str], LvShape] = {}
        flags: list[str] = []
        for view, frames in views.items():
            by_area = _phases_by_area(frames)
            flags += ["_".join(filter(None, ("phase_by_area", view)))] if by_area else []
            measured |= {(view, case.phase): shape for case, shape in by_area or frames}
        volumes = lv_volumes(measured, method=method, rounding=rounding)
        in_ml = dataset.unit == "mm"
        rows.append(
            {
                "patient": patient,
                "method": f"{method}, rounded" if rounding else method,
                "planes": volumes.planes,
                "edv_ml": volumes.edv_ml if in_ml else math.nan,
                "esv_ml": volumes.esv_ml if in_ml else math.nan,
                "ef_percent": volumes.ef_percent,
                "flags": " ".join([*flags, *volumes.flags]),
            }
        )
    return rows


def _phases_by_area(frames: Sequence[tuple[CaseId, LvShape]]) -> list[tuple[CaseId, LvShape]]:
    """The frames of a sequence at ED and ES by the area of the ventricle; none where names tell, or nothing moves."""
    if any(case.phase in PHASES or case.frame is None for case, _ in frames):
        return []
    ordered = sorted(frames, key=lambda pair: pair[0].frame or 0)
    found = ed_es_frames([shape.area for _, shape in ordered])
    if found is None or found[0] == found[1]:
        return []
    return [
        (replace(ordered[index][0], phase=phase), ordered[index][1]) for index, phase in zip(found, PHASES, strict=True)
    ]
