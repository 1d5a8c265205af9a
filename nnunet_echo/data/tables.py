"""Tables and numbers as people write them: read with care, nothing guessed.

A spreadsheet takes text that begins with one of = + - @, a tab or a carriage return for a formula. Our tables have an
apostrophe before such text, and before what has apostrophes before such; numbers stay as they are. All tables of ours
are written by `write_rows`, and read by functions that take it away.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV to a file that was opened with newline=""; the text of no field is a formula."""
    # csv quotes the characters that end its lines: with both, a carriage return in a field comes back as it was.
    table = csv.writer(_Lines(file), lineterminator="\r\n")
    table.writerows([_guarded(value) for value in row] for row in rows)


def read_rows(file: TextIO) -> list[dict[str, str]]:
    """The rows that `write_rows` wrote after a header, as header -> field."""
    return [{_text(name): _text(value) for name, value in row.items()} for row in csv.DictReader(file)]


class _Lines:
    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> None:
        self.file.write(line.removesuffix("\r\n") + "\n")


def _guarded(value: object) -> object:
    formula = isinstance(value, str) and _FORMULA.match(value) and not (value[0] in "+-" and finite(value) is not None)
    return f"'{value}" if formula else value


def _text(field: Any) -> Any:
    """What `_guarded` was given. Surplus and missing fields of a row are not text, and stay."""
    return field[1:] if isinstance(field, str) and field[:1] == "'" and _FORMULA.match(field) else field


def read_table(path: Path, required: Sequence[str]) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    r"""The header of a CSV file, and its rows, one by one, with the number of the line where each ends.

    A row with more or fewer fields than the header keeps only its first; the others are empty. Raises `ValueError` for
    a file that cannot be read and a header without the columns `required`, at once or when that line is reached.

    >>> _ = Path("patients.csv").write_text("patient,ef\np1,55\np2,61\n")
    >>> header, rows = read_table(Path("patients.csv"), required=("patient",))
    >>> header, list(rows)
    (['patient', 'ef'], [(2, {'patient': 'p1', 'ef': '55'}), (3, {'patient': 'p2', 'ef': '61'})])
    """
    try:
        # Bytes that are not UTF-8 stay visible, in the names and numbers that they spoil.
        file = path.open(encoding="utf-8-sig", errors="backslashreplace", newline="")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}).") from error
    rows = _rows(path, file)
    _, header = next(rows, (0, []))
    header = [text.strip() for text in header]
    missing = [name for name in required if header.count(name) != 1]
    if missing:
        raise ValueError(
            f"{path}: its first line must name the columns {', '.join(required)}, separated by "
            f"commas, in UTF-8; {', '.join(missing)} is not there, or twice."
        )
    empty = [""] * (len(header) - 1)
    return header, (
        (line, dict(zip(header, row if len(row) == len(header) else [row[0], *empty], strict=True)))
        for line, row in rows
    )


def _rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file)
    with file:
        try:
            yield from ((reader.line_num, [_text(field) for field in row]) for row in reader if row)
        except (csv.Error, OSError) as error:
            where = f"{path}, line {reader.line_num}"
            raise ValueError(f"{where}: cannot be read ({error}). Copy the file again.") from error


def number_between(text: str, low: float, high: float) -> float | None:
    """The number in `text`, which may have a decimal comma or a percent sign, if it lies between the two.

    >>> number_between("55,5 %", 0, 100), number_between("155", 0, 100)
    (55.5, None)
    """
    value = finite(text.replace(",", ".").rstrip("% "))
    return value if value is not None and low <= value <= high else None


def whole_number(text: str) -> int | None:
    """The whole number in `text`, from 0 to what a float can tell from its neighbours, 2**53.

    >>> whole_number("12"), whole_number("12.0"), whole_number("-1"), whole_number("1e300")
    (12, 12, None, None)
    """
    value = finite(text)
    return int(value) if value is not None and 0 <= value < 2**53 and value.is_integer() else None


def finite(text: str) -> float | None:
    """The number in `text`, neither infinite nor NaN.

    >>> finite("1.5"), finite("nan"), finite("many")
    (1.5, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None  # to Python 1_0 is 10
