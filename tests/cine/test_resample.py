"""Label maps of logits in a frame's own pixels are nnU-Net's, and where they cannot be, nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from scipy.ndimage import gaussian_filter

from nnunet_echo.cine import resample


def smooth(classes: int, shape: tuple[int, int], sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    values = gaussian_filter(noise, (0, sigma, sigma))
    return (values / values.std() * 5).astype(np.float16)


def of_nnunet(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    far = (999.0, 1.0, 1.0)
    options = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return resample_data_or_seg_to_shape(logits[:, None], (1, *size), far, far, **options).argmax(0)[0]


@pytest.mark.parametrize("classes", [1, 2, 4, 9])
@pytest.mark.parametrize("size", [(97, 131), (80, 90), (41, 300), (40, 50), (64, 50)])
def test_labels_are_those_of_nnunet(classes: int, size: tuple[int, int]) -> None:
    logits = smooth(classes, (40, 50), 5)
    labels = resample.labels_of(logits, size)
    assert labels is not None and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, of_nnunet(logits, size))


@pytest.mark.parametrize("step", [2.0**-24, 2.0**-10, 0.25])
def test_ties_are_broken_as_by_nnunet(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few values, so that classes tie in 16 bits at many points; at the smallest step these are next to 0."""
    monkeypatch.setattr(resample, "_LARGEST_SEAM", 1)
    rng = np.random.default_rng(1)
    logits = (np.kron(rng.integers(0, 3, (4, 8, 10)), np.ones((6, 6))) * step).astype(np.float16)
    logits += np.float16(1 if step > 1e-6 else 0)
    for size in ((100, 117), (96, 120), (61, 61)):
        labels = resample.labels_of(logits, size)
        assert labels is not None
        np.testing.assert_array_equal(labels, of_nnunet(logits, size))


def test_classes_that_are_a_rounding_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is larger at every pixel, and yet nnU-Net's 16 bits tie between pixels, where the first class wins."""
    monkeypatch.setattr(resample, "_LARGEST_SEAM", 1)
    first = np.random.default_rng(0).uniform(0.5, 2, (20, 20)).astype(np.float16)
    logits = np.stack([first, np.nextafter(first, np.float16(9))])
    labels = resample.labels_of(logits, (70, 90))
    assert set(np.unique(labels)) == {0, 1}
    np.testing.assert_array_equal(labels, of_nnunet(logits, (70, 90)))


def test_most_points_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    whole = resample._interpolate
    monkeypatch.setattr(
        resample, "_interpolate", lambda values, y, x: computed.append(len(y.first)) or whole(values, y, x)
    )
    assert resample._rounds_like_scipy()
    computed.clear()
    logits = smooth(3, (60, 60), 12)
    labels = resample.labels_of(logits, (180, 180))
    np.testing.assert_array_equal(labels, of_nnunet(logits, (180, 180)))
    assert 0 < computed[0] < 0.2 * 180 * 180


def test_what_is_left_to_nnunet() -> None:
    logits = smooth(3, (20, 20), 3)
    broken = logits.copy()
    broken[1, 2, 3] = np.nan
    assert resample.labels_of(broken, (40, 40)) is None
    assert resample.labels_of(smooth(3, (20, 20), 0.1), (40, 40)) is None  # noise is all seam
    assert resample.labels_of(logits, (10, 15)) is None  # fewer points than pixels
    assert resample.labels_of(np.zeros((255, 2, 2), np.float16), (4, 4)) is None


def test_another_rounding_of_scipy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    resample._rounds_like_scipy.cache_clear()
    try:
        corners = resample._corners
        monkeypatch.setattr(resample, "_corners", lambda n, out: _nudged(corners(n, out)))
        assert not resample._rounds_like_scipy()
        assert resample.labels_of(smooth(3, (20, 20), 3), (40, 40)) is None
    finally:
        resample._rounds_like_scipy.cache_clear()


def _nudged(axis: resample._Axis) -> resample._Axis:
    return resample._Axis(axis.first, axis.second, np.nextafter(axis.weight, 2))
