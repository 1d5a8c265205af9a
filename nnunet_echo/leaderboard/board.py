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
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from nnunet_echo.analysis.costs import network_costs
from nnunet_echo.data.cases import case_table, patient_of
from nnunet_echo.data.frames import frame_names, write_frames
from nnunet_echo.evaluation.evaluate import evaluate
from nnunet_echo.evaluation.metrics import METRICS, ranking_metrics
from nnunet_echo.evaluation.pairs import Dataset, read_dataset
from nnunet_echo.leaderboard.collect import COMPLETE, REFUSED, ComparedFolds, TrainedModel, find_models, read_split
from nnunet_echo.leaderboard.comparisons import Comparison, compare_with_baseline, find_baseline
from nnunet_echo.leaderboard.statistics import Ranking, bootstrap_weights, rank
from nnunet_echo.leaderboard.values import Entry, common_planes, in_one, score_of, scored_structures
from nnunet_echo.networks import title_of
from nnunet_echo.nnunet.folders import find_dataset, preprocessed_splits
from nnunet_echo.nnunet.logs import read_training
from nnunet_echo.nnunet.results import results_folder

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Board:
    """A leaderboard. `entries` are in order: ranked, then incomplete, then refused.

    `patients` are those of the split, in the order of the arrays: `scores` (P, R) of the R ranked entries, which come
    first, and `weights` of the bootstrap.
    `references` is the folder of label maps that were evaluated against. Where these are frames of sequences, `cines`
    tells for each the sequence's case, whose image is in `raw`, and the frame's number from 1.
    """

    dataset: Dataset
    raw: Path
    references: Path
    cines: Mapping[str, tuple[str, int]]
    configuration: str
    split: ComparedFolds
    entries: list[Entry]
    patients: list[str]
    rank_by: str
    scores: ndarray
    weights: ndarray
    ranking: Ranking | None
    baseline: str
    comparisons: list[Comparison]
    method: str
    consistency_limits: str
    seed: int

    @property
    def score(self) -> str:
        """The column whose mean over `scored_structures` is the score."""
        return METRICS[self.rank_by].column(self.dataset.unit)

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
        found = {
            entry.model.name: entry.epochs_and_iterations for entry in self.entries if entry.model.status == COMPLETE
        }
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

    @property
    def unofficial(self) -> str:
        """A sentence on the networks that are not their authors' own, else ""."""
        titles = {entry.model.name: title_of(entry.model.trainer) for entry in self.entries}
        named = [f"{name} is {title}" for name, title in titles.items() if "unofficial" in title]
        return f"{'; '.join(named)}: its rows say nothing of the published network." if named else ""

    @property
    def pretrained(self) -> str:
        """A sentence on the trainers that did not start from random weights, else ""."""
        found = [
            f"{entry.model.name} from {entry.model.pretrained}" for entry in self.entries if entry.model.pretrained
        ]
        return f"Pretrained: {'; '.join(found)}." if found else ""

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

    `baseline` names the model that the others are tested against (default: nnUNetTrainer, if it is complete); `folds`
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
    if rank_by not in ranking_metrics():
        raise ValueError(f"rank_by={rank_by!r}: expected one of {', '.join(ranking_metrics())}.")
    raw = find_dataset(str(dataset))
    dataset_json = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    cines: dict[str, tuple[str, int]] = {}
    references = raw / "labelsTr"
    if "sequence" in dataset_json:
        if scratch is None:
            raise ValueError(f"{raw.name} holds sequences; `scratch` is None and must be a folder for their frames.")
        phases = "ignore" in dataset_json["labels"]
        cines = {
            name: (case, number)
            for case, row in case_table(raw).items()
            for name, number in frame_names(row, phases).items()
        }
        references = scratch / "references"
        write_frames(raw / "labelsTr", raw, references, phases=phases, workers=workers, progress=progress)
    content_file = (references if cines else raw) / "dataset.json"
    content = read_dataset(content_file)
    splits = preprocessed_splits(raw.name)
    split = read_split(splits if splits and splits.is_file() else raw / "splits_final.json", dataset_json, folds)
    models = find_models(results_folder() / raw.name, configuration, split, content.file_ending, trainers, plans)
    tested_against = find_baseline(models, baseline, plans)

    def entry(model: TrainedModel) -> Entry:
        folds = model.folds if model.status != REFUSED else ()
        predictions = {fold: model.validation(fold) for fold in folds}
        if cines and scratch:
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
        cines=cines,
        configuration=configuration,
        split=split,
        patients=patients,
        rank_by=rank_by,
        baseline=tested_against,
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
    **others: Any,
) -> Board:
    """The board of entries that are evaluated: complete ones are ranked and tested; `others` are fields as they are."""
    weights = bootstrap_weights(len(patients), seed)
    metric = METRICS[rank_by]
    of_entry = [
        (score_of(entry, metric, dataset, patients), entry) for entry in entries if entry.model.status == COMPLETE
    ]
    of_entry.sort(key=lambda scored: scored[0].mean() * (-1 if metric.higher_is_better else 1))
    complete = [entry for _, entry in of_entry]
    scores = np.array([score for score, _ in of_entry]).reshape(len(complete), len(patients)).T
    ranking = rank(scores, weights, higher_is_better=metric.higher_is_better) if complete else None
    unranked = sorted(
        (entry for entry in entries if entry.model.status != COMPLETE), key=lambda entry: entry.model.status
    )
    comparisons = compare_with_baseline(complete, baseline, rank_by, scores, dataset, patients, weights)
    return Board(
        dataset=dataset,
        entries=[*complete, *unranked],
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
    return [known.get(board.cines.get(case, (case,))[0], {}).get("quality") or "" for case in cases]
