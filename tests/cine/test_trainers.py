"""The network behind a trainer's name, read from files that are not run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from nnunet_echo._startup import TRAINERS_VARIABLE, trainers_folder
from nnunet_echo.cine.trainers import TrainerNetwork, network_of_trainer
from nnunet_echo.networks import NETWORKS

OURS = sorted(path.stem for path in Path(trainers_folder()).glob("nnUNetTrainer*.py"))


@pytest.mark.parametrize("trainer", OURS)
@pytest.mark.parametrize("ending", ["", "_20epochs", "_3epochs_50iterations", "_vil30", "_vil30_12epochs"])
def test_what_is_read_is_what_the_trainer_has(trainer: str, ending: str) -> None:
    spec = importlib.util.spec_from_file_location(trainer, Path(trainers_folder(), f"{trainer}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trainer_class = getattr(module, trainer)
    expected = TrainerNetwork(trainer_class.network_path, dict(trainer_class.network_options))
    assert network_of_trainer(f"{trainer}{ending}") == expected
    assert expected.path in NETWORKS


@pytest.mark.parametrize(
    "trainer", ["nnUNetTrainer", "nnUNetTrainer_5epochs", "nnUNetTrainerNoMirroring", "nnUNetTrainerDA5"]
)
def test_stock_trainers_leave_it_to_the_plan(trainer: str) -> None:
    assert network_of_trainer(trainer) == TrainerNetwork(None)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a user's trainer; running it would raise."""

    def write(name: str, text: str) -> None:
        head = "from nnunet_echo.training.trainer import EchoTrainer\n"
        head += "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        (tmp_path / f"{name}.py").write_text(f"{head}{text}\nraise SystemExit('was run')\n")

    monkeypatch.setenv(TRAINERS_VARIABLE, str(tmp_path))
    return write


def test_own_trainers(own) -> None:
    own("Mine", "class Mine(EchoTrainer):\n    network_path, network_options = 'no_mamba', {'n_conv_per_stage': 1}")
    assert network_of_trainer("Mine") == TrainerNetwork("no_mamba", {"n_conv_per_stage": 1})
    own("Child", "from Mine import Mine\nclass Child(Mine):\n    network_options: dict = {}")
    assert network_of_trainer("Child") == TrainerNetwork("no_mamba", {})
    own("Stock", "class Stock(nnUNetTrainer):\n    pass")
    assert network_of_trainer("Stock") == TrainerNetwork(None)
    own("Elsewhere", "class Elsewhere(EchoTrainer):\n    network_path = 'my_package.net:Net'")
    assert network_of_trainer("Elsewhere").path == "my_package.net:Net"
    assert not {"Mine", "Child", "Stock", "Elsewhere"} & sys.modules.keys()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Built", "class Built(nnUNetTrainer):\n    def build_network_architecture(self):\n        pass", "own way"),
        ("Unsaid", "class Unsaid(EchoTrainer):\n    pass", "own way"),
        ("Twice", "class Twice(EchoTrainer, nnUNetTrainer):\n    network_path = 'vil'", "own way"),
        ("Lost", "class Lost(Unknown):\n    network_path = 'vil'", "own way"),
        ("Round", "class Round(Round):\n    pass", "own way"),
        ("Made", "class Made(EchoTrainer):\n    network_path = 'vil' + '2'", "written out as a str"),
        (
            "Wrong",
            "class Wrong(EchoTrainer):\n    network_path = 'vil'\n    network_options = 3",
            "written out as a dict",
        ),
        ("Broken", "class Broken(EchoTrainer):\n    network_path = (", "is not Python"),
    ],
)
def test_trainers_that_only_running_tells(own, name: str, text: str, message: str) -> None:
    own(name, text)
    with pytest.raises(ValueError, match=message):
        network_of_trainer(name)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerBN", "nnUNet_Primus_S_Trainer"])
def test_stock_trainers_with_networks_of_their_own(trainer: str) -> None:
    with pytest.raises(ValueError, match="--import-trainer"):
        network_of_trainer(trainer)


def test_names_that_are_none(own) -> None:
    with pytest.raises(ValueError, match=f"folder of {TRAINERS_VARIABLE}"):
        network_of_trainer("nnUNetTrainerNowhere")
    with pytest.raises(ValueError, match="name of a Python class"):
        network_of_trainer("os.system('x')")
    own("Short", "class Short(EchoTrainer):\n    network_path = 'vil'")  # knows no other lengths
    with pytest.raises(ValueError, match="neither in nnU-Net"):
        network_of_trainer("Short_5epochs")
