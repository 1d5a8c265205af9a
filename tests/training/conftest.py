"""The toy dataset of support/toy_training.py."""

import shutil

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from toy_training import CASES


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory):
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
def dataset(preprocessed, tmp_path, monkeypatch):
    """A copy of the toy dataset without a split file; nnU-Net's folders point to it, and it draws no curves."""
    folder = tmp_path / "preprocessed" / preprocessed.name
    shutil.copytree(preprocessed, folder)
    for variable, value in {"raw": "raw", "preprocessed": "preprocessed", "results": "results"}.items():
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / value))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.delenv("nnUNet_compile", raising=False)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    return folder
