"""Raw datasets of noise in every kind of file, and whether nnU-Net's own check stops at one.

The test modules load it as a plugin, for its fixture. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning import verify_dataset_integrity as verification
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities import utils
from PIL import Image

from nnunet_echo.data.check import check_dataset

CASES = 3


def save(path: Path, pixels: np.ndarray) -> None:
    if path.suffix in (".png", ".bmp"):
        Image.fromarray(pixels).save(path)
    else:
        image = sitk.GetImageFromArray(pixels)
        image.SetSpacing([0.3, 0.3, 1.0][: pixels.ndim])
        sitk.WriteImage(image, str(path), True)


def dataset(
    folder: Path,
    ending: str = ".nii.gz",
    shape: tuple[int, ...] = (20, 24),
    channels: int = 1,
    label: Callable[[np.ndarray], np.ndarray] = lambda mask: mask,
    **fields: object,
) -> Path:
    """Three cases of noise, with a square of 1 in which there is one of 2."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    mask = np.zeros(shape, np.uint8)
    mask[..., 5:15, 5:15] = 1
    mask[..., 8:12, 8:12] = 2
    for case in range(CASES):
        for channel in range(channels):
            noise = np.random.default_rng(case).integers(1, 200, shape, np.uint8)
            save(folder / "imagesTr" / f"c{case}_{channel:04d}{ending}", noise)
        save(folder / "labelsTr" / f"c{case}{ending}", label(mask))
    content = {
        "channel_names": {str(channel): "us" for channel in range(channels)},
        "numTraining": CASES,
        "labels": {"background": 0, "outer": 1, "inner": 2},
        "file_ending": ending,
        **fields,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


class Inline:
    """A pool without processes."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def starmap(self, function: Callable, jobs: Iterable[tuple]) -> list:
        return [function(*job) for job in jobs]


@pytest.fixture
def nnunet_stops(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], bool]:
    """Whether nnU-Net's check or its fingerprint of the dataset fails; without starting processes."""
    context = argparse.Namespace(Pool=Inline)
    monkeypatch.setattr(verification.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(utils, "Pool", Inline)

    def stops(folder: Path) -> bool:
        content = json.loads((folder / "dataset.json").read_text())
        try:
            verification.verify_dataset_integrity(str(folder), 1)
            files = utils.get_filenames_of_train_images_and_targets(str(folder), content)
            reader = determine_reader_writer_from_dataset_json(content, next(iter(files.values()))["images"][0])
            shapes = [
                DatasetFingerprintExtractor.analyze_case(case["images"], case["label"], reader, 10)[0]
                for case in files.values()
            ]
        except (Exception, AssertionError):
            return True
        # It does not stop at 2D and 3D together, but plans a 3D network for both, with a spacing between theirs.
        return len({shape[0] == 1 for shape in shapes}) > 1

    return stops


def problems(folder: Path) -> list[str]:
    return [finding.text for finding in check_dataset(folder, 1) if finding.problem]
