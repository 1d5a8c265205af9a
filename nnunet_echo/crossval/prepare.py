"""What the folds of all trainers share: plans, splits, preprocessed data. Made before the first fold starts.

Left to the folds, each would do its own: stock nnU-Net writes the splits from whichever fold comes first, without a
lock, and a fold that starts before the data are complete fails. Two preparations of one dataset take turns.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_echo.data.cases import five_folds_of_cases
from nnunet_echo.nnunet.cases import preprocessed_folder, read_splits
from nnunet_echo.nnunet.commands import run_command, silent
from nnunet_echo.nnunet.folders import RAW, replace_file
from nnunet_echo.nnunet.logs import read_json
from nnunet_echo.nnunet.plans import plan_configuration, read_configurations
from nnunet_echo.nnunet.results import DEFAULT_PLANS, take_lock

PLANNED = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")  # what nnU-Net's planner may make
WEEK_S = 7 * 86400.0


def prepare(
    dataset: str, configuration: str, plans: str, say: Callable[[str], None] = silent, wait_s: float = WEEK_S
) -> None:
    """Run what is still to be run of nnU-Net's commands for a dataset, DatasetXXX_NAME; make its split if it has none.

    Waits while another process prepares it. Raises RuntimeError when it still does after `wait_s`, when a command
    fails, with its last lines, or leaves the data incomplete, and as `next_step`. `say` gets what runs.
    """
    done: list[list[str]] = []
    with _alone(dataset, wait_s, say):
        while (step := next_step(dataset, configuration, plans)) is not None:
            if step in done:
                raise RuntimeError(_incomplete(dataset, configuration, plans, step))
            done.append(step)
            say(f"  $ {' '.join(step)}")
            run_command(step, os.environ, preprocessed_folder() / f"{dataset}_{step[0]}.log", say)
        _make_split(dataset, configuration, plans)


def what_is_missing(dataset: str, configuration: str, plans: str) -> list[str] | None:
    """As `next_step`, but makes the split where only that is missing.

    Raises RuntimeError while another process prepares the dataset.
    """
    if next_step(dataset, configuration, plans) is None and _split(dataset).is_file():
        return None
    with _alone(dataset, 0):
        step = next_step(dataset, configuration, plans)
        if step is None:
            _make_split(dataset, configuration, plans)
    return step


def next_step(dataset: str, configuration: str, plans: str) -> list[str] | None:
    """nnU-Net's command that has to be run next; None when the folds may start, or lack only a split. Changes nothing.

    Raises `ValueError` for a configuration that the plans do not have and without nnUNet_preprocessed, and
    `FileNotFoundError` for plans other than nnU-Net's default that are not there.
    """
    folder = preprocessed_folder() / dataset
    number = str(int(dataset[7:10]))
    if not (folder / f"{plans}.json").is_file():
        if plans != DEFAULT_PLANS:
            raise FileNotFoundError(
                f"{folder / plans}.json is not there. Make these plans with nnUNetv2_plan_experiment."
            )
        if configuration not in PLANNED:
            raise ValueError(
                f"configuration {configuration}: {dataset} is not planned yet, and nnU-Net plans only "
                f"{', '.join(PLANNED)}."
            )
        return ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, "--verify_dataset_integrity"]
    there = _preprocessed(folder, configuration, plans)
    if not there or _expected(dataset) - there:
        return ["nnUNetv2_preprocess", "-d", number, "-c", configuration, "-plans_name", plans]
    return None


def _preprocessed(folder: Path, configuration: str, plans: str) -> set[str]:
    file = folder / f"{plans}.json"
    content = plan_configuration(file, read_configurations(file), configuration)
    identifier = content.get("data_identifier")
    if not isinstance(identifier, str):
        raise ValueError(f"configuration {configuration}: in {file} it has no data_identifier. Plan again.")
    return {path.stem for path in (folder / identifier).glob("*.pkl")}  # nnU-Net writes it last of a case


def _expected(dataset: str) -> set[str]:
    """The cases that have to be preprocessed: those of the split, and without one all that have a label map.

    (nnU-Net writes one case after another: those that are there say nothing about how many there will be.)
    """
    raw = _raw(dataset)
    for splits in (_split(dataset), raw / "splits_final.json"):
        if splits.is_file():
            return {case for fold in read_splits(splits) for side in ("train", "val") for case in fold[side]}
    dataset_json = read_json(raw / "dataset.json")
    ending = dataset_json.get("file_ending") if isinstance(dataset_json, dict) else None
    return {path.name.removesuffix(ending) for path in (raw / "labelsTr").glob(f"*{ending}")} if ending else set()


def _incomplete(dataset: str, configuration: str, plans: str, step: list[str]) -> str:
    missing = sorted(_expected(dataset) - _preprocessed(preprocessed_folder() / dataset, configuration, plans))
    first = f"{len(missing)} cases are missing in what it wrote, first {missing[0]}" if missing else "it wrote nothing"
    return (
        f"{' '.join(step)} succeeded, but {first}. The split names them. See whether `nnunet-echo check {dataset}` "
        "finds them in nnUNet_raw, and convert the dataset again if not. Do not edit the split once a fold is "
        "trained."
    )


def _make_split(dataset: str, configuration: str, plans: str) -> None:
    """The split of the raw dataset, else one by patient, else, where nothing says which cases share one, nnU-Net's."""
    folder = preprocessed_folder() / dataset
    target = _split(dataset)
    if target.is_file():
        return
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = sorted(_preprocessed(folder, configuration, plans))
    if given := given_split(dataset):
        splits = read_splits(given)
    else:
        dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        splits = five_folds_of_cases(cases, dataset_json) or generate_crossval_split(cases)
    replace_file(target, json.dumps(splits, indent=4))


def given_split(dataset: str) -> Path | None:
    """The file of the split that the folds will have; None where one is still to be made."""
    raw = _raw(dataset) / "splits_final.json"
    return next((file for file in (_split(dataset), raw) if file.is_file()), None)


def _split(dataset: str) -> Path:
    return preprocessed_folder() / dataset / "splits_final.json"


def _raw(dataset: str) -> Path:
    return Path(os.environ.get(RAW) or os.devnull, dataset)


@contextmanager
def _alone(dataset: str, wait_s: float, say: Callable[[str], None] = silent) -> Iterator[None]:
    """While nobody else prepares the dataset. Raises RuntimeError when somebody still does after `wait_s`."""
    folder = preprocessed_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{dataset}_crossval.lock").open("a+") as lock:
        if not take_lock(lock, 0):
            lock.seek(0)
            held = f"{dataset} is being prepared by {lock.read() or 'another process'}"
            if wait_s:
                say(f"{held}; waiting until that is done")
            if not take_lock(lock, wait_s):
                raise RuntimeError(f"{held}. Run the same command again when that is done.")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
