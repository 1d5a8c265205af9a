"""index.html: the leaderboard as one file that needs no network, with all numbers and pictures inside.

The page is page/report.html.jinja with report.css, charts.js and report.js in it; this module prepares what it shows.
Pictures stop at `PICTURE_BYTES`, so that the file stays below 20 MB however many patients, models and cines there are:
the numbers of 500 patients with four frames and ten models take 1.3 MB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from nnunet_echo.drawing.outlines import drawn_structures, read_outlines
from nnunet_echo.drawing.pictures import read_picture
from nnunet_echo.drawing.style import EF_SHOWN, short_names, structure_colours
from nnunet_echo.evaluation.metrics import METRICS, Shown, shown_metrics
from nnunet_echo.evaluation.output import Row
from nnunet_echo.leaderboard.board import Board, case_scores, image_quality
from nnunet_echo.leaderboard.cells import flagged, missed, p_value
from nnunet_echo.leaderboard.collect import COMPLETE, REFUSED
from nnunet_echo.leaderboard.tables import leaderboard_rows
from nnunet_echo.leaderboard.values import Entry, ef_doubts, ef_rows, same_ef_patients, same_frames, values_of

PICTURE_BYTES = 14_000_000
CASES_EACH = 2  # best, median and worst of every model
CLIPS, CLIP_FRAMES = 6, 64


def write_report(board: Board, out: Path) -> None:
    """Write index.html to the folder `out`, made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("nnunet_echo.leaderboard", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    rows, names = leaderboard_rows(board), short_names([entry.model.name for entry in board.entries])
    text = environment.get_template("report.html.jinja").render(
        board=board,
        rows=list(zip(names, rows, strict=True)),
        data=report_data(board, names),
        best=_best(board, rows),
        structures=list(board.dataset.structures),
        metrics=shown_metrics(Shown.TEST),
        missed=[missed(board, row) for row in rows],
        p_value=p_value,
        flagged=flagged,
        COMPLETE=COMPLETE,
        other_planes=max((row["ef_patients_of_other_planes"] for row in rows), default=0),
    )
    (out / "index.html").write_text(text, encoding="utf-8")


def report_data(board: Board, names: Sequence[str]) -> Row:
    """What report.js draws; arrays of models are in the order of the board, undefined numbers are null."""
    shown = [index for index, entry in enumerate(board.entries) if entry.model.status != REFUSED]
    entries = [board.entries[index] for index in shown]
    cases = sorted({row["case"] for entry in entries for row in entry.evaluation.cases})
    scores = [case_scores(board, entry, cases) for entry in entries]
    pictures = _Pictures(board, entries)
    gallery = [_chosen(score, cases, pictures, model) for model, score in enumerate(scores)]
    return {
        "models": [
            {"name": names[index], "complete": board.entries[index].model.status == COMPLETE} for index in shown
        ],
        "structures": list(board.dataset.structures),
        "colours": structure_colours(drawn_structures(board.dataset.structures)),
        "unit": board.dataset.unit,
        "metrics": [
            {
                "name": metric.axis(board.dataset.unit),
                "better": metric.higher_is_better,
                "values": [
                    [
                        _rounded(values_of(entry, structure, metric.column(board.dataset.unit), board.patients))
                        for entry in entries
                    ]
                    for structure in board.dataset.structures
                ],
            }
            for metric in shown_metrics(Shown.PLOT)
        ],
        "patients": board.patients,
        "ef": [
            [
                [
                    row["patient"],
                    _rounded(row["reference_ef_percent"], 1),
                    _rounded(row["prediction_ef_percent"], 1),
                    "; ".join(f"{side}: {', '.join(found)}" for side, found in ef_doubts(row).items() if found),
                ]
                for row in ef_rows(entry, board.ef_planes)
            ]
            for entry in entries
        ],
        "ef_shown": EF_SHOWN,
        "ranks": board.ranking.shares.round(4).tolist() if board.ranking else [],
        "cases": cases,
        "scores": [_rounded(score) for score in scores],
        "quality": image_quality(board, cases),
        "gallery": gallery,
        "pictures": pictures.frames,
        "clips": _clips(board, entries, pictures),
        "full": pictures.full,
    }


class _Pictures:
    """Frames with outlines of the reference and of the models shown on them, until their bytes are used up."""

    def __init__(self, board: Board, entries: Sequence[Entry]) -> None:
        self.board, self.bytes, self.full = board, 0, False
        self.frames: dict[str, Row] = {}
        self.folds = [{row["case"]: row["fold"] for row in entry.evaluation.cases} for entry in entries]
        self.entries = entries

    def add(self, case: str, models: Sequence[int], side: int = 480, quality: int = 60) -> bool:
        """Whether the frame of a case, with the outlines of these models, is among the `frames` now."""
        ending = self.board.dataset.file_ending
        cine, number = self.board.cines.get(case, (case, None))
        image = self.board.raw / "imagesTr" / f"{cine}_0000{ending}"
        if self.full or not image.is_file():
            return case in self.frames and all(self.frames[case]["models"][model] for model in models)
        frame = self.frames.get(case)
        if frame is None:
            reference = self.board.references / f"{case}{ending}"
            frame = asdict(read_picture(image, number, reference, side, quality)) | {
                "reference": read_outlines(reference, self.board.dataset),
                "models": [None] * len(self.entries),
            }
        new = {
            model: read_outlines(
                self.entries[model].predictions[self.folds[model][case]] / f"{case}{ending}", self.board.dataset
            )
            for model in models
            if frame["models"][model] is None and case in self.folds[model]
        }
        size = len(str(new)) + (0 if case in self.frames else len(str(frame)))
        if self.bytes + size > PICTURE_BYTES:
            self.full = True
            return False
        self.bytes += size
        for model, paths in new.items():
            frame["models"][model] = paths
        self.frames[case] = frame
        return True


def _chosen(scores: np.ndarray, cases: Sequence[str], pictures: _Pictures, model: int) -> dict[str, list[str]]:
    """The cases of a model to look at; of few cases, none twice."""
    order = [cases[index] for index in np.argsort(-scores) if np.isfinite(scores[index])]
    middle = max(len(order) // 2 - CASES_EACH // 2, 0)
    groups = {
        "Worst": order[::-1][:CASES_EACH],
        "Median": order[middle : middle + CASES_EACH],
        "Best": order[:CASES_EACH],
    }
    seen: set[str] = set()
    for name, group in groups.items():
        groups[name] = [case for case in group if case not in seen and pictures.add(case, [model])]
        seen.update(groups[name])
    return dict(reversed(groups.items()))


def _clips(board: Board, entries: Sequence[Entry], pictures: _Pictures) -> list[Row]:
    """Cines: of the first model's sequences, from the worst to the best by Dice, at even steps."""
    area = f"lv_area_{board.dataset.unit}2"
    dice: dict[tuple[str, str], list[float]] = {}
    for row in entries[0].evaluation.frames if entries else ():
        dice.setdefault((row["patient"], row["view"]), []).append(row["dice_LV"])
    means = {key: np.nanmean(values) if np.isfinite(values).any() else np.inf for key, values in dice.items()}
    ranked = sorted(means, key=means.__getitem__)
    steps = sorted({int(step) for step in np.linspace(0, len(ranked) - 1, min(CLIPS, len(ranked)))})
    curves: dict[tuple[str, str], list[dict[int, Row]]] = {ranked[step]: [{} for _ in entries] for step in steps}
    for model, entry in enumerate(entries):
        for row in entry.evaluation.frames:
            if (row["patient"], row["view"]) in curves:
                curves[row["patient"], row["view"]][model][row["frame"]] = row
    clips = []
    for (patient, view), models in curves.items():
        frames = [
            number
            for number in sorted(models[0])[:CLIP_FRAMES]
            if pictures.add(models[0][number]["case"], range(len(entries)), side=288, quality=50)
        ]
        if len(frames) > 1:
            clips.append(
                {
                    "name": " ".join(filter(None, (patient, view))),
                    "cases": [models[0][number]["case"] for number in frames],
                    "reference": [_rounded(models[0][number][f"reference_{area}"], 1) for number in frames],
                    "models": [
                        [
                            _rounded(rows[number][f"prediction_{area}"], 1) if number in rows else None
                            for number in frames
                        ]
                        for rows in models
                    ],
                }
            )
    return clips


def _best(board: Board, rows: Sequence[Row]) -> dict[str, float]:
    """Column -> its best value among ranked models, of the columns that are over the same patients and frames."""
    ranked = [row for row in rows if row["status"] == COMPLETE]
    entries = [entry for entry in board.entries if entry.model.status == COMPLETE]
    columns = {
        f"{structure}_{metric.column(board.dataset.unit)}_mean": metric.higher_is_better
        for structure in board.dataset.structures
        if same_frames(entries, structure)
        for metric in shown_metrics(Shown.TEST)
    }
    columns |= {
        "score_mean": METRICS[board.rank_by].higher_is_better,
        "ef_mae_penalised": False,
        "anatomy_rate": False,
        "inconsistent_rate": False,
    }
    in_all = int(np.sum(same_ef_patients(entries, board.patients, board.ef_planes)))
    if all(row["ef_n"] == in_all for row in ranked):
        columns |= {"ef_mae": False, "ef_pearson_r": True}
    values = {name: [row[name] for row in ranked if math.isfinite(row[name])] for name in columns}
    return {name: (max if better else min)(values[name]) for name, better in columns.items() if len(values[name]) > 1}


def _rounded(value: Any, digits: int = 4) -> Any:
    """Numbers for JSON: short, undefined as null."""
    if isinstance(value, np.ndarray):
        return [_rounded(item, digits) for item in value.tolist()]
    return round(value, digits) if math.isfinite(value) else None
