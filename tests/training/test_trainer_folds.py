"""The cases that a fold trains and validates on, by patient, and what happens when the split changes."""

import json
import shutil
import time
from pathlib import Path

import pytest
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy_training import CASES, DATASET_JSON, Toy, log_of, make, split_into

pytest_plugins = ("toy_training",)


def test_fold_of_the_split_file(toy_dataset):
    split_into(toy_dataset, (CASES[2:], CASES[:2]), (CASES[:-4], CASES[-4:]))
    trainer = make(Toy, fold=1)
    assert trainer.do_split() == (CASES[:-4], CASES[-4:])
    assert "4 patients to train on, 2 to validate on" in log_of(trainer)


@pytest.mark.parametrize("fold", [2, 5, -1])
def test_fold_that_the_file_lacks_is_an_error(toy_dataset, fold):
    split_into(toy_dataset, (CASES[2:], CASES[:2]), (CASES[:-2], CASES[-2:]))
    with pytest.raises(ValueError, match=rf"fold {fold}: .*splits_final.json has folds 0 to 1"):
        make(Toy, fold=fold).do_split()


def test_patient_on_both_sides_is_an_error_that_names_the_patient(toy_dataset):
    split_into(toy_dataset, (CASES[1:], CASES[:1]))  # p0_ES trains, p0_ED validates
    with pytest.raises(RuntimeError, match="on the same patients: p0\\."):
        make(Toy).do_split()


def test_case_on_both_sides_is_an_error_without_a_pattern(toy_dataset):
    split_into(toy_dataset, (CASES, CASES[:1]))
    without = {key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}
    with pytest.raises(RuntimeError, match="on the same patients: p0_ED\\."):
        make(Toy, dataset_json=without).do_split()


def test_case_that_was_not_preprocessed_is_an_error(toy_dataset):
    split_into(toy_dataset, (CASES[2:] + ["p8_ED", "p9_ED"], CASES[:2]))
    with pytest.raises(RuntimeError, match="2 cases of fold 0 .*: p8_ED, p9_ED\\. Run nnUNetv2_preprocess"):
        make(Toy).do_split()


def test_without_a_split_file_one_by_patient_is_written(toy_dataset):
    sides = [make(Toy, fold=fold).do_split() for fold in range(5)]
    assert json.loads((toy_dataset / "splits_final.json").read_text()) == [{"train": t, "val": v} for t, v in sides]
    for train, validation in sides:
        assert sorted(train + validation) == CASES
        assert not {case[:2] for case in train} & {case[:2] for case in validation}
    assert sorted(case for _, validation in sides for case in validation) == CASES
    assert not list(toy_dataset.glob("*.tmp"))


def test_without_patients_the_split_is_nnunets(toy_dataset):
    without = {key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}
    trainer = make(Toy, dataset_json=without)
    ours = trainer.do_split()
    (toy_dataset / "splits_final.json").unlink()
    assert ours == nnUNetTrainer.do_split(trainer)


def test_fold_all_trains_and_validates_on_everything(toy_dataset):
    train, validation = make(Toy, fold="all").do_split()
    assert sorted(train) == sorted(validation) == CASES and not (toy_dataset / "splits_final.json").exists()


FIRST, SECOND = (CASES[2:], CASES[:2]), (CASES[:-2], CASES[-2:])  # validate on p0, on p5


def trained(toy_dataset, fold=0, *folds):
    """A fold that was trained to the end, in the split of these folds, and its folder."""
    split_into(toy_dataset, *(folds or (FIRST,)))
    trainer = make(Toy, fold=fold)
    trainer.run_training()
    return Path(trainer.output_folder)


def go_on(fold=0, validation_only=False, **arguments):
    """nnU-Net's ``--c`` or ``--val``, until the checkpoint is loaded."""
    trainer = make(Toy, fold=fold, **arguments)
    maybe_load_checkpoint(trainer, continue_training=not validation_only, validation_only=validation_only)
    return trainer


@pytest.mark.parametrize("validation_only", [False, True])
def test_a_fold_of_another_split_is_refused_and_the_patient_named(toy_dataset, validation_only):
    folder = trained(toy_dataset)
    go_on(validation_only=validation_only)
    split_into(toy_dataset, (FIRST[0][::-1], FIRST[1][::-1]))  # the order says nothing
    go_on(validation_only=validation_only)
    split_into(toy_dataset, SECOND)
    message = r"fold 0 .*other split.*trained on p5 \(1 such patients\).*Train the fold again"
    with pytest.raises(RuntimeError, match=message) as error:
        go_on(validation_only=validation_only)
    assert str(folder) in str(error.value)


def test_a_split_that_only_lost_a_patient_is_another_one(toy_dataset):
    trained(toy_dataset)
    split_into(toy_dataset, (CASES[4:], CASES[:2]))
    with pytest.raises(RuntimeError, match="with 10 training and 2 validation cases, .* has 8 and 2.* is p1"):
        go_on()


def test_a_split_that_changes_while_it_trains_is_noticed_before_the_validation(toy_dataset):
    split_into(toy_dataset, FIRST)
    trainer = make(Toy)
    trainer.run_training()
    split_into(toy_dataset, SECOND)
    with pytest.raises(RuntimeError, match="trained on p5"):
        trainer.perform_actual_validation()
    assert not Path(trainer.output_folder, "validation").exists()


@pytest.mark.parametrize("record", [True, False])
def test_a_training_anew_is_not_taken_for_the_old_one(toy_dataset, record):
    """Killed before it saved, it leaves nothing that --c would continue or --val validate."""
    folder = trained(toy_dataset)
    (folder / "validation").mkdir()
    if not record:
        (folder / "split.json").unlink()
    split_into(toy_dataset, SECOND)
    trainer = make(Toy)
    trainer.on_train_start()
    assert not list(folder.glob("checkpoint_*.pth")) and not (folder / "validation").exists()
    assert len(list(folder.glob("checkpoint_final.pth.before_*"))) == len(list(folder.glob("validation.before_*"))) == 1
    assert "checkpoint_final.pth is of an earlier training" in log_of(trainer)
    trainer.save_latest()
    assert go_on()._continued


def test_a_training_anew_in_the_same_split_moves_nothing(toy_dataset):
    folder = trained(toy_dataset)
    make(Toy).on_train_start()
    assert (folder / "checkpoint_final.pth").exists()


def test_pretrained_weights_may_come_from_another_split(toy_dataset):
    source = trained(toy_dataset)
    split_into(toy_dataset, SECOND, SECOND)
    trainer = make(Toy, fold=1)
    maybe_load_checkpoint(trainer, False, False, pretrained_weights_file=str(source / "checkpoint_final.pth"))
    trainer.on_train_start()
    assert json.loads(Path(trainer.output_folder, "split.json").read_text())["val"] == SECOND[1]


def test_fold_all_keeps_its_cases_too(toy_dataset):
    split_into(toy_dataset, FIRST)
    make(Toy, fold="all").run_training()
    go_on(fold="all")
    for file in (toy_dataset / "nnUNetPlans_2d").glob("p5_*"):
        file.unlink()
    with pytest.raises(RuntimeError, match="with 12 training and 12 validation cases, .* has 10 and 10.* is p5"):
        go_on(fold="all")


def test_a_copied_fold_is_another_fold(toy_dataset):
    folder = trained(toy_dataset, 0, FIRST, SECOND)
    shutil.copytree(folder, folder.with_name("fold_1"))
    with pytest.raises(RuntimeError, match="fold 1 .*trained on p5"):
        go_on(fold=1)


def test_without_a_record_it_says_so_once_and_compares_what_there_is(toy_dataset):
    folder = trained(toy_dataset)
    (folder / "split.json").unlink()
    time.sleep(1.1)  # logs are named by the second
    trainer = go_on()
    trainer.load_checkpoint(str(folder / "checkpoint_final.pth"))  # as --val_best does
    assert log_of(trainer).count("keeps no record") == 1
    trainer.on_train_start()
    assert json.loads((folder / "split.json").read_text()) == {"train": FIRST[0], "val": FIRST[1]}

    (folder / "split.json").unlink()
    split_into(toy_dataset, (CASES[4:], CASES[:4]))
    with pytest.raises(RuntimeError, match="it has 10 training and 2 validation cases, not 8 and 4"):
        go_on()
    split_into(toy_dataset, SECOND)  # as many cases: known are only those that it validated
    go_on(validation_only=True)
    (folder / "validation").mkdir()
    (folder / "validation" / "p0_ED.nii.gz").touch()
    with pytest.raises(RuntimeError, match=r"validates p0_ED \(1 such"):
        go_on(validation_only=True)


def test_a_damaged_record_is_refused(toy_dataset):
    folder = trained(toy_dataset)
    for content in ("", "5", "[]", '{"train": []}', '{"train": 1, "val": []}', '{"train": [1], "val": []}'):
        (folder / "split.json").write_text(content)
        with pytest.raises(RuntimeError, match="its split.json is damaged"):
            go_on()


def test_only_the_first_rank_keeps_the_cases(toy_dataset):
    split_into(toy_dataset, FIRST)
    trainer = make(Toy)
    trainer.initialize()
    trainer.local_rank = 1
    trainer.on_train_start()
    assert not Path(trainer.output_folder, "split.json").exists()
