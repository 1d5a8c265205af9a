"""Phantom downloads of CAMUS for the converter's tests, and what the tests do with them.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.camus.reader import Camus

PATIENTS, SPACING_MM = 7, 1.5
CASES = PATIENTS * 4
IMAGE, MASK = "patient0002_4CH_ED.nii.gz", "patient0002_4CH_ED_gt.nii.gz"
COMMAND = (sys.executable, "-m", "nnunet_echo.cli.main", "convert", "camus")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven phantom patients, both views; the last is the test patient of the split list."""
    folder = tmp_path_factory.mktemp("pristine")
    write_camus(folder, PATIENTS, 3, spacing_mm=SPACING_MM, half_sequence=False)
    return folder


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's folders for this test; only nnUNet_raw exists from the start."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def source(pristine: Path, raw: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage, with nnU-Net's folders set."""
    return shutil.copytree(pristine, tmp_path / "source")


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, with the hash of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def convert(source: Path, **options: object) -> Report:
    """Convert with one worker; `options` are the reader's or those of its method `convert`."""
    target = {name: options.pop(name) for name in ("dataset_id", "raw", "workers", "replace") if name in options}
    return Camus(**options).convert(source, **{"workers": 1, **target})


def load(folder: Path, name: str) -> list | dict:
    return json.loads((folder / name).read_text())


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], spacing: float | None = None) -> None:
    """Change the pixels (rows, columns), and the spacing, of an image file in place."""
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.SetSpacing([spacing or SPACING_MM] * changed.GetDimension())
    sitk.WriteImage(changed, str(path), True)


def write_challenge_release(pristine: Path, out: Path) -> None:
    """Patients 1..5 as training/patient0001.., 6 and 7 as testing/patient0001.. without masks; one slice a file."""
    for number in range(1, PATIENTS + 1):
        old = f"patient{number:04d}"
        part, new = ("training", old) if number <= 5 else ("testing", f"patient{number - 5:04d}")
        (out / part / new).mkdir(parents=True)
        for path in (pristine / "database_nifti" / old).iterdir():
            if path.suffix == ".cfg":
                text = path.read_text().replace("EF:", "LVef:").replace("FrameRate", "#")
                (out / part / new / path.name).write_text(text)
            elif part == "training" or "_gt" not in path.name:
                image = sitk.Cast(sitk.JoinSeries(sitk.ReadImage(str(path))), sitk.sitkUInt8)
                image.SetSpacing((0.308, 0.154, 1.54))
                sitk.WriteImage(image, str(out / part / new / path.name.replace(old, new).replace(".nii.gz", ".mhd")))
