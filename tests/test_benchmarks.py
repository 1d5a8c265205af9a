"""The benchmarks are run by hand, but what they take from the package and from each other has to be there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where a dataclass looks for its module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_can_be_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "scan_numba":
        pytest.importorskip("numba")
    assert loaded(path, monkeypatch).__doc__


def test_the_budget_trains_by_default_what_the_page_of_results_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = loaded(FOLDER / "camus_budget.py", monkeypatch)
    page = (FOLDER.parent / "docs" / "records" / "results.md").read_text()
    assert set(re.findall(r"^\| (nnUNetTrainer\w+)", page, re.MULTILINE)) == {budget.STOCK, *budget.TRAINERS}
