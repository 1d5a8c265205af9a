"""Memory of the training process, measured in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

LARGE_TENSORS = """
import resource, torch
from nnunet_echo.training.memory import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensor = torch.ones(20_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = faults()
keep_freed_memory()
kept = [faults() for _ in range(5)]  # the first ones may still find no block that is large enough
print(fresh, kept[-1])
"""

HALF_A_GIB = """
import torch
from nnunet_echo.training.memory import peak_memory_gib

cpu = torch.device("cpu")
before = peak_memory_gib(cpu)
torch.ones(2**27)
print(peak_memory_gib(cpu) - before)
"""


def numbers(script: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return [float(x) for x in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory")
def test_large_tensors_reuse_memory() -> None:
    fresh, kept = numbers(LARGE_TENSORS)
    assert kept < 0.1 * fresh


@pytest.mark.skipif(sys.platform == "win32", reason="no one counts it there")
@pytest.mark.slow
def test_peak_memory_counts_what_is_written_in_this_process() -> None:
    ballast = torch.ones(2**29)  # 2 GiB here, which are not the child's
    (grown,) = numbers(HALF_A_GIB)
    assert len(ballast)
    assert 0.4 < grown < 0.7
