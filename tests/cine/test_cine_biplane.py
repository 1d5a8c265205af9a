"""Two views of one heart, and two clips that are no pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beating import a_heart
from cine_results import SEED, drawn, drawn_clip, flags, refused

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.result import CineResult


def biplane(bpm: float = 75, scale: float = 2.0, views: tuple[str, str] = ("4CH", "2CH"), **clip: Any) -> CineResult:
    masks, frames, _ = drawn("4CH")
    others, pictures, _ = drawn("2CH", bpm=bpm)
    second = replace(drawn_clip(pictures, **clip))
    if second.spacing_mm:
        second = replace(second, spacing_mm=(scale, scale))
    return analyse(drawn_clip(frames), masks, {"LV": 1}, view=views[0], second=(second, others, views[1]))


def test_biplane_volumes_are_the_hearts_own() -> None:
    result, heart = biplane(), a_heart(SEED)
    assert not result.refusals
    assert result.numbers["edv_ml_biplane"] == pytest.approx(heart.edv_ml, rel=0.02)
    assert result.numbers["esv_ml_biplane"] == pytest.approx(heart.esv_ml, rel=0.03)
    assert result.numbers["ef_percent_biplane"] == pytest.approx(heart.ef_percent, abs=1)
    assert "study_not_checked" in flags(result)
    assert {"ef_percent_second", "edv_ml_second"} <= set(result.numbers)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"bpm": 95}, "biplane_rates"),
        ({"scale": 1.4}, "biplane_lengths"),
        ({"views": ("4CH", "4CH")}, "biplane_views"),
        ({"views": ("", "")}, "biplane_views"),
        ({"spacing": None}, "biplane_no_scale"),
        ({"fps": None}, "biplane_no_rate"),
        ({"fps": 1000}, "biplane_no_ef"),
    ],
)
def test_two_clips_that_are_no_pair(options: dict[str, Any], name: str) -> None:
    result = biplane(**options)
    numbers = {"ef_percent_biplane", "edv_ml_biplane", "esv_ml_biplane"}
    assert refused(result)[name] == numbers
    assert np.isfinite(result.numbers["ef_percent"])


def test_rates_and_lengths_that_are_near_enough_pass() -> None:
    assert "ef_percent_biplane" not in {n for r in biplane(bpm=80, scale=1.7).refusals for n in r.numbers}
