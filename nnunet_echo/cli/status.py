"""`nnunet-echo status DATASET`: how far every trainer's folds are, read from the disk, and what finishes them."""

from __future__ import annotations

import argparse

from nnunet_echo.cli.options import add_configuration, add_dataset, add_folds, add_plans, add_trainers
from nnunet_echo.crossval.status import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `status`."""
    add_dataset(parser)
    add_configuration(parser)
    add_plans(parser)
    add_folds(parser)
    add_trainers(parser, "(default: all that have a folder of results)")


def run(args: argparse.Namespace) -> int:
    """Print the state; 0 when all folds are done, 1 when some are not. Errors are raised as `status` raises them."""
    lines, done = status(args.dataset, args.configuration, plans=args.plans, trainers=args.trainers, folds=args.folds)
    print("\n".join(lines))
    return int(not done)
