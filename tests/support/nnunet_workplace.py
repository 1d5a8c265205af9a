"""nnU-Net's three folders and its commands in them, for tests of whole trainings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

COMMANDS = Path(sys.executable).parent
DATASET = "Dataset751_CAMUS"
TINY = {  # what the plan says instead, so that two processor cores train in seconds
    "n_stages": 4,
    "features_per_stage": [4, 8, 8, 8],
    "kernel_sizes": [[3, 3]] * 4,
    "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
    "n_conv_per_stage": [1] * 4,
    "n_conv_per_stage_decoder": [1] * 3,
}
# What the commands call, in one process: importing nnU-Net takes longer than training these networks.
TRAIN_AND_PREDICT = """
import json, os, sys
from nnunetv2.inference.predict_from_raw_data import predict_entry_point as nnUNetv2_predict
from nnunetv2.run.run_training import run_training_entry as nnUNetv2_train
for sys.argv in json.loads(sys.argv[1]):
    os.rename(*sys.argv[1:]) if sys.argv[0] == "mv" else globals()[sys.argv[0]]()
"""


class Workplace:
    """nnU-Net's three folders, and its commands run in them."""

    def __init__(self, folder):
        self.folder = folder
        self.raw, self.preprocessed, self.results = (folder / name for name in ("raw", "preprocessed", "results"))
        for path in (self.raw, self.preprocessed, self.results):
            path.mkdir()
        # nnU-Net takes every processor for -device cpu. On networks this small the threads only wait for each other,
        # 15 times longer than they compute where other work shares the processors.
        startup = folder / "startup"
        startup.mkdir()
        (startup / "sitecustomize.py").write_text("import multiprocessing\nmultiprocessing.cpu_count = lambda: 1\n")
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")},
            **{f"nnUNet_{path.name}": str(path) for path in (self.raw, self.preprocessed, self.results)},
            "nnUNet_n_proc_DA": "1",  # the planner stops at 0
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(startup),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, program, *arguments):
        """A command that runs; its output can be read line by line."""
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

    def train(self, trainer, *options, fold="0"):
        return ["nnUNetv2_train", DATASET, "2d", fold, "-tr", trainer, "-device", "cpu", *options]

    def predict(self, trainer, *options, output=""):
        """The images of the first patient."""
        images = self.folder / "images"
        images.mkdir(exist_ok=True)
        for image in sorted((self.raw / DATASET / "imagesTr").glob("*.nii.gz"))[:2]:
            if not (images / image.name).exists():
                (images / image.name).symlink_to(image)
        folders = ["-i", str(images), "-o", str(self.folder / (output or f"by_{trainer}"))]
        model = ["-d", DATASET, "-c", "2d", "-f", "0", "-tr", trainer]
        return ["nnUNetv2_predict", *folders, *model, "-device", "cpu", "-npp", "0", "-nps", "0", *options]

    def fold(self, trainer, plans="nnUNetPlans"):
        return self.results / DATASET / f"{trainer}__{plans}__2d" / "fold_0"

    def checkpoint(self, trainer, name):
        return torch.load(self.fold(trainer) / f"checkpoint_{name}.pth", map_location="cpu", weights_only=False)

    def check_validation(self, trainer, *plans):
        cases = json.loads((self.preprocessed / DATASET / "splits_final.json").read_text())[0]["val"]
        summary = json.loads((self.fold(trainer, *plans) / "validation" / "summary.json").read_text())
        validated = [Path(case["prediction_file"]).name.removesuffix(".nii.gz") for case in summary["metric_per_case"]]
        assert sorted(validated) == cases
        assert set(summary["mean"]) == {"1", "2", "3"}

    def check_predictions(self, trainer):
        predictions = list((self.folder / f"by_{trainer}").glob("*.nii.gz"))
        assert len(predictions) == 2
        for file in predictions:
            labels = sitk.ReadImage(file)
            image = sitk.ReadImage(self.raw / DATASET / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz"))
            assert (labels.GetSize(), labels.GetSpacing()) == (image.GetSize(), image.GetSpacing())
            assert set(np.unique(sitk.GetArrayFromImage(labels))) <= {0, 1, 2, 3}
