"""Frames through a model in order: a few at a time, each on one thread, in memory that does not grow with their number.

PyTorch's threads pay on one large tensor at a time. Frames are many and small, so each worker takes a frame of its own
and computes on one thread: as many threads as nnU-Net starts, on a busy machine, wait for each other most of the time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from numpy import ndarray

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNDER_WAY = 2  # items for each worker, finished ones that wait for their turn included
_MOST_WORKERS = 8


@dataclass(frozen=True)
class FrameResult:
    """Of one frame: its label map `mask` (H, W) uint8; if asked for, the mean entropy along an edge, and probabilities.

    `probabilities` (K, H, W) float32 are those of the softmax, at the frame's own pixels.
    """

    mask: ndarray
    entropy: float | None = None
    probabilities: ndarray | None = None


def default_workers() -> int:
    """One for each processor that this process may use, at most 8.

    >>> 1 <= default_workers() <= 8
    True
    """
    with suppress(AttributeError):  # not on macOS and Windows
        return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0))))
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1))


def in_order(source: Iterable[Item], work: Callable[[Item], Result], workers: int = 1) -> Iterator[Result]:
    """`work` of each item, in the order of `source`, by threads that have one thread of PyTorch each.

    At most twice as many items as workers are taken from the source before the first result is taken from here. An
    error of `work` or of the source is raised in its turn; nothing is started after it. Raises ValueError for no
    workers.

    >>> list(in_order(range(4), lambda n: n * n, workers=2))
    [0, 1, 4, 9]
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1.")
    return _in_order(source, work, workers)


def _in_order(source: Iterable[Item], work: Callable[[Item], Result], workers: int) -> Iterator[Result]:
    threads_before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "nnunet-echo", initializer=partial(torch.set_num_threads, 1))
    waiting: deque[Future[Result]] = deque()
    items, source_error = iter(source), None
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # raised once what comes before it has had its turn
                source_error = error
                break
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _UNDER_WAY * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if source_error is not None:
            raise source_error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads_before)  # a worker's number counts for threads that start later, too
