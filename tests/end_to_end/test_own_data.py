"""docs/how-to/own-data.md: its commands as written, on a small folder of PNG files, from masks to the leaderboard."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from own_images import write_own_images
from pages import commands, run_commands
from PIL import Image

from nnunet_echo.cli.main import main

PAGE = "how-to/own-data.md"
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
# What a toy size takes in place of what the page says.
TOY = {
    "LKMUNet_50epochs_100iterations": "NoMamba_1epochs_2iterations",
    "--name 2d_small": "--name 2d_small --batch 2 --features 4 8 --steps 1",
    "2d_small -f 0": "2d_small -f 0 -npp 1 -nps 1",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the page takes for granted, and the current folder."""
    write_own_images(tmp_path / "hearts", patients=10)
    shutil.copytree(tmp_path / "hearts" / "masks", tmp_path / "masks")
    shutil.copytree(tmp_path / "hearts", tmp_path / "hearts_in_colour")
    rows = [["image", "patient", "view", "phase"]]
    for path in sorted((tmp_path / "hearts_in_colour" / "masks").iterdir()):
        Image.fromarray(COLOURS[np.asarray(Image.open(path))]).save(path)
        rows.append([path.name, *path.stem.split("_")])
    with (tmp_path / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / "nnunet" / name))
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_convert_check_evaluate_and_measure(place: Path) -> None:
    run = []
    for line in commands(PAGE):
        words = [os.path.expandvars(word) for word in shlex.split(line)]
        if words[0] != "nnunet-echo" or words[1] in ("plan", "leaderboard"):
            continue
        if words[1] == "evaluate":  # no training here: the references are the predictions
            labels = place / "nnunet" / "raw" / "Dataset770_Images"
            shutil.copytree(labels / "labelsTs", "predictions")
            shutil.copy(labels / "dataset.json", "predictions")
        workers = [] if words[1:3] == ["convert", "images"] else ["--workers", "1"]
        assert main([*words[1:], *workers]) == 0, line
        run.append(words[1])
    assert run == ["convert", "check", "convert", "evaluate", "measure", "measure"]
    assert len(rows(place / "nnunet" / "raw" / "Dataset771_Images" / "cases.csv")) == 40
    patients = rows(place / "scores" / "patients.csv")
    assert len(patients) == 2 and all(row["planes"] == "biplane" for row in patients)
    for row, measured in zip(patients, rows(place / "measured" / "patients.csv"), strict=True):
        assert row["prediction_ef_percent"] == measured["ef_percent"] and 20 < float(measured["ef_percent"]) < 90
    assert len(rows(place / "masks_measured" / "patients.csv")) == 10


@pytest.mark.slow
@pytest.mark.nnunet
def test_the_page_from_png_files_to_the_leaderboard(place: Path) -> None:
    printed = run_commands(PAGE, TOY, place)
    assert "an epoch (2 training steps of" in printed
    assert {row["structure"] for row in rows(place / "scores" / "cases.csv")} == {"LV", "MYO", "LA", "LV_EPI"}
    assert len(rows(place / "measured" / "cases.csv")) == 8
    assert "nnUNetTrainerNoMamba_1epochs_2iterations" in (place / "leaderboard" / "index.html").read_text()
