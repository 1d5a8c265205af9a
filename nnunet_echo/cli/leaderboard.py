"""`nnunet-echo leaderboard DATASET -o OUT`: all trainers with results side by side, as tables and as a page to see.

Writes to OUT:

    index.html         the report: one file, opens from disk with no network
    leaderboard.csv    one row for each trainer; leaderboard.md, the same to read
    comparisons.csv    differences to the baseline, tested
    cases.csv ...      what `evaluate` writes, with the columns trainer and fold
    figures/           with --figures, the plots as PDF and PNG
    summary.json       what the numbers were computed with, stability of the ranks
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from nnunet_echo.cli.options import (
    add_configuration,
    add_dataset,
    add_folds,
    add_output,
    add_plans,
    add_trainers,
    add_workers,
    fold_numbers,
)
from nnunet_echo.evaluation.evaluate import TABLES
from nnunet_echo.evaluation.left_ventricle.volume import METHODS
from nnunet_echo.evaluation.metrics import ranking_metrics
from nnunet_echo.evaluation.output import check_free
from nnunet_echo.evaluation.sequences import LIMITS
from nnunet_echo.leaderboard.board import Board, leaderboard
from nnunet_echo.leaderboard.collect import COMPLETE
from nnunet_echo.leaderboard.figures import write_figures
from nnunet_echo.leaderboard.report import write_report
from nnunet_echo.leaderboard.tables import write_tables

FILES = (
    "index.html",
    "leaderboard.csv",
    "leaderboard.md",
    "comparisons.csv",
    "summary.json",
    *(f"{name}.csv" for name in TABLES),
)
FIGURES = ("boxes_*", "ranks", "ejection_fraction", "quality")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `leaderboard`."""
    add_dataset(parser)
    add_output(parser, "folder for all files")
    add_configuration(parser)
    add_plans(parser, None)
    add_trainers(parser, "TRAINER or TRAINER__PLANS (default: all that have results)")
    parser.add_argument("--baseline", metavar="NAME", help="tested against (default: nnUNetTrainer, if it is complete)")
    add_folds(parser, "compare only these, such as 0-4, or 0 2")
    parser.add_argument(
        "--rank-by", choices=ranking_metrics(), default="dice", help="metric of the score (default: dice)"
    )
    parser.add_argument("--ef-method", choices=METHODS, default="ase", help="as for evaluate (default: ase)")
    parser.add_argument("--ef-rounding", action="store_true", help="whole mL and percent, as the EF in CAMUS")
    parser.add_argument(
        "--consistency-limits",
        choices=LIMITS,
        default="references",
        help="as for evaluate; those of the references of each fold (default: references)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--figures", action="store_true", help="also write the plots as PDF and PNG, to OUT/figures")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print the order; 0 when done. Errors are raised as `leaderboard` raises them."""
    figures = args.output / "figures"
    drawn = [path for name in FIGURES for ending in ("pdf", "png") for path in figures.glob(f"{name}.{ending}")]
    check_free(args.output, [*FILES, *(f"figures/{path.name}" for path in drawn)], "leaderboard", "versions")
    with tempfile.TemporaryDirectory() as scratch:
        board = leaderboard(
            args.dataset,
            args.configuration,
            plans=args.plans,
            trainers=args.trainers,
            baseline=args.baseline,
            folds=fold_numbers(args.folds),
            rank_by=args.rank_by,
            method=args.ef_method,
            rounding=args.ef_rounding,
            consistency_limits=args.consistency_limits,
            seed=args.seed,
            scratch=Path(scratch),
            workers=args.workers,
            progress=True,
        )
        for stale in (args.output / "comparisons.csv", *drawn):
            stale.unlink(missing_ok=True)  # of an earlier run, whose trainers or folds may be others
        write_tables(board, args.output)
        write_report(board, args.output)
        if args.figures:
            write_figures(board, figures)
    print(_screen(board))
    print(f"tables: {args.output}; report: {args.output / 'index.html'}")
    return 0


def _screen(board: Board) -> str:
    lines = [
        f"{board.raw.name}, {board.configuration}, folds {' '.join(map(str, board.split.validation))}: "
        f"{len(board.patients)} patients, {board.score} over {' '.join(board.scored_structures)}"
    ]
    for index, entry in enumerate(board.entries):
        if board.ranking and entry.model.status == COMPLETE:
            lines.append(f"{board.ranking.ranks[index]:3d}  {board.scores[:, index].mean():8.4f}  {entry.model.name}")
        else:
            lines.append(f"  -  {entry.model.status:>8}  {entry.model.name}: {'; '.join(entry.model.reasons)}")
    return "\n".join([*lines, *filter(None, [board.lengths, board.pretrained])])
