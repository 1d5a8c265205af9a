"""What the command `leaderboard` writes about the study, for several test modules.

They load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from leaderboard_study import set_folders

from nnunet_echo.cli.main import main
from nnunet_echo.evaluation.metrics import METRICS
from nnunet_echo.leaderboard import figures

PATIENTS, CASES = 6, 24


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(out: Path, *options: str) -> None:
    assert main(["leaderboard", "751", "-o", str(out), "--workers", "1", *options]) == 0


@pytest.fixture(scope="session")
def tables(whole_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes about the whole study."""
    with pytest.MonkeyPatch.context() as patch:
        set_folders(whole_study, patch)
        patch.setattr(figures, "shown_metrics", lambda _: [METRICS["dice"]])  # one of five that are alike
        out = tmp_path_factory.mktemp("tables")
        run(out, "--figures")
    return out
