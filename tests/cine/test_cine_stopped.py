"""`nnunet-echo cine` that is stopped: what is there is complete, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cine_models import write_model
from cine_results import drawn

from nnunet_echo.cli.main import main
from nnunet_echo.phantom.dicom import write_dicom_cine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(tmp_path: Path, model: Path, clips: Path) -> subprocess.Popen:
    command = ["cine", "-i", str(clips), "-o", str(tmp_path / "out"), "-m", str(model), "--workers", "1"]
    code = "import sys; from nnunet_echo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def many_loops(tmp_path: Path) -> Path:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(1, 9):
        write_dicom_cine(clips / f"{number}.dcm", drawn()[1][:3], spacing_mm=(2.0, 2.0), frame_time_ms=1000 / 30)
    return clips


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_killed_in_the_middle(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Results that are there are complete, nothing says that all are, and the folder is not taken for a new one."""
    out = tmp_path / "out"
    with started(tmp_path, model, many_loops(tmp_path)) as process:
        give_up = time.monotonic() + 120
        while not (out / "clip_002").exists() and time.monotonic() < give_up and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    there = sorted(path for path in out.iterdir() if not path.name.startswith("."))
    assert 2 <= len(there) < 8 and not (out / "summary.csv").exists()
    for folder in there:
        assert {"result.json", "frames.csv", "masks.nii.gz", "report.html"} <= set(names(folder))
        json.loads((folder / "result.json").read_text())
        assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    assert main(["cine", "-i", str(tmp_path / "clips"), "-o", str(out), "-m", str(model)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted(model: Path, tmp_path: Path) -> None:
    with started(tmp_path, model, many_loops(tmp_path)) as process:
        give_up = time.monotonic() + 120
        while not (tmp_path / "out" / "clip_001").exists() and time.monotonic() < give_up and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        "interrupted; the clip under way left nothing, and results that are there are complete"
    )
    assert not [name for name in names(tmp_path / "out") if name.startswith(".") or name == "summary.csv"]
