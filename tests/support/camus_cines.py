"""CAMUS's half sequences of three phantom patients, and their conversion to 3D cases.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import array
from camus_download import convert as convert_camus

from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.camus.phantom import write_camus

pytest_plugins = ("echonet_download",)


PATIENTS, SPACING_MM = 3, 3.0
REVERSED = "patient0002_2CH"  # in this seed
CINE, MASK = "patient0001_4CH_half_sequence.nii.gz", "patient0001_4CH_half_sequence_gt.nii.gz"
Damage = Callable[[Path], object]


@pytest.fixture(scope="session")
def pristine_cines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cines")
    write_camus(folder, PATIENTS, 0, spacing_mm=SPACING_MM)
    return folder


@pytest.fixture
def cines(pristine_cines: Path, raw: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage, with nnU-Net's folders set."""
    return shutil.copytree(pristine_cines, tmp_path / "cines")


def convert(source: Path, **options: object) -> Report:
    return convert_camus(source, mode="half_sequence", **options)


def case_arrays(report: Report, case: str, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    part = "Ts" if row["split"] == "ts" else "Tr"
    return (
        array(report.folder / f"images{part}" / f"{case}_0000.nii.gz"),
        array(report.folder / f"labels{part}" / f"{case}.nii.gz"),
    )


def source_arrays(source: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The cine and its masks as the release has them, ED first."""
    cine = source / row["source"]
    pair = array(cine), array(Path(str(cine).replace(".nii.gz", "_gt.nii.gz")))
    reverse = cine.name.startswith(REVERSED)
    return tuple(frames[::-1] if reverse else frames for frames in pair)


def array_frames(path: Path) -> list[sitk.Image]:
    return [sitk.GetImageFromArray(frame) for frame in array(path)]
