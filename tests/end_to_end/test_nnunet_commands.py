"""nnU-Net's own commands, as a user types them, on synthetic hearts: plan, train, kill, continue, validate, predict.

And from five trained folds to the leaderboard's report.
"""

import csv
import json
import math
import signal

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunet_workplace import DATASET, TINY, TRAIN_AND_PREDICT, Workplace
from small_trainers import small_trainer

from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.networks import NETWORKS, create_network, title_of
from nnunet_echo.nnunet.pretrained import hash_of_file, in_words, pretrained_of
from nnunet_echo.training.recipes import RECIPES

pytestmark = pytest.mark.nnunet

FOLDS = "01234"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Ten small hearts, converted, planned and preprocessed; the plan made tiny."""
    place = Workplace(tmp_path_factory.mktemp("nnunet"))
    write_camus(place.folder / "camus", patients=10, seed=0, spacing_mm=2.0, half_sequence=False)
    place.run("nnunet-echo", "convert", "camus", str(place.folder / "camus"), "--views", "4CH")
    place.run("nnUNetv2_plan_and_preprocess", "-d", "751", "-c", "2d", "-np", "1", "-npfp", "1")
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
    training = workplace.start(*workplace.train(trainer))
    seen = []
    for line in training.stdout:
        seen.append(line)
        if line.strip().endswith("Epoch 1"):
            training.send_signal(signal.SIGTERM)
            break
    rest, _ = training.communicate(timeout=120)  # it ends only when its data loading workers have ended too
    output = "".join(seen) + rest
    assert training.returncode == 143, output[-5000:]
    assert "Stopped by SIGTERM. The same command with --c goes on from here." in output

    stopped = workplace.checkpoint(trainer, "latest")
    assert stopped["current_epoch"] == 1 and 1 <= len(stopped["optimizer_state"]["epoch_losses"]) < 20

    commands = [workplace.train(trainer, "--c"), workplace.predict(trainer)]
    workplace.run("python", "-c", TRAIN_AND_PREDICT, json.dumps(commands))
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
    workplace.run(*workplace.train(trainer, "--val"))
    workplace.check_validation(trainer)


@pytest.mark.slow
def test_samus_starts_from_pretrained_weights_and_predicts_without_labels(workplace):
    """Predictions are the same when there is no label file any more: nothing is drawn from the ground truth."""
    trainer = small_trainer(workplace, "samus")
    network = create_network("samus", 1, 4, (48, 64), **NETWORKS["samus"].toy)
    note = {"pretrained_sha256": torch.full((32,), 7, dtype=torch.uint8)}
    file = workplace.folder / "start.pth"
    torch.save({"network_weights": {**network.state_dict(), **note}}, file)
    folders = [
        (workplace.raw / DATASET / "labelsTr", workplace.folder / "labels"),
        (workplace.preprocessed / DATASET / "gt_segmentations", workplace.folder / "segmentations"),
        (workplace.preprocessed / DATASET / "nnUNetPlans_2d", workplace.folder / "preprocessed_2d"),
    ]
    output = workplace.run(
        "python",
        "-c",
        TRAIN_AND_PREDICT,
        json.dumps(
            [
                workplace.train(trainer, "-pretrained_weights", str(file)),
                workplace.predict(trainer),
                *(["mv", str(here), str(away)] for here, away in folders),
                workplace.predict(trainer, output="by_samus_without_labels"),
                *(["mv", str(away), str(here)] for here, away in folders),
            ]
        ),
    )
    assert f"Pretrained weights, SHA-256 {'07' * 32}: 0." in output and "stay as they are" in output
    kept = in_words(pretrained_of(workplace.fold(trainer)))
    assert kept == f"start.pth, SHA-256 {hash_of_file(file)[:12]}" and f"Starts from {kept}." in output
    before, after = network.state_dict(), workplace.checkpoint(trainer, "final")["network_weights"]
    frozen = [key for key, _ in network.named_parameters() if network.is_frozen(key)]
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    assert not torch.equal(*(state["image_encoder.input_Adapter.D_fc1.weight"] for state in (before, after)))
    workplace.check_validation(trainer)
    workplace.check_predictions(trainer)
    for prediction in (workplace.folder / f"by_{trainer}").glob("*.nii.gz"):
        again = workplace.folder / "by_samus_without_labels" / prediction.name
        assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(file)) for file in (prediction, again)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for network, row in NETWORKS.items()
        for name in row.trainers
        if 2 in row.dims and network not in ("lkm_unet", "samus")
    ],
)
def test_train_and_predict(workplace, name):
    small = name == NETWORKS["samus_tra_lia"].trainer
    trainer = small_trainer(workplace, "samus_tra_lia") if small else f"{name}_1epochs_2iterations"
    commands = [workplace.train(trainer), workplace.predict(trainer)]
    output = workplace.run("python", "-c", TRAIN_AND_PREDICT, json.dumps(commands))
    assert f"{trainer}: " in output and (small or title_of(name) in output)
    assert "Split by patient: 7 patients to train on, 2 to validate on" in output
    workplace.check_validation(trainer)
    workplace.check_predictions(trainer)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.slow
def test_recipes_train_and_predict(workplace, recipe):
    trainer = f"nnUNetTrainerNoMamba_{recipe}_2epochs"
    commands = [workplace.train(trainer), workplace.predict(trainer)]
    output = workplace.run("python", "-c", TRAIN_AND_PREDICT, json.dumps(commands))
    assert f"Recipe {recipe}, of {RECIPES[recipe].source}. Chosen here: " in output
    assert "An epoch is one pass over the data: 14 training cases in batches of 2" in output
    final = workplace.checkpoint(trainer, "final")
    assert final["current_epoch"] == 2 and final["trainer_name"] == trainer
    assert all(math.isfinite(loss) for loss in final["logging"]["train_losses"] + final["logging"]["val_losses"])
    workplace.check_validation(trainer)
    workplace.check_predictions(trainer)


@pytest.mark.slow
def test_networks_of_ours_train_on_a_plan_of_a_resenc_preset(workplace):
    """Its data are those of the default plan; the plan is made tiny, its blocks kept."""
    planner, plans = "nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"
    workplace.run("nnUNetv2_plan_experiment", "-d", "751", "-pl", planner)
    file = workplace.preprocessed / DATASET / f"{plans}.json"
    content = json.loads(file.read_text())
    configuration = content["configurations"]["2d"]
    assert configuration["data_identifier"] == "nnUNetPlans_2d"
    configuration.update(patch_size=[48, 64], batch_size=2)
    architecture = configuration["architecture"]["arch_kwargs"]
    assert "n_conv_per_stage" not in architecture
    architecture.update({key: value for key, value in TINY.items() if key != "n_conv_per_stage"})
    architecture["n_blocks_per_stage"] = architecture["n_blocks_per_stage"][: TINY["n_stages"]]
    file.write_text(json.dumps(content))
    trainers = [f"{NETWORKS[name].trainer}_1epochs_2iterations" for name in ("lkm_unet", "vil2", "umamba_bot")]
    commands = [
        command
        for trainer in trainers
        for command in (workplace.train(trainer, "-p", plans), workplace.predict(trainer, "-p", plans))
    ]
    workplace.run("python", "-c", TRAIN_AND_PREDICT, json.dumps(commands))
    for trainer in trainers:
        workplace.check_validation(trainer, plans)
        workplace.check_predictions(trainer)


@pytest.mark.slow
def test_from_trained_folds_to_the_report(workplace):
    """Our trainer and nnU-Net's own, all folds; the EF of the masks is the one that the hearts were drawn with."""
    ours, stock = "nnUNetTrainerNoMamba_1epochs_2iterations", "nnUNetTrainer_1epoch"
    commands = [workplace.train(trainer, fold=fold) for trainer in (ours, stock) for fold in FOLDS]
    workplace.run("python", "-c", TRAIN_AND_PREDICT, json.dumps(commands))
    out = workplace.folder / "leaderboard"
    shown = workplace.run(
        "nnunet-echo",
        "leaderboard",
        "751",
        "-o",
        str(out),
        "--baseline",
        stock,
        "--trainers",
        ours,
        stock,
        "--workers",
        "1",
    )
    assert "folds 0 1 2 3 4: 9 patients" in shown and str(out / "index.html") in shown

    def table(path):
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    rows = {row["trainer"]: row for row in table(out / "leaderboard.csv")}
    assert set(rows) == {ours, stock}
    for row in rows.values():
        assert row["status"] == "complete" and row["folds"] == "0 1 2 3 4" and float(row["epoch_s"]) > 0, row
    known = {row["patient"]: float(row["ef_percent"]) for row in table(workplace.raw / DATASET / "cases.csv")}
    measured = table(out / "patients.csv")
    assert len(measured) == 2 * 9
    for row in measured:
        assert row["planes"] == "single-plane 4CH"
        assert abs(float(row["reference_ef_percent"]) - known[row["patient"]]) < 2, row
    page = (out / "index.html").read_text()
    assert ours in page and stock in page
