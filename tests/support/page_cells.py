"""Boards of numbers alone, and the cells of their page.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from leaderboard_study import MISSED, numbers_board

from nnunet_echo.leaderboard.board import Board
from nnunet_echo.leaderboard.report import write_report

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
