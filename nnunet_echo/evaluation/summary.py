"""Means over frames, patients and all, agreement of ejection fractions, rates of errors: the content of summary.json.

A metric is averaged over the frames of a patient, then over patients, so that a patient with many frames counts once.
Undefined values are left out of a mean and counted beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from nnunet_echo.evaluation.agreement import EF_THRESHOLDS, agreement, classification, ef_errors_penalised
from nnunet_echo.evaluation.left_ventricle.volume import PHASES
from nnunet_echo.evaluation.output import Row


def summarise_structures(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Structure -> "all" and each phase -> counts of frames, and for each of `metrics` its statistics over patients."""
    summary: dict[str, dict[str, Row]] = {}
    for structure in dict.fromkeys(row["structure"] for row in rows):
        of_structure = [row for row in rows if row["structure"] == structure]
        groups = {"all": of_structure}
        groups |= {phase: [row for row in of_structure if row["phase"] == phase] for phase in PHASES}
        summary[structure] = {name: _group(group, metrics) for name, group in groups.items() if group}
    return summary


def summarise_volumes(patients: Sequence[Row]) -> Row:
    """Agreement of EF, EDV and ESV over the patients of each kind of `planes`, which are never mixed; flags counted."""
    result: Row = {}
    for planes in sorted({str(row["planes"]) for row in patients if row["planes"]}):
        group = [row for row in patients if row["planes"] == planes]

        def pair(name: str, group: Sequence[Row] = group) -> tuple[list[float], list[float]]:
            return [row[f"prediction_{name}"] for row in group], [row[f"reference_{name}"] for row in group]

        ef = pair("ef_percent")
        result[planes] = {
            "ef_percent": agreement(*ef) | _penalised(*ef),
            **{f"ef_below_{threshold:g}": classification(*ef, threshold) for threshold in EF_THRESHOLDS},
            "edv_ml": agreement(*pair("edv_ml")),
            "esv_ml": agreement(*pair("esv_ml")),
            "recorded_ef": {
                side: agreement(values, [row["recorded_ef_percent"] for row in group])
                for side, values in zip(("prediction", "reference"), ef, strict=True)
            },
        }
    result["patients_without_both_phases"] = sum(not row["planes"] for row in patients)
    for side in ("prediction", "reference"):
        flags = Counter(flag for row in patients for flag in str(row[f"{side}_flags"]).split())
        result[f"{side}_flags"] = dict(sorted(flags.items()))
    return result


def summarise_anatomy(rows: Sequence[Row], side: str) -> Row:
    """How many frames of `side` ("prediction" or "reference") violate a criterion, and how many each of them."""
    found = [str(row[f"{side}_criteria"]).split() for row in rows]
    counts = Counter(name for names in found for name in names)
    errors = sum(map(bool, found))
    return {
        "frames": len(rows),
        "frames_with_errors": errors,
        "rate": errors / len(rows),
        "criteria": dict(sorted(counts.items())),
    }


def summarise_sequences(rows: Sequence[Row], side: str) -> Row:
    """Inconsistent frames of `side` over all frames, and over those of sequences that have one."""
    flagged = [row for row in rows if row[f"{side}_inconsistent_frames"]]
    frames, frames_of_flagged = (sum(row["frames"] for row in group) for group in (rows, flagged))
    inconsistent = sum(row[f"{side}_inconsistent_frames"] for row in rows)
    return {
        "sequences": len(rows),
        "sequences_with_errors": len(flagged),
        "frames": frames,
        "inconsistent_frames": inconsistent,
        "rate": inconsistent / frames,
        "rate_in_sequences_with_errors": inconsistent / frames_of_flagged if flagged else math.nan,
    }


def patient_means(rows: Sequence[Row], column: str, patients: Sequence[str]) -> ndarray:
    """(P,): the mean of `column` over the rows of each of `patients`; undefined values are left out of it."""
    place = {patient: index for index, patient in enumerate(patients)}
    index = np.array([place[row["patient"]] for row in rows], int)
    values = np.array([row[column] for row in rows], float)
    return group_means(values, index, len(patients))


def group_means(values: ndarray, group: ndarray, groups: int) -> ndarray:
    """(G,): the mean of the defined `values` (N,) of each group, which `group` (N,) numbers from 0; NaN without any."""
    defined = np.isfinite(values)
    total, count = (np.bincount(group[defined], weights, groups) for weights in (values[defined], None))
    return np.divide(total, count, out=np.full(groups, np.nan), where=count > 0)


def _penalised(prediction: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Over the patients with a reference EF, `n_reference` of them, whether it was predicted or not."""
    errors = ef_errors_penalised(prediction, reference)
    errors = errors[np.isfinite(errors)]
    return {"n_reference": len(errors), "mae_penalised": float(errors.mean()) if len(errors) else math.nan}


def _group(rows: Sequence[Row], metrics: Sequence[str]) -> Row:
    return {
        "frames": len(rows),
        "n_missing": sum(bool(row["prediction_empty"] and not row["reference_empty"]) for row in rows),
        "n_spurious": sum(bool(row["reference_empty"] and not row["prediction_empty"]) for row in rows),
        "n_both_empty": sum(bool(row["reference_empty"] and row["prediction_empty"]) for row in rows),
        **{metric: _over_patients(rows, metric) for metric in metrics},
    }


def _over_patients(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Statistics of the patients' means; `frames_undefined` counts the frames that are in none of them."""
    means = patient_means(rows, metric, list(dict.fromkeys(row["patient"] for row in rows)))
    values = means[np.isfinite(means)]
    return {
        "mean": float(values.mean()) if len(values) else math.nan,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        "median": float(np.median(values)) if len(values) else math.nan,
        "patients": len(values),
        "frames_undefined": sum(math.isnan(row[metric]) for row in rows),
    }
