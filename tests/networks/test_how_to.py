"""The code of docs/how-to/network.md works as it stands there, and its network passes the battery."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import test_networks as battery
from network_cases import CASES, PATCHES
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunet_echo import networks
from nnunet_echo.networks import table
from nnunet_echo.nnunet.plans import unet_architecture
from nnunet_echo.training import trainer as training

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "network.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILES = re.findall(r"^`(\S+\.py)`\n\n```python", PAGE, re.MULTILINE)
NAME = "gated_unet"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files and the row of the page; the folder of the trainer."""
    network, trainer, row, _ = BLOCKS
    for name, content in zip(FILES, (network, trainer), strict=True):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
    spec = importlib.util.spec_from_file_location(f"nnunet_echo.networks.{NAME}", tmp_path / FILES[0])
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(networks, NAME, module, raising=False)
    spec.loader.exec_module(module)
    rows = eval("{" + row + "}", vars(table))
    assert list(rows) == [NAME]
    monkeypatch.setitem(networks.NETWORKS, NAME, rows[NAME])
    for axes in rows[NAME].dims:
        monkeypatch.setitem(CASES, f"{NAME}-{axes}d", (NAME, rows[NAME].toy, PATCHES[axes]))
    return tmp_path / "trainers"


@pytest.mark.parametrize("axes", [2, 3])
def test_the_network_passes_the_battery(added: Path, axes: int, tmp_path: Path) -> None:
    case = f"{NAME}-{axes}d"
    battery.test_shapes(case, 3, 2)
    battery.test_sizes_that_no_stride_divides(case, (3, 37, 53))
    battery.test_gradients_reach_every_parameter(case)
    battery.test_state_dict_round_trip(case)
    battery.test_weights_of_other_classes_are_taken_over_but_for_the_last_layers(case, tmp_path)


def test_the_trainer_is_found_and_builds_it(added: Path) -> None:
    name = networks.NETWORKS[NAME].trainer
    trainer = recursive_find_python_class(str(added), name, None, cleanup_imports_from_base_folder=True)
    assert issubclass(trainer, training.EchoTrainer)
    network = networks.network_from_plan(trainer.network_path, 1, 4, (32, 48), unet_architecture((32, 48)), True)
    assert type(network).__name__ == "GatedUNet"


def test_it_is_built_in_one_line(added: Path) -> None:
    names: dict = {}
    exec(BLOCKS[3], names)
    assert names["network"].encoder.mixers[1].gate[0].out_features == 64 // 8
    assert networks.network_options(NAME)["reduction"] == 4
    with pytest.raises(ValueError, match="reduction=0: gated_unet expects whole numbers of at least 1"):
        networks.create_network(NAME, 1, 4, (64, 64), reduction=0)
