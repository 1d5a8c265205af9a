"""EchoNet-Dynamic from its two tables and videos to the agreement of EF, by the commands that a user types."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from echonet_download import DATASET, convert, regular_videos
from nnunet_workplace import TINY, Workplace

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.echonet.phantom import echonet_video, write_echonet

pytest_plugins = ("echonet_download",)

VIDEOS, SEED = 16, 4
# nnU-Net's training has no seed. After 120 iterations a network now and then saw no ventricle yet; after 600, six runs
# in a row had a Dice of 0.59 or more in every test frame.
TRAINER = "nnUNetTrainerUMambaBot_4epochs_150iterations"


def patients(out: Path) -> dict[str, dict[str, str]]:
    with (out / "patients.csv").open(newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def test_the_masks_give_the_ef_of_the_list(echonet: Path, raw: Path, tmp_path: Path) -> None:
    """Disks of one view in pixels: volumes have no unit, EF has one. The phantom shrinks alike in all views."""
    convert(echonet)
    masks, out = raw / DATASET / "labelsTr", tmp_path / "scores"
    assert main(["evaluate", str(masks), str(masks), "-o", str(out), "--workers", "1"]) == 0
    rows = patients(out)
    trained = {f"ECHONET_{video.name}": video for video in regular_videos() if video.split != "TEST"}
    assert set(rows) == set(trained)
    for name, video in trained.items():
        assert float(rows[name]["recorded_ef_percent"]) == pytest.approx(video.heart.ef_percent, abs=1e-3)
        assert float(rows[name]["reference_ef_percent"]) == pytest.approx(video.heart.ef_percent, abs=6)
        assert rows[name]["reference_edv_ml"] == ""
    (planes,) = (
        found
        for found in json.loads((out / "summary.json").read_text())["ejection_fraction"].values()
        if isinstance(found, dict) and "recorded_ef" in found
    )
    assert planes["recorded_ef"]["reference"]["n"] == len(trained) and planes["recorded_ef"]["reference"]["mae"] < 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Sixteen phantom videos, two of them for testing, converted, planned and preprocessed; the plan made tiny."""
    place = Workplace(tmp_path_factory.mktemp("echonet"))
    write_echonet(place.folder / "download", VIDEOS, SEED, oddities=False, workers=1)
    place.run("nnunet-echo", "convert", "echonet", str(place.folder / "download"), "--workers", "1")
    place.run("nnUNetv2_plan_and_preprocess", "-d", "752", "-c", "2d", "-np", "1", "-npfp", "1")
    file = place.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"].update(patch_size=[64, 64], batch_size=4)
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"].update(TINY)
    file.write_text(json.dumps(plans))
    return place


@pytest.mark.nnunet
@pytest.mark.slow
def test_trained_predicted_and_evaluated(place: Workplace) -> None:
    place.run("nnUNetv2_train", DATASET, "2d", "0", "-tr", TRAINER, "-device", "cpu")
    images, predictions = place.raw / DATASET / "imagesTs", place.folder / "predictions"
    place.run(
        "nnUNetv2_predict",
        "-i",
        str(images),
        "-o",
        str(predictions),
        "-d",
        DATASET,
        "-c",
        "2d",
        "-f",
        "0",
        "-tr",
        TRAINER,
        "-device",
        "cpu",
        "-npp",
        "0",
        "-nps",
        "0",
    )
    out = place.folder / "scores"
    place.run(
        "nnunet-echo",
        "evaluate",
        str(predictions),
        str(place.raw / DATASET / "labelsTs"),
        "-o",
        str(out),
        "--workers",
        "1",
    )
    rows = patients(out)
    tested = [
        video for video in (echonet_video(SEED, number) for number in range(1, VIDEOS + 1)) if video.split == "TEST"
    ]
    assert set(rows) == {f"ECHONET_{video.name}" for video in tested} and len(tested) == 2
    for video in tested:
        row = rows[f"ECHONET_{video.name}"]
        assert float(row["recorded_ef_percent"]) == pytest.approx(video.heart.ef_percent, abs=1e-3)
        assert row["prediction_ef_percent"], "no ventricle was predicted"
        assert math.isfinite(float(row["prediction_ef_percent"]))
