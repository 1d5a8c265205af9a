"""A dataset for `crossval`, a stand-in for nnU-Net, and two trainers. It asserts nothing: PYTEST_DONT_REWRITE.

The test modules load it as a plugin, for its fixture.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crossval_fake import DATASET, FakeFold, alive

from nnunet_echo.cli.main import main
from nnunet_echo.crossval import engines, sweep
from nnunet_echo.crossval import slurm as slurm_script

CASES = [f"p{patient}_{phase}" for patient in range(6) for phase in ("ED", "ES")]
PATTERN = r"(?P<patient>p\d)_(?P<phase>ED|ES)"


class Dataset:
    """A dataset that is planned and preprocessed, and two trainers, all of it as small as can be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / DATASET  # raw, preprocessed and results in one
        self.data = self.folder / "nnUNetPlans_2d"
        self.data.mkdir(parents=True)
        for case in CASES:
            (self.data / f"{case}.pkl").touch()
        self.plans = self.folder / "nnUNetPlans.json"
        configurations = {"2d": {"data_identifier": "nnUNetPlans_2d"}, "2d_small": {"inherits_from": "2d"}}
        self.plans.write_text(json.dumps({"configurations": configurations}))
        self.splits = self.folder / "splits_final.json"
        half, other = CASES[:6], CASES[6:]
        self.splits.write_text(json.dumps([{"train": half, "val": other}, {"train": other, "val": half}]))
        (self.folder / "dataset.json").write_text(json.dumps({"case_id_pattern": PATTERN}))
        self.a, self.b = ([FakeFold(folder, str(fold), trainer) for fold in (0, 1)] for trainer in ("A", "B"))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    dataset = Dataset(tmp_path)
    for name, value in dataset.a[0].environment("train").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(engines, "RUN_ONE", tuple(dataset.a[0].train_fold()))
    monkeypatch.setattr(sweep, "LOOK_S", 0.1)
    for module in (sweep, slurm_script):  # nnU-Net would find neither A nor B
        monkeypatch.setattr(module, "check_trainers", lambda trainers: None)
    yield dataset
    for fold in [*dataset.a, *dataset.b]:
        for start in fold.starts():
            for process in alive(start["group"]):
                os.kill(process, signal.SIGKILL)


def crossval(*options: str) -> int:
    return main(["crossval", "751", "--trainers", "A", "B", "--device", "cpu", *options])
