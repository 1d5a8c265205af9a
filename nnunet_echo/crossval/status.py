"""`nnunet-echo status DATASET`: how far every trainer's folds are, from the disk alone, and what finishes them.

It asks no engine, so it tells the same during and after a run, on any machine that has the folder of results.
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence

from nnunet_echo.crossval.fold import (
    DEFAULT_PLANS,
    DONE,
    RUNNING,
    WAITING,
    Fold,
    dataset_name,
    model_folder,
    read_fold,
    results_folder,
)
from nnunet_echo.crossval.prepare import read_folds

Table = dict[str, dict[int, Fold]]  # trainer -> fold number -> fold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `status`."""
    add_dataset_arguments(parser)
    parser.add_argument("--trainers", nargs="+", metavar="NAME", help="(default: all that have a folder of results)")


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """What `crossval` and `slurm-script` have in common."""
    add_dataset_arguments(parser)
    parser.add_argument("--trainers", nargs="+", required=True, metavar="NAME", help="ours, nnU-Net's or your own")
    parser.add_argument("--device", choices=("cuda", "cpu", "mps"), default="cuda", help="(default: cuda)")


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """What `status`, too, has in common with these."""
    parser.add_argument("dataset", help="as nnU-Net knows it: an id such as 751, or a name such as Dataset751_CAMUS")
    parser.add_argument("-c", "--configuration", default="2d", help="of nnU-Net's plan (default: 2d)")
    parser.add_argument("-p", "--plans", default=DEFAULT_PLANS, help=f"(default: {DEFAULT_PLANS})")
    parser.add_argument("--folds", nargs="+", metavar="K", help="such as 0-4, or 0 2 (default: all of the split)")


def run(args: argparse.Namespace) -> int:
    """Print the state; 0 when all folds are done, 1 when some are not."""
    dataset = dataset_name(args.dataset)
    folds = parse_folds(args.folds, dataset)
    trainers = args.trainers or _trainers(dataset, args.plans, args.configuration)
    if not trainers:
        raise FileNotFoundError(f"no trainer has a folder TRAINER__{args.plans}__{args.configuration} in "
                                f"{results_folder() / dataset}; start with nnunet-echo crossval")
    table = read_table(dataset, args.configuration, args.plans, trainers, folds)
    print("\n".join(screen(f"{dataset}, {args.configuration}", table)))
    command = finishing_command(args.dataset, args.configuration, args.plans, table)
    print(f"To finish what is missing: {command}" if command else "All folds are done.")
    return int(bool(command))


def parse_folds(words: Sequence[str] | None, dataset: str) -> list[int]:
    """Fold numbers of ["0-4"] or ["0", "2"]; None means all. Raises `ValueError` for what the split does not have."""
    there = range(len(read_folds(dataset)))
    if words is None:
        return list(there)
    folds = []
    for word in words:
        first, _, last = word.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise ValueError(f"--folds {word}: give numbers, or a range such as 0-4")
        folds += range(int(first), int(last or first) + 1)
    if strangers := sorted(set(folds) - set(there)):
        raise ValueError(f"--folds {strangers[0]}: the split of {dataset} has folds 0 to {len(there) - 1}")
    return sorted(set(folds))


def read_table(dataset: str, configuration: str, plans: str, trainers: Sequence[str], folds: Sequence[int]) -> Table:
    """The folds of all trainers as they are now."""
    return {trainer: {fold: read_fold(model_folder(dataset, trainer, plans, configuration) / f"fold_{fold}")
                      for fold in folds} for trainer in trainers}


def screen(title: str, table: Table) -> list[str]:
    """Lines to print: how many folds are in which state, a row for each trainer, and a line for what is not done."""
    named = [(f"{trainer} fold {number}", fold) for trainer, row in table.items() for number, fold in row.items()]
    counts = Counter(fold.state for _, fold in named)
    lines = [f"{title}: {len(named)} folds, " + ", ".join(f"{n} {state}" for state, n in counts.most_common()), ""]
    width = max(map(len, table))
    lines.append(" " * width + "".join(f"{f'fold {number}':>13}" for number in next(iter(table.values()))))
    lines += [f"{trainer:<{width}}" + "".join(f"{_cell(fold):>13}" for fold in row.values())
              for trainer, row in table.items()]
    details = [f"{name}: {fold}" for name, fold in named if fold.state not in (DONE, WAITING)]
    return [*lines, "", *details, ""] if details else [*lines, ""]


def finishing_command(dataset: str, configuration: str, plans: str, table: Table, options: Sequence[str] = ()) -> str:
    """What to type, with further options, so that every fold of the table is done; "" when all are."""
    missing = {trainer: [k for k, fold in row.items() if fold.state != DONE] for trainer, row in table.items()}
    trainers = [trainer for trainer, folds in missing.items() if folds]
    if not trainers:
        return ""
    folds = sorted(set().union(*missing.values()))
    of_plans = [] if plans == DEFAULT_PLANS else ["-p", plans]
    return shlex.join(["nnunet-echo", "crossval", dataset, "-c", configuration, *of_plans,
                       "--trainers", *trainers, "--folds", *map(str, folds), *options])


def _trainers(dataset: str, plans: str, configuration: str) -> list[str]:
    folders = model_folder(dataset, "*", plans, configuration)
    return sorted(path.name.partition("__")[0] for path in folders.parent.glob(folders.name) if path.is_dir())


def _cell(fold: Fold) -> str:
    return {RUNNING: fold.progress(), WAITING: "-"}.get(fold.state, fold.state)
