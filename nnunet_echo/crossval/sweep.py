"""`nnunet-echo crossval DATASET --trainers A B ...`: every fold of every trainer, on as many GPUs as there are.

Interrupt it, lose a machine, reboot: the same command goes on where the folds are, and does nothing twice.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_echo.crossval.checks import check_device, check_trainers
from nnunet_echo.crossval.engines import Job, OneByOne, OnRay, why_not_ray
from nnunet_echo.crossval.jobs import Model, Prediction, Training
from nnunet_echo.crossval.prepare import given_split, next_step, prepare
from nnunet_echo.crossval.status import (
    Table,
    add_sweep_arguments,
    check_names,
    finishing_commands,
    keep_options,
    parse_folds,
    read_table,
    screen,
)
from nnunet_echo.crossval.train_fold import LOCKED
from nnunet_echo.nnunet.cases import REMEDY
from nnunet_echo.nnunet.results import ENDED_BY_SIGNAL, OTHER_SPLIT, dataset_name, is_locked, last_lines, results_folder

RETRIES = 5  # of a job that a signal ended, such as the kernel's out of memory
LINES_OF_A_FAILURE = 12
LOOK_S = 5.0  # between looks at the disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `crossval`."""
    add_sweep_arguments(parser)
    parser.add_argument("--gpus-per-job", type=float, default=1, metavar="X",
                        help="0.5: two trainings share a GPU, if its memory suffices (default: 1); with Ray only")
    parser.add_argument("--predict", type=Path, metavar="FOLDER",
                        help="also predict its images by the folds of each trainer, to a folder predicted_... there")


def run(args: argparse.Namespace) -> int:
    """Prepare, train, predict, report; 0 when all is done, 1 when something failed."""
    if not 0 < args.gpus_per_job <= 1:
        raise ValueError(f"--gpus-per-job {args.gpus_per_job}: a fold is trained on one GPU or on a share of it")
    if args.predict is not None and not args.predict.is_dir():
        raise FileNotFoundError(f"--predict {args.predict} is no folder")
    check_names(args)
    trainers = list(dict.fromkeys(args.trainers))
    why_not = why_not_ray(args.device)
    dataset = dataset_name(args.dataset)
    results_folder()
    next_step(dataset, args.configuration, args.plans)  # whether the plans have the configuration
    if not os.environ.get("RAY_ADDRESS"):
        check_device(args.device)
    check_trainers(trainers)
    if split := given_split(dataset):
        parse_folds(args.folds, dataset, split)
    print(f"{dataset}: plans, splits and preprocessed data", flush=True)
    prepare(dataset, args.configuration, args.plans)
    folds = parse_folds(args.folds, dataset)
    models = [Model(dataset, args.configuration, trainer, args.plans, args.device) for trainer in trainers]
    trainings = [Training(model, str(fold)) for fold in folds for model in models]
    _refuse_other_splits(read_table(dataset, args.configuration, args.plans, trainers, folds))
    for training in trainings:  # so that `status` knows what is planned
        training.folder.mkdir(parents=True, exist_ok=True)
    options = _options(args)
    for model in models:
        keep_options(model.folder, options)
    results = results_folder() / dataset
    _warn_without_locks(results / "crossval.lock")

    engine = OneByOne() if why_not else OnRay(args.gpus_per_job, results / "crossval_ray.log")
    try:
        print(f"One fold after another: {why_not}." if why_not else _about_ray(engine, args.gpus_per_job), flush=True)
        look = _Screen(lambda: screen(f"{dataset}, {args.configuration}", read_table(
            dataset, args.configuration, args.plans, trainers, folds)))
        failures = sweep(trainings, args.predict, engine, look)
    finally:
        engine.close()
    table = read_table(dataset, args.configuration, args.plans, trainers, folds)
    print("\n" + "\n".join(screen(f"{dataset}, {args.configuration}", table)))
    for job in failures:
        log = Path(f"{job.base}.log")
        print(f"{job} failed. The end of {log}:")
        print("\n".join(f"    {line}" for line in last_lines(log, LINES_OF_A_FAILURE)) + "\n")
    for command in finishing_commands(args.dataset, args.configuration, args.plans, table,
                                      dict.fromkeys(trainers, options)):
        print(f"To try again: {command}")
    return int(bool(failures))


def _options(args: argparse.Namespace) -> list[str]:
    """What else the user typed, and has to type again to go on."""
    options = [] if args.device == "cuda" else ["--device", args.device]
    options += [] if args.gpus_per_job == 1 else ["--gpus-per-job", f"{args.gpus_per_job:g}"]
    return options + ([] if args.predict is None else ["--predict", str(args.predict.resolve())])


def _refuse_other_splits(table: Table) -> None:
    """Raises `ValueError` that names the folds which were trained on other cases than the split has now."""
    others = [f"{trainer} fold {number}: {fold.reason}" for trainer, row in table.items()
              for number, fold in row.items() if fold.state == OTHER_SPLIT]
    if others:
        raise ValueError(f"{len(others)} folds are of another split than nnUNet_preprocessed has now:\n  "
                         + "\n  ".join(others) + f"\n{REMEDY}, or leave them out (--trainers, --folds)")


def sweep(trainings: Sequence[Training], images: Path | None, engine: OneByOne | OnRay,
          look: Callable[[Sequence[str]], None]) -> list[Job]:
    """Run the trainings, and when all folds of a trainer are there the prediction; returns the jobs that failed.

    A job whose command exits with an error has failed. One that was killed is run again, RETRIES times; one that
    somebody else has at work is waited for.
    """
    waiting: list[Job] = []
    failed: list[Job] = []
    tries: Counter[Job] = Counter()
    left = {model: [job for job in trainings if job.model == model] for model in {job.model for job in trainings}}
    todo: set[Job] = set()

    def submit(job: Job) -> None:
        todo.add(job)
        engine.submit(job)

    def finish(job: Job) -> None:
        if isinstance(job, Training):
            left[job.model].remove(job)
            if images is not None and not left[job.model]:
                folds = tuple(training.fold for training in trainings if training.model == job.model)
                submit(Prediction(job.model, folds, images.resolve()))

    for job in trainings:
        if job.is_done():
            finish(job)
        else:
            submit(job)
    while todo:
        news = []
        for job, status in engine.wait(LOOK_S):
            if status == 0:
                news.append(f"{job} done")
                todo.discard(job)
                finish(job)
            elif status == LOCKED:
                waiting.append(job)
            elif status in ENDED_BY_SIGNAL and tries[job] < RETRIES:
                news.append(f"{job} was killed, runs again")
                tries[job] += 1
                engine.submit(job)
            else:
                news.append(f"{job} failed")
                todo.discard(job)
                failed.append(job)
        for job in [job for job in waiting if not is_locked(Path(f"{job.base}.lock"))]:
            waiting.remove(job)
            engine.submit(job)
        look(news)
    return failed


class _Screen:
    """The state of all folds, drawn over the last one on a terminal; elsewhere only the news, a line each."""

    def __init__(self, draw: Callable[[], list[str]]) -> None:
        self._draw = draw
        self._lines = 0

    def __call__(self, news: Sequence[str]) -> None:
        if not sys.stdout.isatty():
            for line in news:
                print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            return
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in self._draw()][: rows - 2]
        up = f"\x1b[{self._lines}F\x1b[J" if self._lines else ""
        print(up + "\n".join(lines), flush=True)
        self._lines = len(lines)


def _about_ray(engine: OnRay, gpus_per_job: float) -> str:
    gpus, address = engine.gpus(), os.environ.get("RAY_ADDRESS")
    if gpus < gpus_per_job and not address:
        raise RuntimeError("Ray finds no GPU on this machine; train with --device cpu, or set RAY_ADDRESS to a cluster")
    place = f"the Ray cluster at {address}" if address else "Ray on this machine"
    return (f"On {place}: {gpus:g} GPUs, {gpus_per_job:g} for each fold. This process has to live as long as the "
            "trainings: start it in tmux or with nohup. If it dies, run it again.")


def _warn_without_locks(file: Path) -> None:
    try:
        with file.open("w+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        print(f"WARNING: {file.parent} has no working locks ({error}). Run one crossval at a time, or two may train "
              "the same fold.", flush=True)
