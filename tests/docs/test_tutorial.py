"""The tutorial: its cells are Python and commands, what they gave is stored in it, and the whole of it runs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.ipynb"
# What a toy size takes in place of what the notebook says.
TOY = {
    "--patients 20": "--patients 10",
    "--features 16 128": "--features 4 8 --steps 1",
    "_5epochs_40iterations": "_1epochs_2iterations",
}


def code_cells() -> list[dict]:
    return [cell for cell in json.loads(TUTORIAL.read_text())["cells"] if cell["cell_type"] == "code"]


def test_every_cell_is_python_or_commands() -> None:
    cells = code_cells()
    assert len(cells) >= 10
    for cell in cells:
        source = "".join(cell["source"])
        assert source.startswith("!") or ast.parse(source)
        if source.startswith("!"):  # nothing else beside: a reader can type it into a terminal
            assert all(line.startswith("!") for line in source.replace("\\\n", " ").splitlines()), source


def test_what_the_cells_gave_is_stored_and_is_of_no_machine() -> None:
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    text = "".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs)
    assert "cases converted" in text and "an epoch" in text and "dice" in text and "rank" in text
    assert not re.search(r"(?<!\w)/(tmp|home|root|work|usr|private|Users)/|Traceback|\x1b|\r", text)
    assert TUTORIAL.stat().st_size < 400_000


def test_output_is_shown_as_a_terminal_would() -> None:
    pytest.importorskip("nbclient")
    from run_notebook import tidy_text

    text = "a:  0%|  | 0/9\ra: 100%|##| 9/9\r\n\x1b[31mred\x1b[0m\n"
    text += "/lib/x.py:3: FutureWarning: old\n  f()\n/tmp/y/out.csv\n2026-01-31 09:05:59.123456: Validation complete\n"
    assert tidy_text(text, Path("/tmp/y")) == "a: 100%|##| 9/9\nred\nout.csv\nValidation complete\n"


@pytest.mark.slow
@pytest.mark.nnunet
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    from run_notebook import run

    text = TUTORIAL.read_text()
    for words, toy in TOY.items():
        assert words in text
        text = text.replace(words, toy)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    run(notebook, tmp_path)
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    tables = [output.data["text/plain"] for cell in outputs for output in cell if "text/html" in output.get("data", {})]
    assert len(tables) == 3
    assert "LV_EPI" in tables[0] and "reference_ef_percent" in tables[1]
    assert all(f"nnUNetTrainer{name}_1epochs" in tables[2] for name in ("UMambaBot", "NoMamba"))
    assert (tmp_path / "tutorial" / "leaderboard" / "index.html").is_file()
