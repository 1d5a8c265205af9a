"""The command `nnunet-echo`: each subcommand is one module with `add_arguments(parser)` and `run(args) -> int`.

This is the one place where an exception becomes a line of text. A module may say in `INTERRUPTED` what Ctrl-C leaves.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nnunet_echo import __version__
from nnunet_echo.nnunet.folders import check_folders

# The module of a command is called as the command; it is imported when the command is used.
COMMANDS = {
    "doctor": "what is installed, which scan backend runs, whether the trainers are found",
    "demo": "phantom hearts, training, prediction, pictures and a report, in one go",
    "phantom": "write synthetic beating hearts in the layout of a dataset",
    "convert": "convert a dataset to nnU-Net's raw format",
    "check": "verify a converted dataset before nnU-Net reads it",
    "plan": "add a configuration to the plan that a computer without a GPU can train",
    "weights": "turn released weights into a file for nnU-Net's -pretrained_weights",
    "crossval": "train all folds of several trainers on all GPUs, through failures",
    "status": "how far every fold is, from the disk, and what finishes the rest",
    "slurm-script": "print an sbatch script that does what crossval does",
    "predict": "masks of images by a trained 2D model, those of nnUNetv2_predict, sooner",
    "cine": "from a clip to masks, beats, ejection fraction and a report of one page",
    "export": "a trained 2D model as one file: network, preprocessing, labels, self-test",
    "serve": "a page on this computer to drop a clip on: outlines, beats, ejection fraction, a report",
    "frames": "write sequences of label maps as single frames, to evaluate",
    "evaluate": "score predictions: overlap, distances, ejection fraction",
    "measure": "volumes, ejection fraction, sizes and anatomy of one set of masks",
    "leaderboard": "all trainers side by side: tables, statistics, a report",
    "erf": "how far each network sees: its effective receptive field, drawn and measured",
}
NEED_NO_FOLDERS = ("doctor", "demo", "phantom")  # of nnU-Net


class _CommandParser(argparse.ArgumentParser):
    """A subcommand, and each of its own subcommands: they have one option in common."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Suppressed, since the default of an inner parser would replace what the outer one was given.
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where in the code an error comes from",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status: 2 after an error, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="nnunet-echo",
        description="Mamba and Vision-LSTM networks for cardiac ultrasound, in stock nnU-Net v2.",
        epilog="nnunet-echo COMMAND --help explains a command. To see it all work, begin with: nnunet-echo demo",
    )
    parser.add_argument("--version", action="version", version=f"nnunet-echo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser)
    command: Any = None  # a module with `add_arguments` and `run`
    for name, text in COMMANDS.items():
        subparser = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:
            command = importlib.import_module(f"nnunet_echo.cli.{name.replace('-', '_')}")
            command.add_arguments(subparser)
    args = parser.parse_args(arguments)
    try:
        if args.command not in NEED_NO_FOLDERS:
            check_folders()
        with _warnings_shown():
            return command.run(args)
    except (ValueError, OSError, RuntimeError) as error:  # what the package raises says what to do
        if "traceback" in args:
            traceback.print_exc()
        print(f"nnunet-echo {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if "traceback" in args:
            traceback.print_exc()
        print(getattr(command, "INTERRUPTED", "interrupted"), file=sys.stderr)
        return 130


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """What the package logs goes to stderr."""
    logger, handler = logging.getLogger("nnunet_echo"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
