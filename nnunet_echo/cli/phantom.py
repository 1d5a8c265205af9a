"""`nnunet-echo phantom LAYOUT OUT`: synthetic beating hearts in the layout of a public data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_echo.cli.options import add_workers
from nnunet_echo.dataset_conversion.camus.phantom import write_camus, write_camus_2019
from nnunet_echo.dataset_conversion.echonet.phantom import write_echonet
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.phantom.cine import CAMUS_SPACING_MM

RELEASES = {"nifti": write_camus, "2019": write_camus_2019}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command `nnunet-echo phantom` its subcommands and their options."""
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    camus = layouts.add_parser("camus", help="two views per patient, in the layout of CAMUS")
    camus.add_argument(
        "--release",
        choices=RELEASES,
        default="nifti",
        help="nifti (default), or 2019: the challenge, with .mhd files and unlabelled test patients",
    )
    camus.add_argument("--no-half-sequence", action="store_true", help="leave out the frames between ED and ES")
    ted = layouts.add_parser("ted", help="a complete cycle of the 4-chamber view per patient, in the layout of TED")
    for layout in (camus, ted):
        layout.add_argument("--patients", type=int, default=10, metavar="N", help="how many patients (default: 10)")
        layout.add_argument(
            "--spacing",
            type=float,
            default=CAMUS_SPACING_MM,
            metavar="MM",
            help=f"width of a pixel in mm (default: {CAMUS_SPACING_MM}, as in CAMUS; 1.0 makes small files quickly)",
        )
    echonet = layouts.add_parser("echonet", help="one 4-chamber video per patient, in the layout of EchoNet-Dynamic")
    echonet.add_argument("--videos", type=int, default=20, metavar="N", help="how many videos (default: 20)")
    echonet.add_argument("--no-oddities", action="store_true", help="leave out the oddities that the release has")
    add_workers(echonet)
    for layout in (camus, ted, echonet):
        layout.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder, or one of the same run")
        layout.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same hearts (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Do what `add_arguments` parsed; 0 when done. Errors are raised as the functions that write raise them."""
    if args.layout == "echonet":
        write_echonet(
            args.out, args.videos, args.seed, oddities=not args.no_oddities, workers=args.workers, progress=True
        )
    elif args.layout == "ted":
        write_ted(args.out, args.patients, args.seed, spacing_mm=args.spacing, progress=True)
    else:
        write = RELEASES[args.release]
        write(
            args.out,
            args.patients,
            args.seed,
            spacing_mm=args.spacing,
            half_sequence=not args.no_half_sequence,
            progress=True,
        )
    return 0
