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

RECORD = "pretrained.json"  # in the folder of a fold: {"file": name, "sha256": of it, "layout": what kind it is}
OPTION = "-pretrained_weights"
NOT_ON_RECORD = "weights that are not on record"
UNRECORDED = "random weights (nothing on record)"


def file_given(arguments: Sequence[str]) -> Path | None:
    """The file of pretrained weights among the arguments of nnUNetv2_train, whose option may be shortened.

    >>> file_given(["751", "2d", "0", "-p", "nnUNetPlans", "-pretrained", "vmamba.pth"]).name
    'vmamba.pth'
    """
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, _, attached = argument.partition("=")
        if OPTION.startswith(name) and len(name) > len("-p"):  # -p is the plans
            value = attached or following
            return Path(value) if value else None
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


def source_of_any(file: Path) -> dict[str, str]:
    """The record of a file about whose origin nothing is known."""
    return {"file": file.name, "sha256": hash_of_file(file), "layout": ""}


def keep_pretrained(folder: Path, source: Mapping[str, str] | None) -> None:
    """Write the record of a training that starts in `folder`; None, for random weights, leaves none there."""
    if source is None:
        (folder / RECORD).unlink(missing_ok=True)
    else:
        replace_file(folder / RECORD, json.dumps({**source}, indent=1))


def pretrained_of(folder: Path) -> str:
    """What the fold in `folder` started from, in words; "" for random weights, and where nothing is on record."""
    if not (folder / RECORD).exists():
        return ""
    source = read_json(folder / RECORD)
    return in_words(source if isinstance(source, dict) else {})


def in_words(source: Mapping[str, str]) -> str:
    """A record in words.

    >>> in_words({"file": "vmamba.pth", "sha256": "0123456789abcdef", "layout": "VMamba v0"})
    'VMamba v0, vmamba.pth, SHA-256 0123456789ab'
    """
    layout, file, sha256 = (str(source.get(key) or "") for key in ("layout", "file", "sha256"))
    return ", ".join(filter(None, [layout, file, f"SHA-256 {sha256[:12]}"])) if sha256 else NOT_ON_RECORD
