"""Values of DICOM tags as plain numbers. What is no number where one is needed counts as missing.

pydicom converts a value when it is asked for it, raises whatever comes of damaged bytes, and quotes them in warnings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nnunet_echo.data.quiet import quietly

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def value(dataset: Dataset, keyword: str) -> Any:
    """The value of a tag, or None where it is missing, empty or cannot be read."""
    try:
        with quietly():
            return dataset.get(keyword)
    except Exception:  # as above: pydicom converts a value when it is asked for it
        return None


def text(dataset: Dataset, keyword: str) -> str:
    """The value of a tag as text, for comparisons; empty where there is none."""
    found = value(dataset, keyword)
    return "" if found is None else str(found)


def numbers(dataset: Dataset, keyword: str) -> list[float] | None:
    """The numbers of a tag; None where it is missing or one of them is no number."""
    found = value(dataset, keyword)
    if found is None or found == "":
        return None
    try:
        several = hasattr(found, "__iter__") and not isinstance(found, str)
        return [float(item) for item in (found if several else [found])]
    except (TypeError, ValueError):
        return None


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first number of a tag; None where there is none."""
    found = numbers(dataset, keyword)
    return found[0] if found and math.isfinite(found[0]) else None


def pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """The two numbers of a tag; None where there are not two."""
    found = numbers(dataset, keyword)
    return (found[0], found[1]) if found and len(found) == 2 else None


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int | None:
    """The first number of a tag, None where it is not a whole one, `default` where the tag is missing or empty."""
    if value(dataset, keyword) in (None, ""):
        return default
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None
