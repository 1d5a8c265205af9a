"""nnU-Net's own commands, as a user types them, on synthetic hearts: plan, train, kill, continue, validate, predict."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_echo.phantom import write_camus

pytestmark = pytest.mark.nnunet

COMMANDS = Path(sys.executable).parent
DATASET = "Dataset751_CAMUS"
TRAINERS = sorted(
    file.stem for file in (Path(__file__).resolve().parents[1] / "trainers").glob("nnUNetTrainer*.py")
)
TINY = {  # what the plan says instead, so that two processor cores train in seconds
    "n_stages": 4,
    "features_per_stage": [4, 8, 8, 8],
    "kernel_sizes": [[3, 3]] * 4,
    "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
    "n_conv_per_stage": [1] * 4,
    "n_conv_per_stage_decoder": [1] * 3,
}


class Workplace:
    """nnU-Net's three folders, and its commands run in them."""

    def __init__(self, folder):
        self.folder = folder
        self.raw, self.preprocessed, self.results = (folder / name for name in ("raw", "preprocessed", "results"))
        for path in (self.raw, self.preprocessed, self.results):
            path.mkdir()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")},
            **{f"nnUNet_{path.name}": str(path) for path in (self.raw, self.preprocessed, self.results)},
            "nnUNet_n_proc_DA": "1",  # the planner stops at 0
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *command):
        """A command that runs; its output can be read line by line."""
        program, *arguments = map(str, command)
        return subprocess.Popen(
            [str(COMMANDS / program), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command):
        process = self.start(*command)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-5000:]
        return output

    def train(self, trainer, *options):
        return self.run("nnUNetv2_train", DATASET, "2d", 0, "-tr", trainer, "-device", "cpu", *options)

    def predict(self, trainer):
        """Predict the images of the first patient; returns case id to predicted labels."""
        images, predictions = self.folder / "images", self.folder / f"predicted_by_{trainer}"
        images.mkdir(exist_ok=True)
        for image in sorted((self.raw / DATASET / "imagesTr").glob("*.nii.gz"))[:2]:
            if not (images / image.name).exists():
                (images / image.name).symlink_to(image)
        self.run(
            *("nnUNetv2_predict", "-i", images, "-o", predictions, "-d", DATASET, "-c", "2d", "-f", 0, "-tr", trainer),
            *("-device", "cpu", "-npp", 0, "-nps", 0),
        )
        return {file.name.removesuffix(".nii.gz"): sitk.ReadImage(file) for file in predictions.glob("*.nii.gz")}

    def fold(self, trainer):
        return self.results / DATASET / f"{trainer}__nnUNetPlans__2d" / "fold_0"

    def checkpoint(self, trainer, name):
        return torch.load(self.fold(trainer) / f"checkpoint_{name}.pth", map_location="cpu", weights_only=False)

    def check_validation(self, trainer):
        cases = json.loads((self.preprocessed / DATASET / "splits_final.json").read_text())[0]["val"]
        summary = json.loads((self.fold(trainer) / "validation" / "summary.json").read_text())
        validated = [Path(case["prediction_file"]).name.removesuffix(".nii.gz") for case in summary["metric_per_case"]]
        assert sorted(validated) == cases
        assert set(summary["mean"]) == {"1", "2", "3"}

    def check_predictions(self, trainer):
        predictions = self.predict(trainer)
        assert len(predictions) == 2
        for case, labels in predictions.items():
            image = sitk.ReadImage(self.raw / DATASET / "imagesTr" / f"{case}_0000.nii.gz")
            assert (labels.GetSize(), labels.GetSpacing()) == (image.GetSize(), image.GetSpacing())
            assert set(np.unique(sitk.GetArrayFromImage(labels))) <= {0, 1, 2, 3}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Ten small hearts, converted, planned and preprocessed; the plan made tiny."""
    place = Workplace(tmp_path_factory.mktemp("nnunet"))
    write_camus(place.folder / "camus", patients=10, seed=0, spacing_mm=2.0, half_sequence=False)
    place.run("python", "-m", "nnunet_echo.dataset_conversion.camus", place.folder / "camus", "--views", "4CH")
    place.run("nnUNetv2_plan_and_preprocess", "-d", 751, "-c", "2d", "-np", 1, "-npfp", 1, "--verify_dataset_integrity")
    file = place.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["2d"]
    configuration.update(patch_size=[48, 64], batch_size=2)
    configuration["architecture"]["arch_kwargs"].update(TINY)
    file.write_text(json.dumps(plans))
    return place


def test_planning_keeps_the_split_by_patient(workplace):
    copied, ours = (folder / DATASET / "splits_final.json" for folder in (workplace.preprocessed, workplace.raw))
    assert copied.read_text() and json.loads(copied.read_text()) == json.loads(ours.read_text())


def test_train_kill_continue_validate_predict(workplace):
    trainer = "nnUNetTrainerLKMUNet_2epochs_20iterations"
    options = ("nnUNetv2_train", DATASET, "2d", 0, "-tr", trainer, "-device", "cpu")
    training = workplace.start(*options)
    seen = []
    for line in training.stdout:
        seen.append(line)
        if line.strip().endswith("Epoch 1"):
            training.send_signal(signal.SIGTERM)
            break
    rest, _ = training.communicate(timeout=120)
    output = "".join(seen) + rest
    assert training.returncode == 143, output[-5000:]
    assert "Stopped by SIGTERM. The same command with --c goes on from here." in output

    stopped = workplace.checkpoint(trainer, "latest")
    assert stopped["current_epoch"] == 1 and 1 <= len(stopped["optimizer_state"]["epoch_losses"]) < 20

    workplace.train(trainer, "--c")
    final = workplace.checkpoint(trainer, "final")
    assert final["current_epoch"] == 2 and final["trainer_name"] == trainer
    assert final["inference_allowed_mirroring_axes"] is None
    assert final["logging"]["lrs"] == [pytest.approx(0.01 * (1 - epoch / 2) ** 0.9) for epoch in range(2)]
    assert {len(values) for values in final["logging"].values()} == {2}
    assert all(math.isfinite(loss) for loss in final["logging"]["train_losses"] + final["logging"]["val_losses"])
    assert not (workplace.fold(trainer) / "checkpoint_latest.pth").exists()
    workplace.check_validation(trainer)
    workplace.check_predictions(trainer)

    (workplace.fold(trainer) / "validation" / "summary.json").unlink()
    workplace.train(trainer, "--val")
    workplace.check_validation(trainer)


@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "nnUNetTrainerLKMUNet"])
def test_train_and_predict(workplace, name):
    trainer = f"{name}_1epochs_2iterations"
    output = workplace.train(trainer)
    assert f"{trainer}: nnunet_echo.networks." in output
    assert "Split by patient: 7 patients to train on, 2 to validate on" in output
    workplace.check_validation(trainer)
    workplace.check_predictions(trainer)


def test_a_fold_that_the_split_lacks_is_an_error(workplace):
    command = ("nnUNetv2_train", DATASET, "2d", 9, "-tr", "nnUNetTrainerNoMamba_1epochs", "-device", "cpu")
    process = workplace.start(*command)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and "fold 9: " in output and "has folds 0 to 4" in output
