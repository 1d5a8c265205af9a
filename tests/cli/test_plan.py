"""`nnunet-echo plan`: a small configuration joins the plans, is measured, and never replaces another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_echo.analysis import estimate
from nnunet_echo.analysis.estimate import Estimate, estimate_epoch
from nnunet_echo.cli.main import main
from nnunet_echo.nnunet.plans import fitting_patch, unet_architecture

SMALL = ["--spacing", "2", "--batch", "2", "--features", "4", "8", "--steps", "0"]


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plans as nnU-Net writes them, of images of 100 x 75 pixels of 0.5 x 1 mm."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "preprocessed" / "Dataset770_Images"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "ultrasound"},
                "labels": {"background": 0, "LV": 1},
                "numTraining": 21,
                "file_ending": ".nii.gz",
            }
        )
    )
    arguments = {
        **unet_architecture((128, 96)),
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "batch_size": 12,
        "patch_size": [128, 96],
        "spacing": [0.5, 1.0],
        "median_image_size_in_voxels": [100.0, 75.0],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    file = folder / "nnUNetPlans.json"
    file.write_text(
        json.dumps(
            {"dataset_name": "Dataset770_Images", "plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}
        )
    )
    return file


def added(plans: Path, name: str) -> dict:
    return json.loads(plans.read_text())["configurations"][name]


def test_the_patch_is_the_median_image_at_the_new_spacing(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-d", "770", *SMALL]) == 0
    new = added(plans, "2d_2mm")
    assert new["patch_size"] == [28, 40]  # 100 x 0.5 / 2 = 25, 75 / 2 = 38: two stages halve them
    assert (new["spacing"], new["batch_size"], new["inherits_from"]) == ([2.0, 2.0], 2, "2d")
    assert new["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8, 8]
    shown = capsys.readouterr().out
    assert "nnUNetv2_preprocess -d 770 -c 2d_2mm -np 2\n" in shown
    assert "nnUNetv2_train 770 2d_2mm 0 -tr nnUNetTrainerLKMUNet -device cpu\n" in shown


def test_a_plan_from_a_derived_one_is_as_from_its_base(plans: Path) -> None:
    """The median in pixels that is inherited is one of the base's spacing."""
    assert main(["plan", "-d", "770", *SMALL]) == 0
    again = ["--configuration" if word == "-c" else word for word in SMALL]
    assert main(["plan", "-d", "770", *again, "-c", "2d_2mm", "--name", "again"]) == 0
    assert added(plans, "again")["patch_size"] == added(plans, "2d_2mm")["patch_size"]


def test_a_plan_that_does_not_say_how_large_images_are(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(plans.read_text())
    del content["configurations"]["2d"]["median_image_size_in_voxels"]
    plans.write_text(json.dumps(content))
    assert main(["plan", "-d", "770", *SMALL]) == 2
    assert "Give --patch" in capsys.readouterr().err
    assert main(["plan", "-d", "770", *SMALL, "--patch", "32", "40"]) == 0


def test_the_fitting_patch_divides_itself() -> None:
    for size in ((25, 37.5), (100, 75), (153.8, 192), (9, 300), (8, 8), (513, 640)):
        patch = fitting_patch(size)
        assert all(n >= round(m) for n, m in zip(patch, size, strict=True)) and fitting_patch(patch) == patch


def test_every_option_has_its_effect_and_its_place(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = plans.with_name("otherPlans.json")
    plans.rename(other)
    assert (
        main(
            [
                "plan",
                "-d",
                "Dataset770_Images",
                "--spacing",
                "1",
                "2",
                "--patch",
                "32",
                "48",
                "--steps",
                "0",
                "-p",
                "otherPlans",
                "--name",
                "small",
                "-tr",
                "nnUNetTrainerNoMamba",
            ]
        )
        == 0
    )
    new = added(other, "small")
    assert (new["spacing"], new["patch_size"], new["batch_size"]) == ([1.0, 2.0], [32, 48], 8)
    shown = capsys.readouterr().out
    assert "-c small -plans_name otherPlans" in shown and "small 0 -tr nnUNetTrainerNoMamba -p otherPlans" in shown


def test_the_same_again_changes_nothing_and_another_never_replaces_it(
    plans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-d", "770", *SMALL]) == 0
    before = plans.read_bytes()
    assert main(["plan", "-d", "770", *SMALL]) == 0 and plans.read_bytes() == before
    for changed, key in (
        (["--batch", "3"], "batch_size"),
        (["--patch", "48", "48"], "patch_size"),
        (["--name", "2d"], "inherits_from"),
    ):
        assert main(["plan", "-d", "770", *SMALL, *changed]) == 2
        error = capsys.readouterr().err
        assert key in error and "Choose another name" in error
    assert plans.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--spacing", "0"], "--spacing 0: numbers above 0"),
        (["--spacing", "nan"], "--spacing nan: numbers above 0"),
        (["--spacing", "1", "1", "1"], "the configuration has 2 axes"),
        (["--patch", "64"], "--patch 64: 2d has 2 axes"),
        (["--patch", "30", "40"], "its stages need"),
        (["--batch", "0"], "--batch 0: numbers above 0"),
        (["--features", "16", "8"], "the first stage has no more than MOST"),
        (["--name", "../x"], "configuration '../x': a name of letters"),
        (["-c", "3d_fullres"], "configuration 3d_fullres"),
        (
            ["-p", "noPlans"],
            "Let nnU-Net plan first (nnUNetv2_extract_fingerprint -d 770 && nnUNetv2_plan_experiment -d 770)",
        ),
        (["-tr", "nnUNetTrainerNone", "--steps", "1"], "trainer nnUNetTrainerNone: nnU-Net finds none of that name"),
    ],
)
def test_bad_options_are_answered_in_words(
    plans: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    before = plans.read_bytes()
    assert main(["plan", "-d", "770", *SMALL, *options]) == 2
    assert reason in capsys.readouterr().err and plans.read_bytes() == before


@pytest.mark.nnunet
def test_an_epoch_is_measured_on_the_network_of_the_trainer(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--spacing", "2", "--batch", "2", "--features", "4", "8", "--steps", "1"]
    assert main(["plan", "-d", "770", *options, "-tr", "nnUNetTrainerNoMamba_5epochs_20iterations"]) == 0
    shown = capsys.readouterr().out
    assert "estimate for nnUNetTrainerNoMamba_5epochs_20iterations on this CPU with 1 thread(s)" in shown
    assert "(20 training steps of" in shown and "4 of validation)" in shown and "GiB of memory" in shown
    assert "Inspecting" not in shown
    assert main(["plan", "-d", "770", *options, "--name", "b", "-tr", "nnUNetTrainerNoMamba_vil30"]) == 0
    assert "(9 training steps of" in capsys.readouterr().out  # 16.8 cases of a fold, two at a time


def test_an_epoch_is_its_steps(plans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Estimate(0.5, 0.1, 250, 50, 1).epoch_s == 130
    with pytest.raises(ValueError, match="steps=0: at least one"):
        estimate_epoch({}, {}, "x", "2d", 0)
    import torch

    clock = iter([0.0, 9.0, 10.0, 13.0, 20.0, 22.0, 30.0, 31.0])  # the first step, two that count, validation
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    seen = []
    network = torch.nn.Conv2d(1, 2, 1)
    network.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(estimate, "build_network", lambda *_: (network, (1, 8, 8)))
    content = json.loads(plans.read_text())
    content["configurations"]["small"] = {"inherits_from": "2d"}
    found = estimate_epoch(content, {}, "nnUNetTrainerNoMamba", "small", 2)
    assert found == Estimate(2.0, 1.0, 250, 50, torch.get_num_threads()) and seen == [(12, 1, 8, 8)] * 4
