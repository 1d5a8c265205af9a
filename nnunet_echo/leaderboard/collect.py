"""Which trainers of a dataset have results, and which of these may stand in one table.

nnU-Net keeps them as <nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>/fold_<k>/validation. A fold counts
once its validation is complete: summary.json, which nnU-Net writes last, and a prediction for every case. Trainers
compare where they validated the same cases in the same folds. So nothing here averages over what is there: a trainer
with folds missing is "incomplete", one that was trained on another split, on all cases, or from different weights in
different folds, is "refused", with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nnunet_echo.data.cases import patient_of
from nnunet_echo.nnunet.cases import Cases, other_split, read_splits
from nnunet_echo.nnunet.pretrained import UNRECORDED, Source, in_words, pretrained_of, same_start
from nnunet_echo.nnunet.results import DEFAULT_PLANS, DONE, read_fold

COMPLETE, INCOMPLETE, REFUSED = "complete", "incomplete", "refused"


@dataclass(frozen=True)
class ComparedFolds:
    """The folds that are compared: fold number -> its training and its validation cases, and a hash of all of these.

    `patient` tells that of a case.
    """

    training: dict[int, frozenset[str]]
    validation: dict[int, frozenset[str]]
    hash: str
    patient: Callable[[str], str] = field(default=str, compare=False)

    def cases(self, fold: int) -> Cases:
        """As they are in the file."""
        return {"train": sorted(self.training[fold]), "val": sorted(self.validation[fold])}


@dataclass(frozen=True)
class TrainedModel:
    """A trainer with its plans and configuration. `name` is the trainer's, with "__PLANS" unless these are the default.

    `folds` are those that count, `status` is "complete", "incomplete" or "refused", `reasons` say why, and what was
    left out. `pretrained` says which weights its training started from, "" for random ones and where nothing is on
    record.
    """

    name: str
    trainer: str
    plans: str
    configuration: str
    folder: Path
    folds: tuple[int, ...]
    status: str
    reasons: tuple[str, ...]
    pretrained: str = ""

    def validation(self, fold: int) -> Path:
        """Where nnU-Net put the predictions of a fold's validation cases."""
        return self.folder / f"fold_{fold}" / "validation"


def read_split(path: Path, dataset_json: dict, folds: Sequence[int] | None = None) -> ComparedFolds:
    """The `folds` (default: all) of a splits_final.json.

    Raises `ValueError` for a fold that the file does not have, for a patient on both sides of a fold and for a case
    that two folds validate, and as `read_splits`.
    """
    content = read_splits(path)
    chosen = sorted(set(range(len(content)) if folds is None else folds))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < len(content):
        raise ValueError(f"folds {chosen}: {path} has folds 0 to {len(content) - 1}.")
    training, validation = ({fold: frozenset(content[fold][side]) for fold in chosen} for side in ("train", "val"))
    for fold in chosen:
        patients = [{patient_of(case, dataset_json) for case in side[fold]} for side in (training, validation)]
        if both := sorted(patients[0] & patients[1]):
            raise ValueError(
                f"{path}: fold {fold} trains and validates on {both[0]} ({len(both)} such patients); its "
                "scores say nothing about new patients. Split by patient and train again."
            )
    repeated = sorted(
        case for case, n in Counter(case for cases in validation.values() for case in cases).items() if n > 1
    )
    if repeated:
        raise ValueError(
            f"{path}: {repeated[0]} is validated in several folds ({len(repeated)} such cases). Choose "
            "folds that validate each case once with --folds."
        )
    canonical = json.dumps([[fold, sorted(training[fold]), sorted(validation[fold])] for fold in chosen])
    return ComparedFolds(
        training,
        validation,
        hashlib.sha256(canonical.encode()).hexdigest()[:12],
        partial(patient_of, dataset_json=dataset_json),
    )


def find_models(
    results: Path,
    configuration: str,
    split: ComparedFolds,
    file_ending: str,
    names: Sequence[str] | None = None,
    plans: str | None = None,
) -> list[TrainedModel]:
    """All models of a configuration below the dataset's folder `results`, or of these `plans` or `names`, by name.

    A name is that of a trainer, with any plans, or TRAINER__PLANS. Raises `FileNotFoundError` where there is none and
    `ValueError` for a name that is not there.
    """
    folders = sorted(path for path in results.glob("*") if path.name.endswith(f"__{configuration}") and path.is_dir())
    models = [
        _model(folder, configuration, split, file_ending)
        for folder in folders
        if plans is None or folder.name.partition("__")[2] == f"{plans}__{configuration}"
    ]
    if not models:
        raise FileNotFoundError(
            f"{results}: no folder TRAINER__{plans or 'PLANS'}__{configuration} there. Train one, "
            "or choose a configuration with -c" + (" or other plans with -p." if plans else ".")
        )
    if names is None:
        return models
    known = {model.trainer for model in models} | {f"{model.trainer}__{model.plans}" for model in models}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"trainer {unknown[0]} has no results in {results}; there are {', '.join(sorted(known))}.")
    return [model for model in models if {model.trainer, f"{model.trainer}__{model.plans}"} & set(names)]


def _model(folder: Path, configuration: str, split: ComparedFolds, file_ending: str) -> TrainedModel:
    # The name of plans may have "__", that of a trainer not, or nnU-Net could not tell its own folders apart.
    trainer, _, plans = folder.name.removesuffix(f"__{configuration}").partition("__")
    if not trainer or not plans:
        reason = f"its folder {folder.name} is not called TRAINER__PLANS__{configuration}"
        return TrainedModel(folder.name, trainer, plans, configuration, folder, (), REFUSED, (reason,))
    reasons, folds, foreign = [], [], False
    for fold in _trained_folds(folder):
        if fold == "all":
            reasons.append("fold_all left out: it is validated on cases that it was trained on")
        elif int(fold) in split.validation:
            problem, same_split = _check_fold(folder / f"fold_{fold}", int(fold), split, file_ending)
            foreign |= not same_split
            reasons += [problem] if problem else []
            folds += [] if problem else [int(fold)]
        else:
            reasons.append(f"fold {fold} left out: it is none of the folds compared")
    if missing := [fold for fold in split.validation if not (folder / f"fold_{fold}").is_dir()]:
        reasons.append(f"missing: fold {', '.join(map(str, missing))}")
    started, alike = _started({fold: pretrained_of(folder / f"fold_{fold}") for fold in folds})
    if not alike:
        foreign = True
        reasons.append(f"its folds start from different weights: {started}")
    status = REFUSED if foreign or not folds else COMPLETE if len(folds) == len(split.validation) else INCOMPLETE
    name = trainer if plans == DEFAULT_PLANS else f"{trainer}__{plans}"
    pretrained = "" if foreign else started
    return TrainedModel(name, trainer, plans, configuration, folder, tuple(folds), status, tuple(reasons), pretrained)


def _started(starts: Mapping[int, Source | None]) -> tuple[str, bool]:
    """What the folds started from, in words, and whether that makes them one method.

    It does if all started from the same, and if each started from a checkpoint of nnU-Net: then from one that knows
    nothing of the fold's validation, such as that of the same fold of another configuration.
    """
    words = {fold: UNRECORDED if start is None else in_words(start) for fold, start in starts.items()}
    first = next(iter(starts.values()), None)
    if all(same_start(start, first) for start in starts.values()):
        return ("" if first is None else next(iter(words.values()))), True
    each = ", ".join(f"fold {fold} from {word}" for fold, word in words.items())
    return each, all(start is not None and start.get("layout") == "" for start in starts.values())


def _trained_folds(folder: Path) -> list[str]:
    found = (re.fullmatch(r"fold_(all|0|[1-9][0-9]*)", path.name) for path in folder.iterdir() if path.is_dir())
    return sorted((match[1] for match in found if match), key=lambda fold: (fold == "all", len(fold), fold))


def _check_fold(folder: Path, fold: int, split: ComparedFolds, file_ending: str) -> tuple[str, bool]:
    """What keeps a fold from counting ("": nothing), and whether it was trained on this split as far as is known."""
    expected = split.validation[fold]
    if other := other_split(folder, split.cases(fold), split.patient):
        return f"fold {fold} is of another split: {other}", False
    found = {path.name.removesuffix(file_ending) for path in (folder / "validation").glob(f"*{file_ending}")}
    now = read_fold(folder)
    if now.state != DONE:
        return f"fold {fold} is not finished: {now.short()}", True
    if absent := sorted(expected - found):
        return f"fold {fold} lacks {len(absent)} of {len(expected)} validation cases, first {absent[0]}", True
    return "", True
