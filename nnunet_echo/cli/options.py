"""The options that several commands share, each in one place. nnU-Net's own spellings are accepted beside ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_echo.crossval.status import fold_range
from nnunet_echo.nnunet.results import DEFAULT_PLANS

MOST_FOLDS = 100_000  # more than there are patients in any split


def add_dataset(
    parser: argparse.ArgumentParser,
    text: str = "as nnU-Net knows it: an id such as 751, or a name such as Dataset751_CAMUS",
) -> None:
    """The argument `dataset`, or `-d`: one of them, and not both."""
    group = parser.add_mutually_exclusive_group(required=True)
    # Suppressed: an argument that is not there would replace what -d has set.
    group.add_argument("dataset", nargs="?", default=argparse.SUPPRESS, help=text)
    group.add_argument("-d", dest="dataset", metavar="DATASET", help="the same, as nnU-Net's commands spell it")


def add_raw(parser: argparse.ArgumentParser, text: str = "where an id or name is looked up") -> None:
    parser.add_argument("--raw", metavar="FOLDER", help=f"{text} (default: nnUNet_raw)")


def add_output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=text)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """What stands in for a dataset.json."""
    parser.add_argument(
        "--labels",
        nargs="+",
        default=(),
        metavar="NAME=VALUE",
        help="the structures, such as LV=1 MYO=2 LA=3, where there is no dataset.json",
    )
    parser.add_argument(
        "--patients",
        metavar="REGEX",
        help="with --labels: how names tell the patient, a regular "
        "expression with the group patient and, for an EF, view and phase",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", "-np", type=int, help="processes (default: one for each processor)")


def add_device(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "--device",
        "-device",
        choices=("cuda", "cpu", "mps"),
        default=default,
        help=f"default: {default or 'cuda where there is one, else cpu'}",
    )


def add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--configuration", default="2d", help="of nnU-Net's plan (default: 2d)")


def add_plans(parser: argparse.ArgumentParser, default: str | None = DEFAULT_PLANS) -> None:
    parser.add_argument("-p", "--plans", default=default, help=f"(default: {default or 'all'})")


def add_trainers(parser: argparse._ActionsContainer, text: str, *, required: bool = False) -> None:
    parser.add_argument("--trainers", "-tr", nargs="+", required=required, metavar="NAME", help=text)


def add_folds(parser: argparse.ArgumentParser, text: str = "such as 0-4, or 0 2") -> None:
    parser.add_argument("--folds", "-f", nargs="+", metavar="K", help=f"{text} (default: all of the split)")


def fold_numbers(words: Sequence[str] | None) -> list[int] | None:
    """Of ["0-4"] or ["0", "2"]; None, which means all, of None. Raises `ValueError` for what is none."""
    if words is None:
        return None
    folds: set[int] = set()
    for word, (first, last) in zip(words, map(fold_range, words), strict=True):
        if last > MOST_FOLDS:
            raise ValueError(f"--folds {word}: no split has that many folds.")
        folds.update(range(first, last + 1))
    return sorted(folds)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """What `crossval` and `slurm-script` have in common."""
    add_dataset(parser)
    add_configuration(parser)
    add_plans(parser)
    add_folds(parser)
    add_trainers(parser, "ours, nnU-Net's or your own", required=True)
    add_device(parser, "cuda")
    parser.add_argument(
        "--pretrained-weights",
        "-pretrained_weights",
        type=Path,
        metavar="FILE",
        help="every fold starts from it, as with nnUNetv2_train -pretrained_weights: a file of `nnunet-echo weights`",
    )
