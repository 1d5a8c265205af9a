"""Tables of sequences: attributes and Dice of every frame, consistency, ED and ES of every sequence.

A sequence are the frames of one patient and view, whose case names carry frame numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from nnunet_echo.evaluation.motion import (
    ATTRIBUTES,
    PAINCHAUD_2022,
    consistency_errors,
    ed_es_frames,
    inconsistent_frames,
    limits_of,
)
from nnunet_echo.evaluation.output import Row
from nnunet_echo.evaluation.pairs import CaseId

LIMITS = ("references", "painchaud2022")
SIDES = ("prediction", "reference")
Curves = dict[str, list[float]]


def attribute_columns(unit: str) -> dict[str, str]:
    """Attribute -> its column without the side, for lengths in `unit` ("mm" or "px")."""
    powers = {None: "deg", 1: unit, 2: f"{unit}2"}
    return {name: f"{name}_{powers[power]}" for name, power in ATTRIBUTES.items()}


def sequence_tables(
    cases: Sequence[CaseId],
    attributes: Sequence[Mapping[str, Mapping[str, float]]],
    dice: Sequence[Mapping[str, float]],
    unit: str,
    limits_from: str,
) -> tuple[list[Row], list[Row], dict[str, dict]]:
    """Rows of frames.csv, rows of sequences.csv, and the limits as attribute -> field -> value.

    For each frame: its case, side -> attribute -> value, structure -> Dice. `limits_from` is one of `LIMITS`.
    """
    sequences: dict[tuple[str, str], list[int]] = {}
    for index in sorted(range(len(cases)), key=lambda index: cases[index].frame or 0):
        sequences.setdefault((cases[index].patient, cases[index].view), []).append(index)
    curves = {
        key: {side: _curves([attributes[index][side] for index in indices]) for side in SIDES}
        for key, indices in sorted(sequences.items())
    }
    limits = PAINCHAUD_2022 if limits_from == "painchaud2022" else limits_of(c["reference"] for c in curves.values())

    columns = attribute_columns(unit)
    frames, rows = [], []
    for (patient, view), sides in curves.items():
        of_sequence = [cases[index] for index in sequences[patient, view]]
        flags = {side: inconsistent_frames(sides[side], limits) for side in SIDES}
        for time, (index, case) in enumerate(zip(sequences[patient, view], of_sequence, strict=True)):
            row: Row = {"case": case.name, "patient": patient, "view": view, "frame": case.frame}
            row |= {f"dice_{structure}": value for structure, value in dice[index].items()}
            row |= {f"{side}_{columns[name]}": values[time] for side in SIDES for name, values in sides[side].items()}
            frames.append(
                row
                | {
                    f"{side}_inconsistent": " ".join(name for name, flagged in flags[side].items() if flagged[time])
                    for side in SIDES
                }
            )
        totals: Row = {"patient": patient, "view": view, "frames": len(of_sequence)}
        for side in SIDES:
            inconsistent = int(np.any(list(flags[side].values()), axis=0).sum())
            ratios = [
                np.abs(consistency_errors(values, limits[name])) / limits[name].threshold
                for name, values in sides[side].items()
                if name in limits and limits[name].threshold
            ]
            phases = ed_es_frames(sides[side]["lv_area"])
            totals |= {
                f"{side}_inconsistent_frames": inconsistent,
                f"{side}_inconsistent_rate": inconsistent / len(of_sequence),
                f"{side}_error_to_threshold": float(np.nanmax([0.0, *np.ravel(ratios)])),
                f"{side}_ed_frame": of_sequence[phases[0]].frame if phases else "",
                f"{side}_es_frame": of_sequence[phases[1]].frame if phases else "",
            }
        rows.append(totals)
    return frames, rows, {name: asdict(limit) for name, limit in limits.items()}


def _curves(frames: Sequence[Mapping[str, float]]) -> Curves:
    return {name: [frame[name] for frame in frames] for name in frames[0]}
