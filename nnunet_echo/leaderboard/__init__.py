"""Every trainer of a dataset side by side: one table, its statistics, and a report to look at.

collect      which trainers have results, on which folds of which split, and what of that may be compared
statistics   patient bootstrap, paired tests, ranks and how stable they are
board        all of it together: one row for each trainer
tables       leaderboard.csv and leaderboard.md
pictures     images and outlines, small enough for one file
report       index.html: everything on one page that needs no network
figures      its plots as PDF and PNG

Python makes the attribute `leaderboard` of the package this module as soon as anything in here is imported, so that
it can be called, too: `nnunet_echo.leaderboard(751)` is `board.leaderboard(751)`, which says how.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_echo.leaderboard.board import Board


class _CallableModule(ModuleType):
    def __call__(self, *args: object, **options: object) -> Board:
        from nnunet_echo.leaderboard.board import leaderboard

        return leaderboard(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
leaderboard = sys.modules[__name__]  # as the contents page, nnunet_echo/__init__.py, asks for it
