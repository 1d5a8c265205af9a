"""The error of a file that cannot be used, and names as they can be printed."""

from __future__ import annotations


class SourceError(ValueError):
    """A source file that cannot become a case. The message names the file, what is wrong and what to do."""


def printable(name: str) -> str:
    r"""The name with bytes that are no UTF-8 as \udc.., so that it can be printed and written to a report."""
    return name.encode("utf-8", "backslashreplace").decode()
