"""A small U-Net that finds the chambers of phantom hearts, trained once for all tests, and loops with known beats.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from beating import a_heart, steady
from cine_models import dataset_json, plans, write_model
from numpy import ndarray

from nnunet_echo.analysis.costs import build_network
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.study import measure_study
from nnunet_echo.nnunet.plans import unet_architecture
from nnunet_echo.phantom.cine import render

SPACING_MM, PATCH = 2.0, (80, 96)
FPS, SECONDS, BPM = 25.0, 2.6, 75.0
_STEPS, _BATCH, _RATE = 220, 3, 5e-3


@cache
def beating_loop(view: str = "4CH", seed: int = 5, spacing_mm: float = SPACING_MM) -> tuple[ndarray, ndarray]:
    """Frames and true masks (T, H, W) uint8 of a steady heart, as a probe would see it; both sides even."""
    contraction = steady(BPM, SECONDS).contraction(np.arange(0, SECONDS, 1 / FPS))
    pairs = [
        render(a_heart(seed), view, float(c), frame=k + 1, spacing_mm=spacing_mm) for k, c in enumerate(contraction)
    ]
    frames, masks = (np.stack(half) for half in zip(*pairs, strict=True))
    height, width = (n // 2 * 2 for n in frames.shape[1:])
    return frames[:, :height, :width].copy(), masks[:, :height, :width].copy()


def write_phantom_model(folder: Path) -> Path:
    """The folder of a model as nnU-Net leaves it; its weights are of a training of seconds, here, without nnU-Net."""
    content = plans(PATCH, (SPACING_MM, SPACING_MM), median_image_size_in_voxels=[82.0, 100.0])
    configuration = content["configurations"]["2d"]
    configuration["architecture"]["arch_kwargs"] |= unet_architecture(PATCH, features=(12, 48))
    torch.manual_seed(0)
    network = build_network(content, dataset_json(), "nnUNetTrainer", "2d")[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over more have another order, and end in another network
    try:
        _train(network)
    finally:
        torch.set_num_threads(threads)
    return write_model(folder, content=content, network=network.eval())


def numbers_of(model: CineModel, path: Path) -> tuple[float, ndarray, set[str]]:
    """What `model` measures in a clip of `beating_loop`: EF (%), LV areas (T,), and the names of refusals and flags."""
    result = measure_study(model, [path], views=["4CH"], spacing=(SPACING_MM, SPACING_MM), fps=FPS)
    said = {each.name for each in (*result.refusals, *result.flags)}
    return result.numbers["ef_percent"], result.loops[0].curve.values["lv_area"], said


@pytest.fixture(scope="session")
def phantom_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_phantom_model`."""
    return write_phantom_model(tmp_path_factory.mktemp("phantom-model"))


@pytest.fixture(scope="session")
def phantom_network(phantom_model: Path) -> CineModel:
    """The same, loaded."""
    return CineModel.load(phantom_model, workers=2)


def _train(network: torch.nn.Module) -> None:
    rng = np.random.default_rng(0)
    pairs = [
        render(a_heart(100 + n), ("4CH", "2CH")[n % 2], contraction, frame=n + 1, spacing_mm=SPACING_MM)
        for n in range(24)
        for contraction in rng.random(3)
    ]
    optimiser = torch.optim.AdamW(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS)
    for _ in range(_STEPS):
        batch = [_patch(*pairs[rng.integers(len(pairs))], rng) for _ in range(_BATCH)]
        images, labels = (torch.from_numpy(np.stack(half)) for half in zip(*batch, strict=True))
        logits = network(images[:, None])
        one_hot = torch.nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)
        chances = logits.softmax(1)
        dice = 2 * (chances * one_hot).sum((0, 2, 3)) / (chances + one_hot).sum((0, 2, 3))
        loss = torch.nn.functional.cross_entropy(logits, labels) - dice[1:].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _patch(image: ndarray, labels: ndarray, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """As nnU-Net prepares it, cut or filled up to a patch, shifted at random."""
    grey = (image - image.mean()) / image.std()
    out, truth = np.full(PATCH, grey.min(), np.float32), np.zeros(PATCH, np.int64)
    begins = [rng.integers(min(0, size - n), max(0, size - n) + 1) for n, size in zip(image.shape, PATCH, strict=True)]
    here = tuple(slice(max(0, b), min(size, b + n)) for b, n, size in zip(begins, image.shape, PATCH, strict=True))
    there = tuple(slice(s.start - b, s.stop - b) for s, b in zip(here, begins, strict=True))
    out[here], truth[here] = grey[there], labels[there]
    return out, truth
