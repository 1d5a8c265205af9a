"""The leaderboard's tables: leaderboard.csv, comparisons.csv, cases.csv, patients.csv, summary.json, leaderboard.md.

docs/reference/leaderboard.md defines every column.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from nnunet_echo.evaluation.evaluate import TABLES, Evaluation
from nnunet_echo.evaluation.metrics import Shown, shown_metrics
from nnunet_echo.evaluation.output import Row, write_table
from nnunet_echo.evaluation.sequences import SIDES
from nnunet_echo.evaluation.summary import summarise_anatomy, summarise_sequences, summarise_volumes
from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.cells import known
from nnunet_echo.leaderboard.collect import COMPLETE, REFUSED
from nnunet_echo.leaderboard.markdown import markdown
from nnunet_echo.leaderboard.statistics import SAMPLES, describe
from nnunet_echo.leaderboard.values import Entry, ef_doubts, ef_rows, values_of

EF_STATISTICS = (
    "n",
    "n_undefined",
    "bias",
    "sd",
    "loa_low",
    "loa_high",
    "mae",
    "mae_penalised",
    "rmse",
    "pearson_r",
    "r2",
)
VOLUME_STATISTICS = ("n", "bias", "sd", "mae")
RECORDED_EF_STATISTICS = ("n", "bias", "sd", "mae", "rmse", "pearson_r", "r2")
TRAINING_NOT_SEEDED = "not set"  # nnU-Net draws its own, and logs none


def write_tables(board: Board, out: Path) -> None:
    """Write all of them to the folder `out`, made if need be; comparisons.csv where there are any."""
    Evaluation(summary=summary(board), **{table: board_rows(board, table) for table in TABLES}).write(out)
    rows = leaderboard_rows(board)
    write_table(out / "leaderboard.csv", rows)
    (out / "leaderboard.md").write_text(markdown(board, rows), encoding="utf-8")
    if board.comparisons:
        write_table(out / "comparisons.csv", board_rows(board, "comparisons"))


def board_rows(board: Board, table: str) -> list[Row]:
    """The rows of a table: "leaderboard", "comparisons", or one of an evaluation, of all trainers.

    Raises `ValueError` for another name.
    """
    if table == "leaderboard":
        return leaderboard_rows(board)
    if table == "comparisons":
        return [{**row} for row in board.comparisons]
    if table not in TABLES:
        raise ValueError(
            f"name={table!r}: there is no such table. Choose from leaderboard, comparisons, {', '.join(TABLES)}."
        )
    return [row for entry in board.entries for row in getattr(entry.evaluation, table)]


@lru_cache(maxsize=1)  # tables and report show the same
def leaderboard_rows(board: Board) -> list[Row]:
    """One row for each entry, all with the same columns."""
    against = {row["trainer"]: row for row in board.comparisons if row["structure"] == "score"}
    versions = "; ".join(f"{name} {number}" for name, number in board.versions().items())
    rows = []
    for index, entry in enumerate(board.entries):
        model = entry.model
        test: Row = {**against.get(model.name, {})}
        ranking = board.ranking if model.status == COMPLETE else None
        scores = board.scores[:, index] if ranking else np.full(len(board.patients), np.nan)
        rows.append(
            {
                "rank": int(ranking.ranks[index]) if ranking else "",
                "rank_low": int(ranking.low[index]) if ranking else "",
                "rank_high": int(ranking.high[index]) if ranking else "",
                "rank_1_share": float(ranking.shares[index, 0]) if ranking else math.nan,
                "trainer": model.name,
                "plans": model.plans,
                "configuration": model.configuration,
                "status": model.status,
                "reasons": "; ".join(model.reasons),
                "pretrained": model.pretrained,
                "score": f"mean over {' '.join(board.scored_structures)} of {board.score}",
                **_prefixed("score", describe(scores, board.weights)),
                "baseline": board.baseline,
                **{
                    f"difference_{name}": test.get(key, math.nan)
                    for name, key in (("mean", "difference"), ("ci_low", "ci_low"), ("ci_high", "ci_high"))
                },
                "p": test.get("p", math.nan),
                "p_holm": test.get("p_holm", math.nan),
                **_structures(board, entry),
                **_ejection_fraction(board, entry),
                **_errors(entry),
                **_cost_columns(entry),
                "patients": len(entry.evaluation.patients),
                "patients_of_split": len(board.patients),
                "cases": len({row["case"] for row in entry.evaluation.cases}),
                "folds": " ".join(map(str, model.folds)),
                "folds_of_split": " ".join(map(str, board.split.validation)),
                "split": board.split.hash if model.status != REFUSED else "",
                "grid": "native",
                "unit": board.dataset.unit,
                "metric_variants": "hd95 larger of two directed percentiles; assd pooled",
                "versions": versions,
                "training_seed": TRAINING_NOT_SEEDED,
                "bootstrap_seed": board.seed,
                "bootstrap_samples": SAMPLES,
            }
        )
    return rows


def summary(board: Board) -> Row:
    """What is the same for all rows, and the stability of the ranks."""
    ranking = board.ranking
    return {
        "versions": board.versions(),
        "dataset": board.raw.name,
        "configuration": board.configuration,
        "split": board.split.hash,
        "folds": list(board.split.validation),
        "patients": len(board.patients),
        "grid": "native",
        "unit": board.dataset.unit,
        "hd95": "max of the two directed 95th percentiles",
        "averages": "frames of a patient, then patients",
        "score": f"mean over {' '.join(board.scored_structures)} of {board.score}",
        "ef_method": board.method,
        "ef_planes": board.ef_planes or None,
        "different_training_lengths": board.lengths or None,
        "consistency_limits": board.consistency_limits,
        "baseline": board.baseline or None,
        "bootstrap": {"samples": SAMPLES, "seed": board.seed, "unit": "patient", "interval": "95 % percentile"},
        "rank_stability": {
            "kendall_tau": ranking.kendall_tau,
            "shares_of_ranks": {
                entry.model.name: shares.tolist() for entry, shares in zip(board.entries, ranking.shares, strict=False)
            },
        }
        if ranking
        else None,
        "models": {
            entry.model.name: {
                "status": entry.model.status,
                "folds": list(entry.model.folds),
                "reasons": list(entry.model.reasons),
                "pretrained": entry.model.pretrained or None,
            }
            for entry in board.entries
        },
    }


def _structures(board: Board, entry: Entry) -> Row:
    columns: Row = {}
    for structure in board.dataset.structures:
        for column in (metric.column(board.dataset.unit) for metric in shown_metrics(Shown.BOARD)):
            values = values_of(entry, structure, column, board.patients)
            columns |= _prefixed(f"{structure}_{column}", describe(values, board.weights))
        prediction, reference = (entry.column(structure, f"{side}_empty") for side in SIDES)
        columns |= {
            f"{structure}_{name}": int(np.sum(there < empty)) if len(there) else ""
            for name, there, empty in (("n_missing", reference, prediction), ("n_spurious", prediction, reference))
        }
    return columns


def _ejection_fraction(board: Board, entry: Entry) -> Row:
    """Agreement over the patients with a reference EF of the board's planes, which `ef_planes` names."""
    rows = ef_rows(entry, board.ef_planes)
    group = summarise_volumes(rows)[board.ef_planes] if rows else {}
    columns: Row = {
        "ef_method": board.method if rows else "",
        "ef_planes": board.ef_planes if rows else "",
        "ef_patients": len(rows) if entry.evaluation.patients else "",
        "ef_patients_of_other_planes": sum(
            row["planes"] not in ("", board.ef_planes) for row in entry.evaluation.patients
        ),
    }
    found = [ef_doubts(row) for row in rows]
    columns["ef_n_flagged"] = sum(any(of_sides.values()) for of_sides in found) if entry.evaluation.patients else ""
    for side in SIDES:
        count = Counter(doubt for of_sides in found for doubt in of_sides[side])
        columns[f"ef_{side}_flags"] = ", ".join(f"{doubt} {number}" for doubt, number in sorted(count.items()))
    columns |= {f"ef_{name}": group.get("ef_percent", {}).get(name, math.nan) for name in EF_STATISTICS}
    for threshold in (40, 50):
        columns |= {
            f"ef_below_{threshold}_{name}": group.get(f"ef_below_{threshold}", {}).get(name, math.nan)
            for name in ("auc", "kappa")
        }
    for side, found in group.get("recorded_ef", dict.fromkeys(SIDES, {})).items():
        columns |= {f"recorded_ef_{side}_{name}": found.get(name, math.nan) for name in RECORDED_EF_STATISTICS}
    for volume in ("edv_ml", "esv_ml"):
        columns |= {f"{volume}_{name}": group.get(volume, {}).get(name, math.nan) for name in VOLUME_STATISTICS}
    return columns


def _errors(entry: Entry) -> Row:
    """Frames that break an anatomical criterion, frames that do not fit their neighbours; of the predictions."""
    anatomy = summarise_anatomy(entry.evaluation.anatomy, "prediction") if entry.evaluation.anatomy else {}
    sequences = summarise_sequences(entry.evaluation.sequences, "prediction") if entry.evaluation.sequences else {}
    return {
        "anatomy_frames": anatomy.get("frames", ""),
        "anatomy_frames_with_errors": anatomy.get("frames_with_errors", ""),
        "anatomy_rate": anatomy.get("rate", math.nan),
        **{name: sequences.get(name, "") for name in ("sequences", "sequences_with_errors", "inconsistent_frames")},
        "sequence_frames": sequences.get("frames", ""),
        "inconsistent_rate": sequences.get("rate", math.nan),
    }


def _cost_columns(entry: Entry) -> Row:
    training, costs = entry.training, entry.costs
    unknown = []
    if costs.reason:
        unknown.append(f"parameters or FLOPs: {costs.reason}")
    unknown += [
        f"{what}: not logged"
        for what, value in (
            ("training time", training.total_h),
            ("peak memory", training.peak_gib),
            ("time per validation case", training.validation_s),
        )
        if not known(value)
    ]
    return {
        "parameters": costs.parameters,
        "flops": costs.flops,
        "patch": costs.patch,
        "epochs": training.epochs,
        "training_iterations": math.prod(entry.epochs_and_iterations),
        "epoch_s": training.epoch_s,
        "training_h": training.total_h,
        "peak_memory_gib": training.peak_gib,
        "validation_s_per_case": training.validation_s,
        "device": training.device,
        "torch": training.torch,
        "not_known": "; ".join(unknown),
    }


def _prefixed(name: str, statistics: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in statistics.items()}
