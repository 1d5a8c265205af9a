"""The leaderboard's tables: leaderboard.csv, comparisons.csv, cases.csv, patients.csv, summary.json, leaderboard.md.

docs/reference/leaderboard.md defines every column.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from nnunet_echo.evaluation.evaluate import TABLES, Evaluation
from nnunet_echo.evaluation.output import write_table
from nnunet_echo.evaluation.sequences import SIDES
from nnunet_echo.evaluation.summary import summarise_anatomy, summarise_sequences, summarise_volumes
from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.collect import REFUSED, WHOLE
from nnunet_echo.leaderboard.statistics import SAMPLES, describe
from nnunet_echo.leaderboard.values import Entry, ef_doubts, ef_rows, values_of

METRICS = ("dice", "iou", "hd", "hd95", "hd95_penalised", "assd", "nsd_1", "nsd_2")
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
    """Write all of them to the folder `out`, made if need be."""
    Evaluation(summary=summary(board), **{table: board_rows(board, table) for table in TABLES}).write(out)
    rows = leaderboard_rows(board)
    write_table(out / "leaderboard.csv", rows)
    if board.comparisons:
        write_table(out / "comparisons.csv", board.comparisons)
    (out / "leaderboard.md").write_text(markdown(board, rows), encoding="utf-8")


def board_rows(board: Board, table: str) -> list[dict[str, object]]:
    """The rows of a table: "leaderboard", "comparisons", or one of an evaluation, of all trainers.

    Raises `ValueError` for another name.
    """
    if table == "leaderboard":
        return leaderboard_rows(board)
    if table == "comparisons":
        return board.comparisons
    if table not in TABLES:
        raise ValueError(
            f"name={table!r}: there is no such table. Choose from leaderboard, comparisons, {', '.join(TABLES)}."
        )
    return [row for entry in board.entries for row in getattr(entry.evaluation, table)]


@lru_cache(maxsize=1)  # tables and report show the same
def leaderboard_rows(board: Board) -> list[dict[str, object]]:
    """One row for each entry, all with the same columns."""
    against = {row["trainer"]: row for row in board.comparisons if row["structure"] == "score"}
    versions = "; ".join(f"{name} {number}" for name, number in board.versions().items())
    rows = []
    for index, entry in enumerate(board.entries):
        model, test = entry.model, against.get(entry.model.name, {})
        ranking = board.ranking if model.status == WHOLE else None
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


def summary(board: Board) -> dict[str, object]:
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
            }
            for entry in board.entries
        },
    }


def markdown(board: Board, rows: Sequence[Mapping[str, object]]) -> str:
    """The table to read and to paste: means and sd over patients, in the order of the ranks."""
    unit, hd95 = board.dataset.unit, board.columns["hd95_penalised"]
    structures, scored = list(board.dataset.structures), ", ".join(board.scored_structures)
    head = [
        "rank",
        "trainer",
        "score",
        *structures,
        *(f"HD95 {name}, {unit}" for name in structures),
        "missed",
        "EF bias ± sd",
        "EF MAE",
        "EF MAE, penalised",
        "EF flagged",
        "p (Holm)",
        "M parameters",
        "GFLOPs",
        "epoch, s",
        "peak, GiB",
    ]
    lines = [
        f"# {_plain(board.raw.name)}, {board.configuration}",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * 2}{'---:|' * (len(head) - 2)}",
    ]
    for row in rows:
        mark = "" if row["status"] == WHOLE else f" ({row['status']})"
        rank = f"{row['rank']} ({row['rank_low']} to {row['rank_high']})" if row["rank"] else ""
        lines.append(
            "| "
            + " | ".join(
                [
                    rank,
                    f"{_plain(row['trainer'])}{mark}",
                    number(row["score_mean"], 4),
                    *(_mean_sd(row, f"{name}_{board.columns['dice']}", 3) for name in structures),
                    *(_mean_sd(row, f"{name}_{hd95}", 2) for name in structures),
                    str(missed(board, row)),
                    _of_patients(row, "ef_n", number(row["ef_bias"], 1), number(row["ef_sd"], 1)),
                    _of_patients(row, "ef_n", number(row["ef_mae"], 1)),
                    _of_patients(row, "ef_patients", number(row["ef_mae_penalised"], 1)),
                    flagged(row),
                    p_value(row["p_holm"]),
                    number(row["parameters"] / 1e6, 1),
                    number(row["flops"] / 1e9, 1),
                    number(row["epoch_s"], 1),
                    number(row["peak_memory_gib"], 2),
                ]
            )
            + " |"
        )
    notes = [
        f"Score: mean of {board.score} over {scored}, frames averaged over each patient, then over "
        f"{len(board.patients)} patients; ± is the standard deviation over patients. Rank: by score, in "
        f"brackets the range of 95 % of {SAMPLES} bootstrap samples of patients. HD95 of a structure that is "
        f"missed, or found where none is, counts as the diagonal of the frame. Missed: how often one of {scored} "
        "is, over all frames. In the score, a structure in neither prediction nor reference counts as right."
    ]
    if board.lengths:
        notes.append(_plain(board.lengths))
    if board.baseline:
        notes.append(f"p: paired Wilcoxon test of the score against {_plain(board.baseline)}, Holm's correction.")
    if board.ef_planes:
        notes.append(
            f"EF in percentage points, prediction minus reference, both by the method `{board.method}`, "
            f"{board.ef_planes} for all trainers. In brackets: over how many of the patients with such a "
            "reference EF; rows with different patients do not compare. In the penalised MAE a patient whose "
            "EF is not predicted costs the error of the worst answer between 0 and 100 %. Flagged: patients "
            "whose EF rests on a mask that it cannot be trusted for; it counts in all columns all the same."
        )
    notes += [
        f"{_plain(row['trainer'])} is {row['status']} and not ranked: {_plain(row['reasons'])}."
        for row in rows
        if row["status"] != WHOLE
    ]
    return "\n".join(
        [
            *lines,
            "",
            *(f"- {note}" for note in notes),
            "",
            f"Split {board.split.hash}, folds {' '.join(map(str, board.split.validation))}, native grid, "
            f"unit {unit}; {rows[0]['versions']}.",
            "",
        ]
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no cell ends in it, and no tag, formula or emphasis begins."""
    return re.sub(r"[\\|<>`*$\[\]]", r"\\\g<0>", text)


def missed(board: Board, row: Mapping[str, object]) -> object:
    """Structures of dataset.json that the prediction lacks and the reference has, over all frames; "" without any."""
    return sum(row[f"{name}_n_missing"] for name in board.scored_structures) if row["cases"] else ""


def flagged(row: Mapping[str, object]) -> str:
    """How many patients have an EF that is not to be trusted, and the flags of predictions and references."""
    flags = "; ".join(f"{side}: {row[f'ef_{side}_flags']}" for side in SIDES if row[f"ef_{side}_flags"])
    return f"{row['ef_n_flagged']} ({flags})" if flags else str(row["ef_n_flagged"]) if row["ef_patients"] else ""


def p_value(value: float) -> str:
    """With four digits after the point; a small one is never 0; "" where undefined."""
    return "< 0.0001" if value < 0.0001 else number(value, 4)


def number(value: float, digits: int) -> str:
    """The value with so many digits after the point; "" where undefined."""
    return f"{value:.{digits}f}" if _known(value) else ""


def _structures(board: Board, entry: Entry) -> dict[str, object]:
    columns = {}
    for structure in board.dataset.structures:
        for metric in METRICS:
            column = board.columns[metric]
            values = values_of(entry, structure, column, board.patients)
            columns |= _prefixed(f"{structure}_{column}", describe(values, board.weights))
        prediction, reference = (entry.column(structure, f"{side}_empty") for side in SIDES)
        columns |= {
            f"{structure}_{name}": int(np.sum(there < empty)) if len(there) else ""
            for name, there, empty in (("n_missing", reference, prediction), ("n_spurious", prediction, reference))
        }
    return columns


def _ejection_fraction(board: Board, entry: Entry) -> dict[str, object]:
    """Agreement over the patients with a reference EF of the board's planes, which `ef_planes` names."""
    rows = ef_rows(entry, board.ef_planes)
    group = summarise_volumes(rows)[board.ef_planes] if rows else {}
    columns = {
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


def _errors(entry: Entry) -> dict[str, object]:
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


def _cost_columns(entry: Entry) -> dict[str, object]:
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
        if not _known(value)
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


def _mean_sd(row: Mapping[str, float], column: str, digits: int) -> str:
    mean = number(row[f"{column}_mean"], digits)
    return f"{mean} ± {number(row[f'{column}_sd'], digits)}" if mean else ""


def _of_patients(row: Mapping[str, object], count: str, value: str, sd: str = "") -> str:
    """With the number of patients in the column `count`, of those who have a reference EF."""
    text = f"{value} ± {sd}" if sd else value or "–"
    return f"{text} ({row[count]} of {row['ef_patients']})" if row["ef_patients"] else ""


def _known(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
