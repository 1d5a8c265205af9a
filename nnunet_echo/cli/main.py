"""The command `nnunet-echo`: each subcommand is one module with `add_arguments(parser)` and `run(args) -> int`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from nnunet_echo import __version__
from nnunet_echo.nnunet.folders import check_folders

# Subcommand: module, help. Modules are imported when their command is used.
COMMANDS = {
    "doctor": ("nnunet_echo.cli.doctor", "what is installed, which scan backend runs, whether the trainers are found"),
    "demo": ("nnunet_echo.cli.demo", "phantom hearts, training, prediction and pictures, in one go"),
    "phantom": ("nnunet_echo.cli.phantom", "write synthetic beating hearts in the layout of a dataset"),
    "convert": ("nnunet_echo.cli.convert", "convert a dataset to nnU-Net's raw format"),
    "check": ("nnunet_echo.data.check", "verify a converted dataset before nnU-Net reads it"),
    "crossval": ("nnunet_echo.crossval.sweep", "train all folds of several trainers on all GPUs, through failures"),
    "status": ("nnunet_echo.crossval.status", "how far every fold is, from the disk, and what finishes the rest"),
    "slurm-script": ("nnunet_echo.crossval.slurm", "print an sbatch script that does what crossval does"),
    "frames": ("nnunet_echo.data.frames", "write sequences of label maps as single frames, to evaluate"),
    "evaluate": ("nnunet_echo.evaluation.evaluate", "score predictions: overlap, distances, ejection fraction"),
    "leaderboard": ("nnunet_echo.cli.leaderboard", "all trainers side by side: tables, statistics, a report"),
    "erf": (
        "nnunet_echo.analysis.receptive_field",
        "how far each network sees: its effective receptive field, drawn and measured",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="nnunet-echo", description="Mamba and Vision-LSTM for echo in nnU-Net v2.")
    parser.add_argument("--version", action="version", version=f"nnunet-echo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        subparser = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:
            command = importlib.import_module(module)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    args = parser.parse_args(arguments)
    try:
        if args.command not in ("doctor", "demo", "phantom"):  # which do not need nnU-Net's folders
            check_folders()
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:  # what the package raises says what to do; no traceback
        print(f"nnunet-echo {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
