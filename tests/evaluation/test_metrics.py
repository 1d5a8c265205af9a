"""Metrics against their definitions over all pairs of points, against MONAI, and the traps of published evaluations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy import ndarray
from scipy import ndimage

from nnunet_echo.evaluation.metrics import METRICS, mask_metrics, structures

DISTANCES = ("hd", "hd95", "hd95_pooled", "assd", "masd")
REGION = ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy")
SPACINGS = [(1.0, 1.0), (0.308, 0.308), (0.154, 0.308)]


def blob(seed: int, shape: tuple[int, int], touch: bool = False) -> ndarray:
    """A ragged random mask, at the edge of the frame if asked."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    mask = noise > np.quantile(noise, 0.75)
    if touch:
        mask[:, 0] = mask[-1] = True
    return mask


def square(row: int, column: int, side: int = 20, shape: tuple[int, int] = (96, 128)) -> ndarray:
    mask = np.zeros(shape, bool)
    mask[row : row + side, column : column + side] = True
    return mask


def border(mask: ndarray) -> list[tuple[int, int]]:
    """Pixel by pixel, by the definition."""
    height, width = mask.shape

    def inside(row: int, column: int) -> bool:
        return 0 <= row < height and 0 <= column < width and bool(mask[row, column])

    return [
        (row, column)
        for row, column in np.argwhere(mask)
        if not all(inside(row + i, column + j) for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    ]


def percentile(values: list[float], q: float) -> float:
    """Linear between the order statistics around (n - 1) q / 100."""
    values, position = sorted(values), (len(values) - 1) * q / 100
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


def oracle(prediction: ndarray, reference: ndarray, spacing: tuple[float, float]) -> dict[str, float]:
    """The definitions of docs/reference/metrics.md over all pairs of border points."""
    a, b = border(prediction), border(reference)
    distance = np.array([[math.hypot((p[0] - q[0]) * spacing[0], (p[1] - q[1]) * spacing[1]) for q in b] for p in a])
    from_a, from_b = distance.min(axis=1).tolist(), distance.min(axis=0).tolist()
    both = from_a + from_b
    hd95 = max(percentile(from_a, 95), percentile(from_b, 95))
    return {
        "hd": max(both),
        "hd95": hd95,
        "hd95_pooled": percentile(both, 95),
        "assd": sum(both) / len(both),
        "masd": (sum(from_a) / len(from_a) + sum(from_b) / len(from_b)) / 2,
        "nsd_1": sum(d <= 1 for d in both) / len(both),
        "nsd_2": sum(d <= 2 for d in both) / len(both),
        "hd95_penalised": hd95,
    }


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("touch", [False, True])
def test_surface_metrics_are_their_definitions(spacing: tuple[float, float], touch: bool) -> None:
    for seed in range(4):
        shape = (40, 56)
        prediction, reference = blob(seed, shape, touch), blob(seed + 100, shape, touch)
        ours = mask_metrics(prediction, reference, spacing)
        expected = oracle(prediction, reference, spacing)
        assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert {*expected, *REGION} == METRICS.keys()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("touch", [False, True])
def test_surface_metrics_are_those_of_monai(spacing: tuple[float, float], touch: bool) -> None:
    monai = pytest.importorskip("monai.metrics")
    import torch

    for seed in range(3):
        shape = (96, 131)
        prediction, reference = blob(seed, shape, touch), blob(seed + 100, shape, touch)
        ours = mask_metrics(prediction, reference, spacing)
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
        theirs = {
            "hd": monai.compute_hausdorff_distance(*pair, include_background=True, spacing=spacing),
            "hd95": monai.compute_hausdorff_distance(*pair, include_background=True, spacing=spacing, percentile=95),
            "assd": monai.compute_average_surface_distance(
                *pair, include_background=True, spacing=spacing, symmetric=True
            ),
            "nsd_1": monai.compute_surface_dice(*pair, [1.0], include_background=True, spacing=spacing),
            "nsd_2": monai.compute_surface_dice(*pair, [2.0], include_background=True, spacing=spacing),
        }
        assert {name: ours[name] for name in theirs} == pytest.approx(
            {name: float(value) for name, value in theirs.items()}, rel=1e-5
        )


def test_region_metrics_count_pixels() -> None:
    prediction, reference = square(10, 10), square(15, 18)
    counts = {
        (p, r): sum(bool(a) == p and bool(b) == r for a, b in zip(prediction.flat, reference.flat, strict=True))
        for p in (False, True)
        for r in (False, True)
    }
    tp, fp, fn, tn = (counts[key] for key in ((True, True), (True, False), (False, True), (False, False)))
    found = mask_metrics(prediction, reference, (1.0, 1.0))
    assert {name: found[name] for name in REGION} == pytest.approx(
        {
            "dice": 2 * tp / (2 * tp + fp + fn),
            "iou": tp / (tp + fp + fn),
            "precision": tp / (tp + fp),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "accuracy": (tp + tn) / (96 * 128),
        }
    )


@pytest.mark.parametrize(("rows", "columns"), [(40, 0), (0, 10), (3, 4)])
def test_a_shift_is_its_length(rows: int, columns: int) -> None:
    """Released code that passes whole images to a function of point lists calls a shift by 40 rows 0."""
    moved = mask_metrics(square(10 + rows, 10 + columns, side=30), square(10, 10, side=30), (1.0, 1.0))
    assert moved["hd"] == pytest.approx(math.hypot(rows, columns))
    assert moved["hd95"] <= moved["hd"]


def test_a_far_speck_shows_in_hd_and_not_in_hd95() -> None:
    speck = square(10, 10, side=40) | square(90, 120, side=3)
    metrics = mask_metrics(speck, square(10, 10, side=40), (1.0, 1.0))
    assert metrics["hd"] == pytest.approx(math.hypot(92 - 49, 122 - 49))
    assert metrics["hd95"] == 0


def test_coarser_grid_with_its_own_spacing_and_with_the_wrong_one() -> None:
    """Distances survive resampling only when the spacing is resampled, too; the native one shrinks them."""
    row, column = np.mgrid[:512, :440]
    coarse = np.ix_(*(((np.arange(256) + 0.5) * length / 256).astype(int) for length in (512, 440)))
    rng = np.random.default_rng(0)
    native, rescaled, wrong = [], [], []
    for _ in range(10):
        shift, stretch = rng.uniform(-15, 15, 2), rng.uniform(0.85, 1.15, 2)
        reference = np.hypot((row - 250) / 150, (column - 220) / 100) < 1
        semi_axes = stretch * (150, 100)
        prediction = np.hypot((row - 250 - shift[0]) / semi_axes[0], (column - 220 - shift[1]) / semi_axes[1]) < 1
        native.append(mask_metrics(prediction, reference, (0.308, 0.308)))
        small = prediction[coarse], reference[coarse]
        rescaled.append(mask_metrics(*small, (0.308 * 2, 0.308 * 440 / 256)))
        wrong.append(mask_metrics(*small, (0.308, 0.308)))
    for name in ("hd95", "assd"):
        means = [np.mean([metrics[name] for metrics in group]) for group in (native, rescaled, wrong)]
        assert means[1] == pytest.approx(means[0], rel=0.01)
        assert means[2] < 0.6 * means[0]


def test_definitions_that_others_mix_differ() -> None:
    """HD95 as the larger directed percentile against pooled, ASSD against MASD: named apart, not interchangeable."""
    reference = square(10, 10, side=60)
    spur = reference.copy()
    spur[40, 70:85] = True  # 6 % of the prediction's border, 3 % of both
    metrics = mask_metrics(spur, reference, (1.0, 1.0))
    assert metrics["hd95"] > 2
    assert metrics["hd95_pooled"] == 0
    assert metrics["masd"] < 0.98 * metrics["assd"]


def test_a_tie_with_the_tolerance_is_within_it() -> None:
    spacing = float(np.float32(0.1))  # as a file holds it: 10 pixels are 1.0000000149
    metrics = mask_metrics(square(20, 10), square(10, 10), (spacing, spacing))
    assert metrics["hd"] > 1
    assert metrics["nsd_1"] == 1


def test_no_square_frame_is_assumed() -> None:
    tall = mask_metrics(square(50, 5, 8, (90, 40)), square(10, 5, 8, (90, 40)), (2.0, 1.0))
    wide = mask_metrics(square(5, 50, 8, (40, 90)), square(5, 10, 8, (40, 90)), (1.0, 2.0))
    assert tall == pytest.approx(wide)
    assert tall["hd"] == 80


@pytest.mark.parametrize("swap", [False, True])
def test_one_mask_empty(swap: bool) -> None:
    pair = (np.zeros((30, 40), bool), square(5, 5, 10, (30, 40)))
    prediction, reference = pair[::-1] if swap else pair
    found = mask_metrics(prediction, reference, (2.0, 1.0))
    assert found["dice"] == found["iou"] == 0
    assert math.isnan(found["sensitivity" if swap else "precision"])
    assert found["precision" if swap else "sensitivity"] == 0
    assert all(math.isnan(found[name]) for name in DISTANCES)
    assert found["nsd_1"] == found["nsd_2"] == 0
    assert found["hd95_penalised"] == pytest.approx(math.hypot(60, 40))


def test_both_masks_empty() -> None:
    empty = np.zeros((30, 40), bool)
    found = mask_metrics(empty, empty, (1.0, 1.0))
    assert found["specificity"] == found["accuracy"] == 1
    assert all(math.isnan(value) for name, value in found.items() if name not in ("specificity", "accuracy"))


def test_a_metric_counts_misses_where_it_has_the_worst_value_for_one() -> None:
    """Whichever mask is empty; nothing else may rank, and two equal masks have the best value."""
    empty, mask, diagonal = np.zeros((30, 40), bool), square(5, 5, 10, (30, 40)), math.hypot(60, 40)
    missed, spurious, same = (mask_metrics(*pair, (2.0, 1.0)) for pair in ((empty, mask), (mask, empty), (mask, mask)))
    for name, metric in METRICS.items():
        worst = 0.0 if metric.higher_is_better else diagonal
        assert metric.counts_misses == (missed[name] == spurious[name] == pytest.approx(worst))
        assert same[name] == metric.best


def test_a_full_frame_has_a_border_and_no_specificity() -> None:
    full = np.ones((6, 9), bool)
    assert mask_metrics(full, full, (1.0, 1.0))["hd"] == 0
    assert math.isnan(mask_metrics(full, full, (1.0, 1.0))["specificity"])
    inner = square(1, 1, 4, (6, 9))
    assert mask_metrics(inner, full, (1.0, 1.0))["hd"] == math.hypot(1, 4)


@pytest.mark.parametrize(
    ("prediction", "message"), [(np.zeros((4, 5), bool), "has shape"), (np.zeros((5, 4), np.uint8), "must be bool")]
)
def test_what_is_no_pair_of_masks_is_refused(prediction: ndarray, message: str) -> None:
    reference = np.zeros((5, 4), bool)
    with pytest.raises(ValueError, match=message):
        mask_metrics(prediction, reference, (1.0, 1.0))


def test_structures_of_a_dataset() -> None:
    camus = structures({"background": 0, "LV": 1, "MYO": 2, "LA": 3})
    assert camus == {"LV": (1,), "MYO": (2,), "LA": (3,), "LV_EPI": (1, 2)}
    assert structures({"background": 0, "LV": 1}) == {"LV": (1,)}
    assert structures({"background": 0, "LV": 1, "WHOLE": [1, 2]}) == {"LV": (1,), "WHOLE": (1, 2)}
