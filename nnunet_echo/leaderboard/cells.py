"""The words of a cell, in the page and in leaderboard.md: numbers, counts of misses and flags."""

from __future__ import annotations

import math

from nnunet_echo.evaluation.output import Row
from nnunet_echo.evaluation.sequences import SIDES
from nnunet_echo.leaderboard.board import Board


def missed(board: Board, row: Row) -> int | str:
    """Structures of dataset.json that the prediction lacks and the reference has, over all frames; "" without any."""
    return sum(row[f"{name}_n_missing"] for name in board.scored_structures) if row["cases"] else ""


def flagged(row: Row) -> str:
    """How many patients have an EF that is not to be trusted, and the flags of predictions and references."""
    flags = "; ".join(f"{side}: {row[f'ef_{side}_flags']}" for side in SIDES if row[f"ef_{side}_flags"])
    return f"{row['ef_n_flagged']} ({flags})" if flags else str(row["ef_n_flagged"]) if row["ef_patients"] else ""


def p_value(value: float) -> str:
    """With four digits after the point; a small one is never 0; "" where undefined.

    >>> p_value(0.04), p_value(1e-9)
    ('0.0400', '< 0.0001')
    """
    return "< 0.0001" if value < 0.0001 else number(value, 4)


def number(value: float, digits: int) -> str:
    """The value with so many digits after the point; "" where undefined.

    >>> number(0.91234, 2)
    '0.91'
    """
    return f"{value:.{digits}f}" if known(value) else ""


def known(value: object) -> bool:
    """Whether a cell has a number.

    >>> known(3), known(math.nan), known("")
    (True, False, False)
    """
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
