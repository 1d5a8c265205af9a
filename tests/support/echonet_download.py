"""Phantom downloads of EchoNet-Dynamic for the converter's tests, and what the tests do with them.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.echonet import EchoNetDynamic
from nnunet_echo.dataset_conversion.echonet.phantom import PhantomVideo, echonet_video, write_echonet

pytest_plugins = ("camus_download",)  # its fixture raw

VIDEOS, SEED, ODD = 12, 18, 4
CASES = 2 * (VIDEOS - ODD)  # the four oddities cost a video each
DATASET = "Dataset752_EchoNetDynamic"
COMMAND = (sys.executable, "-m", "nnunet_echo.cli.main", "convert", "echonet")
FIRST = echonet_video(SEED, 1)  # a TRAIN video without oddity
Change = Callable[[list[str]], list[str]]


@pytest.fixture(scope="session")
def pristine_echonet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantom videos, the last four odd, one of the others a TEST video."""
    folder = tmp_path_factory.mktemp("pristine_echonet")
    write_echonet(folder, VIDEOS, SEED, workers=1)
    return folder


@pytest.fixture
def echonet(pristine_echonet: Path, raw: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage, with nnU-Net's folders set."""
    return shutil.copytree(pristine_echonet, tmp_path / "echonet")


def regular_videos() -> list[PhantomVideo]:
    return [echonet_video(SEED, number) for number in range(1, VIDEOS - ODD + 1)]


def convert(source: Path, **options: object) -> Report:
    """Convert with one worker; `options` are the reader's or those of its method `convert`."""
    target = {name: options.pop(name) for name in ("dataset_id", "raw", "workers", "replace") if name in options}
    return EchoNetDynamic(**options).convert(source, **{"workers": 1, **target})


def lines_of(source: Path, frame: int, name: str = FIRST.name) -> list[list[float]]:
    """The rows x1 y1 x2 y2 of one traced frame, read from the table anew."""
    with (source / "VolumeTracings.csv").open(newline="") as file:
        return [
            [float(row[key]) for key in ("X1", "Y1", "X2", "Y2")]
            for row in csv.DictReader(file)
            if row["FileName"] == f"{name}.avi" and int(row["Frame"]) == frame
        ]


def change_rows(table: str, change: Change, name: str = FIRST.name, frame: int | None = None) -> Callable[[Path], None]:
    """A damage: `change` gets the rows of a video, or of one of its traced frames, and returns others."""

    def apply(source: Path) -> None:
        path = source / table
        rows = path.read_text().splitlines()
        chosen = [
            index
            for index, row in enumerate(rows)
            if row.startswith(name) and (frame is None or row.endswith(f",{frame}"))
        ]
        rows[chosen[0] : chosen[-1] + 1] = change([rows[index] for index in chosen])
        path.write_text("".join(f"{row}\n" for row in rows))

    return apply
