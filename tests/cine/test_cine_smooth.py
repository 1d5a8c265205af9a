"""Averaging over time: what it does to flicker, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from beating import a_heart, drawn_masks, steady
from cine_results import drawn_clip
from numpy import ndarray
from scipy import ndimage

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.smooth import smooth_masks


def probabilities(mask: ndarray, noise: float, rng: np.random.Generator) -> ndarray:
    """As a network is: sure inside, unsure along the edges, with noise there."""
    soft = np.stack([ndimage.gaussian_filter((mask == k).astype(float), 1.2) for k in range(4)])
    logits = np.log(soft + 1e-3) + noise * ndimage.gaussian_filter(rng.standard_normal(soft.shape), (0, 2, 2)) * 4
    return np.exp(logits) / np.exp(logits).sum(axis=0)


def both(fps: float, bpm: float, noise: float) -> tuple[list[ndarray], list[ndarray]]:
    rng = np.random.default_rng(0)
    contraction = steady(bpm, 2.0).contraction(np.arange(0, 2.0, 1 / fps))
    drawn = drawn_masks(a_heart(5), "4CH", contraction, 1.5)
    plain, smooth = zip(*smooth_masks(probabilities(mask, noise, rng) for mask in drawn), strict=True)
    return list(plain), list(smooth)


@pytest.mark.parametrize(("fps", "bpm"), [(30, 60), (50, 75), (50, 100)])
def test_it_costs_at_most_a_point_of_ef(fps: float, bpm: float) -> None:
    plain, smooth = both(fps, bpm, 0)
    clip = drawn_clip(np.zeros((len(plain), *plain[0].shape), np.uint8), fps, 1.5)
    everywhere = np.ones(plain[0].shape, bool)
    result = analyse(clip, plain, {"LV": 1}, view="4CH", smooth=smooth, sector=everywhere)
    assert abs(result.numbers["ef_percent"] - result.numbers["ef_percent_unsmoothed"]) <= 1
    assert result.numbers["ef_percent_unsmoothed"] == pytest.approx(a_heart(5).ef_percent, abs=1.5)


def test_flicker_becomes_less() -> None:
    plain, smooth = both(50, 75, 1.0)

    def flicker(masks: list[ndarray]) -> float:
        areas = np.array([np.count_nonzero(mask == 1) for mask in masks], float)
        return float(np.std(np.diff(areas, 2)))

    assert flicker(smooth) < 0.6 * flicker(plain)


def test_weights_are_1_2_1_and_at_the_ends_2_1() -> None:
    def frame(p: float) -> ndarray:
        return np.array([[[1 - p]], [[p]]])

    def labels(*values: float) -> list[int]:
        return [int(smooth.item()) for _, smooth in smooth_masks(map(frame, values))]

    assert labels(0.0, 0.99, 0.0) == [0, 0, 0]  # 1.98 of 4
    assert labels(0.0, 0.99, 0.03) == [0, 1, 0]  # 2.01 of 4
    assert labels(0.3, 0.95) == [1, 1] and labels(0.3, 0.85) == [0, 1]  # 1.55 and 1.45 of 3
    assert labels(0.6) == [1] and labels() == []


def test_masks_before_are_those_of_argmax_and_it_runs_one_frame_behind() -> None:
    taken = []

    def stream():
        for k in range(5):
            taken.append(k)
            yield np.random.default_rng(k).random((3, 4, 5))

    results = smooth_masks(stream())
    next(results)
    assert taken == [0, 1]
    for k, (plain, smooth) in enumerate(smooth_masks(np.random.default_rng(k).random((3, 4, 5)) for k in range(4))):
        assert (plain == np.random.default_rng(k).random((3, 4, 5)).argmax(axis=0)).all()
        assert plain.dtype == smooth.dtype == np.uint8
