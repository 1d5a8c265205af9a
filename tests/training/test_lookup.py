"""nnU-Net finds every trainer by name, in a fresh process, whatever state mamba_ssm is in; each fits its network."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_echo.cli import doctor as doctor_command
from nnunet_echo.networks import NETWORKS

FOLDER = Path(__file__).resolve().parents[2] / "trainers"
NAMES = sorted(file.stem for file in FOLDER.glob("nnUNetTrainer*.py"))

STAGES = 4
CONFIGURATION = ConfigurationManager(
    {
        "patch_size": [32, 48],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": STAGES,
                "features_per_stage": [4, 8, 8, 8],
                "conv_op": "torch.nn.modules.conv.Conv2d",
                "kernel_sizes": [[3, 3]] * STAGES,
                "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
                "n_conv_per_stage": [1] * STAGES,
                "n_conv_per_stage_decoder": [1] * (STAGES - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
)

LOOK_UP = """
import json, os, sys
if os.environ.get("HIDE_OPTIONAL"):
    sys.modules["mamba_ssm"] = sys.modules["causal_conv1d"] = sys.modules["monai"] = None  # makes their import fail
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
found = {}
for name in sys.argv[1:]:
    trainer = recursive_find_trainer_class_by_name(name)
    found[name] = [trainer.__name__, getattr(trainer, "num_epochs", 0), getattr(trainer, "num_iterations_per_epoch", 0)]
sys.stderr.write(json.dumps(found))
"""


def look_up(names, folder, **variables):
    """Names to [class name, epochs, iterations] as a fresh Python finds them, started in an unrelated folder."""
    environment = {key: value for key, value in os.environ.items() if key not in ("nnUNet_extTrainer", "PYTHONPATH")}
    run = subprocess.run(
        [sys.executable, "-c", LOOK_UP, *names],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stderr.splitlines()[-1])


def all_forms():
    forms = {}
    for name in NAMES:
        forms[name] = [name, 1000, 250]
        forms[f"{name}_7epochs"] = [f"{name}_7epochs", 7, 250]
        forms[f"{name}_3epochs_4iterations"] = [f"{name}_3epochs_4iterations", 3, 4]
    return forms


def broken_mamba(folder, error):
    for name in ("mamba_ssm", "causal_conv1d"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise {error}\n")
    return str(folder)


def test_every_network_has_its_trainer():
    assert sorted(name for row in NETWORKS.values() for name in row.trainers) == NAMES
    for name, row in NETWORKS.items():
        found = {trainer: recursive_find_trainer_class_by_name(trainer) for trainer in row.trainers}
        assert {trainer.network_path for trainer in found.values()} == {name}
        assert [trainer for trainer, c in found.items() if c.network_options] == list(row.variants)


@pytest.mark.slow
def test_all_are_found_without_optional_packages_and_with_no_variable_set(tmp_path):
    forms = all_forms()
    assert look_up(forms, tmp_path, HIDE_OPTIONAL="1") == forms


@pytest.mark.slow
def test_all_are_found_beside_a_broken_mamba(tmp_path):
    forms = all_forms()
    path = broken_mamba(tmp_path, "OSError('libcudart.so.12: cannot open shared object file')")
    assert look_up(forms, tmp_path, PYTHONPATH=path) == forms


@pytest.mark.slow
def test_all_are_found_beside_the_users_own_trainers(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "nnUNetTrainerMine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMine(nnUNetTrainer):\n    num_epochs = 1\n"
    )
    forms = {**all_forms(), "nnUNetTrainerMine": ["nnUNetTrainerMine", 1, 0]}
    path = broken_mamba(tmp_path, "ImportError('undefined symbol: _ZN3c104cuda9SetDeviceEi')")
    assert look_up(forms, tmp_path, nnUNet_extTrainer=str(mine), PYTHONPATH=path) == forms


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_one_class_of_its_name_and_imports_only_the_base(name):
    # one failing import would hide the trainers behind it, and nnU-Net forgets the modules after the look-up
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {f"nnunet_echo.training.{module}" for module in ("trainer", "pretrained", "adam_trainer")}
    assert {node.module for node in imports} <= modules
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_trainer_and_network_agree_on_deep_supervision(name):
    trainer = recursive_find_trainer_class_by_name(name)
    row = NETWORKS[trainer.network_path]
    size = (32, 48) if 2 in row.dims else (4, 32, 48)
    configuration = ConfigurationManager({**CONFIGURATION.configuration, "patch_size": list(size)})
    # SAM's image encoder takes a while at its size: from shapes alone.
    device = torch.device("meta" if name.startswith("nnUNetTrainerSAMUS") else "cpu")
    with device:
        network = trainer.build_network_architecture(None, configuration, 2, 3, trainer.enable_deep_supervision)
    assert type(network) is row.load()
    assert trainer.enable_deep_supervision == (len(network.deep_supervision_strides) > 1)
    with torch.no_grad():
        outputs = network(torch.randn(1, 2, *size, device=device))
        if not trainer.enable_deep_supervision:
            outputs = [outputs]
        sizes = [
            (1, 3, *(n // s for n, s in zip(size, strides, strict=True)))
            for strides in network.deep_supervision_strides
        ]
        assert [tuple(output.shape) for output in outputs] == sizes
        network.decoder.deep_supervision = False
        assert network(torch.randn(1, 2, *size, device=device)).shape == (1, 3, *size)


def doctor(folder, **variables):
    """Its report, and the lines in it that name problems, in a fresh process that starts in `folder`."""
    environment = {**os.environ, **dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(folder))}
    code = "import sys; from nnunet_echo.cli.main import main; sys.exit(main(['doctor']))"
    run = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-c", code],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    problems = [line for line in run.stdout.splitlines() if line.startswith("PROBLEM")]
    assert run.returncode == (1 if problems else 0), run.stdout + run.stderr
    return run.stdout, problems


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an option of Python 3.11 keeps the folder off the path")
@pytest.mark.slow
def test_doctor_tells_what_cannot_be_imported_and_what_hides_the_package(tmp_path):
    path = broken_mamba(tmp_path, "ImportError('undefined symbol: _ZN3c104cuda9SetDeviceEi')")
    (tmp_path / "mamba_ssm-2.2.2.dist-info").mkdir()
    (tmp_path / "mamba_ssm-2.2.2.dist-info" / "METADATA").write_text("Name: mamba-ssm\nVersion: 2.2.2\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "nnunet_echo.py").write_text("")
    report, problems = doctor(elsewhere, PYTHONPATH=path)
    failure = "but its import fails (ImportError: undefined symbol: _ZN3c104cuda9SetDeviceEi)"
    assert f"mamba-ssm       2.2.2, {failure}" in report
    assert f"causal-conv1d   of unknown version, {failure}" in report
    (problem,) = problems
    assert f"finds another nnunet_echo, {elsewhere / 'nnunet_echo.py'}" in problem
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in problem


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("~/x", "is '~/x', which neither nnU-Net nor Python expands"),
        (" ", "is ' ', which is not a folder"),
        (__file__, "which is not a folder"),
        ("/nowhere/yet", ""),
    ],
)
def test_doctor_names_a_folder_that_cannot_be_one(path, problem, monkeypatch, capsys):
    for name in doctor_command.FOLDERS:
        monkeypatch.setenv(name, "/")
    monkeypatch.setenv("nnUNet_results", path)
    problems = []
    doctor_command._folders(problems)
    assert ("(does not exist yet)" in capsys.readouterr().out) == (path in ("~/x", " ", "/nowhere/yet"))
    assert problems == [] if not problem else problems[0].startswith("nnUNet_results is") and problem in problems[0]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an option of Python 3.11 keeps the folder off the path")
def test_doctor_explains_a_torch_that_cannot_be_imported(tmp_path):
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "METADATA").write_text("Name: other\nVersion: 1.0\n")
    (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text("[torch.backends]\nother = nowhere:start\n")
    _, problems = doctor(tmp_path, PYTHONPATH=str(tmp_path))
    assert any(
        "torch is installed, but its import fails: RuntimeError: Failed to load the backend extension: other" in problem
        and "TORCH_DEVICE_BACKEND_AUTOLOAD=0 turns all of them off" in problem
        for problem in problems
    )
