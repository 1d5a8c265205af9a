"""The code of docs/how-to/dataset.md works as it stands there: found by the command, described in full, converts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_echo import dataset_conversion
from nnunet_echo.cli.main import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "dataset.md").read_text()


@pytest.fixture
def hearts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader of the page among the others, and a download for it."""
    (file,) = re.findall(r"^`dataset_conversion/(\S+\.py)`\n\n```python", PAGE, re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = tmp_path / "code" / file
    module.parent.mkdir(parents=True)
    module.write_text(code)
    monkeypatch.setattr(dataset_conversion, "__path__", [*dataset_conversion.__path__, str(tmp_path / "code")])
    download = tmp_path / "hearts"
    download.mkdir()
    pixels = np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((40, 40), np.uint8))
    for patient in range(1, 6):
        for frame in ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES"):
            for suffix, content in (("", 60 * pixels + patient), ("_gt", pixels)):
                image = sitk.GetImageFromArray(content)
                image.SetSpacing((0.5, 0.5))
                sitk.WriteImage(image, download / f"patient{patient:03}_{frame}{suffix}.nii.gz")
    return download


def test_the_reader_converts_and_refuses(hearts: Path, tmp_path: Path) -> None:
    (hearts / "patient002_4CH_ES_gt.nii.gz").unlink()
    (hearts / "patient003_4CH_ED.nii.gz").rename(hearts / "Patient003_4CH_ED.nii.gz")
    report = dataset_conversion.convert("hearts", hearts, raw=tmp_path / "raw", view="4CH")
    assert (report.folder.name, report.training_cases, report.patients, report.folds) == ("Dataset790_Hearts", 8, 5, 5)
    assert sorted(note.kind for note in report.refused) == ["mask missing", "unknown name"]
    split = json.loads((report.folder / "splits_final.json").read_text())
    assert sorted(case for fold in split for case in fold["val"]) == sorted(
        path.name.removesuffix(".nii.gz") for path in (report.folder / "labelsTr").iterdir()
    )


def test_the_commands_of_the_page(
    hearts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    commands = re.findall(r"^nnunet-echo (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = command.replace("/path/to/hearts", str(hearts)).split()
        assert main([*words, "--workers", "1"]) == 0, capsys.readouterr()
    assert "10 of 10 source cases converted, 5 patients" in capsys.readouterr().out
