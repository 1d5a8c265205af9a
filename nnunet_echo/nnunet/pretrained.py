"""The weights that the training of a fold started from: kept beside its results, shown in the leaderboard.

nnU-Net keeps no record of ``-pretrained_weights``, and one folder has the folds that began with weights and those that
began without. Standard library only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_echo.nnunet.folders import replace_file
from nnunet_echo.nnunet.logs import read_json

RECORD = "pretrained.json"  # in the folder of a fold, see `source_of_any`
OPTION = "-pretrained_weights"
NOT_ON_RECORD = "weights that are not on record"
UNRECORDED = "random weights (nothing on record)"

# "file", "sha256" and "layout" of what was released; "given", the SHA-256 of the file that the training got
Source = Mapping[str, str]


def file_given(arguments: Sequence[str]) -> Path | None:
    """The file of pretrained weights among the arguments of nnUNetv2_train.

    >>> file_given(["751", "2d", "0", "-pretrained_weights", "vmamba.pth"]).name
    'vmamba.pth'
    """
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, _, attached = argument.partition("=")
        if name == OPTION and (value := attached or following):
            return Path(value)
    return None


def hash_of_file(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    >>> import os
    >>> hash_of_file(Path(os.devnull))[:12]
    'e3b0c44298fc'
    """
    digest = hashlib.sha256()  # hashlib.file_digest is of Python 3.11
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def source_of_any(file: Path, released: Source | None = None) -> Source:
    """The record of a file; what was `released` is the file itself where nothing else is known."""
    sha256 = hash_of_file(file)
    return {**(released or {"file": file.name, "sha256": sha256, "layout": ""}), "given": sha256}


def keep_pretrained(folder: Path, source: Source | None) -> None:
    """Write the record of a training that starts in `folder`; None, for random weights, leaves none there."""
    if source is None:
        (folder / RECORD).unlink(missing_ok=True)
    else:
        replace_file(folder / RECORD, json.dumps({**source}, indent=1))


def pretrained_of(folder: Path) -> Source | None:
    """The record of the fold in `folder`; None for random weights, and where nothing is on record."""
    if not (folder / RECORD).exists():
        return None
    content = read_json(folder / RECORD)
    return {key: str(value) for key, value in content.items()} if isinstance(content, dict) else {}


def same_start(one: Source | None, other: Source | None) -> bool:
    """Whether two trainings started from the same release, or the same file.

    >>> same_start(None, None), same_start(None, {"sha256": "01"}), same_start({"sha256": "01"}, {"sha256": "01"})
    (True, False, True)
    """
    if not one or not other:  # None, or {} for a file that nobody knows
        return one == other
    return any(one.get(key) and one.get(key) == other.get(key) for key in ("sha256", "given"))


def in_words(source: Source) -> str:
    """A record in words.

    >>> in_words({"file": "vmamba.pth", "sha256": "0123456789abcdef", "layout": "VMamba v0"})
    'VMamba v0, vmamba.pth, SHA-256 0123456789ab'
    """
    sha256 = source.get("sha256", "")
    parts = source.get("layout"), source.get("file"), f"SHA-256 {sha256[:12]}"
    return ", ".join(filter(None, parts)) if sha256 else NOT_ON_RECORD
