"""What a command costs, with all the processes that it starts. For benchmarks that run a command as a user would."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

SECONDS_BETWEEN_SAMPLES = 0.1


@dataclass(frozen=True)
class Cost:
    """Wall clock and processor time in seconds; the largest memory in MiB that all processes had at one moment.

    Memory is the proportional set size: pages that processes share count once. It is sampled, so a peak shorter than
    a tenth of a second can be missed.
    """

    seconds: float
    processor_seconds: float
    peak_mib: float


def run_measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end. Raises `subprocess.CalledProcessError` when it fails. Linux only."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _memory_bytes(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, busy, peak / 2**20)


def _memory_bytes(pid: int) -> int:
    """Of a process and all its descendants; 0 for those that end meanwhile."""
    total = 0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
