"""`nnunet-echo predict`: nnU-Net's masks, pixel for pixel, and what it does not import, overwrite or leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cine_models import dataset_json, different, nnunet_masks, pixels, plans, write_images, write_model

from nnunet_echo.cine.folder import predict_folder
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cli.main import main
from nnunet_echo.networks import NETWORKS

TOY = "nnUNetTrainerNoMamba_3epochs"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Larger and smaller than a patch, with black borders of two widths."""
    return write_images(tmp_path_factory.mktemp("images") / "images", [(60, 70), (45, 90), (20, 24)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), TOY)


def check(model: Path, images: Path, out: Path, *options: str, folds: tuple = (0,), ending: str = ".nii.gz") -> None:
    numbers = list(map(str, folds))
    assert main(["predict", "-i", str(images), "-o", str(out), "-m", str(model), "-f", *numbers, *options]) == 0
    theirs = nnunet_masks(model, images, out.with_name("theirs"), folds, use_mirroring="--disable_tta" not in options)
    found = different(out, theirs, ending)
    assert len(found) == len({file.name[: -len(ending) - 5] for file in images.iterdir()})
    assert set(found.values()) == {0}, found
    drawn = {label for file in theirs.glob(f"*{ending}") for label in np.unique(pixels(file))}
    assert len(drawn) > 1  # they are no empty masks
    for name in ("dataset.json", "plans.json"):
        assert json.loads((out / name).read_text()) == json.loads((theirs / name).read_text())


def test_masks_are_those_of_nnunet(model: Path, images: Path, tmp_path: Path) -> None:
    check(model, images, tmp_path / "out", "--workers", "2")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"c{case}.nii.gz" for case in range(3)),
        "dataset.json",
        "plans.json",
    ]


KINDS = {
    "ensemble-mirrored": {"folds": (0, 1, "all"), "mirror_axes": (0, 1)},
    "regions": {"dataset": dataset_json(regions=True)},
    "masked-norm": {"content": plans(use_mask_for_norm=[True])},
    "transposed": {"content": {**plans(), "transpose_forward": [0, 2, 1], "transpose_backward": [0, 2, 1]}},
    "coarse": {"content": plans(spacing=(1.9, 2.3))},
    "linear-data": {"content": plans(resampling_fn_data_kwargs={"is_seg": False, "order": 1, "order_z": 0})},
    "torch-resampling": {
        "content": plans(
            resampling_fn_probabilities="resample_torch_fornnunet",
            resampling_fn_probabilities_kwargs={
                "is_seg": False,
                "force_separate_z": False,
                "memefficient_seg_resampling": False,
            },
        )
    },
    "cubic-logits": {
        "content": plans(
            resampling_fn_probabilities_kwargs={"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        )
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stock_model(kind: str, images: Path, tmp_path: Path) -> None:
    options = KINDS[kind]
    model = write_model(tmp_path, "nnUNetTrainer", **options)
    check(model, images, tmp_path / "out", folds=options.get("folds", (0,)))


def test_mirroring_can_be_left_out(images: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path, mirror_axes=(1,))
    check(model, images, tmp_path / "out", "--disable_tta")


def test_several_channels_pictures_and_volumes(tmp_path: Path) -> None:
    two = plans(normalization_schemes=["ZScoreNormalization", "CTNormalization"], use_mask_for_norm=[False, True])
    check(
        write_model(tmp_path / "two", content=two, dataset=dataset_json(channels=2)),
        write_images(tmp_path / "channels", channels=2),
        tmp_path / "a" / "out",
    )
    pictures = plans(reader="NaturalImage2DIO")
    check(
        write_model(tmp_path / "png", content=pictures, dataset=dataset_json(ending=".png")),
        write_images(tmp_path / "pictures", ending=".png"),
        tmp_path / "b" / "out",
        ending=".png",
    )
    check(write_model(tmp_path / "3d"), write_images(tmp_path / "volumes", [(3, 40, 50)]), tmp_path / "c" / "out")


def test_an_image_that_is_black(model: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [(60, 70), (30, 40)])
    import SimpleITK as sitk

    black = sitk.ReadImage(str(images / "c1_0000.nii.gz")) * 0
    sitk.WriteImage(black, str(images / "c1_0000.nii.gz"))
    check(model, images, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name, row in NETWORKS.items() if 2 in row.dims])
@pytest.mark.parametrize("patch", [(64, 64), (160, 192)], ids=str)
def test_every_trainer(network: str, patch: tuple[int, int], tmp_path: Path) -> None:
    """On frames that the network does not fit."""
    if network.startswith("samus") and patch[0] == 64:
        pytest.skip("its ViT-B resizes every tile to 256 x 256, for minutes; of one patch it is enough")
    model = write_model(tmp_path, f"{NETWORKS[network].trainer}_12epochs", plans(patch, spacing=(1.0, 1.0)))
    frames = [(100, 110)] if network.startswith("samus") else [(200, 220)] * (4 if patch[0] == 64 else 2)
    images = write_images(tmp_path / "images", frames, (0.8, 0.8))
    check(model, images, tmp_path / "out")


@pytest.mark.slow
def test_the_command_itself(model: Path, images: Path, tmp_path: Path) -> None:
    """nnUNetv2_predict_from_modelfolder with its processes, instead of its predictor."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert main(["predict", "-i", str(images), "-o", str(ours), "-m", str(model)]) == 0
    command = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    options = ["-i", images, "-o", theirs, "-m", model, "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]
    subprocess.run([command, *map(str, options)], check=True, capture_output=True)
    assert set(different(ours, theirs).values()) == {0}


def test_what_a_fresh_process_imports(model: Path, images: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from nnunet_echo.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = ('matplotlib', 'sklearn', 'seaborn', 'nnunetv2.training.nnUNetTrainer', "
        "'nnunetv2.inference.predict')\n"
        "print(status, [name for name in sys.modules if name.startswith(heavy)])"
    )
    options = ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(model)]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout


def test_nnunets_way_to_name_a_model(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (tmp_path / "Dataset751_CAMUS").mkdir()
    (tmp_path / "Dataset751_CAMUS" / model.name).symlink_to(model)
    command = ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-d", "751", "-c", "2d", "-tr", TOY]
    assert main([*command, "-p", "nnUNetPlans", "-f", "0", "-chk", "checkpoint_final.pth", "-device", "cpu"]) == 0
    assert "3 masks: " in capsys.readouterr().out
    assert main([*command[:-1], "nnUNetTrainer"]) == 2
    assert f"There are {model.name}" in capsys.readouterr().err


def test_nothing_is_replaced_in_silence(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "c1.nii.gz").write_text("mine")
    command = ["predict", "-i", str(images), "-o", str(out), "-m", str(model)]
    assert main(command) == 2
    assert "has 1 of 3 masks already: c1" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["c1.nii.gz"]
    assert main([*command, "--continue_prediction"]) == 0
    assert (out / "c1.nii.gz").read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert pixels(out / "c1.nii.gz").shape == (45, 90)
    for file in out.glob("*.nii.gz"):
        file.unlink()
    (out / "plans.json").write_text("{}")
    assert main(command) == 2
    assert "is of another model" in capsys.readouterr().err
    assert main(["predict", "-i", str(images), "-o", str(images), "-m", str(model)]) == 2
    assert "holds the images" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_killed_in_the_middle(model: Path, tmp_path: Path) -> None:
    """What is there is complete, nothing says that all is, and the command goes on from it."""
    images, out = write_images(tmp_path / "images", [(120, 150)] * 40), tmp_path / "out"
    command = ["predict", "-i", str(images), "-o", str(out), "-m", str(model), "--workers", "1"]
    code = "import sys; from nnunet_echo.cli.main import main; main(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 120
        while not list(out.glob("c*.nii.gz")) and time.monotonic() < give_up:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    there = sorted(out.glob("c*.nii.gz"))
    assert 0 < len(there) < 40 and not (out / "dataset.json").exists()
    before = {file: file.read_bytes() for file in there}
    assert all(pixels(file).shape == (120, 150) for file in there)
    assert main([*command, "--continue_prediction"]) == 0
    assert len(list(out.glob("c*.nii.gz"))) == 40 and (out / "dataset.json").exists()
    assert all(file.read_bytes() == content for file, content in before.items())


def test_images_that_cannot_be_predicted(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def error_of(folder: Path) -> str:
        assert main(["predict", "-i", str(folder), "-o", str(tmp_path / "out"), "-m", str(model)]) == 2
        return capsys.readouterr().err

    assert "there is no such folder" in error_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "loop.dcm").touch()
    assert "has no images CASE_0000.nii.gz" in error_of(tmp_path / "empty")
    assert "There is loop.dcm" in error_of(tmp_path / "empty")
    two = write_images(tmp_path / "two", channels=2)
    assert "has 2 channels, but the model takes 1" in error_of(two)
    (two / "c1_0000.nii.gz").unlink()
    assert "case c1 lacks a channel" in error_of(two)
    cut = write_images(tmp_path / "cut", [(60, 70)])
    (cut / "c0_0000.nii.gz").write_bytes((cut / "c0_0000.nii.gz").read_bytes()[:40])
    assert "c0_0000.nii.gz: truncated or damaged gzip data" in error_of(cut)
    large = write_images(tmp_path / "small", [(60, 70)], spacing=(1e-4, 1e-4))
    assert "nothing is left" in error_of(large)
    assert not list((tmp_path / "out").glob("*.nii.gz")) and not list((tmp_path / "out").glob(".unfinished*"))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".png"])
def test_an_image_that_is_cut_or_damaged(tmp_path: Path, ending: str) -> None:
    """SimpleITK fills up what a file lacks, and Pillow does not look at checksums: both without a word."""
    reader = "NaturalImage2DIO" if ending == ".png" else "SimpleITKIO"
    model = CineModel.load(write_model(tmp_path, TOY, plans(reader=reader), dataset_json(ending=ending)), workers=1)
    images = write_images(tmp_path / "images", [(60, 70)], ending=ending)
    file = images / f"c0_0000{ending}"
    whole = file.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (whole[:middle], *([changed] if ending in (".nii.gz", ".png") else [])):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"c0_0000{ending}: truncated"):
            predict_folder(model, images, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())
    file.write_bytes(whole)
    assert len(predict_folder(model, images, tmp_path / "out")) == 1


def test_an_image_of_another_kind_is_nnunets_to_read(tmp_path: Path) -> None:
    model = CineModel.load(write_model(tmp_path, TOY, dataset=dataset_json(ending=".nrrd")), workers=1)
    images = write_images(tmp_path / "images", [(60, 70)], ending=".nrrd")
    assert len(predict_folder(model, images, tmp_path / "out")) == 1
    (images / "c0_0000.nrrd").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"c0_0000\.nrrd: nnU-Net cannot read it"):
        predict_folder(model, images, tmp_path / "again")


def test_python(model: Path, images: Path) -> None:
    loaded = CineModel.load(model, workers=1)
    assert loaded.labels == {"LV": 1, "MYO": 2, "LA": 3}
    assert len(loaded.hash) == 64 and loaded.network == "no_mamba" and loaded.trainer == TOY
    assert not any(parameter.requires_grad for parameter in loaded.networks[0].parameters())
    assert torch.get_num_threads() == 1
