"""The report's plots as PDF and PNG, for papers: boxes of every metric, ranks, ejection fraction, image quality.

The same board gives the same bytes. Colours and fonts are those of `drawing.style`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from nnunet_echo.drawing.style import BLUE, EF_SHOWN, FIGURE_STYLE, GREY, GRID, RED, short_names
from nnunet_echo.evaluation.agreement import agreement
from nnunet_echo.evaluation.metrics import Metric, Shown, shown_metrics
from nnunet_echo.leaderboard.board import Board, case_scores, image_quality
from nnunet_echo.leaderboard.collect import COMPLETE, REFUSED
from nnunet_echo.leaderboard.statistics import Ranking
from nnunet_echo.leaderboard.values import ef_doubts, ef_rows, ejection_fractions, values_of


def write_figures(board: Board, out: Path) -> list[Path]:
    """Write the figures to the folder `out`, made if need be; the paths of the PDF files, each with a PNG beside it.

    What a board has no values for is left out: ranks of one model, EF without ED and ES, quality that is not known.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = [entry for entry in board.entries if entry.model.status != REFUSED]
    names = short_names([entry.model.name for entry in board.entries])[: len(shown)]
    names = [
        name if entry.model.status == COMPLETE else f"{name} ({entry.model.status})"
        for name, entry in zip(names, shown, strict=True)
    ]
    if not shown:
        return []
    with matplotlib.rc_context(FIGURE_STYLE):
        figures = {f"boxes_{metric.name}": _boxes_of(board, names, metric) for metric in shown_metrics(Shown.PLOT)}
        if board.ranking and len(board.ranking.ranks) > 1:
            figures["ranks"] = _ranks(board.ranking, names)
        if any(np.isfinite(row["prediction_ef_percent"]) for entry in shown for row in ef_rows(entry, board.ef_planes)):
            figures["ejection_fraction"] = _ejection_fraction(board, names)
        cases = sorted({row["case"] for entry in shown for row in entry.evaluation.cases})
        quality = np.array(image_quality(board, cases))
        if (quality != "").any():
            figures["quality"] = _quality(board, names, cases, quality)
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.pdf", metadata={"CreationDate": None})
            figure.savefig(out / f"{name}.png", dpi=300)
    return [out / f"{name}.pdf" for name in figures]


def _boxes_of(board: Board, names: Sequence[str], metric: Metric) -> Figure:
    """One panel for each structure."""
    structures = list(board.dataset.structures)
    figure, panels = _panels(len(structures), 2, 0.6 + 0.22 * len(names))
    for panel, structure in zip(panels, structures, strict=True):
        _boxes(
            panel,
            names,
            [
                values_of(entry, structure, metric.column(board.dataset.unit), board.patients)
                for entry, _ in zip(board.entries, names, strict=False)
            ],
        )
        panel.set_title(structure, fontsize=9)
        panel.set_xlabel(metric.axis(board.dataset.unit))
    return figure


def _ranks(ranking: Ranking, names: Sequence[str]) -> Figure:
    shares = ranking.shares
    figure, (panel,) = _panels(1, 1, 0.7 + 0.3 * len(shares))
    model, place = np.nonzero(shares)
    panel.scatter(place + 1, model, s=260 * shares[model, place], color=BLUE, alpha=0.6, linewidths=0)
    panel.set(
        xticks=range(1, len(shares) + 1),
        yticks=range(len(shares)),
        yticklabels=names[: len(shares)],
        xlabel="rank (area: share of bootstrap samples of patients)",
        ylim=(len(shares) - 0.4, -0.6),
    )
    return figure


def _ejection_fraction(board: Board, names: Sequence[str]) -> Figure:
    """For each model, prediction against reference, and their difference against their mean; on the same axes.

    Of the patients of the tables. What lies beyond `EF_SHOWN` is drawn at the edge, as a triangle, and counted;
    patients whose EF is flagged are hollow, and counted.
    """
    figure, panels = _panels(2 * len(names), 2, 2.4)
    for index, panel in enumerate(panels[2:]):
        panel.sharex(panels[index % 2])
        panel.sharey(panels[index % 2])
    for index, (entry, name) in enumerate(zip(board.entries, names, strict=False)):
        scatter, bland = panels[2 * index : 2 * index + 2]
        prediction, reference = ejection_fractions(entry, board.patients, board.ef_planes)
        statistics = agreement(prediction, reference)
        doubtful = {row["patient"] for row in ef_rows(entry, board.ef_planes) if any(ef_doubts(row).values())}
        flagged = np.array([patient in doubtful for patient in board.patients])
        beyond = [
            _points(scatter, reference, prediction, "value", flagged),
            _points(bland, (reference + prediction) / 2, prediction - reference, "error", flagged),
        ]
        scatter.axline((50, 50), slope=1, color=GREY, linewidth=0.8)
        scatter.set(xlabel=f"reference EF, {board.ef_planes}, %{beyond[0]}", ylabel="predicted EF, %")
        scatter.set_title(
            f"{name}: r = {statistics['pearson_r']:.3f}, MAE {statistics['mae']:.1f}, "
            f"{statistics['n']} of {np.isfinite(reference).sum()} patients"
            + f", {len(doubtful)} flagged"
            * bool(doubtful),
            fontsize=8,
        )
        bland.axhline(0, color=GREY, linewidth=0.8)
        for value, style in (("bias", "-"), ("loa_low", "--"), ("loa_high", "--")):
            if EF_SHOWN["error"][0] <= statistics[value] <= EF_SHOWN["error"][1]:
                bland.axhline(statistics[value], color=RED, linestyle=style, linewidth=1)
        bland.set(xlabel=f"mean of both, %{beyond[1]}", ylabel="prediction − reference, points")
        bland.set_title(
            f"bias {statistics['bias']:.1f}, limits {statistics['loa_low']:.1f} to {statistics['loa_high']:.1f}",
            fontsize=8,
        )
    return figure


def _points(panel: Axes, x: ndarray, y: ndarray, kind: str, hollow: ndarray) -> str:
    """Draw them; the words for the label of the axis where some are beyond."""
    defined = np.isfinite(x) & np.isfinite(y)
    x, y, hollow = x[defined], y[defined], hollow[defined]
    shown_x, shown_y = np.clip(x, *EF_SHOWN["value"]), np.clip(y, *EF_SHOWN[kind])
    beyond = (shown_x != x) | (shown_y != y)
    for which, size, marker, colour, alpha in ((~beyond, 10, "o", BLUE, 0.5), (beyond, 16, "^", RED, 1)):
        for part, fill, line in ((which & ~hollow, colour, 0.0), (which & hollow, "none", 0.8)):
            panel.scatter(
                shown_x[part],
                shown_y[part],
                s=size,
                marker=marker,
                alpha=alpha,
                facecolors=fill,
                edgecolors=colour,
                linewidths=line,
            )
    if not beyond.any():
        return ""
    return f" (triangles: {beyond.sum()} beyond the axes)"


def _quality(board: Board, names: Sequence[str], cases: Sequence[str], quality: ndarray) -> Figure:
    grades = sorted(set(quality.tolist()) - {""}, key=lambda grade: ("Good Medium Poor".find(grade), grade))
    figure, panels = _panels(len(names), 3, 0.7 + 0.25 * len(grades))
    for panel, entry, name in zip(panels, board.entries, names, strict=False):
        scores = case_scores(board, entry, cases)
        _boxes(panel, grades, [scores[quality == grade] for grade in grades])
        panel.set_title(name, fontsize=8)
        panel.set_xlabel("mean Dice of a frame")
    return figure


def _boxes(panel: Axes, names: Sequence[str], groups: Sequence[ndarray]) -> None:
    """A row for each group: quartiles, whiskers of 1.5 boxes, and every value."""
    defined = [group[np.isfinite(group)] for group in groups]
    panel.boxplot(
        defined,
        orientation="horizontal",
        positions=range(len(names)),
        widths=0.55,
        showfliers=False,
        medianprops={"color": RED, "linewidth": 1.4},
        boxprops={"linewidth": 0.8},
    )
    for row, values in enumerate(defined):
        spread = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.5
        panel.scatter(np.sort(values), row + spread, s=5, color=BLUE, alpha=0.4, linewidths=0)
    panel.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    panel.grid(axis="x", color=GRID)
    panel.set_axisbelow(True)


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each `height` inches high; as wide as two columns of a page."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(7.1 if columns > 1 else 4.5, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for panel in axes[count:]:
        panel.set_axis_off()
    return figure, axes[:count]
