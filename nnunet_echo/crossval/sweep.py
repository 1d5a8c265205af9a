"""Every fold of every trainer, on as many GPUs as there are.

Interrupt it, lose a machine, reboot: the same call goes on where the folds are, and does nothing twice.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_echo.crossval.checks import check_device, check_trainers, check_weights, weights_source
from nnunet_echo.crossval.engines import Job, OneByOne, OnRay, why_not_ray
from nnunet_echo.crossval.jobs import Model, Prediction, Training
from nnunet_echo.crossval.prepare import given_split, next_step, prepare
from nnunet_echo.crossval.status import (
    Table,
    check_names,
    finishing_commands,
    keep_options,
    parse_folds,
    read_table,
    screen,
)
from nnunet_echo.crossval.train_fold import LOCKED
from nnunet_echo.nnunet.cases import REMEDY
from nnunet_echo.nnunet.commands import silent
from nnunet_echo.nnunet.results import (
    DEFAULT_PLANS,
    ENDED_BY_SIGNAL,
    OTHER_SPLIT,
    dataset_name,
    is_locked,
    last_lines,
    results_folder,
)

RETRIES = 5  # of a job that a signal ended, such as the kernel's out of memory
LINES_OF_A_FAILURE = 12
LOOK_S = 5.0  # between looks at the disk
Look = Callable[[Sequence[str], Callable[[], list[str]]], None]


def crossval(
    dataset: str,
    trainers: Sequence[str],
    configuration: str = "2d",
    *,
    plans: str = DEFAULT_PLANS,
    folds: Sequence[str] | None = None,
    device: str = "cuda",
    gpus_per_job: float = 1,
    predict: Path | None = None,
    pretrained_weights: Path | None = None,
    say: Callable[[str], None] = silent,
    look: Look = lambda *_: None,
) -> list[Job]:
    """Prepare, train, predict, report; returns the jobs that failed.

    `dataset` is as nnU-Net knows it, `folds` are such as ["0-4"] (default: all of the split), `predict` is a folder of
    images that the folds of each trainer predict, `pretrained_weights` a file for nnU-Net's option of that name, from
    which every fold starts. `say` gets what happens, and at the end how all folds are; `look` is called every few
    seconds with the news, and with a function that gives the state of all folds as lines.
    Raises `ValueError`, `OSError` or `RuntimeError` for what cannot be trained, before anything starts.
    """
    if not 0 < gpus_per_job <= 1:
        raise ValueError(f"--gpus-per-job {gpus_per_job}: a fold is trained on one GPU or on a share of it.")
    if predict is not None and not predict.is_dir():
        raise FileNotFoundError(f"--predict {predict} is not a folder.")
    source, weights = weights_source(pretrained_weights), pretrained_weights and pretrained_weights.resolve()
    check_names(configuration, plans, trainers, folds)
    trainers = list(dict.fromkeys(trainers))
    why_not = why_not_ray(device)
    name = dataset_name(dataset)
    results_folder()
    next_step(name, configuration, plans)  # whether the plans have the configuration
    if not os.environ.get("RAY_ADDRESS"):
        check_device(device)
    check_trainers(trainers)
    if split := given_split(name):
        parse_folds(folds, name, split)
    say(f"{name}: plans, splits and preprocessed data")
    prepare(name, configuration, plans, say)
    numbers = parse_folds(folds, name)
    models = [Model(name, configuration, trainer, plans, device) for trainer in trainers]
    trainings = [Training(model, str(fold), weights) for fold in numbers for model in models]

    def table() -> Table:
        return read_table(name, configuration, plans, trainers, numbers)

    def lines() -> list[str]:
        return screen(f"{name}, {configuration}", table())

    _refuse_other_splits(table())
    check_weights(read_table(name, configuration, plans, trainers, parse_folds(None, name)), source)
    for training in trainings:  # so that `status` knows what is planned
        training.folder.mkdir(parents=True, exist_ok=True)
    options = _options(device, gpus_per_job, predict, weights)
    for model in models:
        keep_options(model.folder, options)
    results = results_folder() / name
    _warn_without_locks(results / "crossval.lock", say)

    engine = OneByOne() if why_not else OnRay(gpus_per_job, results / "crossval_ray.log")
    try:
        if isinstance(engine, OnRay):
            say(_about_ray(engine, gpus_per_job))
        else:
            say(f"One fold after another: {why_not}.")
        failures = sweep(trainings, predict, engine, lambda news: look(news, lines))
    finally:
        engine.close()
    say("\n" + "\n".join(lines()))
    for job in failures:
        log = Path(f"{job.base}.log")
        say(f"{job} failed. The end of {log}:")
        say("\n".join(f"    {line}" for line in last_lines(log, LINES_OF_A_FAILURE)) + "\n")
    for command in finishing_commands(dataset, configuration, plans, table(), dict.fromkeys(trainers, options)):
        say(f"To try again: {command}")
    return failures


def _options(device: str, gpus_per_job: float, predict: Path | None, weights: Path | None) -> list[str]:
    """What else the user typed, and has to type again to go on."""
    options = [] if device == "cuda" else ["--device", device]
    options += [] if gpus_per_job == 1 else ["--gpus-per-job", f"{gpus_per_job:g}"]
    options += [] if predict is None else ["--predict", str(predict.resolve())]
    return options + ([] if weights is None else ["--pretrained-weights", str(weights)])


def _refuse_other_splits(table: Table) -> None:
    """Raises `ValueError` that names the folds which were trained on other cases than the split has now."""
    others = [
        f"{trainer} fold {number}: {fold.reason}"
        for trainer, row in table.items()
        for number, fold in row.items()
        if fold.state == OTHER_SPLIT
    ]
    if others:
        raise ValueError(
            f"{len(others)} folds are of another split than nnUNet_preprocessed has now:\n  "
            + "\n  ".join(others)
            + f"\n{REMEDY}, or leave them out (--trainers, --folds)."
        )


def sweep(
    trainings: Sequence[Training], images: Path | None, engine: OneByOne | OnRay, look: Callable[[Sequence[str]], None]
) -> list[Job]:
    """Run the trainings, and when all folds of a trainer are there the prediction; returns the jobs that failed.

    A job whose command exits with an error has failed. One that was killed is run again, RETRIES times; one that
    somebody else has at work is waited for.
    """
    waiting: list[Job] = []
    failed: list[Job] = []
    tries: Counter[Job] = Counter()
    models = {training.model for training in trainings}
    left = {model: [training for training in trainings if training.model == model] for model in models}
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

    for training in trainings:
        if training.is_done():
            finish(training)
        else:
            submit(training)
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


def _about_ray(engine: OnRay, gpus_per_job: float) -> str:
    gpus, address = engine.gpus(), os.environ.get("RAY_ADDRESS")
    if gpus < gpus_per_job and not address:
        raise RuntimeError(
            "Ray finds no GPU on this machine. Train with --device cpu, or set RAY_ADDRESS to a cluster."
        )
    place = f"the Ray cluster at {address}" if address else "Ray on this machine"
    return (
        f"On {place}: {gpus:g} GPUs, {gpus_per_job:g} for each fold. This process has to live as long as the "
        "trainings: start it in tmux or with nohup. If it dies, run it again."
    )


def _warn_without_locks(file: Path, say: Callable[[str], None]) -> None:
    try:
        with file.open("w+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        say(
            f"WARNING: {file.parent} has no working locks ({error}). Run one crossval at a time, or two may train the "
            "same fold."
        )
