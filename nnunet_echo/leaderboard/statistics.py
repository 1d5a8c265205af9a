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

import numpy as np
from numpy import ndarray
from scipy.stats import rankdata, wilcoxon

SAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles: 95 %


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


def compare(values: ndarray, baseline: ndarray, weights: ndarray) -> dict[str, float]:
    """Both (P,): `n` patients with both, mean `difference` values - baseline, its 95 % interval, Wilcoxon's `p`.

    Two-sided; patients without a difference are left out of the test, as in Wilcoxon's; p = 1 if that leaves none.
    """
    difference = values - baseline
    defined = difference[np.isfinite(difference)]
    if len(defined) == 0:
        return {"n": 0, "difference": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan}
    low, high = _interval(_sample_means(difference[:, None], weights)[:, 0])
    p = float(wilcoxon(defined).pvalue) if defined.any() else 1.0
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

    `low`, `high` (M,) hold 95 % of a model's ranks; `kendall_tau` is the mean over samples of the correlation of their
    order with the order of the whole: 1 is perfectly stable. NaN for one model.
    """

    ranks: ndarray
    low: ndarray
    high: ndarray
    shares: ndarray
    kendall_tau: float


def rank(values: ndarray, weights: ndarray, *, higher_is_better: bool) -> Ranking:
    """Rank the models of `values` (P, M) by their means over patients. Raises `ValueError` if a mean is undefined."""
    means = _sample_means(values, np.ones((1, len(values))))
    if not np.isfinite(means).all():
        raise ValueError("a model has no defined value of the score that ranks; it cannot be ranked")
    sign = -1 if higher_is_better else 1
    samples = sign * _sample_means(values, weights)
    ranks = rankdata(sign * means[0], method="min").astype(int)
    drawn = rankdata(samples, method="min", axis=1).astype(int)
    models = len(ranks)
    low, high = np.percentile(drawn, INTERVAL, axis=0, method="inverted_cdf")
    shares = np.stack([(drawn == place).mean(axis=0) for place in range(1, models + 1)], axis=1)
    first, second = np.triu_indices(models, 1)
    agreeing = np.sign(samples[:, first] - samples[:, second]) * np.sign(ranks[first] - ranks[second])
    return Ranking(ranks, low, high, shares, float(agreeing.mean()) if models > 1 else np.nan)


def _sample_means(values: ndarray, weights: ndarray) -> ndarray:
    """(S, M): the mean of each sample's defined values; NaN where it drew none."""
    defined = np.isfinite(values)
    count = weights @ defined
    return np.divide(weights @ np.where(defined, values, 0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _interval(samples: ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(samples, INTERVAL)
    return float(low), float(high)
