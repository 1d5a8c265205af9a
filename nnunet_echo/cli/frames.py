"""`nnunet-echo frames MAPS -d DATASET -o OUT`: sequences of label maps as single frames, see data/frames.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_echo.cli.options import add_output, add_raw, add_workers
from nnunet_echo.data.frames import write_frames
from nnunet_echo.nnunet.folders import find_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `frames`."""
    parser.add_argument("maps", type=Path, help="folder of sequences: predictions, or a dataset's labelsTs or labelsTr")
    parser.add_argument("-d", "--dataset", required=True, help="the dataset they belong to: id, name or path")
    add_output(parser, "a new or empty folder")
    parser.add_argument("--phases", action="store_true", help="only ED and ES, named like the 2D cases")
    add_raw(parser)
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Write the frames; 0 when done. Errors are raised as `write_frames` raises them."""
    dataset = find_dataset(args.dataset, args.raw)
    count = write_frames(args.maps, dataset, args.output, phases=args.phases, workers=args.workers, progress=True)
    print(f"{count} frames in {args.output}")
    return 0
