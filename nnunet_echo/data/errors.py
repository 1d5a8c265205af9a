"""The error of a file that cannot be used, and what is put into messages: names of any kind, long lists."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_BREAKING = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control, half a pair (a byte that is not UTF-8), line ends


class SourceError(ValueError):
    """A source file that cannot become a case. The message names the file, what is wrong and what to do.

    >>> raise SourceError("patient0001_4CH_ED.nii.gz: 0 x 0 pixels. Unpack the download again.")
    Traceback (most recent call last):
        ...
    nnunet_echo.data.errors.SourceError: patient0001_4CH_ED.nii.gz: 0 x 0 pixels. Unpack the download again.
    """


def printable(text: object) -> str:
    r"""`text`, a name or a path, for a line of a message or of a file: what would break it, escaped.

    That is control characters, and bytes that are not UTF-8, which Python has as \udc80 to \udcff.

    >>> printable("a\x1bb")
    'a\\x1bb'
    """
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) in _BREAKING else sign for sign in str(text))


def is_utf8(text: object) -> bool:
    r"""Whether a name or a path is text that can be written in UTF-8.

    >>> is_utf8("caf\udce9")
    False
    """
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def times(numbers: Sequence[float]) -> str:
    """A size or a spacing as it is read aloud.

    >>> times((112, 0.5))
    '112 x 0.5'
    """
    return " x ".join(f"{number:g}" for number in numbers)


def some(items: Sequence[object], limit: int = 5) -> str:
    """The first `limit` of `items`, and how many more there are.

    >>> some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    first = ", ".join(map(str, items[:limit]))
    return f"{first} and {len(items) - limit} more" if len(items) > limit else first
