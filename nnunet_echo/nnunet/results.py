"""What the disk says about a fold: done, running, failed and why, its epoch. Standard library only.

In the folder of a fold, <nnUNet_results>/<dataset>/<trainer>__<plans>__<configuration>/fold_<k>, `train_fold` keeps

    train_fold.log     the output of all its trainings, each between two lines of its own that begin with MARK
    train_fold.lock    locked while one runs
    train_fold.json    host and process of the training that runs
    split.json      its cases when it started; see cases.py
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nnunet_echo.nnunet.cases import Cases, other_split
from nnunet_echo.nnunet.folders import PREPROCESSED, RAW, RESULTS, find_dataset
from nnunet_echo.nnunet.logs import read_debug, read_json, read_training

DONE, RUNNING, FAILED, STOPPED, WAITING = "done", "running", "failed", "stopped", "not started"
OTHER_SPLIT = "other split"  # whatever else it is: its cases are not those of the split
DEFAULT_PLANS = "nnUNetPlans"
MARK = "=== "
ENDED_BY_SIGNAL = range(129, 193)  # a command that signal n ended has status 128 + n
_END = re.compile(rf"{MARK}\S+ \S+ end, status ([0-9]{{1,9}})")
_YEAR_S = 366 * 86400  # an end beyond it comes of a damaged log
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
        if self.state == RUNNING and (end := self.expected_end()) < time.time() + _YEAR_S:  # NaN is not
            parts.append(f"ends about {time.strftime('%a %H:%M', time.localtime(end))}")
        return ", ".join(parts) + (f": {self.reason}" if self.reason else "")

    def short(self) -> str:
        """State and epoch."""
        return self.state if self.state in (DONE, WAITING, OTHER_SPLIT) else f"{self.state}, epoch {self.progress()}"

    def progress(self) -> str:
        """Finished epochs of all, as far as these are known."""
        return f"{self.epoch}/{'?' if math.isnan(self.epochs) else int(self.epochs)}"

    def expected_end(self) -> float:
        """When the last epoch ends if all take as long as the median so far; the validation comes on top."""
        return self.written + self.epoch_s * (self.epochs - self.epoch)


def dataset_name(dataset: str) -> str:
    """DatasetXXX_NAME for an id or a name, preprocessed or raw.

    Raises as `find_dataset`, and `ValueError` for a folder that is not called so.
    """
    preprocessed = os.environ.get(PREPROCESSED)
    try:
        name = find_dataset(dataset, preprocessed or None).name
    except FileNotFoundError:
        if not preprocessed or not os.environ.get(RAW):
            raise
        name = find_dataset(dataset).name
    if not re.fullmatch(r"Dataset[0-9]{3}_.+", name) or not name.isprintable():
        raise ValueError(
            f"dataset {name!r}: nnU-Net takes folders called Dataset, three digits, _ and a name, such as "
            "Dataset751_CAMUS."
        )
    return name


def check_name(what: str, name: str) -> None:
    """Of a "trainer", of "plans" or of a "configuration". Raises `ValueError` for one that they cannot have.

    Names become parts of paths, of patterns and of the script for Slurm, and nnU-Net joins them with two underscores.
    """
    if what == "trainer":
        if not name.isidentifier() or "__" in name:
            raise ValueError(
                f"trainer {name!r}: a trainer is called as its Python class: letters, digits and single underscores."
            )
    elif not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{what} {name!r}: a name of letters, digits and _ . + - is needed, the first no sign.")


def results_folder() -> Path:
    """The folder in nnUNet_results. Raises `ValueError` when that is not set."""
    if not os.environ.get(RESULTS):
        raise ValueError("nnUNet_results is not set. Set it (export nnUNet_results=/path).")
    return Path(os.environ[RESULTS])


def model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """Where nnU-Net keeps all folds of a trainer. Raises as `results_folder`."""
    return results_folder() / dataset / f"{trainer}__{plans}__{configuration}"


def is_done(folder: Path) -> bool:
    """Whether nnU-Net trained and validated the fold: summary.json, which it writes last, is complete."""
    return isinstance(read_json(folder / "validation" / "summary.json"), dict)


def is_locked(lock: Path) -> bool:
    """Whether a `train_fold` holds this lock, on any machine that shares the folder and its locks.

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


def take_lock(lock: TextIO, wait_s: float, log: TextIO | None = None) -> bool:
    """Whether the lock is ours. Goes on, and says so, in the log too, where the file system has no locks."""
    import fcntl

    give_up = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.1)
        except OSError as error:
            warning = f"{lock.name} cannot be locked ({error}): nothing here keeps a second process out."
            logging.getLogger(__name__).warning(warning)
            if log is not None:
                log.write(f"{warning}\n")
            return True


def read_fold(folder: Path, now: Cases | None = None, patient: Callable[[str], str] = str) -> Fold:
    """The fold in a folder fold_<k>, which need not exist. Compared with its cases in the split, if given as `now`."""
    other = "" if now is None else other_split(folder, now, patient)
    written = _last_write(folder)
    if is_locked(folder / "train_fold.lock"):
        state, reason = RUNNING, f"of {OTHER_SPLIT}: {other}" if other else ""
    elif other and (is_done(folder) or not math.isnan(written)):
        return Fold(folder, OTHER_SPLIT, reason=other)
    elif is_done(folder):
        return Fold(folder, DONE)
    elif math.isnan(written):
        return Fold(folder, WAITING)
    else:
        state, reason = _last_end(folder / "train_fold.log")
    training = read_training([folder])
    epoch = 0 if math.isnan(training.epochs) else int(training.epochs)
    return Fold(folder, state, epoch, _epochs(folder), training.epoch_s, written, reason)


def last_lines(log: Path, lines: int) -> list[str]:
    """The last lines that the last command wrote to a `train_fold` log."""
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
        with suppress(OSError):  # meanwhile replaced
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
    except OSError:
        return ""


def _epochs(folder: Path) -> float:
    """Of the complete training; NaN before it began, and for what cannot be a number of epochs."""
    try:
        epochs = float(read_debug(folder).get("num_epochs", math.nan))
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return epochs if 0 < epochs < 1e9 else math.nan
