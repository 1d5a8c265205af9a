"""`nnunet-echo serve` as a process: what it prints, and that signals and kills leave no clip."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import SimpleNamespace

import pytest
from cine_models import dataset_json, write_model
from cine_results import drawn_dicom
from serving import Client

from nnunet_echo.cli import serve
from nnunet_echo.cli.main import main

# The command with a measuring that never ends, and without a model: that takes seconds to load.
STAND_IN = """
import sys, time
from types import SimpleNamespace
from nnunet_echo.cine import study
from nnunet_echo.cli import main, serve

def measure(model, paths, *, progress, **options):
    for done in range(10**6):
        progress(done, 10**6)
        time.sleep(0.01)

study.measure_study, serve.load_model = measure, lambda args: SimpleNamespace(stream=list)
sys.exit(main.main(sys.argv[1:]))
"""


@dataclass
class Running:
    process: subprocess.Popen[str]
    client: Client
    temporary: Path
    said: str

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=30)
        return self.process.returncode, said


def started(command: list[str], temporary: Path, within_s: float = 60) -> Running:
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True, start_new_session=True
    )
    assert process.stdout
    late = threading.Timer(within_s, process.kill)
    late.start()
    said = ""
    while "medical device" not in said and (line := process.stdout.readline()):
        said += line
    late.cancel()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]{43})/\n", said)
    assert found, said
    server = SimpleNamespace(server_port=int(found[1]), token=found[2])
    return Running(process, Client(server, next(temporary.iterdir())), temporary, said)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    command = [sys.executable, "-c", STAND_IN, "serve", "-m", "model", "--no-browser"]
    running = started(command, tmp_path / "temporary")
    yield running
    running.process.kill()
    running.process.wait()


def busy(running: Running) -> None:
    """One clip is being measured, another one waits, a third one is on its way."""
    client = running.client
    paths = [client.send(b"patient"), client.send(b"patient")]
    client.announce(5)
    while client("GET", paths[0]).json["state"] != "working":
        time.sleep(0.01)
    assert client.files() == ["clip_1", "clip_1"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize("number", [SIGTERM, *(pytest.param(n, marks=SLOW) for n in (signal.SIGINT, signal.SIGHUP))])
def test_a_signal_ends_it_and_leaves_no_file(running: Running, number: int) -> None:
    assert running.said.count("\n") == 3 and "Research use, not a medical device." in running.said
    busy(running)
    running.client("GET", raw="/Zzyzx")  # of which nothing is printed
    code, said = running.end(number)
    assert (code, said) == (0, "ended; clips and results are deleted\n")
    assert list(running.temporary.iterdir()) == []


@SLOW
def test_what_a_kill_leaves_the_next_start_removes(running: Running) -> None:
    busy(running)
    running.end(SIGKILL)
    (left,) = running.temporary.iterdir()
    os.utime(left, (time.time() - 100, time.time() - 100))
    again = started(running.process.args, running.temporary)
    assert not left.exists()
    assert again.end(SIGTERM)[0] == 0 and list(running.temporary.iterdir()) == []


@SLOW
def test_a_real_model_is_ended_while_it_computes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nnunet_echo.cli.main", "serve", "-m", str(write_model(tmp_path)), "-f", "0"]
    running = started([*command, "--no-browser"], tmp_path / "temporary", 120)
    path = running.client.send(drawn_dicom(tmp_path / "loop.dcm").read_bytes())
    while (state := running.client("GET", path).json)["done"] == 0:
        assert state["state"] in ("waiting", "working"), state
        time.sleep(0.02)
    code, said = running.end(SIGTERM)
    assert (code, said) == (0, "ended; clips and results are deleted\n")
    assert list(running.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--port", "70000"], "--port 70000: must lie between 0 and 65535"),
        (["--limit", "0"], "--limit 0: must be at least 1 MB"),
        ([], "there is no such model"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], reason: str) -> None:
    assert main(["serve", "-m", str(tmp_path / "none"), *options]) == 2
    assert reason in capsys.readouterr().err


def test_a_model_that_takes_no_frames_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = write_model(tmp_path, dataset=dataset_json(channels=2))
    assert main(["serve", "-m", str(model), "-f", "0", "--no-browser"]) == 2
    assert "the model takes 2 channels" in capsys.readouterr().err


def test_the_browser_gets_an_address_that_works_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import tempfile
    import webbrowser

    opened: list[str] = []

    def open_page(url: str) -> bool:
        opened.append(url)
        os.kill(os.getpid(), SIGTERM)
        return True

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", open_page)
    monkeypatch.setattr(serve, "load_model", lambda args: SimpleNamespace(stream=list))
    before = signal.getsignal(SIGTERM)
    assert main(["serve", "-m", "model"]) == 0
    printed = re.search(r"http://\S+", capsys.readouterr().out)[0]
    assert len(opened) == 1 and opened[0] not in printed and printed.split("/")[3] not in opened[0]
    assert signal.getsignal(SIGTERM) == before and list(tmp_path.iterdir()) == []
