"""A sweep as a Slurm array: the text of a script for sbatch.

Slurm is the engine: it starts `train_fold` for each trainer and fold, and starts it again after a lost node or at the
wall-clock limit. The script is short so that it is read, and edited: partition, account, memory, time.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_echo._startup import TRAINERS_VARIABLE
from nnunet_echo.crossval.checks import check_trainers, check_weights, weights_source
from nnunet_echo.crossval.jobs import Model, Training
from nnunet_echo.crossval.prepare import what_is_missing
from nnunet_echo.crossval.status import check_names, parse_folds, read_table
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


def checked_script(
    dataset: str,
    configuration: str,
    plans: str,
    trainers: Sequence[str],
    folds: Sequence[str] | None,
    device: str,
    weights: Path | None = None,
) -> str:
    """The text of the script for a dataset, as nnU-Net knows it, that is ready for its folds, such as ["0-4"].

    Raises ValueError while plans or preprocessed data are missing, with what makes them, and as `check_trainers`. The
    device is not looked for: the machine that writes the script is none of those that train.
    """
    name, source = dataset_name(dataset), weights_source(weights)
    check_names(configuration, plans, trainers, folds)
    check_trainers(trainers)
    if step := what_is_missing(name, configuration, plans):
        raise ValueError(f"{name} is not ready for its folds. Run this first ({shlex.join(step)}).")
    numbers = parse_folds(folds, name)
    check_weights(read_table(name, configuration, plans, trainers, parse_folds(None, name)), source)
    return slurm_script(name, configuration, plans, trainers, numbers, device, weights and weights.resolve())


def slurm_script(
    dataset: str,
    configuration: str,
    plans: str,
    trainers: Sequence[str],
    folds: Sequence[int],
    device: str,
    weights: Path | None = None,
) -> str:
    """The text of a Slurm array with a job for each of the trainers' `folds`.

    It has this process's nnU-Net folders and its Python. Each fold starts from the file `weights`, if there is one,
    which all machines have to see. `device` is nnU-Net's word for one: cuda, cpu or mps. Raises `ValueError` for names
    that a shell, Slurm or a folder would not take as they are.

    >>> script = slurm_script("Dataset751_CAMUS", "2d", "nnUNetPlans", ["nnUNetTrainerVMUNet"], range(5), "cuda")
    >>> [line for line in script.splitlines() if "--array" in line]
    ['#SBATCH --array=0-4']
    """
    check_name("name of the dataset for Slurm", dataset)
    variables = [name for name in (RAW, PREPROCESSED, RESULTS, TRAINERS_VARIABLE) if os.environ.get(name)]
    exports = [f"export {name}={shlex.quote(os.environ[name])}" for name in variables]
    trainers = list(dict.fromkeys(trainers))
    for trainer in trainers:
        check_name("trainer", trainer)
    template = Training(Model(dataset, configuration, "TRAINER", plans, device), "FOLD", weights)
    words = {"TRAINER": '"$trainer"', "FOLD": '"$fold"'}  # all others are quoted as the values that they are
    arguments = [words.get(word) or shlex.quote(word) for word in template.arguments()]
    return SCRIPT.format(
        dataset=dataset,
        configuration=configuration,
        last=len(trainers) * len(folds) - 1,
        exports="\n".join(exports),
        trainers=" ".join(map(shlex.quote, trainers)),
        folds=" ".join(map(str, folds)),
        python=shlex.quote(sys.executable),
        arguments=" ".join(arguments),
    )
