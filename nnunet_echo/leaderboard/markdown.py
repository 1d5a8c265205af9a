"""leaderboard.md: the table to read and to paste, and the sentences that it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nnunet_echo.evaluation.metrics import Shown, shown_metrics
from nnunet_echo.evaluation.output import Row
from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.cells import flagged, missed, number, p_value
from nnunet_echo.leaderboard.collect import COMPLETE
from nnunet_echo.leaderboard.statistics import SAMPLES


def markdown(board: Board, rows: Sequence[Row]) -> str:
    """The table to read and to paste: means and sd over patients, in the order of the ranks."""
    unit, metrics = board.dataset.unit, shown_metrics(Shown.TEST)
    structures = list(board.dataset.structures)
    head = [
        "rank",
        "trainer",
        "score",
        *(metric.heading(unit, structure) for metric in metrics for structure in structures),
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
        mark = "" if row["status"] == COMPLETE else f" ({row['status']})"
        rank = f"{row['rank']} ({row['rank_low']} to {row['rank_high']})" if row["rank"] else ""
        lines.append(
            "| "
            + " | ".join(
                [
                    rank,
                    f"{_plain(row['trainer'])}{mark}",
                    number(row["score_mean"], 4),
                    *(
                        _mean_sd(row, f"{structure}_{metric.column(unit)}", 2 if metric.unit_power else 3)
                        for metric in metrics
                        for structure in structures
                    ),
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
    return "\n".join(
        [
            *lines,
            "",
            *(f"- {note}" for note in _notes(board, rows)),
            "",
            f"Split {board.split.hash}, folds {' '.join(map(str, board.split.validation))}, native grid, "
            f"unit {unit}; {rows[0]['versions']}.",
            "",
        ]
    )


def _notes(board: Board, rows: Sequence[Row]) -> list[str]:
    scored = ", ".join(board.scored_structures)
    metrics = shown_metrics(Shown.TEST)
    explained = "".join(f"{metric.short or metric.title}: {metric.note}. " for metric in metrics if metric.note)
    notes = [
        f"Score: mean of {board.score} over {scored}, frames averaged over each patient, then over "
        f"{len(board.patients)} patients; ± is the standard deviation over patients. Rank: by score, in "
        f"brackets the range of 95 % of {SAMPLES} bootstrap samples of patients. {explained}"
        f"Missed: how often one of {scored} is, over all frames. In the score, "
        "a structure in neither prediction nor reference counts as right."
    ]
    notes += [_plain(note) for note in (board.lengths, board.unofficial, board.pretrained) if note]
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
    return notes + [
        f"{_plain(row['trainer'])} is {row['status']} and not ranked: {_plain(row['reasons'])}."
        for row in rows
        if row["status"] != COMPLETE
    ]


def _mean_sd(row: Row, column: str, digits: int) -> str:
    mean = number(row[f"{column}_mean"], digits)
    return f"{mean} ± {number(row[f'{column}_sd'], digits)}" if mean else ""


def _of_patients(row: Row, count: str, value: str, sd: str = "") -> str:
    """With the number of patients in the column `count`, of those who have a reference EF."""
    text = f"{value} ± {sd}" if sd else value or "–"
    return f"{text} ({row[count]} of {row['ef_patients']})" if row["ef_patients"] else ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no cell ends in it, and no tag, formula or emphasis begins."""
    return re.sub(r"[\\|<>`*$\[\]]", r"\\\g<0>", text)
