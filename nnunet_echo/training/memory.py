"""Memory of the training process: how much it took, and keeping what it freed."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory so far: allocated on a CUDA device, else resident in this process; NaN where no one counts it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform != "linux":
        return _peak_of_getrusage()
    # Not getrusage, whose peak a process inherits from the one that started it.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 2**20


def _peak_of_getrusage() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed; other systems are left as they are.

    By default every large tensor is fresh memory of the operating system, which zeroes it page by page when it is first
    written, and gets it back when it is freed. On a CPU that was a quarter to a half of the time of a training step
    (docs/records/performance.md). The price is that the process keeps its peak memory until it ends.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_TOP_PAD, 1 << 26)
