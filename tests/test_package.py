"""The package itself: what is shipped, which way imports run, the start-up hook, the command line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_echo
from nnunet_echo import _startup
from nnunet_echo.cli import doctor
from nnunet_echo.cli.main import main
from nnunet_echo.networks import NETWORKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:  # relative ones stay in a data set's folder
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def test_every_package_is_shipped() -> None:
    shipped = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    in_tree = {
        ".".join(("nnunet_echo", *path.parent.relative_to(ROOT / "nnunet_echo").parts)) for path in files("nnunet_echo")
    }
    in_tree |= {
        ".".join(("nnunet_echo", *path.parent.relative_to(ROOT).parts))
        for path in files("dataset_conversion", "trainers")
    }
    assert shipped == in_tree
    for folder in {path.parent for path in files("nnunet_echo", "dataset_conversion", "trainers")}:
        assert (folder / "__init__.py").exists(), folder


def test_types_are_shipped() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["nnunet_echo"]
    assert (ROOT / "nnunet_echo" / "py.typed").is_file()


def test_type_checkers_see_the_contents_page() -> None:
    """What is imported when it is asked for is imported for them, too, from the same module."""
    tree = ast.parse((ROOT / "nnunet_echo" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname == alias.name}
    assert seen == nnunet_echo._CONTENTS


# The rooms' order is a contract of import-linter in pyproject.toml; it counts imports inside functions too. What may be
# imported inside functions only: nnU-Net, which takes seconds, and in the trainers' folder everything but their base.
LATE_NNUNET = [
    path
    for path in files("nnunet_echo", "dataset_conversion")
    if not {"training", "analysis"} & {*path.relative_to(ROOT).parts}
]


def top_level_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_nnunet_is_imported_late() -> None:
    for path in LATE_NNUNET:
        assert "nnunetv2" not in top_level_imports(path), path


# Kernels name Triton's language in their signatures; these modules are themselves imported inside functions only.
SCAN = ROOT / "nnunet_echo" / "ops" / "selective_scan"
KERNELS = {SCAN / name for name in ("_triton_kernels.py", "_triton_tiles.py")}


def test_optional_packages_are_imported_late() -> None:
    """Only inside a function: a broken optional package must not break an import."""
    for path in {*files("nnunet_echo", "dataset_conversion", "trainers")} - KERNELS:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                names = {getattr(node, "module", None) or ""}
            late = {
                "mamba_ssm",
                "causal_conv1d",
                "triton",
                "ray",
                "av",
                "gdcm",
                "highdicom",
                "onnx",
                "onnxscript",
                "onnxruntime",
            }
            assert not {name.partition(".")[0] for name in names} & late, path


def test_the_scan_imports_without_triton() -> None:
    # None: importing it raises
    code = "import sys; sys.modules['triton'] = None; import nnunet_echo.ops.selective_scan"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_start_up_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(ROOT / "trainers")
    monkeypatch.setenv(_startup.TRAINERS_VARIABLE, "/users/own")
    _startup.register_trainers()
    _startup.register_trainers()
    own, *ours = os.environ[_startup.TRAINERS_VARIABLE].split(os.pathsep)
    assert own == "/users/own"
    assert len(ours) == 1
    assert Path(ours[0], "nnUNetTrainerLKMUNet.py").read_text() == Path(folder, "nnUNetTrainerLKMUNet.py").read_text()
    monkeypatch.setattr(_startup, "trainers_folder", lambda: 1 / 0)
    _startup.register_trainers()  # never raises


def test_import_of_torch_registers_the_trainers() -> None:
    code = "import torch, os; print(os.environ.get('nnUNet_extTrainer', ''))"
    environment = {k: v for k, v in os.environ.items() if k != _startup.TRAINERS_VARIABLE}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip().endswith("trainers")


def test_start_up_hook_imports_the_standard_library_only() -> None:
    assert imports_of(ROOT / "nnunet_echo" / "_startup.py") <= {"__future__", "__future__.annotations", "os"}


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for name in doctor.FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(_startup.TRAINERS_VARIABLE, str(_startup.trainers_folder()))
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert report.count(" found") == sum(len(row.trainers) for row in NETWORKS.values())
    assert "found      LKM-UNet, 2D and 3D" in report and "found      Vision-LSTM 2, 2D\n" in report
    assert "scan on cpu: " in report
    assert "CUDA devices only" in report
    monkeypatch.delenv("nnUNet_results")
    monkeypatch.setenv(_startup.TRAINERS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("NNUNET_ECHO_SCAN", "cuda")
    assert main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert "PROBLEM: nnUNet_results is not set" in report
    assert "PROBLEM: nnU-Net does not look into that folder" in report
    assert "scan on cpu: none." in report


def test_errors_of_commands_are_one_line(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["phantom", "camus", str(tmp_path / "out"), "--patients", "0"]) == 2
    error = capsys.readouterr().err
    assert "error" in error
    assert "Traceback" not in error
