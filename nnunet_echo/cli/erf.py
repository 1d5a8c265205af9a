"""`nnunet-echo erf -o OUT`: how far each trainer's network sees, its effective receptive field, drawn and measured."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

from nnunet_echo.analysis.receptive_field import BASELINE, SIZE, draw_fields
from nnunet_echo.cli.options import add_device, add_output, add_trainers
from nnunet_echo.crossval.checks import check_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `erf`."""
    add_output(parser, "folder for pictures and table")
    source = parser.add_mutually_exclusive_group()
    add_trainers(source, f"networks with random weights (default: all trainers of this package, and {BASELINE})")
    source.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        default=[],
        help="trained networks: folders TRAINER__PLANS__CONFIGURATION of nnUNet_results",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="of the input (default: that of a checkpoint's plan, or {}x{})".format(*SIZE),
    )
    parser.add_argument("--inputs", type=int, default=4, metavar="N", help="images of noise to average (default: 4)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Compute, write and print; 0 when done. Errors are raised as `draw_fields` raises them."""
    if args.device:
        check_device(args.device)
    draw_fields(
        args.output,
        trainers=args.trainers,
        checkpoints=args.checkpoint,
        size=args.size,
        inputs=args.inputs,
        device=args.device,
        say=partial(print, flush=True),
    )
    print(f"pictures and table: {args.output}")
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected HEIGHTxWIDTH in pixels, such as 256x256.")
    return int(match[1]), int(match[2])
