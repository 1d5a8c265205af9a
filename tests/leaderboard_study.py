"""A study of toy size for the leaderboard's tests: phantom hearts, five folds, three trainers that predicted them.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from camus_download import convert, rewrite
from scipy import ndimage

NAME = "Dataset751_CAMUS"
BASELINE, GOOD, FOREIGN = "nnUNetTrainer", "nnUNetTrainerNoMamba_2epochs", "nnUNetTrainerOfSomebody"
LOG = """
2026-01-01 10:00:00.000000: This split has {training} training and {validation} validation cases.
2026-01-01 10:00:00.000000: Epoch 0
2026-01-01 10:00:30.000000: Peak memory 1.25 GiB
2026-01-01 10:00:30.000000: Epoch time: 30.0 s
2026-01-01 10:00:30.000000: Epoch 1
2026-01-01 10:01:10.000000: Peak memory {peak} GiB
2026-01-01 10:01:10.000000: Epoch time: 40.0 s
2026-01-01 10:02:00.000000: predicting A
2026-01-01 10:02:00.500000: predicting B
2026-01-01 10:02:01.000000: predicting C
"""
PLAN = {
    "patch_size": [64, 96], "spacing": [1.5, 1.5], "normalization_schemes": ["ZScoreNormalization"],
    "data_identifier": "nnUNetPlans_2d",
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [4, 8, 16], "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]], "n_conv_per_stage": [2] * 3,
            "n_conv_per_stage_decoder": [2] * 2, "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
PLANS = {"dataset_name": NAME, "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
         "label_manager": "LabelManager", "configurations": {"2d": PLAN}}


@dataclass(frozen=True)
class Study:
    """nnU-Net's raw and results folders of the dataset, and its splits."""

    raw: Path
    results: Path
    splits: list[dict[str, list[str]]]

    def model(self, trainer: str) -> Path:
        return self.results / f"{trainer}__nnUNetPlans__2d"

    def add(self, trainer: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """A trainer whose predictions of all folds are the reference, changed."""
        folder = self.model(trainer)
        for fold, split in enumerate(self.splits):
            validation = folder / f"fold_{fold}" / "validation"
            validation.mkdir(parents=True)
            for case in split["val"]:
                shutil.copy(self.raw / "labelsTr" / f"{case}.nii.gz", validation)
                rewrite(validation / f"{case}.nii.gz", change)
            (validation / "summary.json").write_text("{}")
            log = LOG.format(training=len(split["train"]), validation=len(split["val"]), peak=1.5 + fold)
            (validation.parent / "training_log_2026_1_1_10_00_00.txt").write_text(log)
            (validation.parent / "debug.json").write_text('{"device": "cpu", "torch_version": "2.6.0"}')
        (folder / "plans.json").write_text(json.dumps(PLANS))
        shutil.copy(self.raw / "dataset.json", folder)


def eroded(labels: np.ndarray) -> np.ndarray:
    """Every structure a pixel smaller."""
    return sum(ndimage.binary_erosion(labels == value) * value for value in (1, 2, 3)).astype(labels.dtype)


def shifted(labels: np.ndarray) -> np.ndarray:
    return np.roll(labels, 1, axis=1)


@pytest.fixture(scope="session")
def whole_study(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, two views, two phases, five folds; three trainers with all of them."""
    folder = tmp_path_factory.mktemp("study")
    for part in ("raw", "results"):
        (folder / part).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        set_folders(folder, patch)
        convert(pristine)
    study = _study(folder)
    for trainer, change in ((BASELINE, eroded), (GOOD, shifted), (FOREIGN, lambda labels: eroded(eroded(labels)))):
        study.add(trainer, change)
    return folder


@pytest.fixture
def study(whole_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A copy of the study that the test may damage, with nnU-Net's variables set."""
    folder = shutil.copytree(whole_study, tmp_path / "study")
    set_folders(folder, monkeypatch)
    return _study(folder)


def set_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's variables for the study in a folder."""
    for part in ("raw", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", str(folder / part))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)


def _study(folder: Path) -> Study:
    raw = folder / "raw" / NAME
    return Study(raw, folder / "results" / NAME, json.loads((raw / "splits_final.json").read_text()))
