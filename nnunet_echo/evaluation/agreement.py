"""Agreement of predicted with reference values, such as ejection fractions in percent or volumes in mL.

error = prediction - reference, always in this order. Limits of agreement after Bland and Altman (Lancet 327:307-310,
1986), kappa after Cohen (Educ Psychol Meas 20:37-46, 1960), AUC as the rank statistic of Mann and Whitney.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

EF_THRESHOLDS = (40.0, 50.0)
Values = Sequence[float] | ndarray


def agreement(prediction: Values, reference: Values) -> dict[str, float]:
    """Statistics over the pairs in which both values are defined; `n` counts them, `n_undefined` the others.

    `bias` and `sd` (n - 1) are the error's, `loa_low` and `loa_high` are bias -+ 1.96 sd; `mae`, `rmse`; `pearson_r`;
    `r2` = 1 - sum(error^2) / sum((reference - its mean)^2). NaN where too few or equal values leave one undefined.
    Raises `ValueError` for sequences of different length.

    >>> found = agreement([55.0, 42.0, float("nan")], [50.0, 45.0, 60.0])
    >>> found["n"], found["n_undefined"], found["bias"], found["mae"]
    (2, 1, 1.0, 4.0)
    """
    x, y, undefined = _pairs(prediction, reference)
    error = x - y
    if len(error) == 0:
        names = ("bias", "sd", "loa_low", "loa_high", "mae", "rmse", "pearson_r", "r2")
        return {"n": 0, "n_undefined": undefined, **dict.fromkeys(names, float("nan"))}
    bias = float(error.mean())
    sd = float(error.std(ddof=1)) if len(error) > 1 else float("nan")
    dx, dy = x - x.mean(), y - y.mean()
    varying = np.ptp(x) > 0 and np.ptp(y) > 0
    return {
        "n": len(error),
        "n_undefined": undefined,
        "bias": bias,
        "sd": sd,
        "loa_low": bias - 1.96 * sd,
        "loa_high": bias + 1.96 * sd,
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "pearson_r": _ratio(dx @ dy, np.sqrt((dx @ dx) * (dy @ dy)) * varying),
        "r2": 1 - _ratio(error @ error, dy @ dy * (np.ptp(y) > 0)),
    }


def ef_errors_penalised(prediction: Values, reference: Values) -> ndarray:
    """(P,): |prediction - reference| of EF in percent; without a prediction, the error of the worst of 0 to 100 %.

    That is max(reference, 100 - reference): no answer between 0 and 100 % costs more, so that none is never the better
    one. NaN where the reference is undefined.

    >>> ef_errors_penalised([30.0, float("nan")], [45.0, 20.0]).tolist()
    [15.0, 80.0]
    """
    x, y = np.asarray(prediction, float), np.asarray(reference, float)
    return np.where(np.isfinite(x), np.abs(x - y), np.maximum(y, 100 - y))


def classification(prediction: Values, reference: Values, threshold: float) -> dict[str, float]:
    """How well "below `threshold`" is recognised, by the AUC of the predicted value and Cohen's kappa.

    Over the pairs in which both values are defined; `n_below` counts the references below. NaN where one class is
    empty (AUC) or both readings have only one class (kappa). Raises `ValueError` for sequences of different length.

    >>> classification([35.0, 55.0, 60.0], [38.0, 45.0, 62.0], 50)
    {'n_below': 2, 'auc': 1.0, 'kappa': 0.4}
    """
    x, y, _ = _pairs(prediction, reference)
    below, called = y < threshold, x < threshold
    # The share of all pairs of a patient below and one not below whom the predictions order rightly; ties count half.
    low, high = x[below, None], x[None, ~below]
    ordered = (low < high).sum() + (low == high).sum() / 2
    # Times n^2, in whole numbers: what agrees, and what would by chance.
    n, n_below, n_called = len(y), int(below.sum()), int(called.sum())
    agreeing = n * int((below == called).sum())
    chance = n_below * n_called + (n - n_below) * (n - n_called)
    return {
        "n_below": n_below,
        "auc": _ratio(ordered, n_below * (n - n_below)),
        "kappa": _ratio(agreeing - chance, n * n - chance),
    }


def _pairs(prediction: Values, reference: Values) -> tuple[ndarray, ndarray, int]:
    x, y = np.asarray(prediction, float), np.asarray(reference, float)
    if x.shape != y.shape:
        raise ValueError(f"prediction has {len(x)} values, reference {len(y)}: they must be the same patients.")
    defined = np.isfinite(x) & np.isfinite(y)
    return x[defined], y[defined], int((~defined).sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
