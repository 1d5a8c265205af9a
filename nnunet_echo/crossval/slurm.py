"""`nnunet-echo slurm-script DATASET --trainers A B ... > sweep.sh`: the same sweep as a Slurm array, for sbatch.

Slurm is the engine: it starts `train_fold` for each trainer and fold, and starts it again after a lost node or at the
wall-clock limit. The script is short so that it is read, and edited: partition, account, memory, time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from nnunet_echo._startup import TRAINERS_VARIABLE
from nnunet_echo.crossval.checks import check_trainers
from nnunet_echo.crossval.jobs import Model, Training
from nnunet_echo.crossval.prepare import what_is_missing
from nnunet_echo.crossval.status import add_sweep_arguments, check_names, parse_folds
from nnunet_echo.nnunet.folders import PREPROCESSED, RAW, RESULTS
from nnunet_echo.nnunet.results import check_name, dataset_name

SCRIPT = """#!/bin/bash
# {dataset}, {configuration}: a task for each trainer and fold. Submit it as often as you like: what is done stays done.
#SBATCH --job-name={dataset}-{configuration}
#SBATCH --array=0-{last}
#SBATCH --dependency=singleton
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=12
#SBATCH --mem=48G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue --open-mode=append --output=%x-%a.out
{exports}
trainers=({trainers})
folds=({folds})
trainer=${{trainers[SLURM_ARRAY_TASK_ID / ${{#folds[@]}}]}}
fold=${{folds[SLURM_ARRAY_TASK_ID % ${{#folds[@]}}]}}
# five minutes before the time is up: let it save, and queue for more time
trap 'kill $!; wait $!; scontrol requeue ${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID' USR1
{python} -m nnunet_echo.crossval.train_fold {arguments} --wait 600 &
wait $!
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `slurm-script`."""
    add_sweep_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the script; 0. Raises ValueError while plans or preprocessed data are missing, with what makes them.

    And as `check_trainers`. The device is not looked for: the machine that prints is none of those that train.
    """
    dataset = dataset_name(args.dataset)
    check_names(args)
    check_trainers(args.trainers)
    if step := what_is_missing(dataset, args.configuration, args.plans):
        raise ValueError(f"{dataset} is not ready for its folds; first run {shlex.join(step)}")
    print(slurm_script(dataset, args.configuration, args.plans, args.trainers, parse_folds(args.folds, dataset),
                       args.device), end="")
    return 0


def slurm_script(dataset: str, configuration: str, plans: str, trainers: Sequence[str], folds: Sequence[int],
                 device: str) -> str:
    """The text of the script, with this process's nnU-Net folders and its Python. Raises as `check_name`."""
    check_name("name of the dataset for Slurm", dataset)
    variables = [name for name in (RAW, PREPROCESSED, RESULTS, TRAINERS_VARIABLE) if os.environ.get(name)]
    exports = [f"export {name}={shlex.quote(os.environ[name])}" for name in variables]
    trainers = list(dict.fromkeys(trainers))
    for trainer in trainers:
        check_name("trainer", trainer)
    template = Training(Model(dataset, configuration, "TRAINER", plans, device), "FOLD")
    words = {"TRAINER": '"$trainer"', "FOLD": '"$fold"'}  # all others are quoted as the values that they are
    arguments = [words.get(word) or shlex.quote(word) for word in template.arguments()]
    return SCRIPT.format(dataset=dataset, configuration=configuration, last=len(trainers) * len(folds) - 1,
                         exports="\n".join(exports), trainers=" ".join(map(shlex.quote, trainers)),
                         folds=" ".join(map(str, folds)), python=shlex.quote(sys.executable),
                         arguments=" ".join(arguments))
