"""What a fold's training started from: on the command line, on record, in words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nnunet_echo.nnunet.pretrained import (
    NOT_ON_RECORD,
    RECORD,
    file_given,
    hash_of_file,
    in_words,
    keep_pretrained,
    pretrained_of,
    source_of_any,
)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ([], None),
        (["751", "2d", "0", "-p", "plans", "--npz"], None),
        (["751", "-pretrained_weights", "a.pth", "--npz"], "a.pth"),
        (["-p", "plans", "-pretrained_weights=a=b.pth"], "a=b.pth"),
        (["-pr", "a.pth"], "a.pth"),
        (["-pretrained_weights"], None),
        (["-p", "-pretrained"], None),
        (["-", "--", "pretrained_weights", "a.pth"], None),
    ],
)
def test_the_option_as_nnunet_takes_it(arguments: list[str], file: str | None) -> None:
    assert file_given(arguments) == (file and Path(file))


def test_the_record_is_written_read_and_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "vmamba.pth"
    file.write_bytes(b"weights")
    keep_pretrained(tmp_path, None)  # nothing there
    assert pretrained_of(tmp_path) == ""
    source = {**source_of_any(file), "layout": "VMamba v0"}
    assert source["sha256"] == hashlib.sha256(b"weights").hexdigest()
    keep_pretrained(tmp_path, source)
    assert pretrained_of(tmp_path) == in_words(source) == f"VMamba v0, vmamba.pth, SHA-256 {hash_of_file(file)[:12]}"
    keep_pretrained(tmp_path, None)
    assert not (tmp_path / RECORD).exists()


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", '{"sha256": ""}'])
def test_a_record_without_a_hash_is_no_start_from_random_weights(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    assert pretrained_of(tmp_path) == NOT_ON_RECORD
