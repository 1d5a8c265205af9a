"""`nnunet-echo slurm-script DATASET --trainers A B ... > sweep.sh`: the same sweep as a Slurm array, for sbatch."""

from __future__ import annotations

import argparse

from nnunet_echo.cli.options import add_sweep
from nnunet_echo.crossval.slurm import checked_script


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `slurm-script`."""
    add_sweep(parser)


def run(args: argparse.Namespace) -> int:
    """Print the script; 0. Errors are raised as `checked_script` raises them."""
    script = checked_script(
        args.dataset, args.configuration, args.plans, args.trainers, args.folds, args.device, args.pretrained_weights
    )
    print(script, end="")
    return 0
