"""benchmarks/gpu.sh and gpu.py as far as a CPU shows them: their steps on toys, and what the script does with each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nnunet_echo.networks import list_networks

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPT = FOLDER / "gpu.sh"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("gpu", "networks", "scan", "timing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gpu

    yield gpu
    for name in ("gpu", "networks", "scan", "timing"):
        sys.modules.pop(name, None)


def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments, "--device", "cpu"])
    return gpu.main()


def test_the_scan_is_compared_with_float64(gpu, monkeypatch, capsys) -> None:
    shape = ["--shapes", "3,8,260,4,2"]
    assert run(gpu, monkeypatch, "scan", *shape) == 0
    printed = capsys.readouterr().out
    assert "| 3, 8, 197, 4, 2 | reference |" in printed
    assert "| 2, 8, 260, 4, 2 | chunked |" in printed
    right = gpu.default_scan
    monkeypatch.setattr(gpu, "default_scan", lambda u, *others: right(u, *others) + 1e-3 * u.square())
    assert run(gpu, monkeypatch, "scan", *shape) == 1
    monkeypatch.setattr(gpu, "default_scan", lambda *inputs: right(*inputs) * torch.nan)
    assert run(gpu, monkeypatch, "scan", *shape) == 1
    assert capsys.readouterr().out.count("WRONG") == 4


def test_a_network_that_does_not_learn_is_wrong(gpu, monkeypatch, capsys) -> None:
    toy = ["--networks", "no_mamba", "--size", "32x32", "--stages", "3", "--batch", "2"]
    assert run(gpu, monkeypatch, "float16", *toy, "--steps", "5") == 0
    assert re.search(r"\| no_mamba \| \d\.\d{3} \| \d\.\d{3} \| 0 \|  \|", capsys.readouterr().out)
    assert run(gpu, monkeypatch, "float16", *toy, "--steps", "1") == 1
    build = gpu.build

    def broken(case):
        network = build(case)
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = torch.nan
        return network

    monkeypatch.setattr(gpu, "build", broken)
    assert run(gpu, monkeypatch, "float16", *toy, "--steps", "5") == 1
    monkeypatch.setattr(gpu, "build", lambda case: (_ for _ in ()).throw(RuntimeError("no kernel")))
    assert run(gpu, monkeypatch, "float16", *toy) == 1
    assert "WRONG: no kernel" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "train", lambda case, steps: ([2.0, 1.0], 0, False))
    assert run(gpu, monkeypatch, "float16", *toy) == 1


def test_memory_and_time_of_an_epoch(gpu, monkeypatch, capsys) -> None:
    toy = ["--networks", "no_mamba", "--size", "32x32", "--stages", "3", "--batch", "1"]
    assert run(gpu, monkeypatch, "plan", *toy) == 0
    assert re.search(r"\| no_mamba \| \d+\.\d \| \d\.\d{3} \| \d+\.\d \| \d+\.\d \|", capsys.readouterr().out)


def test_every_network_of_ours_is_trained(gpu) -> None:
    assert list_networks(2) == gpu.OURS


def test_without_a_gpu_the_script_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OUT": str(tmp_path / "results")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", str(SCRIPT)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no GPU")
    assert (tmp_path / "results" / "summary.txt").read_text() == done.stdout


@pytest.mark.parametrize(
    "status, expected",
    [({}, 0), ({"scan": 1}, 1), ({"float16": 1}, 1), ({"scan": 124, "plan": 1}, 0), ({"found": 1}, 2)],
)
def test_what_the_script_makes_of_its_steps(tmp_path: Path, status: dict[str, int], expected: int) -> None:
    """A stand-in for python: each step prints, and ends with its status."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    cases = " ".join(f"{name}) exit {code};;" for name, code in status.items())
    python.write_text(f'#!/bin/sh\necho "ran $*"\ncase "$2" in {cases} esac\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "OUT": ""}
    done = subprocess.run(["bash", str(SCRIPT)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == expected, done.stdout + done.stderr
    results = tmp_path / "gpu_results"
    files = {path.name for path in results.iterdir()}
    steps = {"scan.txt", "float16.txt", "plan.txt", "scan_table.txt", "compiled.txt"}
    assert files == ({"summary.txt"} if "found" in status else {"summary.txt", *steps})
    summary = (results / "summary.txt").read_text()
    for name, code in status.items():
        assert name == "found" or f"{name}: {'stopped' if code == 124 else f'FAILED with status {code}'}" in summary


def test_the_script_takes_eight_minutes_at_most() -> None:
    limits = re.findall(r"^step \w+ +(\d+)", SCRIPT.read_text(), re.MULTILINE)
    assert len(limits) == 5
    assert sum(map(int, limits)) <= 8 * 60 - 15  # what is left is for the look for a GPU
