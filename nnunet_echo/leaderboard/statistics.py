"""Statistics over patients who are paired across models: intervals, tests, ranks.

The frames of a patient are not independent, so a patient's mean over frames is one observation, and patients are what
the bootstrap draws. Values are arrays (P,) of one model or (P, M) of P patients by M models, NaN where undefined.

Bootstrap intervals are percentiles (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13); tests
Wilcoxon's signed ranks (Biometrics Bulletin 1:80-83, 1945) with Holm's correction (Scand J Statist 6:65-70, 1979);
ranks and their stability as in challengeR (Wiesenfarth et al., Scientific Reports 11:2369, 2021): average over
patients, then rank, and again in each bootstrap sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy import ndarray
from scipy.stats import wilcoxon

SAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles: 95 %
TIE = 1e-9  # of the largest value: means closer than this are equal but for rounding


def bootstrap_weights(patients: int, seed: int, samples: int = SAMPLES) -> ndarray:
    """(S, P): how often each of S samples with replacement, as large as the whole, draws each patient."""
    draw = np.random.default_rng(seed).multinomial
    return draw(patients, np.full(patients, 1 / patients), size=samples).astype(float)


def describe(values: ndarray, weights: ndarray) -> dict[str, float]:
    """`n` defined values (P,); mean, sd (n - 1), median, quartiles, and the 95 % interval of the mean by `weights`."""
    defined = values[np.isfinite(values)]
    names = ("mean", "sd", "median", "q1", "q3", "ci_low", "ci_high")
    if len(defined) == 0:
        return {"n": 0, **dict.fromkeys(names, np.nan)}
    sd = defined.std(ddof=1) if len(defined) > 1 else np.nan
    q1, middle, q3 = np.percentile(defined, (25, 50, 75))
    numbers = (defined.mean(), sd, middle, q1, q3, *_interval(_sample_means(values[:, None], weights)[:, 0]))
    return {"n": len(defined), **{name: float(number) for name, number in zip(names, numbers, strict=True)}}


class Difference(TypedDict):
    """Of `compare`."""

    n: int
    difference: float
    ci_low: float
    ci_high: float
    p: float


def compare(values: ndarray, baseline: ndarray, weights: ndarray) -> Difference:
    """Both (P,): `n` patients with both, mean `difference` values - baseline, its 95 % interval, Wilcoxon's `p`.

    Two-sided; patients without a difference are left out of the test, as in Wilcoxon's; p = 1 if that leaves none.
    """
    difference = values - baseline
    defined = difference[np.isfinite(difference)]
    if len(defined) == 0:
        return {"n": 0, "difference": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan}
    low, high = _interval(_sample_means(difference[:, None], weights)[:, 0])
    p = float(wilcoxon(defined, zero_method="wilcox").pvalue) if defined.any() else 1.0
    return {"n": len(defined), "difference": float(defined.mean()), "ci_low": low, "ci_high": high, "p": p}


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the order given; NaN stays NaN and does not count."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


@dataclass(frozen=True)
class Ranking:
    """Ranks from 1 (M,), ties share the better one; `shares` (M, M), model by rank - 1, of the bootstrap samples.

    In `shares`, models that tie in a sample divide the ranks that they take up between them, so that rows and columns
    sum to 1. `low`, `high` (M,) hold 95 % of a model's ranks; `kendall_tau` is the mean over samples of the correlation
    of their order with the order of the whole, in which two models that tie in both agree: 1 is perfectly stable. NaN
    for one model.
    """

    ranks: ndarray
    low: ndarray
    high: ndarray
    shares: ndarray
    kendall_tau: float


def rank(values: ndarray, weights: ndarray, *, higher_is_better: bool) -> Ranking:
    """Rank the models of `values` (P, M) by their means over patients, the same patients for all.

    Raises `ValueError` for a value that is not defined: without it, that model would be ranked on other patients.
    """
    undefined = np.count_nonzero(~np.isfinite(values), axis=0)
    if undefined.any():
        raise ValueError(
            f"model {undefined.argmax()} has no defined score of {undefined.max()} of {len(values)} "
            "patients; it cannot be ranked with the others, which are averaged over all of them."
        )
    sign = -1 if higher_is_better else 1
    tolerance = TIE * np.abs(values).max(initial=0)
    ranks, _ = _ranks(sign * values.mean(axis=0, keepdims=True), tolerance)
    drawn, tied = _ranks(sign * _sample_means(values, weights), tolerance)
    ranks, models = ranks[0], values.shape[1]
    low, high = np.percentile(drawn, INTERVAL, axis=0, method="inverted_cdf")
    shares = np.stack(
        [(((drawn <= place) & (place < drawn + tied)) / tied).mean(axis=0) for place in range(1, models + 1)], axis=1
    )
    first, second = np.triu_indices(models, 1)
    order, order_drawn = np.sign(ranks[first] - ranks[second]), np.sign(drawn[:, first] - drawn[:, second])
    agreeing = np.where(order == order_drawn, 1, order * order_drawn)
    return Ranking(ranks, low, high, shares, float(agreeing.mean()) if models > 1 else np.nan)


def _ranks(samples: ndarray, tolerance: float) -> tuple[ndarray, ndarray]:
    """For each of `samples` (S, M), the smaller the better: ranks (S, M) from 1, and how many models tie for each.

    Means of equal values may differ in the last digits, as they are summed in another order: neighbours within
    `tolerance` tie.
    """
    order = samples.argsort(axis=1, kind="stable")
    steps = np.diff(np.take_along_axis(samples, order, axis=1), axis=1, prepend=-np.inf)
    first = np.maximum.accumulate(np.where(steps > tolerance, np.arange(samples.shape[1]), 0), axis=1)
    ranks = np.empty(samples.shape, int)
    np.put_along_axis(ranks, order, first + 1, axis=1)
    return ranks, (ranks[:, :, None] == ranks[:, None]).sum(axis=2)


def _sample_means(values: ndarray, weights: ndarray) -> ndarray:
    """(S, M): the mean of each sample's defined values; NaN where it drew none."""
    defined = np.isfinite(values)
    count = weights @ defined
    return np.divide(weights @ np.where(defined, values, 0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _interval(samples: ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(samples, INTERVAL)
    return float(low), float(high)
