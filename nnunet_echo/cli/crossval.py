"""`nnunet-echo crossval DATASET --trainers A B ...`: every fold of every trainer, on as many GPUs as there are.

Interrupt it, lose a machine, reboot: the same command goes on where the folds are, and does nothing twice.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nnunet_echo.cli.options import add_sweep
from nnunet_echo.crossval.sweep import crossval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `crossval`."""
    add_sweep(parser)
    parser.add_argument(
        "--gpus-per-job",
        type=float,
        default=1,
        metavar="X",
        help="0.5: two trainings share a GPU, if its memory suffices (default: 1); with Ray only",
    )
    parser.add_argument(
        "--predict",
        type=Path,
        metavar="FOLDER",
        help="also predict its images by the folds of each trainer, to a folder predicted_... there",
    )


def run(args: argparse.Namespace) -> int:
    """Train and show how it goes; 0 when all is done, 1 when something failed. Errors are raised as `crossval`'s."""
    failures = crossval(
        args.dataset,
        args.trainers,
        args.configuration,
        plans=args.plans,
        folds=args.folds,
        device=args.device,
        gpus_per_job=args.gpus_per_job,
        predict=args.predict,
        pretrained_weights=args.pretrained_weights,
        say=partial(print, flush=True),
        look=_Screen(),
    )
    return int(bool(failures))


class _Screen:
    """The state of all folds, drawn over the last one on a terminal; elsewhere only the news, a line each."""

    def __init__(self) -> None:
        self._lines = 0

    def __call__(self, news: Sequence[str], draw: Callable[[], list[str]]) -> None:
        if not sys.stdout.isatty():
            for line in news:
                print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            return
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in draw()][: rows - 2]
        up = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        print(up + "\n".join(lines), flush=True)
        self._lines = len(lines)
