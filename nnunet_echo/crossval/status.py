"""How far every trainer's folds are, read from the disk, and what finishes them.

It asks no engine, so it says the same during and after a run, on any machine that has the folder of results.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nnunet_echo.data.cases import patient_of
from nnunet_echo.nnunet.cases import REMEDY, has_record, preprocessed_folder, read_folds, read_splits
from nnunet_echo.nnunet.folders import replace_file
from nnunet_echo.nnunet.logs import read_debug, read_json
from nnunet_echo.nnunet.results import (
    DEFAULT_PLANS,
    DONE,
    OTHER_SPLIT,
    RUNNING,
    WAITING,
    Fold,
    check_name,
    dataset_name,
    model_folder,
    read_fold,
    results_folder,
)

OPTIONS = "crossval.json"  # in the folder of a trainer
Table = dict[str, dict[int, Fold]]  # trainer -> fold number -> fold


def check_names(configuration: str, plans: str, trainers: Sequence[str] | None, folds: Sequence[str] | None) -> None:
    """Raises `ValueError` for names and folds that cannot be, before they become parts of paths and commands."""
    for word in folds or ():
        fold_range(word)
    check_name("configuration", configuration)
    check_name("plans", plans)
    for trainer in trainers or ():
        check_name("trainer", trainer)


def status(
    dataset: str,
    configuration: str = "2d",
    *,
    plans: str = DEFAULT_PLANS,
    trainers: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
) -> tuple[list[str], bool]:
    """Lines that tell the state of a dataset, as nnU-Net knows it, and whether all its folds are done.

    `trainers` are by default all that have a folder of results, `folds`, such as ["0-4"], all of the split. Raises
    `FileNotFoundError` where no trainer has one, and `ValueError` for names and folds that cannot be.

    >>> splits = [{"train": ["p1"], "val": ["p2"]}, {"train": ["p2"], "val": ["p1"]}]
    >>> folder = Path("nnUNet_preprocessed/Dataset751_CAMUS")
    >>> folder.mkdir(parents=True)
    >>> _ = (folder / "splits_final.json").write_text(json.dumps(splits))
    >>> lines, done = status("751", trainers=["nnUNetTrainerVMUNet"])
    >>> lines[0], done
    ('Dataset751_CAMUS, 2d: 2 folds, 2 not started', False)
    """
    check_names(configuration, plans, trainers, folds)
    name = dataset_name(dataset)
    numbers = parse_folds(folds, name)
    trainers = list(dict.fromkeys(trainers or _trainers(name, plans, configuration)))
    if not trainers:
        raise FileNotFoundError(
            f"no trainer has a folder TRAINER__{plans}__{configuration} in "
            f"{results_folder() / name}. Start with nnunet-echo crossval."
        )
    table = read_table(name, configuration, plans, trainers, numbers)
    lines = screen(f"{name}, {configuration}", table)
    everything = [fold for row in table.values() for fold in row.values()]
    if unknown := [
        fold for fold in everything if fold.state not in (WAITING, OTHER_SPLIT) and not has_record(fold.folder)
    ]:
        lines.append(
            f"{len(unknown)} folds keep no record of what they were trained on (by hand with one of nnU-Net's "
            "trainers, or with an older version of this package): compared with the split are the cases that "
            "they validated."
        )
    if any(fold.state == OTHER_SPLIT for fold in everything):
        lines.append(f"Folds of another split are neither continued nor compared. {REMEDY}.")
    commands = finishing_commands(
        dataset,
        configuration,
        plans,
        table,
        {trainer: kept_options(model_folder(name, trainer, plans, configuration)) for trainer in trainers},
    )
    lines += [f"To finish what is missing: {command}" for command in commands]
    done = all(fold.state == DONE for fold in everything)
    return lines + ["All folds are done."] * done, done


def parse_folds(words: Sequence[str] | None, dataset: str, split: Path | None = None) -> list[int]:
    """Fold numbers of ["0-4"] or ["0", "2"]; None means all.

    Raises `ValueError` for what the split does not have: the one in the file `split`, else the preprocessed dataset's.
    """
    there = len(read_splits(split) if split else read_folds(dataset))
    if words is None:
        return list(range(there))
    folds: set[int] = set()
    for first, last in map(fold_range, words):
        if last >= there:
            raise ValueError(f"--folds {max(first, there)}: the split of {dataset} has folds 0 to {there - 1}.")
        folds.update(range(first, last + 1))
    return sorted(folds)


def fold_range(word: str) -> tuple[int, int]:
    """First and last of "0-4" or "2". Raises `ValueError` for what is neither."""
    match = re.fullmatch("([0-9]{1,18})(?:-([0-9]{1,18}))?", word)
    if match is None:
        raise ValueError(f"--folds {word!r}: neither a number nor a range. Give numbers, or a range such as 0-4.")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise ValueError(f"--folds {word}: the range ends before it begins. Give {last}-{first}.")
    return first, last


def read_table(dataset: str, configuration: str, plans: str, trainers: Sequence[str], folds: Sequence[int]) -> Table:
    """The folds of all trainers as they are now, and whether they are of the split as it is now."""
    splits = read_folds(dataset)
    dataset_json = read_json(preprocessed_folder() / dataset / "dataset.json")
    patient = partial(patient_of, dataset_json=dataset_json) if isinstance(dataset_json, dict) else str
    return {
        trainer: {
            fold: read_fold(
                model_folder(dataset, trainer, plans, configuration) / f"fold_{fold}", splits[fold], patient
            )
            for fold in folds
        }
        for trainer in trainers
    }


def keep_options(model: Path, options: Sequence[str]) -> None:
    """Note what `crossval` was told beyond dataset, plans, trainers and folds, so that `status` can repeat it."""
    replace_file(model / OPTIONS, json.dumps(list(options)))


def kept_options(model: Path) -> tuple[str, ...]:
    """What `keep_options` wrote; where it did not, what nnU-Net noted of the device."""
    content = read_json(model / OPTIONS)
    if isinstance(content, list):
        return tuple(map(str, content))
    devices = {str(read_debug(folder).get("device", "")).partition(":")[0] for folder in model.glob("fold_*")}
    return next((("--device", device) for device in ("cpu", "mps") if device in devices), ())


def screen(title: str, table: Table) -> list[str]:
    """Lines to print: how many folds are in which state, a row for each trainer, and a line for what is not done."""
    named = [(f"{trainer} fold {number}", fold) for trainer, row in table.items() for number, fold in row.items()]
    counts = Counter(fold.state for _, fold in named)
    lines = [f"{title}: {len(named)} folds, " + ", ".join(f"{n} {state}" for state, n in counts.most_common()), ""]
    width = max(map(len, table))
    lines.append(" " * width + "".join(f"{f'fold {number}':>13}" for number in next(iter(table.values()))))
    lines += [
        f"{trainer:<{width}}" + "".join(f"{_cell(fold):>13}" for fold in row.values()) for trainer, row in table.items()
    ]
    details = [f"{name}: {fold}" for name, fold in named if fold.state not in (DONE, WAITING)]
    return [*lines, "", *details, ""] if details else [*lines, ""]


def finishing_commands(
    dataset: str, configuration: str, plans: str, table: Table, options: Mapping[str, Sequence[str]]
) -> list[str]:
    """What to type, with the further options of each trainer, so that every fold is done that can be; [] when all are.

    One command for the trainers that have the same options.
    """
    missing = {
        trainer: [k for k, fold in row.items() if fold.state not in (DONE, OTHER_SPLIT)]
        for trainer, row in table.items()
    }
    groups: dict[tuple[str, ...], list[str]] = {}
    for trainer, folds in missing.items():
        if folds:
            groups.setdefault(tuple(options.get(trainer, ())), []).append(trainer)
    of_plans = [] if plans == DEFAULT_PLANS else ["-p", plans]
    return [
        shlex.join(
            [
                "nnunet-echo",
                "crossval",
                dataset,
                "-c",
                configuration,
                *of_plans,
                "--trainers",
                *trainers,
                "--folds",
                *map(str, sorted(set().union(*(missing[trainer] for trainer in trainers)))),
                *more,
            ]
        )
        for more, trainers in groups.items()
    ]


def _trainers(dataset: str, plans: str, configuration: str) -> list[str]:
    """Those with a folder. A trainer's name has no "__": what has is of plans that end like ours."""
    of_model = f"__{plans}__{configuration}"
    folder = results_folder() / dataset
    names = [path.name.removesuffix(of_model) for path in folder.glob(f"*{of_model}") if path.is_dir()]
    return sorted(name for name in names if name.isidentifier() and "__" not in name)


def _cell(fold: Fold) -> str:
    return {RUNNING: fold.progress(), WAITING: "-"}.get(fold.state, fold.state)
