"""A stand-in for nnUNetv2_train that takes milliseconds, and `train_fold` with it. It asserts nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from nnunet_echo.crossval.train_fold import start_time

DATASET, TRAINER = "Dataset751_CAMUS", "nnUNetTrainerFake"
# Writes what nnU-Net writes and notes each start, its command and its processes. MODE says what becomes of it:
# "train" reaches the end, "hang" stays in its first epoch, "stubborn" also ignores TERM, "fail" raises, "die" is
# killed, "die once" so too, but the next start reaches the end, "nothing" exits with 0 and leaves no results.
# MODE_TRAINER is for one trainer. Called as nnUNetv2_predict it makes the folder.
FAKE = """#!{python}
import json, os, pathlib, signal, sys, time, zipfile
if "-o" in sys.argv:
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    out.mkdir()
    (out / "arguments").write_text(" ".join(sys.argv[1:]))
    sys.exit(os.environ["MODE"] == "fail")
dataset, configuration, fold = sys.argv[1:4]
trainer, plans = (sys.argv[sys.argv.index(name) + 1] for name in ("-tr", "-p"))
model = pathlib.Path(os.environ["nnUNet_results"], dataset, f"{{trainer}}__{{plans}}__{{configuration}}")
folder = model / f"fold_{{fold}}"
mode = os.environ.get("MODE_" + trainer, os.environ["MODE"])
def save(name):
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("data", "weights" * 1000)
worker = os.fork()
if not worker:
    time.sleep(1000)
with open(folder / "starts", "a") as file:
    print(json.dumps({{"command": sys.argv[4:], "group": [os.getpid(), worker],
                      "environment": {{k: v for k, v in os.environ.items() if k.startswith("nnUNet_")}}}}), file=file)
def stop(*_):
    if mode != "stubborn":
        save("checkpoint_latest.pth")
        sys.exit(143)
signal.signal(signal.SIGTERM, stop)
if mode == "die once" and (folder / "checkpoint_best.pth").exists():
    mode = "train"
if mode == "fail":
    raise RuntimeError("it cannot be trained")
if mode != "nothing":
    save("checkpoint_best.pth")
(folder / "ready").touch()
if mode.startswith("die"):
    os.kill(os.getpid(), signal.SIGKILL)
if mode in ("hang", "stubborn"):
    while True:
        time.sleep(0.05)
if mode == "train":
    save("checkpoint_final.pth")
    (folder / "validation").mkdir(exist_ok=True)
    (folder / "validation" / "summary.json").write_text("{{}}")
"""
RUN_ONE = """
import sys
from nnunet_echo.crossval import train_fold
from nnunet_echo.crossval import jobs
jobs.find_program = lambda name: {fake!r}
train_fold.GRACE_S = {grace}
sys.exit(train_fold.main())
"""


class FakeFold:
    """A fold folder below `results`, and how to train it."""

    def __init__(self, folder: Path, fold: str = "0", trainer: str = TRAINER) -> None:
        self.fold = fold
        self.trainer = trainer
        self.results = folder
        self.folder = folder / DATASET / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}"
        (folder / DATASET).mkdir(parents=True, exist_ok=True)
        self.fake = folder / "nnUNetv2_train"
        self.fake.write_text(FAKE.format(python=sys.executable))
        self.fake.chmod(0o755)

    def command(self, *options: str, grace: float = 60) -> list[str]:
        return [*self.train_fold(grace), DATASET, "2d", self.fold, "-tr", self.trainer, *options]

    def train_fold(self, grace: float = 60) -> list[str]:
        """The module as a command, with the stand-in."""
        return [sys.executable, "-c", RUN_ONE.format(fake=str(self.fake), grace=grace)]

    def environment(self, mode: str, **more: str) -> dict[str, str]:
        folders = {f"nnUNet_{name}": str(self.results) for name in ("raw", "preprocessed", "results")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet_", "SLURM_"))}
        return {**kept, **folders, "MODE": mode, **more}

    def run(self, mode: str, *options: str, **more: str) -> int:
        """Train until it ends; its status."""
        return subprocess.run(self.command(*options), env=self.environment(mode, **more), timeout=60).returncode

    def start(self, mode: str, *options: str, grace: float = 60) -> subprocess.Popen:
        """Train; returns when the training is in its first epoch."""
        (self.folder / "ready").unlink(missing_ok=True)
        process = subprocess.Popen(
            self.command(*options, grace=grace), env=self.environment(mode), start_new_session=True
        )
        wait_for(lambda: (self.folder / "ready").exists())
        return process

    def starts(self) -> list[dict]:
        file = self.folder / "starts"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def options(self) -> list[list[str]]:
        """What each start was told beyond the trainer: --c, --val."""
        return [start["command"][6:] for start in self.starts()]

    def group(self) -> list[int]:
        """The last training and its worker."""
        return self.starts()[-1]["group"]

    def log(self) -> str:
        return (self.folder / "train_fold.log").read_text()

    def checkpoint(self, name: str, share: float = 1.0) -> Path:
        """A checkpoint of which only a share was written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"checkpoint_{name}.pth"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", os.urandom(5000))
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return path


def alive(processes: list[int]) -> list[int]:
    return [process for process in processes if start_time(process)]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Until the condition holds. Raises TimeoutError."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {seconds} s")
        time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
