"""Phantom downloads of TED for the converter's tests.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.ted import Ted
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.phantom import cine as phantom_cine
from nnunet_echo.phantom.heart import Section

pytest_plugins = ("camus_download",)  # its fixture raw

PATIENTS, SPACING_MM = 6, 3.0
TED, TED_FRAMES = "Dataset761_TED", "Dataset762_TEDFrames"


def plain_picture(section: Section, x: ndarray, y: ndarray, frame: int, spacing_mm: float) -> ndarray:
    """An image quickly drawn in which pixels of a row, rows and frames differ: for what is not about the picture."""
    rows, columns = np.indices(np.broadcast_shapes(x.shape, y.shape))
    return (4 + (7 * rows + 5 * columns + 11 * frame) % 200).astype(np.uint8)


@pytest.fixture(scope="session")
def pristine_ted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with cines of plain pictures."""
    folder = tmp_path_factory.mktemp("pristine_ted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_cine, "ultrasound", plain_picture)
        write_ted(folder, PATIENTS, 3, spacing_mm=SPACING_MM)
    return folder


@pytest.fixture
def ted(pristine_ted: Path, raw: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage, with nnU-Net's folders set."""
    return shutil.copytree(pristine_ted, tmp_path / "ted")


def convert_ted(source: Path, *, raw: Path | None = None, workers: int = 1, **options: object) -> Report:
    return Ted(**options).convert(source, raw=raw, workers=workers)
