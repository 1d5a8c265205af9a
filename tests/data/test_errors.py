"""Names of any kind and long lists, as messages have them."""

from __future__ import annotations

import pytest

from nnunet_echo.data.errors import is_utf8, printable, some


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("database/patient0001", "database/patient0001"),
        ("Zürich/患者 1\u3000a\u00a0b", "Zürich/患者 1\u3000a\u00a0b"),  # their own spaces break nothing
        ("caf\udce9", r"caf\udce9"),
        ("a\nb\x1b[31m\x7f", r"a\nb\x1b[31m\x7f"),
        ("a\u2028b\u2029\x85", r"a\u2028b\u2029\x85"),
    ],
)
def test_a_name_fits_on_a_line_of_a_file(name: str, expected: str) -> None:
    assert printable(name) == expected
    assert len(printable(name).splitlines()) == 1 and is_utf8(printable(name))


def test_which_names_are_utf8() -> None:
    assert is_utf8("Zürich\n") and not is_utf8("caf\udce9")


def test_some_of_a_list() -> None:
    assert some([]) == ""
    assert some([1, 2, 3], limit=3) == "1, 2, 3"
    assert some("abcdefgh") == "a, b, c, d, e and 3 more"
