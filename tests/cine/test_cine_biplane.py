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


@pytest.mark.parametrize("changed", [None, 0, -1])
def test_the_same_clip_twice_is_no_pair(changed: int | None) -> None:
    """Whatever its times and its masks; a frame that differs anywhere is another clip."""
    masks, frames, _ = drawn("4CH")
    other = frames.copy()
    if changed is not None:
        other[changed, 40, 40] ^= 1
    second = drawn_clip(other, fps=31), [mask * 1 for mask in masks], "2CH"
    result = analyse(drawn_clip(frames), masks, {"LV": 1}, view="4CH", second=second)
    assert ("biplane_same" in refused(result)) is (changed is None)
    assert np.isnan(result.numbers["ef_percent_biplane"]) == (changed is None)
    assert np.isfinite(result.numbers["ef_percent"]) and np.isfinite(result.numbers["ef_percent_second"])


@pytest.mark.parametrize(
    ("views", "said"), [(("4CH", "2CH"), ["4CH", "2CH"]), (("", ""), ["First clip", "Second clip"])]
)
def test_flags_say_of_which_view_they_are(views: tuple[str, str], said: list[str]) -> None:
    """Also those that both have; of one clip they are as they were."""
    masks, frames, _ = drawn()
    alone = analyse(drawn_clip(frames, fps=None), masks, {"LV": 1}, view="4CH").flags
    both = analyse(
        drawn_clip(frames, fps=None), masks, {"LV": 1}, view=views[0], second=(drawn_clip(frames), masks, views[1])
    ).flags
    assert "by_extremes" in {flag.name for flag in alone}
    expected = [(flag.name, f"{said[0]}: {flag.text}") for flag in alone]
    assert [(flag.name, flag.text) for flag in both[: len(alone)]] == expected
    same = analyse(drawn_clip(frames), masks, {"LV": 1}, second=(drawn_clip(frames), masks, views[1]), view=views[0])
    told = [flag.text.partition(": ")[0] for flag in same.flags if flag.name == "incomplete_beats"]
    assert told == said
    assert "That both clips are of one study is not checked." in {flag.text for flag in same.flags}


def test_rates_and_lengths_that_are_near_enough_pass() -> None:
    assert "ef_percent_biplane" not in {n for r in biplane(bpm=80, scale=1.7).refusals for n in r.numbers}
