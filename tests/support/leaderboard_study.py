"""Studies of toy size for the leaderboard's tests.

Phantom hearts, five folds, three trainers that predicted them; and a board of numbers alone.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from camus_download import PATIENTS, SPACING_MM, convert, rewrite
from scipy import ndimage
from ted_download import plain_picture

from nnunet_echo.analysis.costs import Costs
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.evaluation.evaluate import Evaluation
from nnunet_echo.evaluation.metrics import metric_columns
from nnunet_echo.evaluation.pairs import Dataset
from nnunet_echo.leaderboard.board import Board, ranked
from nnunet_echo.leaderboard.collect import ComparedFolds, TrainedModel
from nnunet_echo.leaderboard.values import Entry
from nnunet_echo.nnunet.logs import TrainingLog
from nnunet_echo.phantom import cine as phantom_cine

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
    "patch_size": [64, 96],
    "spacing": [1.5, 1.5],
    "normalization_schemes": ["ZScoreNormalization"],
    "data_identifier": "nnUNetPlans_2d",
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 16],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 3,
            "strides": [[1, 1], [2, 2], [2, 2]],
            "n_conv_per_stage": [2] * 3,
            "n_conv_per_stage_decoder": [2] * 2,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "configurations": {"2d": PLAN},
}


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
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, two views, two phases, five folds; three trainers with all of them."""
    folder = tmp_path_factory.mktemp("study")
    for part in ("raw", "results"):
        (folder / part).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        set_folders(folder, patch)
        patch.setattr(phantom_cine, "ultrasound", plain_picture)
        write_camus(
            download := tmp_path_factory.mktemp("download"), PATIENTS, 3, spacing_mm=SPACING_MM, half_sequence=False
        )
        convert(download)
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


MISSED, SPURIOUS, ABSENT = "missed", "spurious", "absent from both"


def case_row(patient: str, structure: str, value: float | str, case: str = "") -> dict[str, object]:
    """A row of cases.csv: of this Dice, or of a structure that prediction, reference or both lack."""
    empty = {"prediction_empty": int(value in (MISSED, ABSENT)), "reference_empty": int(value in (SPURIOUS, ABSENT))}
    dice = math.nan if value == ABSENT else 0.0 if isinstance(value, str) else value
    row = dict.fromkeys(metric_columns("mm").values(), dice)
    row |= {"hd95_mm": math.nan if isinstance(value, str) else 10 * (1 - dice), "hd95_penalised_mm": 100 * (1 - dice)}
    return {
        "trainer": "",
        "fold": 0,
        "case": case or f"{patient}_ED",
        "patient": patient,
        "view": "4CH",
        "phase": "ED",
        "structure": structure,
        **row,
        **empty,
    }


def numbers_board(
    folder: Path,
    models: Mapping[str, Mapping[str, Mapping[str, object]]],
    *,
    reference_ef: Mapping[str, float],
    planes: Mapping[str, str] | None = None,
    trainings: Mapping[str, TrainingLog] | None = None,
    baseline: str = "",
) -> Board:
    """A board of complete models: name -> patient -> Dice of LV, MYO, LA, LV_EPI (default 0.9, see `case_row`), "ef",
    and the flags of the predicted and the reference EF, "flags" and "reference_flags".

    The EF of a patient without a prediction is NaN, and without an entry that of the reference.
    """
    structures = {"LV": (1,), "MYO": (2,), "LA": (3,), "LV_EPI": (1, 2)}
    entries = []
    for name, of_patient in models.items():
        cases, rows = [], []
        for patient, reference in reference_ef.items():
            found = of_patient.get(patient, {})
            cases += [case_row(patient, structure, found.get(structure, 0.9)) for structure in structures]
            volumes = {f"{side}_{volume}_ml": 50.0 for side in ("prediction", "reference") for volume in ("edv", "esv")}
            rows.append(
                {
                    "patient": patient,
                    "method": "ase",
                    "planes": (planes or {}).get(patient, "biplane"),
                    **volumes,
                    "prediction_ef_percent": found.get("ef", reference),
                    "reference_ef_percent": reference,
                    "recorded_ef_percent": math.nan,
                    "prediction_flags": found.get("flags", ""),
                    "reference_flags": found.get("reference_flags", ""),
                }
            )
        model = TrainedModel(name, name, "nnUNetPlans", "2d", folder, (0,), "complete", ())
        training = (trainings or {}).get(name, TrainingLog())
        entries.append(Entry(model, {0: folder}, Evaluation(cases, rows, [], [], [], {}), training, Costs()))
    return ranked(
        entries,
        dataset=Dataset(structures, frozenset(range(4)), ".nii.gz", "mm", None),
        raw=folder,
        references=folder,
        cines={},
        configuration="2d",
        patients=list(reference_ef),
        rank_by="dice",
        split=ComparedFolds({0: frozenset()}, {0: frozenset(reference_ef)}, "0123456789ab"),
        baseline=baseline,
        method="ase",
        consistency_limits="references",
        seed=0,
    )


def set_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's variables for the study in a folder."""
    for part in ("raw", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", str(folder / part))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)


def _study(folder: Path) -> Study:
    raw = folder / "raw" / NAME
    return Study(raw, folder / "results" / NAME, json.loads((raw / "splits_final.json").read_text()))
