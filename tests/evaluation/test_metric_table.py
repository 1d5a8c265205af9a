"""docs/reference/metrics.md has every row of the table of metrics, and the how-to's row is all that a new one needs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from leaderboard_study import BASELINE, GOOD, Study

from nnunet_echo.cli.leaderboard import add_arguments
from nnunet_echo.evaluation import metrics
from nnunet_echo.evaluation.evaluate import evaluate
from nnunet_echo.evaluation.metrics import METRICS, Shown
from nnunet_echo.leaderboard.board import leaderboard
from nnunet_echo.leaderboard.comparisons import compare_with_baseline
from nnunet_echo.leaderboard.figures import write_figures
from nnunet_echo.leaderboard.report import report_data, write_report
from nnunet_echo.leaderboard.tables import write_tables

pytest_plugins = ("camus_download", "leaderboard_study")
DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "metrics.md").read_text()
HOW_TO = (DOCS / "how-to" / "metric.md").read_text()
NAME = "area_error"


def cells(table: str) -> list[list[str]]:
    """Of the rows of a Markdown table whose head begins so."""
    body = REFERENCE[REFERENCE.index(table) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in body]


def test_the_reference_defines_every_metric_with_its_unit() -> None:
    defined = {}
    for names, *others in cells("| column | definition | unit | source |"):
        defined |= dict.fromkeys(re.findall(r"`(\w+)`", names), others)
    found = [name for name in defined if name in {metric.column("mm") for metric in METRICS.values()}]
    assert found == [metric.column("mm") for metric in METRICS.values()]
    for metric in METRICS.values():
        definition, unit, source = defined[metric.column("mm")]
        assert (unit, bool(definition), bool(source)) == (metric.unit("mm"), True, True)


def test_the_reference_says_how_every_metric_is_read() -> None:
    assert cells("| metric | title |") == [
        [
            f"`{metric.name}`",
            metric.title,
            "higher" if metric.higher_is_better else "lower",
            "yes" if metric.counts_misses else "no",
            f"`{metric.shown.name}`",
        ]
        for metric in METRICS.values()
    ]


def test_the_how_to_explains_every_field() -> None:
    fields = {
        name for row in re.findall(r"^\| (`.*?) \|", HOW_TO, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert fields == set(metrics.Metric.__dataclass_fields__)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> metrics.Metric:
    """The row of the page, in the table; seen in every place."""
    (row,) = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
    metric = eval(row, vars(metrics))
    assert (metric.name, metric.shown) == (NAME, Shown.PLOT)
    monkeypatch.setitem(METRICS, NAME, metric)
    return metric


def test_its_row_is_all_that_evaluate_needs(added: metrics.Metric, tmp_path: Path) -> None:
    reference = np.zeros((20, 30), np.uint8)
    reference[5:15, 5:15] = 1
    for side, labels in (
        ("references", reference),
        ("predictions", np.where(np.arange(20)[:, None] < 12, reference, 0)),
    ):
        (tmp_path / side).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / side / "a.nii.gz"))
    evaluation = evaluate(tmp_path / "predictions", tmp_path / "references", labels=["LV=1"])
    assert evaluation.cases[0][NAME] == pytest.approx(0.3)  # 7 of 10 rows
    assert evaluation.summary["structures"]["LV"]["all"][NAME]["mean"] == pytest.approx(0.3)
    empty = np.zeros((20, 30), bool)
    for pair, expected in (((empty, reference > 0), 1), ((reference > 0, empty), 1), ((empty, empty), np.nan)):
        assert metrics.mask_metrics(*pair, (1.0, 1.0))[NAME] == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow
def test_its_row_is_all_that_the_leaderboard_needs(added: metrics.Metric, study: Study, tmp_path: Path) -> None:
    """GOOD is shifted, so that its areas are right; the baseline's are too small."""
    board = leaderboard("751", trainers=[GOOD, BASELINE], folds=[0], rank_by=NAME)
    assert [entry.model.name for entry in board.entries] == [GOOD, BASELINE]
    assert (board.score, board.comparisons[0]["metric"]) == (NAME, NAME)
    assert board.scores[:, 0].mean() < 0.02 < board.scores[:, 1].mean()
    write_tables(board, tmp_path)
    assert f"LV_{NAME}_mean" in (tmp_path / "leaderboard.csv").read_text().splitlines()[0].split(",")
    (plot,) = (plot for plot in report_data(board, ["a", "b"])["metrics"] if plot["name"] == added.title)
    assert plot["better"] is False
    assert tmp_path / f"boxes_{NAME}.pdf" in write_figures(board, tmp_path)


def test_the_command_offers_it(added: metrics.Metric) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["751", "-o", "out", "--rank-by", NAME]).rank_by == NAME


def test_a_metric_of_the_table_s_head_is_tested_and_explained(
    monkeypatch: pytest.MonkeyPatch, study: Study, tmp_path: Path
) -> None:
    """HD95 where misses count is the one of these that has a sentence; an area with a unit joins it."""
    area = metrics.Metric(
        "area_gap", "Gap", 2, False, True, lambda pair: float(abs(pair.fp - pair.fn)), Shown.TEST, note="as drawn"
    )
    monkeypatch.setitem(METRICS, "area_gap", area)
    board = leaderboard("751", trainers=[GOOD, BASELINE], folds=[0], baseline=BASELINE)
    write_tables(board, tmp_path)
    write_report(board, tmp_path)
    text, page = ((tmp_path / name).read_text() for name in ("leaderboard.md", "index.html"))
    assert "| Dice LV | Dice MYO |" in text and "| HD95 LV, mm |" in text and "| Gap LV, mm2 |" in text
    assert "HD95: a missed structure counts with the diagonal of the frame. Gap: as drawn. Missed:" in text
    heads = re.findall(r'<th colspan="(\d)">([^<]*)</th>', page)
    assert [head for head in heads if head[1].startswith(("Dice", "HD95", "Gap"))] == [
        ("4", "Dice"),
        ("4", "HD95, mm"),
        ("5", "Gap, mm2"),  # and the column of misses
    ]
    rows = compare_with_baseline(
        board.entries, BASELINE, "dice", board.scores, board.dataset, board.patients, board.weights
    )
    assert [row["metric"] for row in rows if row["structure"] == "LA"] == ["dice", "hd95_penalised_mm", "area_gap_mm2"]
