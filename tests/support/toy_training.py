"""A stub network, trainers of it, and a toy dataset of noise, so that nnU-Net trains in this process in a second.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from torch import nn

from nnunet_echo.training.trainer import EchoTrainer, TokenTrainer

PATCH = (16, 24)
CASES = [f"p{patient}_{phase}" for patient in range(6) for phase in ("ED", "ES")]
DATASET_JSON = {
    "channel_names": {"0": "ultrasound"},
    "labels": {"background": 0, "LV": 1},
    "file_ending": ".nii.gz",
    "case_id_pattern": r"(?P<patient>p\d)_(?P<phase>ED|ES)",
}
CONFIGURATION = {
    "data_identifier": "nnUNetPlans_2d",
    "batch_size": 2,
    "patch_size": list(PATCH),
    "spacing": [1.0, 1.0],
    "use_mask_for_norm": [False],
    "batch_dice": True,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "dropout_op": None,
            "nonlin": "torch.nn.LeakyReLU",
            "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
            "features_per_stage": [4, 8, 8, 8],
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}


class Stub(nn.Module):
    """The least that is a network: logits at strides 1, 2, 4, of which only the first without deep supervision."""

    deep_supervision_strides = ((1, 1), (2, 2), (4, 4))

    def __init__(self, channels, classes, deep_supervision):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3, padding=1)
        self.norm = nn.InstanceNorm2d(classes, affine=True)
        self.dynamics = nn.Parameter(torch.ones(classes, 1, 1))
        self.dynamics._no_weight_decay = True
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision

    @classmethod
    def from_plan(cls, num_input_channels, num_classes, patch_size, architecture, deep_supervision, **options):
        network = cls(num_input_channels, num_classes, deep_supervision)
        network.arguments = patch_size, architecture, options
        return network

    def forward(self, x):
        logits = self.dynamics * self.norm(self.conv(x))
        pooled = [nn.functional.avg_pool2d(logits, stride) for stride, _ in self.deep_supervision_strides]
        return pooled if self.decoder.deep_supervision else logits


class Toy(EchoTrainer):
    network_path = f"{__name__}:Stub"
    num_epochs = 3
    num_iterations_per_epoch = 4


class ToyTokens(TokenTrainer):
    network_path = f"{__name__}:Stub"
    num_epochs = 3
    num_iterations_per_epoch = 4


@pytest.fixture(scope="session")
def pristine_toy_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preprocessed") / "Dataset001_Toy"
    (folder / "nnUNetPlans_2d").mkdir(parents=True)
    (folder / "dataset_fingerprint.json").write_text("{}")
    rng = np.random.default_rng(0)
    for case in CASES:
        image = rng.normal(size=(1, 1, 20, 30)).astype(np.float32)
        label = np.zeros((1, 1, 20, 30), np.int16)
        label[..., 5:15, 8:20] = 1
        properties = {"class_locations": {1: np.argwhere(label == 1)}}
        target = str(folder / "nnUNetPlans_2d" / case)
        nnUNetDatasetBlosc2.save_case(image, label, properties, target, chunks=image.shape, blocks=image.shape)
    return folder


@pytest.fixture
def toy_dataset(pristine_toy_dataset, tmp_path, monkeypatch):
    """A copy of the toy dataset without a split file; nnU-Net's folders point to it, and it draws no curves."""
    folder = tmp_path / "preprocessed" / pristine_toy_dataset.name
    shutil.copytree(pristine_toy_dataset, folder)
    for variable, value in {"raw": "raw", "preprocessed": "preprocessed", "results": "results"}.items():
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / value))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.delenv("nnUNet_compile", raising=False)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    return folder


def make(trainer_class, fold=0, dataset_json=DATASET_JSON):
    plans = {"dataset_name": "Dataset001_Toy", "plans_name": "nnUNetPlans", "configurations": {"2d": CONFIGURATION}}
    trainer = trainer_class(plans, "2d", fold, dataset_json, torch.device("cpu"))
    trainer.dataset_class = nnUNetDatasetBlosc2
    return trainer


def initialized(trainer_class, **arguments):
    trainer = make(trainer_class, **arguments)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def batch(trainer, value=1.0):
    target = [torch.randint(0, 2, (2, 1, PATCH[0] // h, PATCH[1] // w)) for h, w in Stub.deep_supervision_strides]
    return {
        "data": value * torch.randn(2, 1, *PATCH),
        "target": target if trainer.enable_deep_supervision else target[0],
        "keys": ["p1_ED", "p2_ES"],
    }


def weights(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def log_of(trainer):
    return Path(trainer.log_file).read_text()


def split_into(dataset, *folds):
    (dataset / "splits_final.json").write_text(json.dumps([{"train": t, "val": v} for t, v in folds]))
