"""Files of results: tables as CSV, numbers that JSON has, and whose files a folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_echo.data.tables import write_rows

# Column -> text or number. Any, because columns depend on the structures, the unit and the metrics.
Row = dict[str, Any]


def write_results(out: Path, summary: Row, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write summary.json and the tables that have rows to the folder `out`, made if need be.

    Tables that have none, of an earlier run, are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    # First, for it says whose the tables are.
    (out / "summary.json").write_text(json.dumps(without_nan(summary), indent=2) + "\n", encoding="utf-8")
    for name, rows in tables.items():
        if rows:
            write_table(out / f"{name}.csv", rows)
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same keys as CSV: the keys first, six digits of a float, an empty field for NaN."""
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [rows[0], *([_field(value) for value in row.values()] for row in rows)])


def without_nan(value: object) -> object:
    """The same with None in place of every NaN in dicts, for JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def check_free(out: Path, names: Iterable[str], command: str, mark: str) -> None:
    """Raise `ValueError` where one of the files `names` is in `out`, unless the same command wrote it.

    It did where summary.json has the key `mark`.
    """
    there = [name for name in names if (out / name).exists()]
    if there and mark not in _summary(out):
        raise ValueError(
            f"{out / there[0]}: is there already, and not by {command}, whose summary.json would have "
            f"{mark!r}; it is not replaced. Choose another folder with -o, or move it elsewhere."
        )


def _summary(out: Path) -> Mapping[str, object]:
    try:
        content = json.loads((out / "summary.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _field(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
