"""Copies of the small downloads that a test may damage, and the damages that several tests do.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hard_ground import Undamaged

pytest_plugins = ("hard_ground",)


Get = Callable[[str], Undamaged]
Damage = Callable[[Path], object]


@pytest.fixture
def copy(undamaged: Get, raw: Path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(undamaged(name).folder, raw.parent / "source")


def report_of(raw: Path) -> dict:
    (path,) = raw.glob("*/conversion_report.json")
    return json.loads(path.read_text())


def rename(old: str, new: str) -> Damage:
    return lambda source: (source / old).rename(source / new)


def copied(old: str, new: str) -> Damage:
    return lambda source: (shutil.copytree if (source / old).is_dir() else shutil.copy)(source / old, source / new)


def write(name: str) -> Damage:
    return lambda source: (source / name).write_bytes(b"x")
