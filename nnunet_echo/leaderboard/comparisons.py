"""Is the difference to the baseline certain? Which model that is, and every ranked one tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy import ndarray

from nnunet_echo.evaluation.agreement import ef_errors_penalised
from nnunet_echo.evaluation.metrics import METRICS, Shown, shown_metrics
from nnunet_echo.evaluation.pairs import Dataset
from nnunet_echo.leaderboard.collect import COMPLETE, TrainedModel
from nnunet_echo.leaderboard.statistics import compare, holm
from nnunet_echo.leaderboard.values import Entry, common_planes, ejection_fractions, same_ef_patients, scored_values

DEFAULT_BASELINE = "nnUNetTrainer"


class Comparison(TypedDict):
    """A row of comparisons.csv: `difference` is the mean of trainer minus baseline over `n` patients."""

    trainer: str
    baseline: str
    structure: str
    metric: str
    n: int
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float


def find_baseline(models: Sequence[TrainedModel], given: str | None, plans: str | None) -> str:
    """The baseline's name; "" where none was asked for and nnU-Net's own trainer is not complete.

    Where all models have the same `plans`, a trainer's name is enough. Raises `ValueError` for an incomplete one.
    """
    names = {
        name: model
        for model in models
        for name in (model.name, f"{model.trainer}__{model.plans}", model.trainer if plans else model.name)
    }
    model = names.get(given or DEFAULT_BASELINE)
    if model is not None and model.status == COMPLETE:
        return model.name
    if given:
        state = f"is {model.status} ({'; '.join(model.reasons)})" if model else f"is none of {', '.join(sorted(names))}"
        raise ValueError(f"baseline {given} {state}. Choose a complete one.")
    return ""


def compare_with_baseline(
    entries: Sequence[Entry],
    baseline: str,
    rank_by: str,
    scores: ndarray,
    dataset: Dataset,
    patients: Sequence[str],
    weights: ndarray,
) -> list[Comparison]:
    """Every ranked entry against the baseline; Holm's correction over the models of one structure and metric.

    All of one structure and metric are on the same patients. `scores` is (P, R) of the R entries, `weights` (S, P).
    [] where the baseline is none of the entries.
    """
    names = [entry.model.name for entry in entries]
    if baseline not in names:
        return []
    values: dict[tuple[str, str], list[ndarray]] = {("score", METRICS[rank_by].column(dataset.unit)): list(scores.T)}
    values |= {
        (structure, metric.column(dataset.unit)): [
            scored_values(entry, structure, metric, dataset, patients) for entry in entries
        ]
        for structure in dataset.structures
        for metric in shown_metrics(Shown.TEST)
    }
    if "LV" in dataset.structures:
        planes = common_planes(entries)
        pairs = [ejection_fractions(entry, patients, planes) for entry in entries]
        same = same_ef_patients(entries, patients, planes)
        values["EF", "absolute_error"] = [np.where(same, np.abs(x - y), np.nan) for x, y in pairs]
        values["EF", "absolute_error_penalised"] = [ef_errors_penalised(x, y) for x, y in pairs]
    rows: list[Comparison] = []
    for (structure, metric_name), of_models in values.items():
        reference = of_models[names.index(baseline)]
        results = {
            name: compare(of_model, reference, weights)
            for name, of_model in zip(names, of_models, strict=True)
            if name != baseline
        }
        corrected = holm([result["p"] for result in results.values()])
        rows += [
            {
                "trainer": name,
                "baseline": baseline,
                "structure": structure,
                "metric": metric_name,
                **result,
                "p_holm": p,
            }
            for (name, result), p in zip(results.items(), corrected, strict=True)
        ]
    return rows
