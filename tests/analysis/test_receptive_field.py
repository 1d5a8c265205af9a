"""The effective receptive field: of networks where it is known, and the command with random and trained weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunet_echo.analysis import receptive_field as erf
from nnunet_echo.cli.main import main

SMALL = (32, 32)


class Known(nn.Module):
    """One 3 x 3 convolution with known weights, before an output of half the size, as with deep supervision."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.conv.weight.data = torch.tensor(weights).view(1, 1, 3, 3) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        finest = self.conv(self.dropout(x))
        return [finest, finest[..., ::2, ::2].mean(dim=(2, 3), keepdim=True)]


def test_field_of_one_convolution() -> None:
    """Around the middle pixel, absolute, with classes whose sum has no gradient."""
    weights = [1.0, 0, 0, 0, -6, 0, 0, 2, 1]
    images = torch.randn(3, 1, 9, 12)
    field = erf.effective_receptive_field(Known(weights), images)
    expected = np.zeros((9, 12))
    expected[3:6, 5:8] = np.abs(weights).reshape(3, 3) / 10
    np.testing.assert_allclose(field, expected, atol=1e-7)
    assert not images.requires_grad


def test_a_network_without_influence_is_an_error() -> None:
    with pytest.raises(ValueError, match="gradients of Known sum to 0.0"):
        erf.effective_receptive_field(Known([0.0] * 9), torch.randn(1, 1, 8, 8))


def test_field_averages_over_inputs() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).sum(dim=(2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])

    images = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]], [[[-1.0, 4.0], [1.0, 0.0]]]])
    np.testing.assert_allclose(erf.effective_receptive_field(Square(), images), np.array([[2, 6], [4, 0]]) / 12)


def test_area_fraction() -> None:
    field = np.array([[1, 0], [4, 5]]) / 10
    assert [erf.area_fraction(field, share) for share in (0.5, 0.51, 0.95)] == [0.25, 0.5, 0.75]
    assert erf.area_fraction(np.full((10, 10), 0.01), 0.5) == pytest.approx(0.5, abs=0.011)


@pytest.fixture
def few_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans with 4 features in every stage, so that nnU-Net's U-Net is small."""
    plan = erf._configuration

    def small(size: tuple[int, int]) -> object:
        configuration = plan(size)
        kwargs = configuration.network_arch_init_kwargs
        kwargs["features_per_stage"] = [4] * kwargs["n_stages"]
        return configuration

    monkeypatch.setattr(erf, "_configuration", small)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "erf.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_command_with_random_weights(few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = ["nnUNetTrainer", "nnUNetTrainerNoMamba"]
    command = ["erf", "--trainers", *names, "--size", "32x64", "--inputs", "1", "-o"]
    assert main([*command, str(tmp_path / "one")]) == 0
    assert main([*command, str(tmp_path / "two")]) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "erf.csv",
        "erf.png",
        *(f"{n}.png" for n in names),
    ]
    table = rows(tmp_path / "one")
    assert table == rows(tmp_path / "two")
    assert [row["network"] for row in table] == names
    assert {(row["weights"], row["height"], row["width"]) for row in table} == {("random", "32", "64")}
    for row in table:
        assert 0 < float(row["area_fraction_50"]) < float(row["area_fraction_95"]) < 1
    assert "Searching" not in capsys.readouterr().out


def test_command_with_a_checkpoint(few_features: None, tmp_path: Path) -> None:
    """The trained weights count: with all but the centre of the first convolutions at 0, the field is smaller."""
    subject = erf.random_network("nnUNetTrainer", SMALL)
    weights = subject.network.state_dict()
    for name, weight in weights.items():
        if name.endswith("conv.weight") and weight.shape[-1] == 3:
            centre = weight[..., 1, 1].clone()
            weight.zero_()
            weight[..., 1, 1] = centre
    folder = results_folder(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", network_weights=weights)
    assert main(["erf", "--checkpoint", str(folder), "--inputs", "1", "-o", str(tmp_path / "out")]) == 0
    (row,) = rows(tmp_path / "out")
    assert (row["network"], row["weights"], row["height"]) == (folder.name, str(folder), "32")
    trained = erf.effective_receptive_field(erf.trained_network(folder, None).network, torch.randn(1, 1, *SMALL))
    random = erf.effective_receptive_field(
        erf.random_network("nnUNetTrainer", SMALL).network, torch.randn(1, 1, *SMALL)
    )
    assert erf.area_fraction(trained, 0.5) < erf.area_fraction(random, 0.5) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "250x256"], "size is 250x256, which its stages do not divide. Take 256x256."),
        (["--checkpoint", "nowhere"], "has no fold_*/checkpoint_final.pth"),
        (["--inputs", "0"], "--inputs 0: must be 1 or more"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["erf", *arguments, "-o", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def results_folder(folder: Path, **checkpoint: object) -> Path:
    """A folder of nnUNet_results with a finished fold of nnU-Net's own trainer; `checkpoint` replaces parts of it."""
    subject = erf.random_network("nnUNetTrainer", SMALL)
    (folder / "fold_0").mkdir(parents=True)
    configuration = erf._configuration(SMALL).configuration | {"data_identifier": "x", "spacing": [1, 1]}
    plans = {"dataset_name": "Dataset001_Toy", "plans_name": "nnUNetPlans", "configurations": {"2d": configuration}}
    dataset_json = {"channel_names": {"0": "us"}, "labels": {"background": 0, "LV": 1, "MYO": 2, "LA": 3}}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    saved = {
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "2d", "device": torch.device("cuda")},
        "network_weights": subject.network.state_dict(),
        "_best_ema": np.float32(0.5),
        "logging": {"train_losses": [np.float64(0.5)], "dice_per_class_or_region": [[np.float32(0.1)]]},
    }
    torch.save(saved | checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


class Touch:
    """Unpickled by pickle, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("where", ["network_weights", "logging", "extra"])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_does_not_run(
    where: str, legacy: bool, few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = results_folder(tmp_path / "X", **{where: Touch(tmp_path / "made")})
    file = folder / "fold_0" / "checkpoint_final.pth"
    if legacy:  # the format before zip files
        torch.save({where: Touch(tmp_path / "made")}, file, _use_new_zipfile_serialization=False)
    assert main(["erf", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "made").exists()
    message = capsys.readouterr().err
    assert f"{file} was not read: it names " in message and "could run code" in message
    torch.load(file, weights_only=False)
    assert (tmp_path / "made").exists()  # it would have


@pytest.mark.parametrize("key", ["nonlin", "conv_op", "network_class_name"])
@pytest.mark.parametrize("code", ["torch.nn.modules.module.warnings.warn", "os.system", "builtins.exec"])
def test_code_in_a_plan_does_not_run(
    key: str, code: str, few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = results_folder(tmp_path / "X")
    plans = json.loads((folder / "plans.json").read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    (architecture if key == "network_class_name" else architecture["arch_kwargs"])[key] = code
    (folder / "plans.json").write_text(json.dumps(plans))
    assert main(["erf", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert f"the plan names '{code}', which would be called" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda plans, network: network.update(network_class_name=None),
        lambda plans, network: network.update(network_class_name="dynamic_network_architectures.nosuch.system"),
        lambda plans, network: network["arch_kwargs"].update(n_stages=9),
        lambda plans, network: plans.pop("configurations"),
        None,
    ],
)
def test_plans_that_make_no_network_are_named(
    change: Callable, few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = results_folder(tmp_path / "X")
    plans = json.loads((folder / "plans.json").read_text())
    if change is not None:
        change(plans, plans["configurations"]["2d"]["architecture"])
    (folder / "plans.json").write_text(json.dumps(plans) if change else "[" * 100_000)
    assert main(["erf", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert f"{folder}/plans.json do not make a network" in capsys.readouterr().err


def test_a_checkpoint_cut_in_half_is_named(few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = results_folder(tmp_path / "X") / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert main(["erf", "--checkpoint", str(tmp_path / "X"), "-o", str(tmp_path / "out")]) == 2
    assert f"{file} is not a complete checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut", b"\x80\x02K\x01."])
def test_a_damaged_checkpoint_is_named(
    content: bytes, few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = results_folder(tmp_path / "X")
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    assert main(["erf", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "checkpoint_final.pth" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_named(
    few_features: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for change in (
        {"network_weights": {"a": torch.ones(1)}},
        {"trainer_name": "nnUNetTrainerOfNobody"},
        {"init_args": {"configuration": "3d"}},
        {"init_args": None},
        {"init_args": {"configuration": []}},
    ):
        folder = results_folder(tmp_path / f"X{len(list(tmp_path.iterdir()))}", **change)
        assert main(["erf", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
        assert "checkpoint_final.pth and" in capsys.readouterr().err


def test_folders_of_one_name_have_a_picture_each(few_features: None, tmp_path: Path) -> None:
    folders = [results_folder(tmp_path / name) for name in ("A/X", "B/X", "B/x", "A/erf", "Y")]
    command = ["erf", "--inputs", "1", "-o", str(tmp_path / "out"), "--checkpoint", *map(str, folders)]
    assert main(command) == 0
    names = [row["network"] for row in rows(tmp_path / "out")]
    assert names[0] == "A__X" and names[3:] == ["A__erf", "Y"]
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {*names, "erf"}
    assert len({name.casefold() for name in pictures}) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "A/X", "A/../A/X"], "A/X is named twice"),
        (["--trainers", "nnUNetTrainer", "nnUNetTrainer"], "one is named twice"),
    ],
)
def test_one_network_named_twice(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["erf", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["256", "0x256", "-1x5", "256x256x3", "ax4", "2.5x4", ""])
def test_a_size_that_is_none(size: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["erf", f"--size={size}", "-o", str(tmp_path)])
    assert f"argument --size: {size!r}: expected HEIGHTxWIDTH in pixels, such as 256x256" in capsys.readouterr().err
