"""What the folds of all trainers share: plans, splits, preprocessed data. Made before the first fold starts.

Left to the folds, each would do its own: stock nnU-Net writes the splits from whichever fold comes first, without a
lock, and a fold that starts before the data are whole fails.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nnunet_echo.commands import run_command
from nnunet_echo.crossval.fold import DEFAULT_PLANS
from nnunet_echo.dataset_conversion.folders import PREPROCESSED, RAW, preprocessed_splits
from nnunet_echo.dataset_conversion.raw_dataset import five_folds_of_cases


def prepare(dataset: str, configuration: str, plans: str) -> None:
    """Run what is still to be run of nnU-Net's commands for a dataset, DatasetXXX_NAME; make its split if it has none.

    Raises RuntimeError when a command fails, with its last lines, or leaves the data incomplete, and as `next_step`.
    """
    done: list[list[str]] = []
    while (step := next_step(dataset, configuration, plans)) is not None:
        if step in done:
            raise RuntimeError(f"{' '.join(step)} succeeded, but cases of the split are missing in what it wrote. Look "
                               f"for them in nnUNet_raw, or take them out of {preprocessed_splits(dataset)}.")
        done.append(step)
        print(f"  $ {' '.join(step)}", flush=True)
        log = Path(os.environ[PREPROCESSED], f"{dataset}_{step[0]}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        run_command(step, os.environ, log)


def next_step(dataset: str, configuration: str, plans: str) -> list[str] | None:
    """nnU-Net's command that has to be run next; None when the folds may start.

    Raises `ValueError` for a configuration that the plans do not have and without nnUNet_preprocessed, and
    `FileNotFoundError` for plans other than nnU-Net's default that are not there.
    """
    if not os.environ.get(PREPROCESSED):
        raise ValueError("nnUNet_preprocessed is not set; set it (export nnUNet_preprocessed=/path)")
    folder = Path(os.environ[PREPROCESSED], dataset)
    number = str(int(dataset[7:10]))
    file = folder / f"{plans}.json"
    if not file.is_file():
        if plans != DEFAULT_PLANS:
            raise FileNotFoundError(f"{file} is not there; make these plans with nnUNetv2_plan_experiment")
        return ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, "--verify_dataset_integrity"]
    configurations = json.loads(file.read_text(encoding="utf-8"))["configurations"]
    if configuration not in configurations:
        raise ValueError(f"configuration {configuration}: {file} has {', '.join(configurations)}")
    data = folder / _data_identifier(configurations, configuration)
    cases = sorted(path.stem for path in data.glob("*.pkl"))  # nnU-Net writes it last of a case
    if cases and not (folder / "splits_final.json").is_file():
        _write_splits(folder, cases)
    if not cases or not {case for fold in read_folds(dataset) for side in fold.values() for case in side} <= {*cases}:
        return ["nnUNetv2_preprocess", "-d", number, "-c", configuration, "-plans_name", plans]
    return None


def read_folds(dataset: str) -> list[dict[str, list[str]]]:
    """Training and validation cases of each fold, as nnU-Net will read them. Raises `FileNotFoundError` before."""
    file = Path(os.environ[PREPROCESSED], dataset, "splits_final.json")
    return json.loads(file.read_text(encoding="utf-8"))


def _write_splits(folder: Path, cases: list[str]) -> None:
    """The split of the raw dataset, else one by patient, else, where nothing tells which cases share one, nnU-Net's."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    raw = Path(os.environ.get(RAW, ""), folder.name, "splits_final.json")
    if raw.is_file():
        splits = json.loads(raw.read_text(encoding="utf-8"))
    else:
        splits = five_folds_of_cases(cases, dataset_json) or generate_crossval_split(cases)
    temporary = folder / "splits_final.json.unfinished"
    temporary.write_text(json.dumps(splits, indent=4))
    temporary.replace(folder / "splits_final.json")


def _data_identifier(configurations: dict[str, dict], name: str) -> str:
    """Of a configuration that may inherit it from another."""
    content = configurations[name]
    return content["data_identifier"] if "data_identifier" in content else _data_identifier(configurations,
                                                                                           content["inherits_from"])
