"""How long functions take, by the clock. For benchmarks that call what they measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def seconds_of(
    runs: Sequence[Callable[[], object]], repeats: int, wait: Callable[[], object] = lambda: None
) -> list[list[float]]:
    """Of each its times, all in turns, after one round that is not counted. `wait` returns once a GPU has finished."""
    seconds = [[] for _ in runs]
    for _ in range(1 + repeats):
        for run, times in zip(runs, seconds, strict=True):
            began = time.perf_counter()
            run()
            wait()
            times.append(time.perf_counter() - began)
    return [times[1:] for times in seconds]
