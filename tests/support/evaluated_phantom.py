"""A phantom's predictions and references, for the tests of `evaluate`.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import PATIENTS, convert, rewrite

from nnunet_echo.evaluation.evaluate import Evaluation, evaluate

TRAINING = PATIENTS - 1  # the last phantom patient is the test patient

CASE = "CAMUS_patient0002_4CH_ED"

HEAD = ["case", "patient", "view", "phase", "structure"]

COLUMNS = [
    *HEAD,
    "dice",
    "iou",
    "precision",
    "sensitivity",
    "specificity",
    "accuracy",
    "hd_mm",
    "hd95_mm",
    "hd95_pooled_mm",
    "assd_mm",
    "masd_mm",
    "nsd_1mm",
    "nsd_2mm",
    "hd95_penalised_mm",
    "prediction_empty",
    "reference_empty",
]


@pytest.fixture(scope="session")
def references(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labelsTr of the converted phantom: six patients, two views, two phases."""
    raw = tmp_path_factory.mktemp("raw")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(raw))
        convert(pristine)
    return raw / "Dataset751_CAMUS" / "labelsTr"


@pytest.fixture
def predictions(references: Path, tmp_path: Path) -> Path:
    """Predictions without a fault, which the test may damage."""
    return shutil.copytree(references, tmp_path / "predictions")


def compare(predictions: Path, references: Path, **options: object) -> Evaluation:
    return evaluate(predictions, references, **{"workers": 1, **options})


def change(predictions: Path, case: str, function: Callable[[np.ndarray], np.ndarray], **options: float) -> None:
    rewrite(predictions / f"{case}.nii.gz", function, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def echonet(folder: Path, ending: str, **fields: object) -> Path:
    """Frames of two videos without a scale: an ellipse 20 (ED) and 14 to 18 (ES) pixels wide, in a frame of 112."""
    folder.mkdir(exist_ok=True)
    row, column = np.mgrid[:112, :112]
    for video, es_width in (("0X1A", 14), ("0X2B", 18)):
        for phase, width in (("ED", 20), ("ES", es_width)):
            mask = (np.hypot((row - 60) / 40, (column - 56) / width) < 1) & (row < 75)
            image = sitk.GetImageFromArray(mask.astype(np.uint8))
            sitk.WriteImage(image, str(folder / f"ECHONET_{video}_{phase}{ending}"))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "LV": 1},
                "file_ending": ending,
                "case_id_pattern": "(?P<patient>ECHONET_0X[0-9A-F]+)_(?P<phase>ED|ES)",
                **fields,
            }
        )
    )
    return folder


def hearts(
    folder: Path,
    names: dict[str, float],
    spacing: tuple[float, float] = (0.6, 1.2),
    shift: tuple = (0, 0),
    **fields: object,
) -> Path:
    """For each name LV and MYO of a frame (row, column): half an ellipsoid 80 mm long, with that diameter in mm."""
    folder.mkdir(exist_ok=True)
    shape = round(130 / spacing[0]), round(100 / spacing[1])
    row, column = ((np.arange(n) + 0.5) * step for n, step in zip(shape, spacing, strict=True))
    up, beside = 105 - row[:, None], column[None, :] - 50
    for name, diameter in names.items():
        lv, epi = ((up > 0) & (np.hypot(up / (80 + wall), beside / (diameter / 2 + wall)) < 1) for wall in (0, 9))
        image = sitk.GetImageFromArray(np.roll(lv + 2 * (epi & ~lv), shift, (0, 1)).astype(np.uint8))
        image.SetSpacing(spacing[::-1])  # x, y
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "LV": 1, "MYO": 2},
                "file_ending": ".nii.gz",
                "case_id_pattern": r"(?P<patient>.+?)_(?P<view>[^_]+)_(?:f(?P<frame>\d+)_)?(?P<phase>[A-Za-z]+)",
                **fields,
            }
        )
    )
    return folder
