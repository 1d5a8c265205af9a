"""What a fold's training started from: on the command line, on record, in words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nnunet_echo.nnunet.pretrained import (
    NOT_ON_RECORD,
    RECORD,
    file_given,
    in_words,
    keep_pretrained,
    pretrained_of,
    same_start,
    source_of_any,
)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ([], None),
        (["751", "2d", "0", "-p", "plans", "--npz"], None),
        (["751", "-pretrained_weights", "a.pth", "--npz"], "a.pth"),
        (["-p", "plans", "-pretrained_weights=a=b.pth"], "a=b.pth"),
        (["-pretrained_weights"], None),
        (["-p", "-pretrained", "a.pth"], None),
        (["-", "--", "pretrained_weights", "a.pth"], None),
    ],
)
def test_the_option_as_nnunet_takes_it(arguments: list[str], file: str | None) -> None:
    assert file_given(arguments) == (file and Path(file))


def test_the_record_is_written_read_and_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "start.pth"
    file.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    keep_pretrained(tmp_path, None)  # nothing there
    assert pretrained_of(tmp_path) is None
    assert source_of_any(file) == {"file": "start.pth", "sha256": sha256, "layout": "", "given": sha256}
    source = source_of_any(file, {"file": "vmamba.pth", "sha256": "ab" * 32, "layout": "VMamba v0"})
    assert source["given"] == sha256
    keep_pretrained(tmp_path, source)
    assert pretrained_of(tmp_path) == source
    assert in_words(source) == "VMamba v0, vmamba.pth, SHA-256 abababababab"
    keep_pretrained(tmp_path, None)
    assert not (tmp_path / RECORD).exists()


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", '{"sha256": ""}'])
def test_a_record_without_a_hash_is_no_start_from_random_weights(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    source = pretrained_of(tmp_path)
    assert source is not None and in_words(source) == NOT_ON_RECORD


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, None, True),
        ({}, {}, True),
        (None, {}, False),
        ({}, {"sha256": "a", "given": "b"}, False),
        ({"sha256": "a", "given": "b"}, {"sha256": "a", "given": "c"}, True),  # made twice of one release
        ({"sha256": "a", "given": "b"}, {"sha256": "b", "given": "b"}, True),  # one file, with and without its origin
        ({"sha256": "a", "given": "b"}, {"sha256": "c", "given": "d"}, False),
        ({"sha256": "a", "given": ""}, {"sha256": "c", "given": ""}, False),
    ],
)
def test_which_starts_are_the_same(one: dict | None, other: dict | None, same: bool) -> None:
    assert same_start(one, other) is same_start(other, one) is same
