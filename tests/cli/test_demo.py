"""The demo, and what it stands on: a small configuration in a plan, and nnU-Net's commands with their logs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_echo.cine import study
from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.result import CineResult
from nnunet_echo.cli import demo
from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.nnunet.commands import run_command
from nnunet_echo.nnunet.plans import add_configuration
from nnunet_echo.phantom.cine import render


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    arguments = {
        "n_stages": 8,
        "features_per_stage": [32, 64, 128, 256, 512, 512, 512, 512],
        "kernel_sizes": [[3, 3]] * 8,
        "strides": [[1, 1], *[[2, 2]] * 7],
        "n_conv_per_stage": [2] * 8,
        "n_conv_per_stage_decoder": [2] * 7,
    }
    file = tmp_path / "plans.json"
    configuration = {"architecture": {"network_class_name": "PlainConvUNet", "arch_kwargs": arguments}}
    file.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}))
    return file


def test_small_configuration(plans: Path) -> None:
    add_configuration(plans, "2d_1mm", (1, 1), (160, 192), 8, (16, 256))
    content = json.loads(plans.read_text())["configurations"]
    small = content["2d_1mm"]
    assert small["inherits_from"] == "2d"
    assert (small["patch_size"], small["batch_size"], small["spacing"]) == ([160, 192], 8, [1.0, 1.0])
    assert small["data_identifier"] == "nnUNetPlans_2d_1mm"
    arguments = small["architecture"]["arch_kwargs"]
    assert arguments["features_per_stage"] == [16, 32, 64, 128, 256, 256]
    assert arguments["strides"] == [[1, 1], *[[2, 2]] * 5]
    assert len(arguments["n_conv_per_stage"]) == len(arguments["kernel_sizes"]) == arguments["n_stages"] == 6
    assert len(arguments["n_conv_per_stage_decoder"]) == 5
    assert content["2d"]["architecture"]["arch_kwargs"]["n_stages"] == 8


def test_small_configuration_refuses_what_cannot_be(plans: Path) -> None:
    with pytest.raises(ValueError, match=r"patch_size=\(150, 192\).*\(160, 192\)"):
        add_configuration(plans, "x", (1, 1), (150, 192), 8, (16, 256))
    with pytest.raises(ValueError, match="base='3d_fullres'.*has 2d"):
        add_configuration(plans, "x", (1, 1, 1), (8, 8, 8), 2, (16, 256), base="3d_fullres")


def test_a_failing_command_ends_with_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match=rf"python failed with status 3.*{log}:\nthe reason"):
        run_command(["python", "-c", "print('the reason'); raise SystemExit(3)"], os.environ, log)
    with pytest.raises(RuntimeError, match="nnUNetv9_train is not found"):
        run_command(["nnUNetv9_train"], os.environ, log)


def test_progress_is_told_and_everything_logged(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    log, told = tmp_path / "log", []
    command = ["python", "-c", "print('2026: Epoch time: 3 s'); print('noise')"]
    run_command(command, os.environ, log)
    run_command(command, os.environ, log, told.append)
    assert told == ["  Epoch time: 3 s"] and capfd.readouterr().out == ""
    assert log.read_text() == "2026: Epoch time: 3 s\nnoise\n"


def test_demo_keeps_out_of_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "thesis.tex").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "is not a demo of ours" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "new"), "--patients", "3"]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--trainer", "nnUNetTrainerNoMamba_50epochs"), "by --epochs and --iterations. Leave out _50epochs."),
        (("--trainer", "nnUNetTrainerNoMamba_50epochs_9iterations"), "Leave out _50epochs_9iterations."),
        (("--trainer", "nnUNetTrainer_5epoch"), "Leave out _5epoch."),
        (("--trainer", "nnUNetTrainer"), "exists of this package's trainers only"),
        (("--trainer", "nnUNetTrainerNoSuch"), "nnU-Net finds none of that name"),
        (("--trainer", "../x"), "is called as its Python class"),
        (("--epochs", "0"), "--epochs 0: "),
        (("--iterations", "-3"), "--iterations -3: "),
        (("--device", "mps"), "--device mps: this machine has no Apple GPU"),
    ],
)
def test_demo_refuses_before_it_draws(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    options: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(["demo", "--out", str(tmp_path / "new"), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.nnunet
@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "demo"
    options = ["--trainer", "nnUNetTrainerNoMamba", "--patients", "10", "--epochs", "1", "--iterations", "2"]
    assert main(["demo", "--out", str(out), "--device", "cpu", *options]) == 0
    printed = capsys.readouterr().out
    assert "Dice on 4 images of held-out patients" in printed
    assert all(f"  {structure} " in printed for structure in ("LV", "MYO", "LA"))
    pictures = sorted((out / "pictures" / "nnUNetTrainerNoMamba_1epochs_2iterations").iterdir())
    frames = ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES")
    assert [picture.name for picture in pictures] == [f"CAMUS_patient0010_{frame}.png" for frame in frames]
    assert all(p.stat().st_size > 20_000 for p in pictures)
    measured = out / "cine" / "nnUNetTrainerNoMamba_1epochs_2iterations"
    assert "EF measured in 68 frames: " in printed and f"Report: {measured / 'report.html'}" in printed
    assert f"EF of the phantom: {camus_heart(0, 10).ef_percent:.0f} %" in printed
    assert {file.name for file in measured.iterdir()} >= {"result.json", "masks.nii.gz", "frames.csv", "report.html"}
    assert len(list((out / "nnUNet_raw" / "Dataset751_CAMUS" / "imagesTs").glob("*0010*"))) == 4  # not trained on


@pytest.mark.slow
def test_demo_measures_a_loop(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true masks in place of a network's, EF is that of the heart; a second run replaces the first report."""
    heart = camus_heart(demo.SEED, 10)

    def measure(model: object, paths: list[Path], *, views: list[str]) -> CineResult:
        assert model == ("model", (0,), "cpu")
        clip = read_clip(paths[0])
        contraction = (1 - np.cos(2 * np.pi * (clip.times_s / 0.8 - 0.2))) / 2
        masks = [render(heart, "4CH", float(c), spacing_mm=demo.SPACING_MM)[1] for c in contraction]
        return analyse(clip, masks, {"LV": 1, "MYO": 2, "LA": 3}, view=views[0])

    monkeypatch.setattr(study, "measure_study", measure)
    monkeypatch.setattr(CineModel, "load", lambda *of: of)
    reports = set()
    for _ in range(2):
        demo._measure_loop(tmp_path / "cine", heart, "model", "cpu", "trainer")
        printed = capsys.readouterr().out
        found = int(re.search(r"EF measured in 68 frames: (\d+) %", printed)[1])
        assert abs(found - heart.ef_percent) < 3 and f"EF of the phantom: {heart.ef_percent:.0f} %" in printed
        reports.add((tmp_path / "cine" / "trainer" / "report.html").read_text())
    assert len(reports) == 2  # each has its own name
    table = (tmp_path / "cine" / "trainer" / "frames.csv").read_text()
    assert len(table.splitlines()) == 69


def test_demo_says_why_a_loop_has_no_ef(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(model: object, paths: list[Path], *, views: list[str]) -> CineResult:
        clip = read_clip(paths[0])
        return analyse(clip, [np.zeros(clip.shape, np.uint8)] * clip.count, {"LV": 1}, view=views[0])

    monkeypatch.setattr(study, "measure_study", measure)
    monkeypatch.setattr(CineModel, "load", lambda *of: None)
    demo._measure_loop(tmp_path / "cine", camus_heart(demo.SEED, 10), "model", "cpu", "trainer")
    assert re.search(r"EF measured in 68 frames: not shown: 100%.*\.\n", capsys.readouterr().out)
