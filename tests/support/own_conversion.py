"""Conversions of a folder of one's own, and folders of two images whose first one the test gives.

The test modules load it as a plugin, for its fixtures. Its one assertion is plain: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk
from numpy import ndarray
from own_images import LABELS, heart, write_own_images
from PIL import Image

from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.images_and_masks import ImagesAndMasks

NAME = "Dataset770_Images"
PX = ("px",)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return write_own_images(tmp_path / "own", patients=3)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Path]:
    """A folder with two images, whose first image or mask the test gives; the second is plain."""

    def make(image: object = None, mask: object = None, image_name: str = "a.png", mask_name: str = "a.png") -> Path:
        folder = tmp_path / "pair"
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for part, given, name, plain in (
            ("images", image, image_name, heart(9)[0]),
            ("masks", mask, mask_name, heart(9)[1]),
        ):
            save(folder / part / name, plain if given is None else given)
            save(folder / part / "b.png", plain)
            save(folder / part / "c.png", plain)
        return folder

    return make


def save(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, sitk.Image):
        sitk.WriteImage(content, str(path))
    elif isinstance(content, Image.Image):
        content.save(path)
    elif path.suffix in (".gz", ".nii", ".mhd", ".mha"):
        image = sitk.GetImageFromArray(content)
        image.SetSpacing((0.5, 0.25))
        sitk.WriteImage(image, str(path))
    else:
        Image.fromarray(content).save(path)


def convert(source: Path, **options: object) -> Report:
    options = {"labels": LABELS, "spacing": PX, **options}
    return ImagesAndMasks(**options).convert(source, raw=source.parent / "raw", workers=1)


def written(report: Report, case: str) -> tuple[ndarray, ndarray, tuple[float, ...]]:
    image, label = (
        sitk.ReadImage(str(report.folder / name))
        for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
    )
    assert image.GetSpacing() == label.GetSpacing()
    return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label), image.GetSpacing()


def load(path: Path) -> dict:
    return json.loads(path.read_text())
