"""What a training logged: nnU-Net's training_log_*.txt and debug.json in the folder of a fold.

A log may be missing or stop anywhere, so everything is optional: what is not known is NaN or "".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

_SPLIT = re.compile(r"This split has (\d+) training and (\d+) validation cases")
# In a line: the epoch that begins, its seconds, the peak of memory so far, a case whose validation begins.
_EPOCH = re.compile(r": Epoch (\d+) *$")
_EPOCH_TIME = re.compile(r": Epoch time: ([\d.]+) s")
_PEAK = re.compile(r": Peak memory ([\d.]+) GiB")
_PREDICTING = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+): predicting ")


@dataclass(frozen=True)
class Training:
    """The trainings of some folds together.

    `epochs` of the fold that has least; `epoch_s` the median over epochs and folds; `total_h` the sum over both, each
    epoch as it last ran; `peak_gib` the largest memory; `validation_s` the median time from one validation case to the
    next; `device`, `torch` as logged, several joined by " / ".
    """

    epochs: float = math.nan
    epoch_s: float = math.nan
    total_h: float = math.nan
    peak_gib: float = math.nan
    validation_s: float = math.nan
    device: str = ""
    torch: str = ""


def logged_split(fold: Path) -> tuple[int, int] | None:
    """Numbers of training and validation cases that the last log of a fold names; None without a log of them."""
    found = [match for log in _logs(fold) for match in _SPLIT.findall(log)]
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def read_training(folds: Sequence[Path]) -> Training:
    """What the logs in the folders of some folds say. Unless all of them say it, sums are NaN."""
    epochs, peaks, steps = [], [], []
    for fold in folds:
        of_fold: dict[int, float] = {}
        for log in _logs(fold):
            _read(log, of_fold, peaks, steps)
        epochs.append(of_fold)
    seconds = [time for of_fold in epochs for time in of_fold.values()]
    complete = bool(epochs) and all(epochs)
    debug = [_debug(fold) for fold in folds]
    return Training(
        epochs=min(map(len, epochs)) if complete else math.nan,
        epoch_s=median(seconds) if seconds else math.nan,
        total_h=sum(seconds) / 3600 if complete else math.nan,
        peak_gib=max(peaks, default=math.nan),
        validation_s=median(steps) if steps else math.nan,
        device=_joined(content.get("gpu_name") or content.get("device", "") for content in debug),
        torch=_joined(content.get("torch_version", "") for content in debug),
    )


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
            now = datetime.fromisoformat(match[1])
            if before is not None:
                steps.append((now - before).total_seconds())
            before = now


def _logs(fold: Path) -> list[str]:
    """The texts of all logs, oldest first; nnU-Net writes month and day without leading zeros."""
    paths = sorted(fold.glob("training_log_*.txt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def _debug(fold: Path) -> dict[str, str]:
    try:
        return json.loads((fold / "debug.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _joined(texts: object) -> str:
    return " / ".join(sorted(set(filter(None, texts))))
