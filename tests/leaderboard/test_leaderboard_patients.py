"""The leaderboard compares on the same patients and frames, and says what differs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from leaderboard_study import ABSENT, MISSED, SPURIOUS, case_row, numbers_board
from page_cells import EF, HONEST, NAN, QUITTER, page_cells, with_errors

from nnunet_echo.cli.leaderboard import _screen
from nnunet_echo.evaluation.metrics import METRICS
from nnunet_echo.leaderboard import figures, tables
from nnunet_echo.leaderboard.board import Board, case_scores
from nnunet_echo.leaderboard.cells import p_value
from nnunet_echo.leaderboard.markdown import markdown
from nnunet_echo.leaderboard.report import write_report
from nnunet_echo.leaderboard.tables import leaderboard_rows, write_tables
from nnunet_echo.leaderboard.values import scored_values
from nnunet_echo.nnunet.logs import TrainingLog, read_training

pytest_plugins = ("page_cells",)


def test_a_structure_that_is_nowhere_is_right(tmp_path: Path) -> None:
    """The LA of p0 is not in the reference. Who finds none there keeps the patient, in whom the LV is bad."""
    board = numbers_board(
        tmp_path,
        {
            HONEST: {},
            "nnUNetTrainerBad": {"p0": {"LV": 0.01, "LA": ABSENT}},
            "nnUNetTrainerSeesMore": {"p0": {"LA": SPURIOUS}},
        },
        reference_ef=EF,
        baseline=HONEST,
    )
    scores = {entry.model.name: board.scores[0, index] for index, entry in enumerate(board.entries)}
    assert scores["nnUNetTrainerBad"] == pytest.approx((0.01 + 0.9 + 1) / 3)
    assert scores["nnUNetTrainerSeesMore"] == pytest.approx((0.9 + 0.9 + 0) / 3)
    assert [entry.model.name for entry in board.entries] == [HONEST, "nnUNetTrainerBad", "nnUNetTrainerSeesMore"]
    assert np.isfinite(board.scores).all()
    assert "nan" not in _screen(board)
    rows = leaderboard_rows(board)
    assert {row["score_n"] for row in rows} == {10}
    assert {row["LA_dice_n"] for row in rows} == {9, 10}  # of a structure, undefined stays undefined
    assert {row["n"] for row in board.comparisons} == {10}
    (test,) = (
        row
        for row in board.comparisons
        if row["structure"] == "LA" and row["metric"] == "hd95_penalised_mm" and row["trainer"] == "nnUNetTrainerBad"
    )
    assert test["difference"] == pytest.approx(-10 / 10)  # a distance of 0 in p0, of 10 with all others
    cells = page_cells(board, tmp_path)
    assert {row["LA"]["class"] for row in cells.values()} == {row["LA 2"]["class"] for row in cells.values()} == {""}
    assert [row["LV"]["class"] for row in cells.values()] == ["best", "", "best"]


def test_the_frames_of_a_patient_are_the_same_for_all(tmp_path: Path) -> None:
    board = numbers_board(tmp_path, {HONEST: {}}, reference_ef=EF)
    entry = replace(board.entries[0])  # nothing is looked up yet
    entry.evaluation.cases.append(case_row("p0", "LA", ABSENT, "p0_ES"))
    for metric, expected in (("dice", (0.9 + 1) / 2), ("hd95_penalised", 10 / 2)):
        assert scored_values(entry, "LA", METRICS[metric], board.dataset, list(EF))[0] == pytest.approx(expected)


def test_missed_structures_are_counted_once(tmp_path: Path) -> None:
    """A blank frame lacks LV, MYO and LA; LV_EPI is made of two of them. What is seen too much is not missed."""
    blank = dict.fromkeys(("LV", "MYO", "LA", "LV_EPI"), MISSED)
    board = numbers_board(
        tmp_path,
        {HONEST: {"p0": blank}, QUITTER: {"p1": {"MYO": MISSED}, "p2": {"LA": SPURIOUS}, "p3": {"LA": SPURIOUS}}},
        reference_ef=EF,
    )
    cells = page_cells(board, tmp_path)
    assert (cells[HONEST]["missed"]["text"], cells[QUITTER]["missed"]["text"]) == ("3", "1")
    assert cells[QUITTER]["missed"]["title"].split() == ["LV", "0", "MYO", "1", "LA", "0"]
    (honest,) = (index for index, entry in enumerate(board.entries) if entry.model.name == HONEST)
    assert board.scores[:2, honest] == pytest.approx([0, 0.9])
    text = markdown(board, leaderboard_rows(board))
    head, _, *lines = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert {line[1]: line[head.index("missed")] for line in lines} == {HONEST: "3", QUITTER: "1"}


def test_numbers_of_the_table_in_the_page(tmp_path: Path) -> None:
    """EF 10 points too high on the average: sd, rmse and the sign tell each other apart."""
    errors = {patient: 10.0 + (-1) ** number * 2 for number, patient in enumerate(EF)}
    board = numbers_board(
        tmp_path,
        {
            HONEST: with_errors(errors),
            QUITTER: with_errors({"p0": 5.0}) | {patient: {"LV": 0.5} for patient in list(EF)[1:]},
        },
        reference_ef=EF,
        baseline=HONEST,
    )
    for entry, found in zip(board.entries, ((3, 8), (5, 1)), strict=True):
        entry.evaluation.sequences.append(
            {"frames": 10, "prediction_inconsistent_frames": found[0], "reference_inconsistent_frames": found[1]}
        )
    cells = page_cells(board, tmp_path)
    bias = cells[HONEST]["bias ± sd"]
    assert float(bias["value"]) == pytest.approx(10)
    assert bias["text"].split() == ["+10.0", "±", f"{np.std(list(errors.values()), ddof=1):.1f}", "(10", "of", "10)"]
    assert [cells[name]["MAE"]["class"] for name in (HONEST, QUITTER)] == ["", "best"]  # the smaller one
    assert [cells[name]["MAE, penalised"]["class"] for name in (HONEST, QUITTER)] == ["", "best"]
    assert float(cells[QUITTER]["LV 2"]["value"]) == pytest.approx((10 + 9 * 50) / 10)  # penalised: 100 (1 - Dice)
    assert [cells[name]["motion"]["value"] for name in (HONEST, QUITTER)] == ["0.3", "0.5"]
    assert "nan" not in re.sub(r"<script.*?</script>", "", (tmp_path / "index.html").read_text(), flags=re.DOTALL)


def test_names_are_text_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end no cell of the Markdown, begin no tag, and no formula of a plot."""
    odd = r"nnUNetTrainer|$\frac$<b>x*"
    board = numbers_board(
        tmp_path,
        {HONEST: {}, odd: {"p0": {"LV": 0.5}}},
        reference_ef=EF,
        baseline=HONEST,
        trainings={HONEST: TrainingLog(epochs=1), odd: TrainingLog(epochs=2)},
    )
    text = markdown(board, leaderboard_rows(board))
    escaped = r"nnUNetTrainer\|\$\\frac\$\<b\>x\*"
    assert text.count(escaped) == 2  # the row, and the sentence on lengths
    assert odd not in text
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}) == 1
    monkeypatch.setattr(figures, "shown_metrics", lambda _: [])
    figures.write_figures(board, tmp_path)
    assert (tmp_path / "ejection_fraction.png").is_file()


def test_a_small_p_is_not_zero(tmp_path: Path) -> None:
    many = {f"p{number:02d}": 50.0 for number in range(40)}
    board = numbers_board(
        tmp_path,
        {HONEST: {}, QUITTER: {patient: {"LV": 0.5 + number / 200} for number, patient in enumerate(many)}},
        reference_ef=many,
        baseline=HONEST,
    )
    assert 0 < board.comparisons[0]["p_holm"] < 5e-5
    cell = page_cells(board, tmp_path)[QUITTER]["p"]
    assert cell["text"] == "< 0.0001"
    assert float(cell["value"]) == board.comparisons[0]["p_holm"]
    text = markdown(board, leaderboard_rows(board))
    assert " < 0.0001 |" in text
    assert "0.0000" not in text
    assert [p_value(p) for p in (0.04, 0.0001, 0.00009, NAN)] == ["0.0400", "0.0001", "< 0.0001", ""]


@pytest.mark.parametrize(
    ("trainings", "names", "words"),
    [
        (
            {HONEST: TrainingLog(epochs=1), QUITTER: TrainingLog(epochs=2)},
            (HONEST, QUITTER),
            f"{HONEST} 1 x 250, {QUITTER} 2 x 250",
        ),
        (
            {HONEST: TrainingLog(epochs=2, iterations=250), QUITTER: TrainingLog(epochs=2, iterations=8)},
            (HONEST, QUITTER),
            f"{HONEST} 2 x 250, {QUITTER} 2 x 8",
        ),
        (
            {},
            (f"{HONEST}_5epochs", f"{HONEST}_5epochs_20iterations", QUITTER),
            f"{HONEST}_5epochs 5 x 250, {HONEST}_5epochs_20iterations 5 x 20, {QUITTER} not known",
        ),
        ({HONEST: TrainingLog(epochs=2), QUITTER: TrainingLog(epochs=2)}, (HONEST, QUITTER), ""),
        ({HONEST: TrainingLog(epochs=2)}, (HONEST, QUITTER), ""),
    ],
)
def test_trainings_of_different_lengths_are_named(
    trainings: dict, names: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    board = numbers_board(tmp_path, {name: {} for name in names}, reference_ef=EF, trainings=trainings)
    write_tables(board, tmp_path)
    write_report(board, tmp_path)
    texts = [
        _screen(board),
        (tmp_path / "leaderboard.md").read_text(),
        (tmp_path / "index.html").read_text(),
        str(json.loads((tmp_path / "summary.json").read_text())["different_training_lengths"]),
    ]
    for text in texts:
        assert (f"(epochs x iterations): {words}." in text) == bool(words)
        assert ("different lengths" in text) == bool(words)


def test_iterations_are_read_where_all_folds_agree(tmp_path: Path) -> None:
    for fold, content in enumerate(({"num_iterations_per_epoch": "8"}, {"num_iterations_per_epoch": 8}, {})):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "debug.json").write_text(json.dumps(content))
    folders = sorted(tmp_path.iterdir())
    assert read_training(folders[:2]).iterations == 8
    assert math.isnan(read_training(folders).iterations)


def test_the_score_of_a_frame_leaves_lv_epi_out(tmp_path: Path) -> None:
    dice = {"LV": 0.8, "MYO": 0.6, "LA": 0.7, "LV_EPI": 0.1}
    board = numbers_board(tmp_path, {HONEST: {"p0": dice}}, reference_ef=EF)
    assert case_scores(board, board.entries[0], ["p0_ED", "p9_ES"]) == pytest.approx([0.7, NAN], nan_ok=True)


def test_rows_are_computed_once(giving_up: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tables and report together; and the cases of a structure are looked up, not searched for each column."""
    calls = []
    describe = tables.describe
    monkeypatch.setattr(tables, "describe", lambda *given: calls.append(1) or describe(*given))
    write_tables(giving_up, tmp_path)
    assert (once := len(calls)) > 0
    write_report(giving_up, tmp_path)
    assert len(calls) == once
