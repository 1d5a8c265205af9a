"""What the disk says about a fold: done, running, failed and why, its epoch. Standard library only.

In the folder of a fold, <nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>/fold_<k>, `run_one` keeps

    run_one.log     the output of all its trainings, each between two lines of its own that begin with MARK
    run_one.lock    locked while one runs
    run_one.json    host and process of the training that runs
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nnunet_echo.dataset_conversion.folders import PREPROCESSED, RAW, RESULTS, find_dataset
from nnunet_echo.leaderboard.logs import read_training

DONE, RUNNING, FAILED, STOPPED, WAITING = "done", "running", "failed", "stopped", "not started"
DEFAULT_PLANS = "nnUNetPlans"
MARK = "=== "
ENDED_BY_SIGNAL = range(129, 193)  # a command that signal n ended has status 128 + n
_END = re.compile(rf"{MARK}\S+ \S+ end, status (\d+)")
_TAIL_BYTES = 65536  # of a log, enough for a traceback


@dataclass(frozen=True)
class Fold:
    """A fold as it is now. `epoch` of `epochs` are finished (NaN: not known), each took `epoch_s` seconds (median).

    `written` is when any of its files was last written (seconds since 1970, NaN: never); `reason` says why it failed.
    """

    folder: Path
    state: str
    epoch: int = 0
    epochs: float = math.nan
    epoch_s: float = math.nan
    written: float = math.nan
    reason: str = ""

    def __str__(self) -> str:
        """All of it but the name, in a line."""
        parts = [self.short()]
        if not math.isnan(self.written):
            parts.append(f"last write {duration(time.time() - self.written)} ago")
        if self.state == RUNNING and not math.isnan(end := self.expected_end()):
            parts.append(f"ends about {time.strftime('%a %H:%M', time.localtime(end))}")
        return ", ".join(parts) + (f": {self.reason}" if self.reason else "")

    def short(self) -> str:
        """State and epoch."""
        return self.state if self.state in (DONE, WAITING) else f"{self.state}, epoch {self.progress()}"

    def progress(self) -> str:
        """Finished epochs of all, as far as these are known."""
        return f"{self.epoch}/{'?' if math.isnan(self.epochs) else int(self.epochs)}"

    def expected_end(self) -> float:
        """When the last epoch ends if all take as long as the median so far; the validation comes on top."""
        return self.written + self.epoch_s * (self.epochs - self.epoch)


def dataset_name(dataset: str) -> str:
    """DatasetXXX_NAME for an id or a name, preprocessed or raw. Raises as `find_dataset`."""
    preprocessed = os.environ.get(PREPROCESSED)
    if preprocessed:
        try:
            return find_dataset(dataset, preprocessed).name
        except FileNotFoundError:
            if not os.environ.get(RAW):
                raise
    return find_dataset(dataset).name


def results_folder() -> Path:
    """The folder in nnUNet_results. Raises `ValueError` when that is not set."""
    if not os.environ.get(RESULTS):
        raise ValueError("nnUNet_results is not set; set it (export nnUNet_results=/path)")
    return Path(os.environ[RESULTS])


def model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """Where nnU-Net keeps all folds of a trainer. Raises as `results_folder`."""
    return results_folder() / dataset / f"{trainer}__{plans}__{configuration}"


def is_done(folder: Path) -> bool:
    """Whether nnU-Net trained and validated the fold: summary.json, which it writes last, is whole."""
    try:
        json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def is_locked(lock: Path) -> bool:
    """Whether a `run_one` holds this lock, on any machine that shares the folder and its locks.

    False where that cannot be asked: on Windows and on file systems without locks.
    """
    try:
        import fcntl

        file = lock.open("rb")
    except (ImportError, OSError):
        return False
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # if we get it, closing lets it go
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


def read_fold(folder: Path) -> Fold:
    """The fold in a folder fold_<k>, which need not exist."""
    if is_done(folder):
        return Fold(folder, DONE)
    written = _last_write(folder)
    if is_locked(folder / "run_one.lock"):
        state, reason = RUNNING, ""
    elif math.isnan(written):
        return Fold(folder, WAITING)
    else:
        state, reason = _last_end(folder / "run_one.log")
    training = read_training([folder])
    epoch = 0 if math.isnan(training.epochs) else int(training.epochs)
    return Fold(folder, state, epoch, _epochs(folder), training.epoch_s, written, reason)


def last_lines(log: Path, lines: int) -> list[str]:
    """The last lines that the last command wrote to a `run_one` log."""
    text = re.split(rf"^{MARK}.* start .*$", _tail(log), flags=re.MULTILINE)[-1]
    return [line for line in text.splitlines() if line.strip() and not line.startswith(MARK)][-lines:]


def exit_status(returncode: int) -> int:
    """Of a process in Python's terms, -n if signal n ended it, in the shell's."""
    return returncode if returncode >= 0 else 128 - returncode


def duration(seconds: float) -> str:
    """Seconds in the unit that gives a short number: 45 s, 12 min, 30 h, 3 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def _last_write(folder: Path) -> float:
    times = [math.nan]
    for path in folder.glob("*.*"):
        with suppress(FileNotFoundError):  # meanwhile replaced
            times.append(path.stat().st_mtime if path.suffix in (".txt", ".log", ".pth") else math.nan)
    return max((time for time in times if not math.isnan(time)), default=math.nan)


def _last_end(log: Path) -> tuple[str, str]:
    """FAILED and why if the last command ended by itself; STOPPED if it was killed, or never came to its end."""
    end = _END.match(_tail(log).rstrip().rpartition("\n")[2])
    if end is None:  # also of a training by hand
        return STOPPED, ""
    status = int(end[1])
    if status in ENDED_BY_SIGNAL:
        return STOPPED, f"by signal {status - 128}"
    return FAILED, f"status {status}: {''.join(last_lines(log, 1))}"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _epochs(folder: Path) -> float:
    """What nnU-Net wrote of the trainer's attributes when the training began; NaN before."""
    try:
        return float(json.loads((folder / "debug.json").read_text(encoding="utf-8"))["num_epochs"])
    except (OSError, ValueError, KeyError):
        return math.nan
