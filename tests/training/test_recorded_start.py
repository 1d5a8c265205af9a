"""Which weights a training starts from is on record, of nnU-Net's own loader and command line."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from toy_training import Toy, log_of, make

from nnunet_echo.nnunet.pretrained import NOT_ON_RECORD, in_words, pretrained_of
from nnunet_echo.training.recorded_start import source_of

pytest_plugins = ("toy_training",)
pytestmark = pytest.mark.usefixtures("toy_dataset")
SOURCE = {"file": "released.pth", "sha256": "0f" * 32, "layout": "VMamba v0"}


def weights_file(folder: Path, **more: object) -> Path:
    trainer = make(Toy)
    trainer.initialize()
    torch.save({"network_weights": trainer.network.state_dict(), **more}, folder / "start.pth")
    return folder / "start.pth"


def start(file: Path | None, continues: bool = False) -> Toy:
    """A trainer as nnU-Net's command has it before the first epoch."""
    trainer = make(Toy)
    trainer.initialize()
    maybe_load_checkpoint(trainer, continues, False, pretrained_weights_file=file and str(file))
    trainer.on_train_start()
    return trainer


@pytest.mark.parametrize("by_command", [True, False])
def test_a_file_of_ours_is_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_command: bool) -> None:
    file = weights_file(tmp_path, pretrained=SOURCE)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", *(["-pretrained_weights", str(file)] if by_command else [])])
    trainer = start(file)
    words = f"VMamba v0, released.pth, SHA-256 {'0f' * 6}" if by_command else NOT_ON_RECORD
    assert in_words(pretrained_of(Path(trainer.output_folder))) == words
    assert f"Starts from {words}." in log_of(trainer)


def test_a_checkpoint_of_nnunet_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights_file(tmp_path, logging={"loss": np.float64(1)}, trainer_name="nnUNetTrainer")
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-pretrained_weights", str(file)])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert in_words(pretrained_of(Path(start(file).output_folder))) == f"start.pth, SHA-256 {sha256[:12]}"


def test_an_entry_of_that_name_by_others_is_no_release(tmp_path: Path) -> None:
    file = weights_file(tmp_path, pretrained=True)
    assert in_words(source_of(file)).startswith("start.pth, SHA-256 ")


def test_the_record_is_of_the_training_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that goes on keeps it, one that begins again without weights takes it away."""
    file = weights_file(tmp_path, pretrained=SOURCE)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-pretrained_weights", str(file)])
    trainer = start(file)
    folder = Path(trainer.output_folder)
    kept = pretrained_of(folder)
    trainer.save_latest()
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "--c"])
    start(None, continues=True)
    assert pretrained_of(folder) == kept and kept
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    (folder / "validation").mkdir()
    trainer = start(None)
    assert pretrained_of(folder) is None
    # What the other start left would be taken for this one's.
    assert "checkpoint_latest.pth is of an earlier training, which started from other weights" in log_of(trainer)
    assert not list(folder.glob("checkpoint_*.pth")) and not (folder / "validation").exists()


def test_the_same_start_again_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights_file(tmp_path, pretrained=SOURCE)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-pretrained_weights", str(file)])
    trainer = start(file)
    trainer.save_latest()
    assert (Path(start(file).output_folder) / "checkpoint_latest.pth").exists()


def test_the_option_alone_is_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command that trains in another way, such as a notebook's."""
    monkeypatch.setattr(sys, "argv", ["other", "-pretrained_weights", str(tmp_path / "nowhere.pth")])
    assert pretrained_of(Path(start(None).output_folder)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a whole file of weights"),
        (b"PK\x03\x04torn", "is not a whole file of weights"),
        ("network_weights", "has no network_weights"),
        ({"model": {}}, "has no network_weights, as a checkpoint of nnU-Net has. nnunet-echo weights makes"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "a.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=rf"a\.pth {message}"):
        source_of(file)
