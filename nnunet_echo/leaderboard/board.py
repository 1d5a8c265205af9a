"""Every model of a dataset, evaluated and compared: the content of the leaderboard's files.

Frames are averaged over each patient, patients over all. The score that ranks is, for each patient, the mean over the
structures of dataset.json of one metric, in which a missed structure costs: it is never left out. A structure that is
in neither prediction nor reference counts as right, so that every model has a score of every patient. Whole models are
ranked and tested against the baseline, on the same patients; the others are shown beside them, marked, and no more.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from nnunet_echo.analysis.costs import network_costs
from nnunet_echo.data.cases import case_table, patient_of
from nnunet_echo.data.frames import frame_names, write_frames
from nnunet_echo.evaluation.agreement import ef_errors_penalised
from nnunet_echo.evaluation.evaluate import Evaluation, evaluate, metric_columns
from nnunet_echo.evaluation.pairs import Dataset, read_dataset
from nnunet_echo.leaderboard.collect import REFUSED, WHOLE, Model, Split, find_models, read_split
from nnunet_echo.leaderboard.statistics import Ranking, bootstrap_weights, compare, holm, rank
from nnunet_echo.leaderboard.values import (
    RANKING_METRICS,
    Entry,
    common_planes,
    ejection_fractions,
    same_ef_patients,
    score_of,
    scored_structures,
    scored_values,
)
from nnunet_echo.nnunet.folders import find_dataset, preprocessed_splits
from nnunet_echo.nnunet.logs import read_training
from nnunet_echo.nnunet.results import results_folder

if TYPE_CHECKING:
    from pandas import DataFrame

TESTED_METRICS = ("dice", "hd95_penalised")
DEFAULT_BASELINE = "nnUNetTrainer"


@dataclass(frozen=True, eq=False)
class Board:
    """A leaderboard. `entries` are in order: ranked, then incomplete, then refused.

    `patients` are those of the split, in the order of the arrays: `scores` (P, R) of the R ranked entries, which come
    first, and `weights` of the bootstrap. `comparisons` are rows: model, structure, metric, difference to the baseline.
    `references` is the folder of label maps that were evaluated against. Where these are frames of sequences, `films`
    tells for each the sequence's case, whose image is in `raw`, and the frame's number from 1.
    """

    dataset: Dataset
    raw: Path
    references: Path
    films: Mapping[str, tuple[str, int]]
    configuration: str
    split: Split
    entries: list[Entry]
    patients: list[str]
    rank_by: str
    scores: ndarray
    weights: ndarray
    ranking: Ranking | None
    baseline: str
    comparisons: list[dict[str, object]]
    method: str
    consistency_limits: str
    seed: int

    @property
    def columns(self) -> dict[str, str]:
        """Metric -> its column in the case rows."""
        return metric_columns(self.dataset.unit)

    @property
    def score(self) -> str:
        """The column whose mean over `scored_structures` is the score."""
        return self.columns[self.rank_by]

    @property
    def scored_structures(self) -> list[str]:
        """Those of dataset.json; LV_EPI is made of two of them."""
        return scored_structures(self.dataset)

    @cached_property
    def ef_planes(self) -> str:
        """The planes of all ejection fractions of the board, see `common_planes`."""
        return common_planes(self.entries)

    @property
    def lengths(self) -> str:
        """A sentence where ranked trainers were trained for different numbers of iterations, else ""."""
        found = {entry.model.name: entry.epochs_and_iterations for entry in self.entries if entry.model.status == WHOLE}
        if len({epochs * iterations for epochs, iterations in found.values() if epochs == epochs}) < 2:
            return ""
        each = (
            f"{name} {epochs:g} x {iterations:g}" if epochs == epochs else f"{name} not known"
            for name, (epochs, iterations) in found.items()
        )
        return (
            "The ranked trainers were trained for different lengths, so their order is of these as well as of the "
            f"networks (epochs x iterations): {', '.join(each)}."
        )

    def table(self, name: str) -> DataFrame:
        """ "leaderboard", "comparisons", or one of an evaluation, such as "patients", as a pandas DataFrame.

        docs/reference/leaderboard.md and metrics.md define the columns. Raises `ValueError` for another name.
        """
        import pandas

        from nnunet_echo.leaderboard.tables import board_rows

        return pandas.DataFrame(board_rows(self, name))

    def versions(self) -> dict[str, str]:
        """What the numbers were computed with."""
        packages = ("nnunet_echo", "nnunetv2", "numpy", "scipy")
        return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def leaderboard(
    dataset: str | int,
    configuration: str = "2d",
    *,
    plans: str | None = None,
    trainers: Sequence[str] | None = None,
    baseline: str | None = None,
    folds: Sequence[int] | None = None,
    rank_by: str = "dice",
    method: str = "ase",
    rounding: bool = False,
    consistency_limits: str = "references",
    seed: int = 0,
    scratch: Path | None = None,
    workers: int | None = 1,
    progress: bool = False,
) -> Board:
    """Evaluate and compare all models of `configuration` in nnU-Net's three folders, or those of `plans` or `trainers`.

    `baseline` names the model that the others are tested against (default: nnUNetTrainer, if it is whole); `folds`
    are compared (default: all of the split); `method`, `rounding` and `consistency_limits` are those of `evaluate`.
    Sequences are compared frame by frame, or where labels are sparse by ED and ES: `scratch`, a folder that is kept
    while the board is in use, gets these frames. `workers` and `progress` are those of `evaluate`, too.
    Raises `ValueError` or `OSError`, naming the file or the value, for what cannot be compared.

    >>> import nnunet_echo
    >>> board = nnunet_echo.leaderboard(751, baseline="nnUNetTrainer")
    >>> board.table("leaderboard")[["rank", "trainer", "score_mean"]].round(2).to_dict("records")[0]
    {'rank': 1, 'trainer': 'nnUNetTrainerNoMamba_2epochs', 'score_mean': 0.93}
    >>> board.table("comparisons")["metric"].unique().tolist()
    ['dice', 'hd95_penalised_mm', 'absolute_error', 'absolute_error_penalised']
    """
    if rank_by not in RANKING_METRICS:
        raise ValueError(f"rank_by is {rank_by!r}; choose from {', '.join(RANKING_METRICS)}")
    raw = find_dataset(str(dataset))
    dataset_json = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    films: dict[str, tuple[str, int]] = {}
    references = raw / "labelsTr"
    if "sequence" in dataset_json:
        if scratch is None:
            raise ValueError(f"{raw.name} holds sequences; `scratch` is None and must be a folder for their frames")
        phases = "ignore" in dataset_json["labels"]
        films = {
            name: (case, number)
            for case, row in case_table(raw).items()
            for name, number in frame_names(row, phases).items()
        }
        references = scratch / "references"
        write_frames(raw / "labelsTr", raw, references, phases=phases, workers=workers, progress=progress)
    content_file = (references if films else raw) / "dataset.json"
    content = read_dataset(content_file)
    splits = preprocessed_splits(raw.name)
    split = read_split(splits if splits and splits.is_file() else raw / "splits_final.json", dataset_json, folds)
    models = find_models(results_folder() / raw.name, configuration, split, content.file_ending, trainers, plans)
    baseline = _baseline(models, baseline, plans)

    def entry(model: Model) -> Entry:
        folds = model.folds if model.status != REFUSED else ()
        predictions = {fold: model.validation(fold) for fold in folds}
        if films:
            predictions = {fold: scratch / model.folder.name / f"fold_{fold}" for fold in folds}
            for fold, frames in predictions.items():
                write_frames(model.validation(fold), raw, frames, phases=phases, workers=workers, progress=progress)
        evaluations = {
            fold: evaluate(
                maps,
                references,
                dataset_json=content_file,
                method=method,
                rounding=rounding,
                subset=True,
                consistency_limits=consistency_limits,
                workers=workers,
                progress=progress,
            )
            for fold, maps in predictions.items()
        }
        training = read_training([model.folder / f"fold_{fold}" for fold in folds])
        costs = network_costs(model.folder, model.trainer, configuration)
        return Entry(model, predictions, in_one(evaluations, model.name), training, costs)

    entries = [entry(model) for model in models]
    patients = sorted({patient_of(case, dataset_json) for cases in split.validation.values() for case in cases})
    return ranked(
        entries,
        dataset=content,
        raw=raw,
        references=references,
        films=films,
        configuration=configuration,
        split=split,
        patients=patients,
        rank_by=rank_by,
        baseline=baseline,
        method=f"{method}, rounded" if rounding else method,
        consistency_limits=consistency_limits,
        seed=seed,
    )


def ranked(
    entries: Sequence[Entry],
    *,
    dataset: Dataset,
    patients: list[str],
    rank_by: str,
    baseline: str,
    seed: int,
    **others: object,
) -> Board:
    """The board of entries that are evaluated: whole ones are ranked and tested; `others` are fields as they are."""
    weights = bootstrap_weights(len(patients), seed)
    sign = -1 if RANKING_METRICS[rank_by] else 1
    of_entry = [
        (score_of(entry, rank_by, dataset, patients), entry) for entry in entries if entry.model.status == WHOLE
    ]
    of_entry.sort(key=lambda scored: sign * scored[0].mean())
    whole = [entry for _, entry in of_entry]
    scores = np.array([score for score, _ in of_entry]).reshape(len(whole), len(patients)).T
    ranking = rank(scores, weights, higher_is_better=RANKING_METRICS[rank_by]) if whole else None
    unranked = sorted((entry for entry in entries if entry.model.status != WHOLE), key=lambda entry: entry.model.status)
    comparisons = _comparisons(whole, baseline, rank_by, scores, dataset, patients, weights)
    return Board(
        dataset=dataset,
        entries=[*whole, *unranked],
        patients=patients,
        rank_by=rank_by,
        scores=scores,
        weights=weights,
        ranking=ranking,
        baseline=baseline,
        comparisons=comparisons,
        seed=seed,
        **others,
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


def case_scores(board: Board, entry: Entry, cases: Sequence[str]) -> ndarray:
    """(C,): the mean Dice of each case over the structures of dataset.json; NaN where the model has no such case."""
    values: dict[str, list[float]] = {}
    for row in entry.evaluation.cases:
        if row["structure"] in board.scored_structures and not math.isnan(row["dice"]):
            values.setdefault(row["case"], []).append(row["dice"])
    return np.array([fmean(values[case]) if case in values else np.nan for case in cases])


def image_quality(board: Board, cases: Sequence[str]) -> list[str]:
    """The image quality of each case in the table that `nnunet-echo convert` wrote, "" where it is not known."""
    known = case_table(board.raw)
    return [known.get(board.films.get(case, (case,))[0], {}).get("quality") or "" for case in cases]


def _baseline(models: Sequence[Model], given: str | None, plans: str | None) -> str:
    """The baseline's name; "" where none was asked for and nnU-Net's own trainer is not whole.

    Where all models have the same `plans`, a trainer's name is enough.
    """
    names = {
        name: model
        for model in models
        for name in (model.name, f"{model.trainer}__{model.plans}", model.trainer if plans else model.name)
    }
    model = names.get(given or DEFAULT_BASELINE)
    if model is not None and model.status == WHOLE:
        return model.name
    if given:
        state = f"is {model.status} ({'; '.join(model.reasons)})" if model else f"is none of {', '.join(sorted(names))}"
        raise ValueError(f"baseline {given} {state}; choose a whole one")
    return ""


def _comparisons(
    entries: Sequence[Entry],
    baseline: str,
    rank_by: str,
    scores: ndarray,
    dataset: Dataset,
    patients: Sequence[str],
    weights: ndarray,
) -> list[dict[str, object]]:
    """Every ranked entry against the baseline; Holm's correction over the models of one structure and metric.

    All of one structure and metric are on the same patients.
    """
    names = [entry.model.name for entry in entries]
    if baseline not in names:
        return []
    columns = metric_columns(dataset.unit)
    values: dict[tuple[str, str], list[ndarray]] = {("score", columns[rank_by]): list(scores.T)}
    values |= {
        (structure, columns[metric]): [scored_values(entry, structure, metric, dataset, patients) for entry in entries]
        for structure in dataset.structures
        for metric in TESTED_METRICS
    }
    if "LV" in dataset.structures:
        planes = common_planes(entries)
        pairs = [ejection_fractions(entry, patients, planes) for entry in entries]
        same = same_ef_patients(entries, patients, planes)
        values["EF", "absolute_error"] = [np.where(same, np.abs(x - y), np.nan) for x, y in pairs]
        values["EF", "absolute_error_penalised"] = [ef_errors_penalised(*pair) for pair in pairs]
    rows = []
    for (structure, metric), of_models in values.items():
        reference = of_models[names.index(baseline)]
        results: dict[str, Mapping[str, float]] = {
            name: compare(of_model, reference, weights)
            for name, of_model in zip(names, of_models, strict=True)
            if name != baseline
        }
        corrected = holm([result["p"] for result in results.values()])
        head = {"baseline": baseline, "structure": structure, "metric": metric}
        rows += [
            {"trainer": name, **head, **result, "p_holm": p}
            for (name, result), p in zip(results.items(), corrected, strict=True)
        ]
    return rows
