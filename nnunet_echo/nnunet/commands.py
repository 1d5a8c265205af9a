"""Run nnU-Net's own commands from Python, each with its output in a log file and its progress reported."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LINES_OF_AN_ERROR = 25
GRACE_S = 10.0  # between TERM and KILL
# What ends a process politely; Windows has no HUP, no groups and no fork, and there a child is only terminated.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
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


def silent(_text: str) -> None:
    """What functions tell of their progress by default: nothing."""


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path, say: Callable[[str], None] = silent
) -> None:
    """Run `command`, a program of this Python environment first and of PATH else, with all its output in `log`.

    `say` gets the lines that are worth showing while it runs.

    It ends with this process, and all that it started too: TERM, INT and HUP end it, and a kill of this process does.
    Raises RuntimeError when the program is not found, or fails: with its last lines and the log's name.
    """
    program = find_program(command[0])
    with log.open("w") as file, _signals_raise():
        process = subprocess.Popen(
            [program, *command[1:]],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        lifeline = None
        assert process.stdout is not None
        try:
            lifeline = start_guardian(process.pid)
            # A worker that is left without its parent holds the pipe open, and we would read for ever.
            threading.Thread(target=_kill_group_after, args=[process], daemon=True).start()
            for line in process.stdout:
                file.write(line)
                if progress := PROGRESS.search(line):
                    say(f"  {progress[1]}")
            process.wait()
        finally:  # whatever ended it, nothing of its group is left
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
            kill_group(process.pid)
            process.wait()
            process.stdout.close()
            dismiss_guardian(lifeline)
    if process.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-LINES_OF_AN_ERROR:])
        raise RuntimeError(f"{command[0]} failed with status {process.returncode}. The end of {log}:\n{last}")


def start_guardian(group: int) -> tuple[int, int] | None:
    """Fork a process that kills the group when this one ends before `dismiss_guardian` of what is returned."""
    if not hasattr(os, "fork"):
        return None
    reads, writes = os.pipe()
    if guardian := os.fork():
        os.close(reads)
        return writes, guardian
    os.close(writes)
    os.setsid()  # what is sent to our group or terminal does not reach it
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if not os.read(reads, 1):
        kill_group(group)
    os._exit(0)


def dismiss_guardian(lifeline: tuple[int, int] | None) -> None:
    """The group has ended."""
    if lifeline is None:
        return
    writes, guardian = lifeline
    with suppress(BrokenPipeError):  # somebody killed it
        os.write(writes, b"x")
    os.close(writes)
    os.waitpid(guardian, 0)


def kill_group(group: int) -> None:
    """KILL to all processes of a group, if there are any."""
    with suppress(ProcessLookupError, PermissionError, AttributeError):  # macOS: not permitted where all are zombies
        os.killpg(group, signal.SIGKILL)


def _kill_group_after(process: subprocess.Popen) -> None:
    process.wait()
    kill_group(process.pid)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """TERM and HUP raise SystemExit as INT raises KeyboardInterrupt, so that what is running can be ended first."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in no other thread
        yield
        return
    before = {number: signal.signal(number, leave) for number in ENDING if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
