"""Names that a spreadsheet would take for formulas."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from evaluated_phantom import compare, hearts

from nnunet_echo.data.tables import read_rows, read_table, write_rows

pytest_plugins = ("camus_download", "evaluated_phantom")
TEXTS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''@x",
    "'",
    "'a",
    "a=1",
    "a\rb",
    "a\nb",
    'a"b,c',
    "",
    "-1.5",
    "+2",
    "-inf",
    "=",
    "-",
    "ä",
    "'-1",
]


def test_no_text_in_a_table_is_a_formula(tmp_path: Path) -> None:
    """And reading gives back what was written."""
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [["=name", "n"], *([text, -1.5] for text in TEXTS)])
    with path.open(encoding="utf-8", newline="") as file:
        raw = list(csv.reader(file))
    for text, _ in raw:
        assert text[:1] not in tuple("=+-@\t\r") or text in ("-1.5", "+2")
    assert {number for _, number in raw[1:]} == {"-1.5"}
    assert {"-1.5", "+2", "'-inf", "'=1+1", "''=1"} <= {text for text, _ in raw}
    with path.open(encoding="utf-8", newline="") as file:
        assert read_rows(file) == [{"=name": text, "n": "-1.5"} for text in TEXTS]
    header, read = read_table(path, ["n"])
    assert (header, [row["=name"] for _, row in read]) == (["=name", "n"], TEXTS)


def test_names_and_structures_that_would_be_formulas(tmp_path: Path) -> None:
    folder = hearts(
        tmp_path / "names",
        {"=cmd_4CH_ED": 46, "=cmd_4CH_ES": 36, "-x_4CH_f1_a": 40, "-x_4CH_f2_b": 40},
        labels={"background": 0, "LV": 1, "@MYO": 2},
    )
    compare(folder, folder).write(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.csv"):
        with path.open(newline="") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert re.fullmatch(r"-[\d.e-]+", cell) or cell[:1] not in tuple("=+-@\t\r")
        with path.open(newline="") as file:
            assert {row["patient"] for row in read_rows(file)} <= {"=cmd", "-x"}
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert {row["structure"] for row in read_rows(file)} == {"LV", "@MYO"}
