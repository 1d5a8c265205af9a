"""From a clip and its masks to beats and numbers: `analyse` puts curve, beats and gate together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.beats import Beat, Rhythm, find_rhythm
from nnunet_echo.cine.clips.clip import Clip, Finding
from nnunet_echo.cine.curve import LvCurve, measure_curve, structure_values
from nnunet_echo.cine.gate import (
    METHODS,
    Refusal,
    beat_doubt,
    biplane_refusal,
    clip_flags,
    no_beat_refusal,
    no_sound_beat,
    rhythm_refusal,
    scale_refusal,
)
from nnunet_echo.cine.masks import Masks
from nnunet_echo.cine.result import BeatResult, CineResult, Loop
from nnunet_echo.evaluation.left_ventricle.volume import LvShape, LvVolumes, lv_volumes

Labels = Mapping[str, int | Sequence[int]]
_OF_BEATS = ("ef_percent_lowest", "ef_percent_highest", "heart_rate")
_EF = ("ef_percent", *_OF_BEATS)
_VOLUMES = ("edv_ml", "esv_ml")
_LA = ("la_area_mm2", "la_volume_ml")
_WALL = ("wall_thickness_ed_mm",)
_BIPLANE = ("ef_percent_biplane", "edv_ml_biplane", "esv_ml_biplane")


@dataclass
class _Outcome:
    """One clip: what it measures, what is refused."""

    loop: Loop
    numbers: dict[str, float]
    refusals: list[Refusal]
    flags: list[Finding]
    mean: dict[str, LvShape]  # phase -> averaged ventricle of the sound beats


def analyse(
    clip: Clip,
    masks: Iterable[Any],
    labels: Labels,
    *,
    view: str = "",
    second: tuple[Clip, Iterable[Any], str] | None = None,
    smooth: Iterable[Any] | None = None,
    second_smooth: Iterable[Any] | None = None,
    sector: ndarray | None = None,
    second_sector: ndarray | None = None,
    entropy_limit: float | None = None,
    model: Mapping[str, str] | None = None,
) -> CineResult:
    """Beats, volumes and ejection fraction of a clip, each number or the reason why it is not there.

    `masks` are label maps (H, W) of all frames, or objects with `mask` and `entropy`, as a model streams them; `labels`
    maps names to values. `second` is a clip of the other view of the same study, its masks and its view: with "4CH" and
    "2CH" there are biplane numbers as well. `smooth` are masks of the clip after `smooth.smooth_masks`: numbers are
    theirs then, and the curve and EF of `masks` stand beside; `second_smooth` are those of the second clip. `sector`
    (H, W), bool, is found where it is not given. `entropy_limit` is the mean entropy above which the model is less sure
    than in training; `model` says which it was, such as {"hash": ...}, and goes into result.json as it is.
    Raises ValueError where clip and masks do not have the same frames.

    >>> from nnunet_echo.cine.clips.clip import clip_of
    >>> y, x = np.mgrid[:60, :48]
    >>> times = np.arange(100) / 40
    >>> radii = 13 + 3 * np.cos(2 * np.pi * (times - 0.2))
    >>> masks = [(y < 50) & (((x - 24) / radius) ** 2 + ((y - 50) / 41) ** 2 < 1) for radius in radii]
    >>> clip = clip_of(np.full((100, 60, 48), 90, np.uint8), fps=40)
    >>> result = analyse(clip, masks, {"LV": 1}, view="4CH", sector=np.ones((60, 48), bool))
    >>> round(result.numbers["heart_rate"]), [refusal.name for refusal in result.refusals]
    (60, ['no_scale'])
    """
    first = _one(clip, masks, labels, view, sector, entropy_limit, smooth)
    numbers, refusals, flags, loops = first.numbers, first.refusals, first.flags, [first.loop]
    if second is not None:
        other = _one(second[0], second[1], labels, second[2], second_sector, entropy_limit, second_smooth)
        loops.append(other.loop)
        names = {name: f"{name}_second" for name in other.numbers}
        numbers |= {names[name]: value for name, value in other.numbers.items()}
        refusals += _renamed(other.refusals, names)
        flags = [*_of_view("first", first), *_of_view("second", other)]
        biplane = _biplane(first, other)
        flags.append(Finding("study_not_checked", "That both clips are of one study is not checked."))
        if isinstance(biplane, Refusal):
            refusals.append(biplane)
            numbers |= dict.fromkeys(_BIPLANE, np.nan)
        else:
            values = biplane.ef_percent, biplane.edv_ml, biplane.esv_ml
            numbers |= dict(zip(_BIPLANE, values, strict=True))
    return CineResult(tuple(loops), numbers, tuple(refusals), tuple(dict.fromkeys(flags)), dict(model or {}))


def _one(
    clip: Clip,
    masks: Iterable[Any],
    labels: Labels,
    view: str,
    sector: ndarray | None,
    entropy_limit: float | None,
    smooth: Iterable[Any] | None,
) -> _Outcome:
    """One clip; by the masks `smooth` where they are given, and what `masks` say beside it."""
    if smooth is None:
        return _measured(clip, masks, labels, view, sector, entropy_limit)
    one = _measured(clip, smooth, labels, view, sector, entropy_limit)
    plain = _measured(clip, masks, labels, view, one.loop.sector, entropy_limit)
    one.loop = one.loop.beside(plain.loop.curve)
    one.numbers["ef_percent_unsmoothed"] = plain.numbers["ef_percent"]
    one.refusals += _renamed(plain.refusals, {"ef_percent": "ef_percent_unsmoothed"})
    one.flags.append(Finding("smoothed", "Masks were averaged over time; numbers without it stand beside."))
    return one


def _measured(
    clip: Clip, masks: Iterable[Any], labels: Labels, view: str, sector: ndarray | None, entropy_limit: float | None
) -> _Outcome:
    masks = masks if isinstance(masks, Masks) else Masks(masks)
    if len(masks) != clip.count or masks.shape != clip.shape:
        raise ValueError(
            f"masks: {len(masks)} frames of {masks.shape} pixels, and the clip has {clip.count} of {clip.shape}. "
            "Predict every frame at the size of the clip."
        )
    if sector is None:
        from nnunet_echo.cine.clips.sector import find_sector

        sector = find_sector(clip)
    structures = structure_values(labels)
    curve = measure_curve(masks, labels, spacing_mm=clip.spacing_mm, times_s=clip.times_s, sector=sector)
    has_lv = "LV" in structures
    rhythm = find_rhythm(clip.times_s, curve.values["lv_area"]) if has_lv else Rhythm()
    hanging = (*_EF, *_VOLUMES, *(_LA if "LA" in structures else ()), *(_WALL if "MYO" in structures else ()))
    numbers = dict.fromkeys(hanging, np.nan)
    beats: tuple[BeatResult, ...] = ()
    refusals, mean = [], {}
    flags = clip_flags(clip, curve, rhythm, sector, entropy_limit) if has_lv else list(clip.findings)
    refused = rhythm_refusal(clip, curve if has_lv else None, rhythm, hanging)
    if refused:
        refusals.append(refused)
    else:
        beats = tuple(_beat(curve, beat, view, number) for number, beat in enumerate(rhythm.beats, 1))
        sound = [beat for beat in beats if not beat.refused]
        if not sound:
            refusals.append(no_sound_beat([beat.refused for beat in beats], rhythm, hanging))
        else:
            mean = {
                phase: _average([curve.shapes[getattr(b.beat, phase.lower())] for b in sound]) for phase in ("ED", "ES")
            }
            _fill(numbers, refusals, clip, curve, rhythm, sound)
            flags += _beat_flags(beats, sound)
    loop = Loop(view, clip, masks, structures, sector, curve, rhythm, beats)
    return _Outcome(loop, numbers, refusals, flags, mean)


def _fill(
    numbers: dict[str, float],
    refusals: list[Refusal],
    clip: Clip,
    curve: LvCurve,
    rhythm: Rhythm,
    sound: Sequence[BeatResult],
) -> None:
    """Numbers of a clip that has sound beats; those that are refused stay NaN."""
    efs = [beat.ef_percent for beat in sound]
    numbers["ef_percent"] = float(np.median(efs))
    if without := no_beat_refusal(rhythm, _OF_BEATS):
        refusals.append(without)
    else:
        numbers |= dict(zip(_OF_BEATS, (min(efs), max(efs), rhythm.heart_rate), strict=True))
    in_mm = [name for name in (*_VOLUMES, *_LA, *_WALL) if name in numbers]
    unscaled = scale_refusal(clip, tuple(in_mm))
    if unscaled:
        refusals.append(unscaled)
        return
    numbers |= {name: float(np.median([getattr(beat, name) for beat in sound])) for name in _VOLUMES}
    if _LA[0] in numbers:
        spans = [slice(b.beat.ed, b.beat.next_ed) if b.beat.next_ed else slice(None) for b in sound]
        if any(curve.la_cut[span].any() for span in spans):
            refusals.append(Refusal("la_cut", _LA, "The atrium reaches the edge of the sector or of the picture."))
        else:
            largest = [[_largest(curve.values[name][span]) for span in spans] for name in ("la_area", "la_volume")]
            _set(numbers, refusals, _LA, [_median(v) for v in largest], "la_missing", "The atrium was not found.")
    if _WALL[0] in numbers:
        thickness = _median([curve.values["wall_thickness"][beat.beat.ed] for beat in sound])
        _set(numbers, refusals, _WALL, [thickness], "wall_missing", "No wall borders on the ventricle.")


def _set(
    numbers: dict[str, float],
    refusals: list[Refusal],
    names: Sequence[str],
    values: Sequence[float],
    why: str,
    text: str,
) -> None:
    numbers |= dict(zip(names, values, strict=True))
    if lost := tuple(name for name in names if not np.isfinite(numbers[name])):
        refusals.append(Refusal(why, lost, text))


def _beat(curve: LvCurve, beat: Beat, view: str, number: int) -> BeatResult:
    doubt = beat_doubt(curve, beat)
    if doubt:
        return BeatResult(view, number, beat, refused=doubt)
    shapes = {(view, "ED"): curve.shapes[beat.ed], (view, "ES"): curve.shapes[beat.es]}
    disks, check = lv_volumes(shapes), lv_volumes(shapes, method="area_length")
    edv, esv = (disks.edv_ml, disks.esv_ml) if curve.unit == "mm" else (np.nan, np.nan)
    return BeatResult(view, number, beat, edv, esv, disks.ef_percent, check.ef_percent)


def _beat_flags(beats: Sequence[BeatResult], sound: Sequence[BeatResult]) -> list[Finding]:
    flags = []
    if len(sound) < len(beats):
        flags.append(Finding("beats_refused", f"{len(beats) - len(sound)} of {len(beats)} beats are refused."))
    apart = np.median([abs(beat.ef_percent - beat.ef_area_length) for beat in sound])
    if apart > METHODS:
        flags.append(Finding("methods_disagree", f"EF by disks and by area-length differ by {apart:.0f} points."))
    return flags


def _biplane(first: _Outcome, second: _Outcome) -> LvVolumes | Refusal:
    both = (first, second)
    refused = biplane_refusal(
        [one.loop.view for one in both],
        [one.loop.clip for one in both],
        [one.mean.get("ED") for one in both],
        [one.numbers["heart_rate"] for one in both],
        _BIPLANE,
    )
    return refused or lv_volumes({(one.loop.view, phase): shape for one in both for phase, shape in one.mean.items()})


def _of_view(which: str, one: _Outcome) -> list[Finding]:
    """The flags of one of two clips, with its view before their texts."""
    view = one.loop.view or f"{which.capitalize()} clip"
    return [Finding(flag.name, f"{view}: {flag.text}") for flag in one.flags]


def _average(shapes: Sequence[LvShape]) -> LvShape:
    """The mean of ventricles in one phase: lengths, diameters disk by disk, areas."""
    return LvShape(
        float(np.mean([shape.length for shape in shapes])),
        tuple(np.mean([shape.diameters for shape in shapes], axis=0).tolist()),
        float(np.mean([shape.area for shape in shapes])),
    )


def _renamed(refusals: Sequence[Refusal], names: Mapping[str, str]) -> list[Refusal]:
    """The same with other names of numbers, and without those that have none."""
    found = [(refusal, tuple(names[n] for n in refusal.numbers if n in names)) for refusal in refusals]
    return [Refusal(refusal.name, numbers, refusal.text) for refusal, numbers in found if numbers]


def _largest(values: ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else np.nan


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else np.nan
