"""What the figures of a board show: points, lines, areas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from leaderboard_study import numbers_board
from page_cells import EF, HONEST, QUITTER, with_errors

from nnunet_echo.leaderboard import figures
from nnunet_echo.leaderboard.board import Board

pytest_plugins = ("page_cells",)


def test_an_absurd_ejection_fraction_does_not_squeeze_the_plots(tmp_path: Path) -> None:
    board = numbers_board(
        tmp_path, {HONEST: with_errors(dict.fromkeys(EF, 5.0)) | {"p0": {"ef": -1000.0}}}, reference_ef=EF
    )
    scatter, bland = figures._ejection_fraction(board, ["a"]).axes[:2]
    for panel in (scatter, bland):
        assert "triangles: 1 beyond the axes" in panel.get_xlabel()
        assert sum(len(points.get_offsets()) for points in panel.collections) == 10
        assert max(np.abs(panel.get_xlim()).max(), np.abs(panel.get_ylim()).max()) < 140
    calm = figures._ejection_fraction(
        replace(board, entries=[numbers_board(tmp_path, {HONEST: {}}, reference_ef=EF).entries[0]]), ["a"]
    )
    assert "beyond" not in "".join(panel.get_xlabel() for panel in calm.axes)


def test_points_and_lines_of_the_figures(giving_up: Board) -> None:
    """Prediction over reference; prediction minus reference over their mean, with bias and limits of 1.96 sd."""
    figure = figures._ejection_fraction(giving_up, ["a", "b"])
    for entry, scatter, bland in zip(giving_up.entries, figure.axes[::2], figure.axes[1::2], strict=True):
        pairs = np.array(
            [(row["reference_ef_percent"], row["prediction_ef_percent"]) for row in entry.evaluation.patients]
        )
        reference, prediction = pairs[np.isfinite(pairs).all(axis=1)].T
        error = prediction - reference
        for panel, x, y in ((scatter, reference, prediction), (bland, (reference + prediction) / 2, error)):
            shown = [tuple(point) for points in panel.collections for point in points.get_offsets().tolist()]
            np.testing.assert_allclose(sorted(shown), sorted(zip(x, y, strict=True)))
        (diagonal,) = scatter.lines
        assert (diagonal.get_xy1(), diagonal.get_slope()) == ((50, 50), 1)
        reach = 1.96 * error.std(ddof=1)
        lines = [float(line.get_ydata()[0]) for line in bland.lines]
        assert lines == pytest.approx([0, error.mean(), error.mean() - reach, error.mean() + reach])
        assert [line.get_linestyle() for line in bland.lines[1:]] == ["-", "--", "--"]


def test_dots_of_the_ranks_are_shares(tmp_path: Path) -> None:
    models = {HONEST: {}, QUITTER: {"p0": {"LV": 0.1}, "p1": {"LV": 0.95}}, "nnUNetTrainerC": {"p2": {"LV": 0.2}}}
    board = numbers_board(tmp_path, models, reference_ef=EF)
    (dots,) = figures._ranks(board.ranking, ["a", "b", "c"]).axes[0].collections
    found = {
        (int(model), int(rank) - 1): size
        for (rank, model), size in zip(dots.get_offsets(), dots.get_sizes(), strict=True)
    }
    shares = board.ranking.shares
    assert len(found) == np.count_nonzero(shares) > 3
    for place, size in found.items():
        assert size == pytest.approx(found[0, 0] * shares[place] / shares[0, 0])  # area, not radius
