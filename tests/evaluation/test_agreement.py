"""Statistics of agreement, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_echo.evaluation.agreement import agreement, classification


def test_agreement_is_of_the_errors() -> None:
    """bias is signed and sd the error's; published code has called |error| the bias and the prediction's sd "std"."""
    reference, prediction = [30.0, 50.0, 60.0, 70.0, math.nan], [36.0, 48.0, 58.0, 62.0, 40.0]
    error = [6, -2, -2, -8]
    result = agreement(prediction, reference)
    assert (result["n"], result["n_undefined"]) == (4, 1)
    assert result["bias"] == pytest.approx(-1.5)
    assert result["sd"] == pytest.approx(math.sqrt(sum((e + 1.5) ** 2 for e in error) / 3))
    assert (result["loa_low"], result["loa_high"]) == pytest.approx((-1.5 - 11.2593, -1.5 + 11.2593), abs=1e-3)
    assert agreement(reference, prediction)["bias"] == pytest.approx(1.5)
    assert result["mae"] == 4.5
    assert result["rmse"] == pytest.approx(math.sqrt(27))
    assert result["r2"] == pytest.approx(1 - 108 / 875)
    assert result["pearson_r"] == pytest.approx(np.corrcoef(prediction[:4], reference[:4])[0, 1])


def test_classification_at_a_threshold() -> None:
    reference, prediction = [30, 35, 39, 45, 50, 55, 60, math.nan], [28, 42, 38, 42, 36, 50, 61, 20]
    result = classification(prediction, reference, 40)
    # 12 pairs: 28 below all four; 42 ties with 42, below two, above 36; 38 below three, above 36.
    assert result == pytest.approx({"n_below": 3, "auc": (4 + 2.5 + 3) / 12, "kappa": (5 / 7 - 25 / 49) / (24 / 49)})
    assert classification([45, 55], [39, 61], 40)["auc"] == 1
    # An EF of the threshold itself is not below it, be it the reference or the prediction.
    assert classification([30, 40, 50], [30, 40, 50], 40) == {"n_below": 1, "auc": 1, "kappa": 1}
    assert classification([40, 39], [39, 40], 40) == {"n_below": 1, "auc": 0, "kappa": -1}
    assert classification([40, 40, 40], [39, 41, 42], 40) == {"n_below": 1, "auc": 0.5, "kappa": 0}
    assert classification([61, 39], [39, 61], 40) == {"n_below": 1, "auc": 0, "kappa": -1}


@pytest.mark.parametrize("values", [[], [50.0], [50.1, 50.1, 50.1]])
def test_statistics_that_few_values_leave_undefined(values: list[float]) -> None:
    result = agreement(values, values)
    assert result["n"] == len(values)
    assert math.isnan(result["pearson_r"])
    assert math.isnan(result["r2"])
    assert math.isnan(result["sd"]) == (len(values) < 2)
    assert all(math.isnan(classification(values, values, 40)[name]) for name in ("auc", "kappa"))
    with pytest.raises(ValueError, match="the same patients"):
        agreement(values, [*values, 1.0])
