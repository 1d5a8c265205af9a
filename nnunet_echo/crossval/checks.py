"""What a sweep, or the demo, looks at before it starts anything: are the trainers there, and the device?"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from nnunet_echo._startup import TRAINERS_VARIABLE, register_trainers
from nnunet_echo.crossval.status import Table
from nnunet_echo.nnunet.pretrained import UNRECORDED, Source, in_words, pretrained_of, same_start
from nnunet_echo.nnunet.results import RUNNING, check_name

LENGTH = re.compile(r"_[0-9]+epochs?(_[0-9]+iterations?)?$")


def check_trainers(trainers: Sequence[str]) -> None:
    """Look all of them up as nnU-Net does. Raises `ValueError` that names each one that it would not find or import."""
    for trainer in trainers:
        check_name("trainer", trainer)
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    register_trainers()
    problems = []
    for trainer in trainers:
        try:
            # nnU-Net prints each place where it looks; ours warn of a name that is not quite theirs
            with redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                recursive_find_trainer_class_by_name(trainer)
        except RuntimeError as error:
            hint = next((str(one.message) for one in told if str(one.message).startswith(f"{trainer}: ")), "")
            problems.append(
                _not_found(trainer, hint) if "Could not find" in str(error) else f"{trainer}: {str(error).rstrip('.')}."
            )
        except (Exception, SystemExit) as error:  # of other people's files, all of which nnU-Net imports
            problems.append(
                f"{trainer}: nnU-Net's search for it ends in {type(error).__name__}: {str(error).rstrip('.')}."
            )
    if problems:
        raise ValueError(" ".join(problems))


def check_device(device: str) -> None:
    """Raises `ValueError` where this machine does not have it, with the remedy."""
    if device == "cpu":
        return
    import torch

    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not there:
        what = "GPU that PyTorch can use" if device == "cuda" else "Apple GPU that PyTorch can use"
        raise ValueError(
            f"--device {device}: this machine has no {what}. Give --device cpu, which is slow, or run it "
            "where there is one."
        )


def weights_source(file: Path | None) -> Source | None:
    """What it is. Raises `FileNotFoundError` without it, `ValueError` for one that nnU-Net's training does not take."""
    if file is None:
        return None
    if not file.is_file():
        raise FileNotFoundError(
            f"--pretrained-weights {file} is no file. Give one that nnunet-echo weights made, or a checkpoint."
        )
    from nnunet_echo.training.recorded_start import source_of  # reads it with PyTorch

    return source_of(file)


def check_weights(table: Table, source: Source | None) -> None:
    """Raises `ValueError` that names the folds which did not start from these weights, None for random ones."""
    others = [
        f"{trainer} fold {number}: {UNRECORDED if start is None else in_words(start)}"
        for trainer, row in table.items()
        for number, fold in row.items()
        if fold.state == RUNNING or any(fold.folder.glob("checkpoint_*.pth"))
        if not same_start(start := pretrained_of(fold.folder), source)
    ]
    if others:
        raise ValueError(
            f"{len(others)} folds did not start from {'random weights' if source is None else in_words(source)}:\n  "
            + "\n  ".join(others)
            + "\nThe folds of a trainer have to start alike to be one row. Give the --pretrained-weights of these, or "
            "move their folders away, or leave their trainer out."
        )


def _not_found(trainer: str, hint: str) -> str:
    folders = os.environ.get(TRAINERS_VARIABLE) or "not set"
    text = (
        f"trainer {trainer}: nnU-Net finds none of that name, in its own package or in {TRAINERS_VARIABLE} ({folders})"
    )
    if hint:
        return f"{text}. {hint.removeprefix(f'{trainer}: ')}"
    if length := LENGTH.search(trainer):
        return (
            f"{text}. Any length, as {length[0]} here, exists of this package's trainers only, in the form "
            "_<N>epochs or _<N>epochs_<M>iterations."
        )
    return f"{text}. Correct the name, or add the folder of its file to {TRAINERS_VARIABLE}."
