"""The leaderboard compares on the same patients: ranks, tests and ejection fractions, in tables, page and plots."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from leaderboard_study import ABSENT, MISSED, SPURIOUS, case_row, numbers_board

from nnunet_echo.cli.leaderboard import _screen
from nnunet_echo.evaluation.agreement import ef_errors_penalised
from nnunet_echo.evaluation.metrics import METRICS
from nnunet_echo.evaluation.summary import summarise_volumes
from nnunet_echo.leaderboard import figures, tables
from nnunet_echo.leaderboard.board import Board, case_scores
from nnunet_echo.leaderboard.cells import p_value
from nnunet_echo.leaderboard.markdown import markdown
from nnunet_echo.leaderboard.report import report_data, write_report
from nnunet_echo.leaderboard.tables import leaderboard_rows, summary, write_tables
from nnunet_echo.leaderboard.values import scored_values
from nnunet_echo.nnunet.logs import Training, read_training

HONEST, QUITTER = "nnUNetTrainer", "nnUNetTrainerQuitter"
EF = {f"p{number}": 40.0 + 3 * number for number in range(10)}
HARD = ("p0", "p1", "p2", "p3", "p4")
NAN = math.nan


class _Table(HTMLParser):
    """Cells of the first table with a heading to sort by: text, value and class of each."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.cell, self.done = [], None, False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr" and not self.done:
            self.rows.append([])
        if tag in ("td", "th") and not self.done:
            self.cell = {"text": "", "value": "", "class": "", "title": ""}
            self.cell |= {name.removeprefix("data-"): value or "" for name, value in attributes}
            self.rows[-1].append(self.cell)

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell["text"] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = None
        self.done |= tag == "table"


def page_cells(board: Board, out: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Trainer -> heading -> cell of the page; the second of two equal headings, those of HD95, ends in " 2"."""
    write_report(board, out)
    parser = _Table()
    parser.feed((out / "index.html").read_text())
    _, head, *body = parser.rows
    names: list[str] = []
    for cell in head:
        text = cell["text"].strip()
        names.append(f"{text} 2" if text in names else text)
    return {row[1]["title"]: dict(zip(names, row, strict=True)) for row in body}


def with_errors(errors: dict[str, float]) -> dict[str, dict[str, float]]:
    return {patient: {"ef": EF[patient] + error} for patient, error in errors.items()}


@pytest.fixture
def giving_up(tmp_path: Path) -> Board:
    """Both are 6 points off in the easy patients; in the hard ones the one is 16 off, the other finds no LV."""
    easy = {patient: 6.0 for patient in EF if patient not in HARD}
    return numbers_board(
        tmp_path,
        {
            HONEST: with_errors(easy | dict.fromkeys(HARD, -16.0)),
            QUITTER: with_errors(easy) | {patient: {"ef": NAN, "LV": MISSED} for patient in HARD},
        },
        reference_ef=EF,
        baseline=HONEST,
    )


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
        trainings={HONEST: Training(epochs=1), odd: Training(epochs=2)},
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
            {HONEST: Training(epochs=1), QUITTER: Training(epochs=2)},
            (HONEST, QUITTER),
            f"{HONEST} 1 x 250, {QUITTER} 2 x 250",
        ),
        (
            {HONEST: Training(epochs=2, iterations=250), QUITTER: Training(epochs=2, iterations=8)},
            (HONEST, QUITTER),
            f"{HONEST} 2 x 250, {QUITTER} 2 x 8",
        ),
        (
            {},
            (f"{HONEST}_5epochs", f"{HONEST}_5epochs_20iterations", QUITTER),
            f"{HONEST}_5epochs 5 x 250, {HONEST}_5epochs_20iterations 5 x 20, {QUITTER} not known",
        ),
        ({HONEST: Training(epochs=2), QUITTER: Training(epochs=2)}, (HONEST, QUITTER), ""),
        ({HONEST: Training(epochs=2)}, (HONEST, QUITTER), ""),
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


def test_rows_are_computed_once(giving_up: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tables and report together; and the cases of a structure are looked up, not searched for each column."""
    calls = []
    describe = tables.describe
    monkeypatch.setattr(tables, "describe", lambda *given: calls.append(1) or describe(*given))
    write_tables(giving_up, tmp_path)
    assert (once := len(calls)) > 0
    write_report(giving_up, tmp_path)
    assert len(calls) == once
