"""Hearts that beat as we say: contraction at any time, so that ED, ES and volumes of every beat are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from nnunet_echo.phantom.heart import Heart, Section, sample_heart

_LEFT = 0.3  # of the contraction, after early filling: what the atrium adds at the end of diastole


@dataclass(frozen=True)
class Beating:
    """Beats that last `intervals` (s), the first ED at `start`; systole after Bazett's square root, half at most."""

    intervals: tuple[float, ...]
    start: float = 0.0

    @property
    def ed_s(self) -> ndarray:
        return self.start + np.concatenate([[0.0], np.cumsum(self.intervals)])

    @property
    def es_s(self) -> ndarray:
        return self.ed_s[:-1] + [systole(interval) for interval in self.intervals]

    def contraction(self, times: ndarray) -> ndarray:
        """(T,) from 0 at ED to 1 at ES: falls fast, fills early, rests, and is filled up by the atrium."""
        beat = np.clip(np.searchsorted(self.ed_s, times, side="right") - 1, 0, len(self.intervals) - 1)
        interval = np.array(self.intervals)[beat]
        since = times - self.ed_s[beat]
        ejection = np.minimum(0.34 * np.sqrt(interval), 0.5 * interval)
        early = np.minimum(0.18, 0.6 * (interval - ejection))
        atrial = np.minimum(0.14, 0.4 * (interval - ejection))
        squeeze = ease(since / ejection)
        fill = ease((since - ejection) / early) * (1 - _LEFT)
        kick = ease((since - interval + atrial) / atrial) * _LEFT
        return np.clip(squeeze - fill - kick, 0, 1)


def systole(interval: float) -> float:
    return min(0.34 * interval**0.5, 0.5 * interval)


def ease(share: ndarray) -> ndarray:
    return (1 - np.cos(np.pi * np.clip(share, 0, 1))) / 2


def steady(bpm: float, seconds: float, start: float = -0.13) -> Beating:
    interval = 60 / bpm
    count = int(seconds / interval) + 3
    return Beating((interval,) * count, start)


def fibrillating(bpm: float, seconds: float, seed: int) -> Beating:
    """Intervals drawn one by one, 18 % apart (standard deviation), none more than 38 % from the mean."""
    rng = np.random.default_rng(seed)
    mean = 60 / bpm
    count = int(seconds / mean / 0.6) + 3
    return Beating(tuple((mean * np.clip(rng.normal(1, 0.18, count), 0.62, 1.38)).tolist()), -0.13)


def complete_beats(beating: Beating, times: ndarray) -> list[tuple[int, int]]:
    """Frames of ED and ES of beats that a clip shows surely: two frames before the first ED, 80 ms after the last."""
    step = times[1] - times[0]
    return [
        (int(np.argmin(abs(times - ed))), int(np.argmin(abs(times - es))))
        for ed, es, following in zip(beating.ed_s, beating.es_s, beating.ed_s[1:], strict=False)
        if ed >= times[0] + 2 * step and following + max(0.08, 3 * step) <= times[-1]
    ]


def drawn_masks(heart: Heart, view: str, contraction: ndarray, spacing: float = 1.0) -> list[ndarray]:
    """Label maps of a phantom heart on the grid of `phantom.cine.render`, without its picture: 1 LV, 2 MYO, 3 LA."""
    depth, half_angle = heart.views[view].depth_mm, np.deg2rad(heart.views[view].half_angle_deg)
    height, width = round(depth / spacing), round(2 * depth * np.sin(half_angle) / spacing)
    x, y = (np.arange(width)[None, :] - (width - 1) / 2) * spacing, np.arange(height)[:, None] * spacing
    return [Section(heart, view, float(c)).labels(x, y) for c in contraction]


def drawn_sector(heart: Heart, view: str, shape: tuple[int, int], spacing: float = 1.0) -> ndarray:
    """Where the probe of a phantom heart sees, (H, W) bool."""
    x, y = (np.arange(shape[1])[None, :] - (shape[1] - 1) / 2) * spacing, np.arange(shape[0])[:, None] * spacing
    return Section(heart, view, 0.0).in_sector(x, y)


def a_heart(seed: int = 3) -> Heart:
    return sample_heart(np.random.default_rng(seed))
