"""Statistics of the leaderboard against scipy and pingouin, and what undefined values do to them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnunet_echo.evaluation.summary import patient_means
from nnunet_echo.leaderboard.statistics import bootstrap_weights, compare, describe, holm, rank

PATIENTS = 60


@pytest.fixture
def values() -> np.ndarray:
    """(P, 4): three models that share hard patients, 0.02 apart, and a bad one."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0.9, 0.04, (PATIENTS, 1))
    return hard + [[0.0, 0.02, 0.04, -0.2]] + rng.normal(0, 0.03, (PATIENTS, 4))


def test_frames_are_averaged_over_patients_first() -> None:
    rows = [
        {"patient": "b", "dice": 0.5},
        *[{"patient": "a", "dice": value} for value in (0.9, 0.7, float("nan"))],
        {"patient": "c", "dice": float("nan")},
    ]
    means = patient_means(rows, "dice", ["a", "b", "c", "d"])
    assert means == pytest.approx([0.8, 0.5, np.nan, np.nan], nan_ok=True)
    assert describe(means, bootstrap_weights(4, 0))["mean"] == pytest.approx(0.65)


def test_description_and_bootstrap_interval(values: np.ndarray) -> None:
    weights = bootstrap_weights(PATIENTS, 0)
    assert (weights.sum(axis=1) == PATIENTS).all()
    found = describe(values[:, 0], weights)
    expected = stats.bootstrap((values[:, 0],), np.mean, method="percentile", n_resamples=5000, rng=0)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(expected.confidence_interval), abs=1.5e-3)
    assert found["sd"] == pytest.approx(values[:, 0].std(ddof=1))
    assert (found["q1"], found["median"], found["q3"]) == tuple(np.percentile(values[:, 0], (25, 50, 75)))
    with_gap = values[:, 0].copy()
    with_gap[7] = np.nan
    assert describe(with_gap, weights)["mean"] == pytest.approx(np.delete(values[:, 0], 7).mean())
    assert describe(with_gap, weights)["n"] == PATIENTS - 1


def test_comparison_is_paired(values: np.ndarray) -> None:
    weights = bootstrap_weights(PATIENTS, 0)
    found = compare(values[:, 1], values[:, 0], weights)
    difference = values[:, 1] - values[:, 0]
    expected = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=5000, rng=0)
    assert found["difference"] == pytest.approx(difference.mean())
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(expected.confidence_interval), abs=1.5e-3)
    assert found["p"] == stats.wilcoxon(values[:, 1], values[:, 0]).pvalue
    assert found["p"] < 0.01 < stats.mannwhitneyu(values[:, 1], values[:, 0]).pvalue  # what unpaired would miss
    assert compare(values[:, 0], values[:, 0], weights)["p"] == 1
    gap = np.where(np.arange(PATIENTS) < 5, np.nan, values[:, 1])
    assert compare(gap, values[:, 0], weights)["n"] == PATIENTS - 5


def test_tests_and_correction_agree_with_pingouin(values: np.ndarray) -> None:
    pingouin = pytest.importorskip("pingouin")
    weights = bootstrap_weights(PATIENTS, 0)
    p = [compare(values[:, model], values[:, 0], weights)["p"] for model in (1, 2, 3)]
    for model, found in zip((1, 2, 3), p, strict=True):
        table = pingouin.wilcoxon(values[:, model], values[:, 0], correction=False)
        column = "p_val" if "p_val" in table else "p-val"  # pingouin 0.6 renamed it
        assert found == pytest.approx(float(table[column].iloc[0]))
    for p_values in (p, [0.04, 0.01, 0.03, 0.5, 0.01]):
        assert holm(p_values) == pytest.approx(pingouin.multicomp(p_values, method="holm")[1])


def test_holm() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.02, float("nan"), 0.9]) == pytest.approx([0.04, np.nan, 0.9], nan_ok=True)
    assert holm([]) == []


def test_ranks_and_their_stability(values: np.ndarray) -> None:
    weights = bootstrap_weights(PATIENTS, 0)
    ranking = rank(values, weights, higher_is_better=True)
    assert ranking.ranks.tolist() == [3, 2, 1, 4]
    assert (ranking.low[3], ranking.high[3]) == (4, 4)
    assert ranking.shares.sum(axis=1) == pytest.approx([1] * 4)
    assert 0.5 < ranking.shares[2, 0] <= 1
    assert rank(-values, weights, higher_is_better=False).ranks.tolist() == [3, 2, 1, 4]
    taus = [stats.kendalltau((row @ values) / PATIENTS, values.mean(axis=0)).statistic for row in weights[:300]]
    assert rank(values, weights[:300], higher_is_better=True).kendall_tau == pytest.approx(np.mean(taus))
    assert rank(values[:, [0, 0, 3]], weights, higher_is_better=True).ranks.tolist() == [1, 1, 3]


def test_values_equal_but_for_rounding_tie(values: np.ndarray) -> None:
    """They share the rank, divide the samples in which they are first, and their order is perfectly stable."""
    weights = bootstrap_weights(PATIENTS, 0)
    twins = np.stack([np.nextafter(values[:, 0], 2), values[:, 3], values[:, 0], np.nextafter(values[:, 0], 0)], axis=1)
    for sign in (1, -1):
        ranking = rank(sign * twins, weights, higher_is_better=sign > 0)
        assert ranking.ranks.tolist() == [1, 4, 1, 1]
        assert ranking.low.tolist() == ranking.high.tolist() == [1, 4, 1, 1]
        assert ranking.shares == pytest.approx(np.array([[1, 1, 1, 0], [0, 0, 0, 3], [1, 1, 1, 0], [1, 1, 1, 0]]) / 3)
        assert ranking.kendall_tau == 1
    same = rank(values[:, [2, 2]], weights, higher_is_better=True)
    assert (same.ranks.tolist(), same.kendall_tau, same.shares.tolist()) == ([1, 1], 1, [[0.5, 0.5], [0.5, 0.5]])
    small = rank(values[:, [0, 0]] * 1e-3 + [[0, 1e-6]], weights, higher_is_better=True)
    assert small.ranks.tolist() == [2, 1]  # a difference that is none of rounding


def test_a_pair_that_ties_once_counts_nothing() -> None:
    """Two patients, two models: equal over both, the one better or worse where one patient is drawn alone."""
    ranking = rank(
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        higher_is_better=True,
    )
    assert ranking.kendall_tau == 0.5
    assert ranking.shares == pytest.approx(np.full((2, 2), 0.5))


def test_patients_without_a_difference_are_left_out_of_the_test() -> None:
    difference = np.array([0, 0, 0.3, 0.1, 0.2, 0.5, -0.15, 0.4, -0.25, 0.6])
    found = compare(difference, np.zeros(10), bootstrap_weights(10, 0))
    assert found["p"] == stats.wilcoxon(difference[2:]).pvalue
    assert found["p"] != stats.wilcoxon(difference, zero_method="pratt").pvalue
    assert found["p"] != stats.wilcoxon(difference, zero_method="zsplit").pvalue
    assert found["n"] == 10


def test_a_coin_toss_has_no_stable_rank() -> None:
    noise = np.random.default_rng(2).normal(size=(PATIENTS, 5))
    ranking = rank(noise - noise.mean(axis=0), bootstrap_weights(PATIENTS, 0), higher_is_better=True)
    assert (ranking.high - ranking.low >= 3).all()
    assert abs(ranking.kendall_tau) < 0.5


def test_what_has_no_score_cannot_be_ranked(values: np.ndarray) -> None:
    values[7, 2] = np.nan  # of one patient: it would be ranked on others
    for given in (np.full((PATIENTS, 1), np.nan), values):
        with pytest.raises(ValueError, match="of 60 patients; it cannot be ranked"):
            rank(given, bootstrap_weights(PATIENTS, 0), higher_is_better=True)
