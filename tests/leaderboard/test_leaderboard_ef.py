"""EF in tables, page and plots: of the same patients; the missing ones and the doubtful ones are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from leaderboard_study import numbers_board
from page_cells import EF, HARD, HONEST, NAN, QUITTER, page_cells, with_errors

from nnunet_echo.evaluation.agreement import ef_errors_penalised
from nnunet_echo.evaluation.summary import summarise_volumes
from nnunet_echo.leaderboard import figures
from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.markdown import markdown
from nnunet_echo.leaderboard.report import report_data, write_report
from nnunet_echo.leaderboard.tables import leaderboard_rows, summary

pytest_plugins = ("page_cells",)


def test_giving_up_does_not_pay(giving_up: Board, tmp_path: Path) -> None:
    rows = {row["trainer"]: row for row in leaderboard_rows(giving_up)}
    assert (rows[HONEST]["ef_n"], rows[QUITTER]["ef_n"]) == (10, 5)
    assert rows[HONEST]["ef_patients"] == rows[QUITTER]["ef_patients"] == 10
    assert (rows[HONEST]["ef_mae"], rows[QUITTER]["ef_mae"]) == pytest.approx((11, 6))
    assert rows[HONEST]["ef_mae_penalised"] == pytest.approx(11)  # nobody is left out
    worst = [max(EF[patient], 100 - EF[patient]) for patient in HARD]
    assert rows[QUITTER]["ef_mae_penalised"] == pytest.approx((5 * 6 + sum(worst)) / 10)
    text = markdown(giving_up, list(rows.values()))
    assert "| -5.0 ± 11.6 (10 of 10) | 11.0 (10 of 10) | 11.0 (10 of 10) |" in text
    assert "| 6.0 ± 0.0 (5 of 10) | 6.0 (5 of 10) |" in text
    cells = page_cells(giving_up, tmp_path)
    for column in ("bias ± sd", "MAE", "r"):
        assert [cells[name][column]["class"] for name in (HONEST, QUITTER)] == ["", ""]
        assert "(10 of 10)" in cells[HONEST][column]["text"]
        assert "(5 of 10)" in cells[QUITTER][column]["text"]
    penalised = [cells[name]["MAE, penalised"] for name in (HONEST, QUITTER)]
    assert [cell["class"] for cell in penalised] == ["best", ""]
    assert all("(10 of 10)" in cell["text"] for cell in penalised)
    tests = {row["metric"]: row for row in giving_up.comparisons if row["structure"] == "EF"}
    assert (tests["absolute_error"]["n"], tests["absolute_error"]["difference"]) == (5, 0)
    assert tests["absolute_error_penalised"]["n"] == 10
    assert tests["absolute_error_penalised"]["difference"] == pytest.approx(np.mean(worst) / 2 - 8)


@pytest.fixture
def doubted(tmp_path: Path) -> Board:
    """p0 to p3 of the quitter are flagged, p3 without an EF; p5 has other flags; p6 has a doubtful reference."""
    flags = {
        "p0": "cut_4CH_ED cut_2CH_ES",
        "p1": "base_doubtful_4CH_ES",
        "p2": "coarse_2CH_ED cut_2CH_ED",
        "p3": "cut_4CH_ED empty_2CH_ED",
        "p5": "missing_2CH unused_A4C",
    }
    of = {patient: {"ef": EF[patient] + 5, "flags": found} for patient, found in flags.items()}
    of["p3"]["ef"] = NAN
    reference = {"p6": {"reference_flags": "base_from_outline_4CH_ED"}}
    return numbers_board(tmp_path, {HONEST: reference, QUITTER: of | reference}, reference_ef=EF)


def test_an_ef_not_to_be_trusted_is_marked_wherever_it_is_shown(doubted: Board, tmp_path: Path) -> None:
    rows = {row["trainer"]: row for row in leaderboard_rows(doubted)}
    assert (rows[HONEST]["ef_n_flagged"], rows[QUITTER]["ef_n_flagged"]) == (1, 4)
    assert (rows[HONEST]["ef_prediction_flags"], rows[QUITTER]["ef_prediction_flags"]) == (
        "",
        "base_doubtful 1, coarse 1, cut 2",
    )
    assert {row["ef_reference_flags"] for row in rows.values()} == {"base_from_outline 1"}
    words = "4 (prediction: base_doubtful 1, coarse 1, cut 2; reference: base_from_outline 1)"
    text = markdown(doubted, list(rows.values()))
    assert f" | {words} | " in text and " | 1 (reference: base_from_outline 1) | " in text
    cells = page_cells(doubted, tmp_path)
    assert [(cells[name]["flagged"]["text"], cells[name]["flagged"]["title"]) for name in (HONEST, QUITTER)] == [
        ("1", "1 (reference: base_from_outline 1)"),
        ("4", words),
    ]
    index = [entry.model.name for entry in doubted.entries].index(QUITTER)
    data = report_data(doubted, ["a", "b"])["ef"][index]
    assert {patient: flags for patient, _, _, flags in data if flags} == {
        "p0": "prediction: cut",
        "p1": "prediction: base_doubtful",
        "p2": "prediction: cut, coarse",
        "p6": "reference: base_from_outline",
    }
    figure = figures._ejection_fraction(doubted, ["a", "b"])
    assert "9 of 10 patients, 4 flagged" in figure.axes[2 * index].get_title()
    assert "10 of 10 patients, 1 flagged" in figure.axes[2 - 2 * index].get_title()
    for panel in figure.axes[2 * index : 2 * index + 2]:
        hollow = [points for points in panel.collections if len(points.get_facecolor()) == 0]
        assert sum(len(points.get_offsets()) for points in hollow) == 4
        assert sum(len(points.get_offsets()) for points in panel.collections) == 9


def test_nothing_is_marked_where_nothing_is_flagged(giving_up: Board, tmp_path: Path) -> None:
    assert {cells["flagged"]["text"] for cells in page_cells(giving_up, tmp_path).values()} == {"0"}
    assert "flagged" not in figures._ejection_fraction(giving_up, ["a", "b"]).axes[0].get_title()
    without = numbers_board(tmp_path, {HONEST: {}}, reference_ef=dict.fromkeys(EF, NAN))
    assert page_cells(without, tmp_path)[HONEST]["flagged"]["text"] == "–"


def test_no_answer_costs_as_much_as_the_worst_one() -> None:
    reference = np.linspace(0, 100, 41)
    without = ef_errors_penalised(np.full(41, NAN), reference)
    for answer in (0.0, 25.0, reference.mean(), 100.0):
        assert (without >= ef_errors_penalised(np.full(41, answer), reference)).all()
    assert without.min() == 50 and without.max() == 100
    assert ef_errors_penalised([30.0, NAN, 30.0], [45.0, 20.0, NAN]) == pytest.approx([15, 80, NAN], nan_ok=True)
    row = {"planes": "biplane", "prediction_flags": "", "reference_flags": "", "recorded_ef_percent": NAN}
    row |= {f"{side}_{name}": 1.0 for side in ("prediction", "reference") for name in ("edv_ml", "esv_ml")}
    found = summarise_volumes(
        [
            row | {"prediction_ef_percent": x, "reference_ef_percent": y}
            for x, y in ((30.0, 45.0), (NAN, 20.0), (30.0, NAN))
        ]
    )["biplane"]["ef_percent"]
    assert (found["n"], found["mae"], found["n_reference"], found["mae_penalised"]) == (1, 15, 2, (15 + 80) / 2)


def mixed_planes(folder: Path, biplane: int) -> Board:
    """Of ten patients so many are biplane; the quitter has no EF in most of these."""
    planes = {patient: "biplane" if number < biplane else "single-plane 4CH" for number, patient in enumerate(EF)}
    errors = {patient: -4.0 if planes[patient] == "biplane" else 9.0 for patient in EF}
    quit_in = [patient for patient in EF if planes[patient] == "biplane"][1:]
    return numbers_board(
        folder,
        {HONEST: with_errors(errors), QUITTER: with_errors(errors) | {patient: {"ef": NAN} for patient in quit_in}},
        reference_ef=EF,
        planes=planes,
        baseline=HONEST,
    )


@pytest.mark.parametrize(
    ("biplane", "planes", "bias"), [(6, "biplane", -4), (5, "biplane", -4), (4, "single-plane 4CH", 9)]
)
def test_one_kind_of_planes_for_all(
    biplane: int, planes: str, bias: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = mixed_planes(tmp_path, biplane)
    number = biplane if planes == "biplane" else 10 - biplane
    rows = leaderboard_rows(board)
    for row in rows:
        assert (row["ef_planes"], row["ef_patients"]) == (planes, number)
        assert row["ef_patients_of_other_planes"] == 10 - number
        assert row["ef_bias"] == pytest.approx(bias)
    assert rows[0]["ef_n"] == number
    assert summary(board)["ef_planes"] == planes
    assert planes in markdown(board, rows)
    data = report_data(board, ["a", "b"])
    for row, shown in zip(rows, data["ef"], strict=True):
        assert len(shown) == number
        assert sum(prediction is not None for _, _, prediction, _ in shown) == row["ef_n"]
    patient, reference, prediction, _ = data["ef"][0][0]
    assert (reference, prediction) == (EF[patient], EF[patient] + bias)  # in this order
    write_report(board, tmp_path)
    assert f"Ejection fraction, {planes}" in (tmp_path / "index.html").read_text()
    assert f"{10 - number} patients with other planes" in (tmp_path / "index.html").read_text()
    figure = figures._ejection_fraction(board, ["a", "b"])
    assert f"{number} of {number} patients" in figure.axes[0].get_title()
    assert f"bias {bias:.1f}" in figure.axes[1].get_title()
    assert planes in figure.axes[0].get_xlabel()
    tests = {row["metric"]: row["n"] for row in board.comparisons if row["structure"] == "EF"}
    assert tests == {"absolute_error": rows[1]["ef_n"], "absolute_error_penalised": number}
