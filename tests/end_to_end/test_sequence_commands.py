"""nnU-Net's own commands on cines of synthetic hearts: plan, train in 3D and in 2D with an ignore label, predict."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import table
from nnunet_workplace import Workplace
from small_trainers import small_trainer

from nnunet_echo.data.frames import write_frames
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.evaluation.evaluate import evaluate

pytestmark = [pytest.mark.nnunet, pytest.mark.slow]

DATASET = "Dataset754_CAMUS_Semi"
SHORT = "_1epochs_2iterations"
# What the three commands call, in one process, whose workers are forked: nnU-Net starts new ones for each command,
# which import it again, and that takes longer than training these networks.
NNUNET = """
import json, multiprocessing, sys
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda method=None: fork
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    plan_and_preprocess_entry as nnUNetv2_plan_and_preprocess)
from nnunetv2.inference.predict_from_raw_data import predict_entry_point as nnUNetv2_predict
from nnunetv2.run.run_training import run_training_entry as nnUNetv2_train
for sys.argv in json.loads(sys.argv[1]):
    globals()[sys.argv[0]]()
"""
STOCK = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerShort(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
"""
SAMUS = "nnUNetTrainerSmallSAMUSTRALIA"
RUNS = [  # nnU-Net's own trainer, ours that see cines, and one of those that see images alone
    ("nnUNetTrainerShort", "2d"),
    ("nnUNetTrainerShort", "3d_fullres"),
    (f"nnUNetTrainerLKMUNet{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerLKMUNet_samus{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerUMambaBot{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerUMambaEnc{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerXLSTMUNetBot{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerXLSTMUNetEnc{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerNNFormer{SHORT}", "3d_fullres"),
    (f"nnUNetTrainerViL2{SHORT}", "2d"),
    (SAMUS, "3d_fullres"),
    (SAMUS, "2d"),
]


@pytest.fixture(scope="module")
def cines(tmp_path_factory):
    """Four short cines with sparse labels, converted, planned and preprocessed for 2d and 3d_fullres."""
    place = Workplace(tmp_path_factory.mktemp("cines"))
    write_camus(place.folder / "camus", patients=4, seed=0, spacing_mm=2.0)
    place.run(
        "nnunet-echo",
        "convert",
        "camus",
        str(place.folder / "camus"),
        "--views",
        "4CH",
        "--mode",
        "half_sequence",
        "--labels",
        "ed_es",
        "--clip",
        "8",
        "--workers",
        "1",
    )
    plan = [
        "nnUNetv2_plan_and_preprocess",
        "-d",
        "754",
        "-c",
        "2d",
        "3d_fullres",
        "-np",
        "1",
        "-npfp",
        "1",
        "--verify_dataset_integrity",
    ]
    place.run("python", "-c", NNUNET, json.dumps([plan]))
    return place


def shrink(plans):
    """Networks and patches that two processor cores train in seconds."""
    for name, first, patch in (("2d", [2, 2], [32, 32]), ("3d_fullres", [1, 2, 2], [8, 32, 32])):
        axes = len(first)
        configuration = plans["configurations"][name]
        configuration.update(patch_size=patch, batch_size=2)
        configuration["architecture"]["arch_kwargs"].update(
            n_stages=3,
            features_per_stage=[4, 8, 8],
            kernel_sizes=[[3] * axes] * 3,
            strides=[[1] * axes, first, [2] * axes],
            n_conv_per_stage=[1] * 3,
            n_conv_per_stage_decoder=[1] * 2,
        )


def test_frames_are_the_slices_of_the_plan(cines):
    plans = json.loads((cines.preprocessed / DATASET / "nnUNetPlans.json").read_text())
    assert plans["transpose_forward"] == [0, 1, 2]
    configurations = plans["configurations"]
    assert configurations["3d_fullres"]["spacing"][0] == 5 and configurations["3d_fullres"]["patch_size"][0] == 8
    assert len(configurations["2d"]["patch_size"]) == 2
    assert configurations["3d_fullres"]["architecture"]["arch_kwargs"]["strides"][1] == [1, 2, 2]


def test_train_in_both_dimensions_predict_and_evaluate(cines):
    file = cines.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    shrink(plans)
    file.write_text(json.dumps(plans))
    own = cines.folder / "own"
    own.mkdir()
    (own / "nnUNetTrainerShort.py").write_text(STOCK)
    assert small_trainer(cines, "samus_tra_lia") == SAMUS
    cines.environment.update(nnUNet_extTrainer=str(own), nnUNet_n_proc_DA="0")
    options = ["-device", "cpu"]
    commands = [
        ["nnUNetv2_train", DATASET, configuration, "0", "-tr", trainer, *options] for trainer, configuration in RUNS
    ]
    images, predictions = cines.raw / DATASET / "imagesTs", cines.folder / "predictions"
    by_samus = cines.folder / "by_samus"
    for trainer, out in ((f"nnUNetTrainerLKMUNet{SHORT}", predictions), (SAMUS, by_samus)):
        model = ["-d", DATASET, "-c", "3d_fullres", "-f", "0", "-tr", trainer, "-npp", "0", "-nps", "0"]
        commands.append(["nnUNetv2_predict", "-i", str(images), "-o", str(out), *model, *options])
    cines.run("python", "-c", NNUNET, json.dumps(commands))

    validated = json.loads((cines.preprocessed / DATASET / "splits_final.json").read_text())[0]["val"]
    for trainer, configuration in RUNS:
        fold = cines.results / DATASET / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"
        summary = json.loads((fold / "validation" / "summary.json").read_text())
        assert [Path(case["prediction_file"]).name[:-7] for case in summary["metric_per_case"]] == validated
        for case in summary["metric_per_case"]:  # nnU-Net counts the pixels that are not ignored: two frames
            counts = case["metrics"]["1"]
            width, height, _ = sitk.ReadImage(case["reference_file"]).GetSize()
            assert sum(counts[name] for name in ("TP", "FP", "FN", "TN")) == 2 * width * height
        assert "train_loss nan" not in next(fold.glob("training_log*")).read_text()

    (prediction,) = predictions.glob("*.nii.gz")
    labels = sitk.ReadImage(str(prediction))
    reference = sitk.ReadImage(str(cines.raw / DATASET / "labelsTs" / prediction.name))
    assert (labels.GetSize(), labels.GetSpacing()) == (reference.GetSize(), reference.GetSpacing())
    of_samus = sitk.ReadImage(str(by_samus / prediction.name))
    assert (of_samus.GetSize(), of_samus.GetSpacing()) == (reference.GetSize(), reference.GetSpacing())
    for image in (labels, of_samus):
        assert set(np.unique(sitk.GetArrayFromImage(image))) <= {0, 1, 2, 3}, "the ignore label is never predicted"
    for name, folder in (("p", predictions), ("r", cines.raw / DATASET / "labelsTs")):
        write_frames(folder, cines.raw / DATASET, cines.folder / name, phases=True, workers=1)
    result = evaluate(cines.folder / "p", cines.folder / "r", workers=1)
    assert [(row["case"], row["phase"]) for row in result.cases if row["structure"] == "LV"] == [
        (f"{prediction.name[:-7]}_{phase}", phase) for phase in ("ED", "ES")
    ]
    assert len(table(cines.raw / DATASET)) == 4
