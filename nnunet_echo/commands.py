"""Run nnU-Net's own commands from Python, each with its output in a log file and its progress on the screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LINES_OF_AN_ERROR = 25
# What nnU-Net's training prints that is worth showing while it runs; its time stamp is left out.
PROGRESS = re.compile(r"((?:Epoch \d+|train_loss|Pseudo dice|Epoch time|Mean Validation Dice|Selective scan).*)")


def find_program(name: str) -> str:
    """The path of a program beside this Python, found whether or not the environment is activated, or else on PATH.

    Raises RuntimeError when it is in neither place.
    """
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else shutil.which(name)
    if program is None:
        raise RuntimeError(f"{name} is not found beside {sys.executable} or on PATH. Install nnunetv2 there.")
    return program


def run_command(command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Run `command`, a program of this Python environment first and of PATH else, with all its output in `log`.

    Raises RuntimeError when the program is not found, or fails: with its last lines and the log's name.
    """
    with (
        log.open("w") as file,
        subprocess.Popen(
            [find_program(command[0]), *command[1:]],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            for line in process.stdout:
                file.write(line)
                if progress := PROGRESS.search(line):
                    print(f"  {progress[1]}", flush=True)  # noqa: T201 (its callers are commands)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        last = "\n".join(log.read_text().splitlines()[-LINES_OF_AN_ERROR:])
        raise RuntimeError(f"{command[0]} failed with status {process.returncode}. The end of {log}:\n{last}")
