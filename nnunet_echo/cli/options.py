"""The options that several commands share, each in one place."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_echo.nnunet.results import DEFAULT_PLANS


def add_dataset(parser: argparse.ArgumentParser,
                text: str = "as nnU-Net knows it: an id such as 751, or a name such as Dataset751_CAMUS") -> None:
    parser.add_argument("dataset", help=text)


def add_raw(parser: argparse.ArgumentParser, text: str = "where an id or name is looked up") -> None:
    parser.add_argument("--raw", metavar="FOLDER", help=f"{text} (default: nnUNet_raw)")


def add_output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=text)


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes (default: one for each processor)")


def add_device(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), default=default,
                        help=f"default: {default or 'cuda where there is one, else cpu'}")


def add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--configuration", default="2d", help="of nnU-Net's plan (default: 2d)")


def add_plans(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--plans", default=DEFAULT_PLANS, help=f"(default: {DEFAULT_PLANS})")


def add_trainers(parser: argparse._ActionsContainer, text: str, *, required: bool = False) -> None:
    parser.add_argument("--trainers", nargs="+", required=required, metavar="NAME", help=text)


def add_folds(parser: argparse.ArgumentParser, text: str = "such as 0-4, or 0 2") -> None:
    parser.add_argument("--folds", nargs="+", metavar="K", help=f"{text} (default: all of the split)")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """What `crossval` and `slurm-script` have in common."""
    add_dataset(parser)
    add_configuration(parser)
    add_plans(parser)
    add_folds(parser)
    add_trainers(parser, "ours, nnU-Net's or your own", required=True)
    add_device(parser, "cuda")
