"""What a training logged: nnU-Net's training_log_*.txt and debug.json in the folder of a fold.

A log may be missing, stop anywhere or be damaged, so everything is optional: what is not known is NaN or "", and a line
that makes no sense is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

_SPLIT = re.compile(r"This split has ([0-9]{1,9}) training and ([0-9]{1,9}) validation cases")
# In a line: the epoch that begins, its seconds, the peak of memory so far, a case whose validation begins.
_EPOCH = re.compile(r": Epoch ([0-9]{1,9}) *$")
_EPOCH_TIME = re.compile(r": Epoch time: ([0-9]{1,9}(?:\.[0-9]*)?) s")
_PEAK = re.compile(r": Peak memory ([0-9]{1,9}(?:\.[0-9]*)?) GiB")
_PREDICTING = re.compile(r"^([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}): predicting ")


@dataclass(frozen=True)
class TrainingLog:
    """The trainings of some folds together.

    `epochs` of the fold that has least; `epoch_s` the median over epochs and folds; `total_h` the sum over both, each
    epoch as it last ran; `peak_gib` the largest memory; `validation_s` the median time from one validation case to the
    next; `device`, `torch` as logged, several joined by " / "; `iterations` of an epoch,
    where all folds say the same.
    """

    epochs: float = math.nan
    epoch_s: float = math.nan
    total_h: float = math.nan
    peak_gib: float = math.nan
    validation_s: float = math.nan
    device: str = ""
    torch: str = ""
    iterations: float = math.nan


def logged_split(fold: Path) -> tuple[int, int] | None:
    """Numbers of training and validation cases that the last log of a fold names; None without a log of them."""
    found = [match for log in _logs(fold) for match in _SPLIT.findall(log)]
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def read_training(folds: Sequence[Path]) -> TrainingLog:
    """What the logs in the folders of some folds say. Unless all of them say it, sums are NaN."""
    epochs: list[dict[int, float]] = []
    peaks: list[float] = []
    steps: list[float] = []
    for fold in folds:
        of_fold: dict[int, float] = {}
        for log in _logs(fold):
            _read(log, of_fold, peaks, steps)
        epochs.append(of_fold)
    seconds = [time for of_fold in epochs for time in of_fold.values()]
    complete = bool(epochs) and all(epochs)
    debug = [read_debug(fold) for fold in folds]
    return TrainingLog(
        epochs=min(map(len, epochs)) if complete else math.nan,
        epoch_s=median(seconds) if seconds else math.nan,
        total_h=sum(seconds) / 3600 if complete else math.nan,
        peak_gib=max(peaks, default=math.nan),
        validation_s=median(steps) if steps else math.nan,
        device=_joined(content.get("gpu_name") or content.get("device", "") for content in debug),
        torch=_joined(content.get("torch_version", "") for content in debug),
        iterations=_iterations(debug),
    )


def _iterations(debug: Sequence[dict[str, Any]]) -> float:
    said = {str(content.get("num_iterations_per_epoch", "")) for content in debug}
    one = said.pop() if len(said) == 1 else ""
    return float(one) if re.fullmatch("[0-9]{1,9}", one) else math.nan


def _read(log: str, epochs: dict[int, float], peaks: list[float], steps: list[float]) -> None:
    """Add what a log says: seconds of each epoch, peaks in GiB, seconds between validation cases."""
    epoch, before = 0, None
    for line in log.splitlines():
        if match := _EPOCH.search(line):
            epoch = int(match[1])
        elif match := _EPOCH_TIME.search(line):
            epochs[epoch] = float(match[1])
        elif match := _PEAK.search(line):
            peaks.append(float(match[1]))
        elif match := _PREDICTING.search(line):
            try:
                now = datetime.fromisoformat(match[1])
            except ValueError:  # month 13
                continue
            if before is not None and now >= before:  # else the clock was set back
                steps.append((now - before).total_seconds())
            before = now


def _logs(fold: Path) -> list[str]:
    """The texts of all logs, oldest first; nnU-Net writes month and day without leading zeros."""
    paths = sorted(fold.glob("training_log_*.txt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])
    texts = []
    for path in paths:
        with suppress(OSError):  # a folder, or a file that is closed to us
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return texts


def read_json(path: Path) -> Any:
    """The content of a file; None where there is none or it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_debug(fold: Path) -> dict[str, Any]:
    """What nnU-Net wrote of the trainer's attributes when the training began; {} before."""
    content = read_json(fold / "debug.json")
    return content if isinstance(content, dict) else {}


def _joined(texts: Iterable[object]) -> str:
    return " / ".join(sorted({text for text in texts if text and isinstance(text, str)}))
