"""`nnunet-echo convert DATASET SOURCE`: the command line of every folder of dataset_conversion that has a READER."""

from __future__ import annotations

import argparse
from dataclasses import fields

from nnunet_echo.cli.options import add_raw, add_workers
from nnunet_echo.data.reader import Reader
from nnunet_echo.dataset_conversion import readers

INTERRUPTED = "interrupted; the same command again completes the dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each dataset."""
    datasets = parser.add_subparsers(required=True, metavar="DATASET")
    for name, reader in readers().items():
        _add_options(reader, datasets.add_parser(name, help=reader.summary, description=reader.summary))


def run(args: argparse.Namespace) -> int:
    """Convert and print the summary; returns the exit code.

    0: every case that the source has was converted. 1: a case that exists was refused, for the reason in the report,
    and the dataset holds the others. Raises RuntimeError, besides what `Reader.convert` raises, where no dataset came
    out.
    """
    reader = args.reader(**{option.name: getattr(args, option.name) for option in fields(args.reader)})
    report = reader.convert(
        args.source, dataset_id=args.dataset_id, raw=args.raw, workers=args.workers, progress=True, replace=args.replace
    )
    print(report.summary())
    if report.unusable:
        raise RuntimeError(f"nothing was converted: {report.unusable}")
    number = report.folder.name.removeprefix("Dataset")[:3]
    configuration = "2d" if reader.mode == "frames" else "3d_fullres"
    print(f"next: nnUNetv2_plan_and_preprocess -d {number} -c {configuration} --verify_dataset_integrity")
    return report.exit_code


def _add_options(reader: type[Reader], parser: argparse.ArgumentParser) -> None:
    """The options of all datasets, then the reader's own."""
    defaults = {option.name: option.default for option in fields(reader)}
    ids = ", ".join(f"{number} for {name}" for name, number in reader.dataset_ids.items())
    parser.set_defaults(reader=reader)
    parser.add_argument("source", help=reader.source_help)
    parser.add_argument("-d", "--dataset-id", type=int, help=f"dataset id for nnU-Net (default: {ids})")
    for name, choices in (("mode", reader.modes), ("split", reader.splits)):
        texts = "; ".join(
            f"{choice}{' (default)' if choice == defaults[name] else ''}: {text}" for choice, text in choices.items()
        ).replace("%", "%%")
        parser.add_argument(f"--{name}", choices=choices, default=defaults[name], help=texts)
    parser.add_argument(
        "--seed", type=int, default=defaults["seed"], help=f"of splits that are drawn (default {defaults['seed']})"
    )
    parser.add_argument("--split-file", metavar="FILE", help="CSV with columns patient and subset (train, val or test)")
    add_raw(parser, "where to write")
    add_workers(parser)
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace the conversion of another source, or with other options, that is there",
    )
    reader.add_arguments(parser)
