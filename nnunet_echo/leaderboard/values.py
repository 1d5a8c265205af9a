"""The values of one model's evaluation, patient by patient, for the leaderboard's tables, tests and plots."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy import ndarray

from nnunet_echo.analysis.costs import Costs
from nnunet_echo.evaluation.evaluate import Evaluation
from nnunet_echo.evaluation.left_ventricle.volume import doubts
from nnunet_echo.evaluation.metrics import Metric
from nnunet_echo.evaluation.output import Row
from nnunet_echo.evaluation.pairs import Dataset
from nnunet_echo.evaluation.sequences import SIDES
from nnunet_echo.evaluation.summary import group_means
from nnunet_echo.leaderboard.collect import TrainedModel
from nnunet_echo.nnunet.logs import TrainingLog


@dataclass(frozen=True)
class Entry:
    """A model; the evaluations of its folds in one, each row headed by trainer and fold; what it cost to train.

    `predictions` is, for each fold, the folder of the label maps that were evaluated.
    """

    model: TrainedModel
    predictions: Mapping[int, Path]
    evaluation: Evaluation
    training: TrainingLog
    costs: Costs

    @cached_property
    def by_structure(self) -> dict[str, list[Row]]:
        """The case rows of each structure, sorted out once: every column asks for them."""
        found: dict[str, list[Row]] = {}
        for row in self.evaluation.cases:
            found.setdefault(row["structure"], []).append(row)
        return found

    @cached_property
    def _columns(self) -> dict[tuple[str, str], ndarray]:
        return {}

    @cached_property
    def _numbers(self) -> dict[str, tuple[dict[str, int], ndarray]]:
        """Structure -> the number of each patient, and that of each row."""
        return {}

    def column(self, structure: str, column: str) -> ndarray:
        """(N,): a column of the case rows of a structure, taken out of them once."""
        key = structure, column
        if key not in self._columns:
            self._columns[key] = np.array([row[column] for row in self.by_structure.get(structure, ())])
        return self._columns[key]

    def means(self, structure: str, values: ndarray, patients: Sequence[str]) -> ndarray:
        """(P,): for each patient, the mean of the defined `values` (N,) of the rows of a structure; NaN without any."""
        if structure not in self._numbers:
            new: dict[str, int] = {}
            rows = [new.setdefault(row["patient"], len(new)) for row in self.by_structure.get(structure, ())]
            self._numbers[structure] = new, np.array(rows, int)
        number, of_row = self._numbers[structure]
        found = np.append(group_means(values, of_row, len(number)), np.nan)
        return found[[number.get(patient, -1) for patient in patients]]

    def both_empty(self, structure: str) -> ndarray:
        """(N,), bool: the rows of a structure that is in neither prediction nor reference."""
        prediction, reference = (self.column(structure, f"{side}_empty") != 0 for side in SIDES)
        return prediction & reference

    @property
    def epochs_and_iterations(self) -> tuple[float, float]:
        """Epochs, and iterations of one: as logged, else as the trainer's name says, else NaN and nnU-Net's 250."""

        def of_name(word: str, default: float) -> float:
            match = re.search(rf"_(\d+){word}", self.model.trainer)
            return float(match[1]) if match else default

        epochs, iterations = self.training.epochs, self.training.iterations
        return (
            of_name("epochs", math.nan) if math.isnan(epochs) else epochs,
            of_name("iterations", 250.0) if math.isnan(iterations) else iterations,
        )


def in_one(evaluations: Mapping[int, Evaluation], trainer: str) -> Evaluation:
    """The rows of the evaluations of several folds, each headed by `trainer` and `fold`; without a summary."""
    tables = [field.name for field in fields(Evaluation) if field.name != "summary"]
    rows = {
        table: [
            {"trainer": trainer, "fold": fold} | row
            for fold, evaluation in evaluations.items()
            for row in getattr(evaluation, table)
        ]
        for table in tables
    }
    return Evaluation(summary={}, **rows)


def scored_structures(dataset: Dataset) -> list[str]:
    """The structures over which a score is averaged."""
    return [name for name in dataset.structures if name != "LV_EPI"]


def score_of(entry: Entry, metric: Metric, dataset: Dataset, patients: Sequence[str]) -> ndarray:
    """(P,): for each patient, the mean of a metric that counts misses over the structures of dataset.json."""
    means = [scored_values(entry, structure, metric, dataset, patients) for structure in scored_structures(dataset)]
    return np.mean(means, axis=0)


def scored_values(entry: Entry, structure: str, metric: Metric, dataset: Dataset, patients: Sequence[str]) -> ndarray:
    """(P,): for each patient, the mean over all frames of a metric that counts misses.

    A frame that has the structure in neither prediction nor reference is right: the metric's best value. Left out, it
    would be so for this model alone, and those that see something there would be compared on other frames.
    """
    of_rows = entry.column(structure, metric.column(dataset.unit))
    values = np.where(entry.both_empty(structure), metric.best, of_rows)
    return entry.means(structure, values, patients)


def values_of(entry: Entry, structure: str, column: str, patients: Sequence[str]) -> ndarray:
    """(P,): for each patient, the mean of `column` over the frames in which it is defined."""
    return entry.means(structure, entry.column(structure, column), patients)


def same_frames(entries: Sequence[Entry], structure: str) -> bool:
    """Whether the metrics of a structure are defined in the same frames of all entries."""
    undefined = [
        {entry.by_structure[structure][row]["case"] for row in np.flatnonzero(entry.both_empty(structure))}
        for entry in entries
    ]
    return all(cases == undefined[0] for cases in undefined)


def common_planes(entries: Sequence[Entry]) -> str:
    """Biplane, or the single plane: of what most patients with a reference EF have; biplane of two that are as many.

    One for all entries, whatever they predict. "" where no patient has a reference EF.
    """
    of_patient = {
        row["patient"]: row["planes"]
        for entry in entries
        for row in entry.evaluation.patients
        if row["planes"] and math.isfinite(row["reference_ef_percent"])
    }
    count = Counter(of_patient.values())
    return max(sorted(count), key=count.__getitem__, default="")  # "biplane" comes first


def ef_rows(entry: Entry, planes: str) -> list[Row]:
    """The rows of the patients who have a reference EF of these planes: those over whom all of EF is."""
    return [
        row
        for row in entry.evaluation.patients
        if row["planes"] == planes and math.isfinite(row["reference_ef_percent"])
    ]


def ef_doubts(row: Row) -> dict[str, list[str]]:
    """Why not to trust the EF of a row of `ef_rows`: the doubts of prediction and reference, of an EF that is there."""
    return {side: doubts(row[f"{side}_flags"]) if math.isfinite(row[f"{side}_ef_percent"]) else [] for side in SIDES}


def ejection_fractions(entry: Entry, patients: Sequence[str], planes: str) -> tuple[ndarray, ndarray]:
    """Prediction and reference, each (P,), in percent; NaN for a patient who is not in `ef_rows`."""
    found = {row["patient"]: row for row in ef_rows(entry, planes)}
    prediction, reference = (
        np.array([found[patient][f"{side}_ef_percent"] if patient in found else np.nan for patient in patients])
        for side in SIDES
    )
    return prediction, reference


def same_ef_patients(entries: Sequence[Entry], patients: Sequence[str], planes: str) -> ndarray:
    """(P,), bool: the patients in whom every one of `entries` has predicted an EF."""
    return np.all([np.isfinite(np.subtract(*ejection_fractions(entry, patients, planes))) for entry in entries], axis=0)
