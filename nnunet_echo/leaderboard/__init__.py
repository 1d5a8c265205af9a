"""Every trainer of a dataset side by side: one table, its statistics, and a report to look at.

collect      which trainers have results, on which folds of which split, and what of that may be compared
statistics   patient bootstrap, paired tests, ranks and how stable they are
values       a model's evaluation, patient by patient
comparisons  every ranked model against the baseline
board        all of it together: one row for each trainer
tables       the files; markdown has the text of leaderboard.md, cells the words of a cell, there and in the page
report       index.html: everything on one page that needs no network; page/ has its template, style and scripts
figures      its plots as PDF and PNG

Python makes the attribute `leaderboard` of the package this module as soon as anything in here is imported, so that
it can be called, too: `nnunet_echo.leaderboard(751)` is `board.leaderboard(751)`, which says how.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_echo.leaderboard.board import Board


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Board:
        from nnunet_echo.leaderboard.board import leaderboard

        return leaderboard(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
leaderboard = sys.modules[__name__]  # as the contents page, nnunet_echo/__init__.py, asks for it
