"""What the command line of every converter shares: its options, its messages and its exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from nnunet_echo.dataset_conversion.report import Report


def add_common_arguments(parser: argparse.ArgumentParser, *, source: str, dataset_id: int, splits: Sequence[str],
                         split: str) -> None:
    """The options of all converters; `source` and `split` are the help texts, the first of `splits` the default."""
    parser.add_argument("source", help=source)
    parser.add_argument("-d", "--dataset-id", type=int, default=dataset_id,
                        help=f"dataset id for nnU-Net (default {dataset_id})")
    parser.add_argument("--split", choices=splits, default=splits[0], help=split)
    parser.add_argument("--raw", metavar="FOLDER", help="where to write (default: nnUNet_raw)")
    parser.add_argument("--workers", type=int, help="processes (default: one for each processor)")


def report_conversion(convert: Callable[[], Report], dataset_id: int) -> int:
    """Convert and print the summary; returns the exit code.

    0: every case that the source has was converted. 1: a case that exists was refused, for the reason in the report,
    and the dataset holds the others. 2: nothing was converted. 130: interrupted.
    """
    try:
        report = convert()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command again completes the dataset", file=sys.stderr)
        return 130
    print(report.summary())
    if not report.unusable:
        print(f"next: nnUNetv2_plan_and_preprocess -d {dataset_id} -c 2d --verify_dataset_integrity")
    return report.exit_code
