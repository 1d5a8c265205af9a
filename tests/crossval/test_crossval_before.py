"""What `crossval`, `status`, `slurm-script` refuse before anything starts, and how they name what they would run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from crossval_dataset import Dataset, crossval
from crossval_fake import DATASET

from nnunet_echo.cli.main import main
from nnunet_echo.crossval import checks, sweep
from nnunet_echo.crossval import slurm as slurm_script
from nnunet_echo.nnunet.plans import add_configuration, plan_configuration

pytest_plugins = ("crossval_dataset",)


@pytest.mark.parametrize("command", ["crossval", "status", "slurm-script"])
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("1-0", "--folds 1-0: the range ends before it begins. Give 0-1."),
        ("0-99999999999", "--folds 2: the split of Dataset751_CAMUS has folds 0 to 1"),
        ("9" * 5000, "Give numbers"),
        ("-1", "Give numbers"),
        ("", "Give numbers"),
        (" ", "Give numbers"),
        ("0-", "Give numbers"),
        ("0,1", "Give numbers"),
        ("0-1-2", "Give numbers"),
        ("²", "Give numbers"),
        ("1.0", "Give numbers"),
        ("all", "Give numbers"),
        ("2", "--folds 2: the split"),
    ],
)
def test_folds_that_are_none(
    dataset: Dataset, capsys: pytest.CaptureFixture, command: str, word: str, reason: str
) -> None:
    assert (
        main(
            [command, "751", "--trainers", "A", "--folds", word]
            + (["--device", "cpu"] if command == "crossval" else [])
        )
        == 2
    )
    assert reason in capsys.readouterr().err


def test_folds_are_refused_before_hours_of_preprocessing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "prepare", lambda *_: pytest.fail("prepared"))
    assert crossval("--folds", "1-0") == 2
    assert crossval("--folds", "0-2") == 2
    dataset.splits.unlink()
    raw = dataset.folder.parent / "raw"
    monkeypatch.setenv("nnUNet_raw", str(raw))  # not preprocessed yet: the split of the conversion
    (raw / DATASET).mkdir(parents=True)
    (raw / DATASET / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    assert crossval("--folds", "0-99999999999") == 2


@pytest.mark.parametrize("command", ["crossval", "status", "slurm-script"])
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("-c", "$(touch x)"),
        ("-c", "2d; touch x"),
        ("-c", "*"),
        ("-c", "../2d"),
        ("-c", "2d\nx"),
        ("-c", ""),
        ("-p", "`x`"),
        ("-p", "a/b"),
        ("--trainers", "A;x"),
        ("--trainers", "A__B"),
        ("--trainers", "$A"),
        ("--trainers", "A B"),
        ("--trainers", ""),
    ],
)
def test_names_that_cannot_be(
    dataset: Dataset, capsys: pytest.CaptureFixture, command: str, option: str, name: str
) -> None:
    options = {"--trainers": "A", option: name}
    assert main([command, "751", *(word for pair in options.items() for word in pair)]) == 2
    assert repr(name) in capsys.readouterr().err


def test_the_script_quotes_every_value(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = f"/x y'\"$(touch {tmp_path}/hit)`touch {tmp_path}/hit`\n;touch {tmp_path}/hit"
    for name in ("nnUNet_raw", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.setenv(name, evil)
    echo = tmp_path / "e $(touch hit) 'cho"
    echo.symlink_to("/bin/echo")
    monkeypatch.setattr(sys, "executable", str(echo))
    script = slurm_script.slurm_script(DATASET, "2d", "nnUNetPlans", ["A"], [0], "cpu")
    assert all(f' "${name}" ' in script for name in ("trainer", "fold"))
    done = subprocess.run(
        ["bash", "-c", script + 'printf %s "$nnUNet_results"'],
        cwd=tmp_path,
        text=True,
        check=True,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"},
        capture_output=True,
    )
    words = f"-m nnunet_echo.crossval.train_fold {DATASET} 2d 0 -tr A -p nnUNetPlans -device cpu --wait 600"
    assert done.stdout == f"{words}\n{evil}"
    assert not (tmp_path / "hit").exists()
    for names in (
        ("Dataset751_$(touch x)", "2d", "p", ["A"]),
        (DATASET, "$(x)", "p", ["A"]),
        (DATASET, "2d", "p;", ["A"]),
        (DATASET, "2d", "p", ["A", "$(x)"]),
    ):
        with pytest.raises(ValueError, match="name|trainer"):
            slurm_script.slurm_script(*names, [0], "cpu")


def test_every_trainer_is_looked_up_as_nnunet_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nnUNetTrainerOfMine.py").write_text("class nnUNetTrainerOfMine: pass\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    checks.check_trainers(["nnUNetTrainer", "nnUNetTrainer_5epochs", "nnUNetTrainerNoMamba_2epochs_8iterations"])
    with pytest.raises(ValueError) as error:
        checks.check_trainers(
            ["nnUNetTrainer_2epochs_8iterations", "nnUNetTrainer", "nnUNetTrainerLKMUnet", "nnUNetTrainerOfMine"]
        )
    first, second, third = re.split(r"(?<=\.) (?=nnUNetTrainerOfMine|trainer )", str(error.value))
    assert first.startswith("trainer nnUNetTrainer_2epochs_8iterations: nnU-Net finds none of that name")
    assert "Any length, as _2epochs_8iterations here, exists of this package's trainers only" in first
    assert second.startswith("trainer nnUNetTrainerLKMUnet: ")
    assert "nnUNetTrainerLKMUNet has no such form. After its name, spelt so, may follow" in second
    assert third.startswith("nnUNetTrainerOfMine: ") and "must inherit" in third
    with pytest.raises(ValueError, match="Correct the name, or add the folder of its file to nnUNet_extTrainer.$"):
        checks.check_trainers(["nnUNetTrainerLKM"])
    checks.check_trainers(["nnUNetTrainerViL_vil30", "nnUNetTrainerViL_samus_2epochs_8iterations"])
    with pytest.raises(
        ValueError, match=r"none of that name.*\. nnUNetTrainerViL has no such form.*Recipes: vil30, "
    ) as error:
        checks.check_trainers(["nnUNetTrainerViL_vil3_5epochs"])
    assert "Any length" not in str(error.value)
    (tmp_path / "nnUNetTrainerBad.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ValueError, match="ModuleNotFoundError: No module named 'nothing_of_that_name'"):
        checks.check_trainers(["nnUNetTrainerBad"])


def test_nothing_starts_with_a_trainer_or_a_device_that_is_not_there(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import torch

    monkeypatch.setattr(sweep, "prepare", lambda *_: pytest.fail("prepared"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["crossval", "751", "--trainers", "A"]) == 2
    error = capsys.readouterr().err
    assert "--device cuda: this machine has no GPU" in error and "--device cpu" in error
    monkeypatch.setattr(sweep, "check_trainers", checks.check_trainers)
    assert crossval() == 2
    assert "trainer A: nnU-Net finds none of that name" in capsys.readouterr().err
    assert not (dataset.a[0].folder).exists()


def test_the_command_that_finishes_has_the_options_that_were_used(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "my images"
    images.mkdir()
    monkeypatch.setenv("MODE", "fail")
    assert crossval("--folds", "0", "--predict", str(images), "--gpus-per-job", "0.5") == 1
    wanted = (
        f"nnunet-echo crossval 751 -c 2d --trainers A B --folds 0 --device cpu --gpus-per-job 0.5 --predict "
        f"{shlex.quote(str(images))}\n"
    )
    assert f"To try again: {wanted}" in capsys.readouterr().out
    assert main(["status", "751", "--folds", "0"]) == 1
    assert f"To finish what is missing: {wanted}" in capsys.readouterr().out
    (dataset.a[0].folder.parent / "crossval.json").unlink()  # by hand, on a CPU
    (dataset.a[0].folder / "debug.json").write_text('{"device": "cpu"}')
    assert main(["status", "751", "--folds", "0"]) == 1
    printed = capsys.readouterr().out
    assert "crossval 751 -c 2d --trainers A --folds 0 --device cpu\n" in printed
    assert "crossval 751 -c 2d --trainers B --folds 0 --device cpu --gpus-per-job 0.5" in printed


def test_folders_of_other_plans_are_no_trainers(dataset: Dataset, capsys: pytest.CaptureFixture) -> None:
    dataset.a[0].run("train")
    for name in ("A__my__nnUNetPlans__2d", "__nnUNetPlans__2d", "A b__nnUNetPlans__2d"):
        (dataset.folder / name).mkdir()
    (dataset.folder / "C__nnUNetPlans__2d").touch()
    main(["status", "751"])
    printed = capsys.readouterr().out
    assert "2 folds, 1 done, 1 not started" in printed


@pytest.mark.parametrize(
    ("configurations", "reason"),
    [
        ({"2d": {"inherits_from": "2d_x"}}, "configuration 2d inherits from 2d_x: .*nnUNetPlans.json has 2d"),
        ({"2d": {"inherits_from": "b"}, "b": {"inherits_from": "2d"}}, "inherits from itself, 2d -> b -> 2d"),
        ({"2d": {"inherits_from": "2d"}}, "inherits from itself, 2d -> 2d"),
        ({"2d": {"inherits_from": ["x"]}}, "inherits from"),
        ({"2d": 5}, "not an object with settings"),
        ({"2d": {}}, "no data_identifier"),
        ({"2d": {"data_identifier": 5}}, "no data_identifier"),
        ({}, "no plans"),
        ([], "no plans"),
        (None, "no plans"),
    ],
)
def test_plans_that_cannot_be(
    dataset: Dataset, capsys: pytest.CaptureFixture, configurations: object, reason: str
) -> None:
    dataset.plans.write_text(json.dumps({"configurations": configurations}))
    for command in ("crossval", "slurm-script"):
        assert main([command, "751", "--trainers", "A", "--device", "cpu"]) == 2
        assert re.search(reason, capsys.readouterr().err)
    with pytest.raises(ValueError, match=r"base='2d'"):
        add_configuration(dataset.plans, "x", (1, 1), (160, 192), 8, (16, 256))


def test_inherited_settings_yield_to_own_ones() -> None:
    plans = {"a": {"x": 1, "y": 1}, "b": {"inherits_from": "a", "y": 2}, "c": {"inherits_from": "b", "z": 3}}
    merged = plan_configuration(Path("plans"), plans, "c")
    assert {key: merged[key] for key in "xyz"} == {"x": 1, "y": 2, "z": 3}
