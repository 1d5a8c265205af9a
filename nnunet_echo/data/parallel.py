"""One function over many items, with results in order; in worker processes and with a progress bar if asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import SimpleITK as sitk
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    workers: int | None = 1,
    progress: bool = False,
) -> Iterator[Result]:
    """`function` of each item, in order, by `workers` processes (None: one for each processor this one may use).

    One worker means this process: a script that asks for more needs the usual `if __name__ == "__main__":`.
    `progress` draws a bar with the `title` on stderr. What `function` raises is raised here, and what was not begun is
    left out; a worker that dies is a `RuntimeError`. Raises `ValueError` for fewer than one worker.

    >>> list(map_in_order(str.upper, ["ed", "es"], title="phases"))
    ['ED', 'ES']
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: expected at least 1.")
    workers = min(workers or _processors(), len(items))
    results = map(function, items) if workers <= 1 else _map_in_processes(function, items, workers)
    return _with_bar(results, len(items), title) if progress else iter(results)


def _with_bar(results: Iterable[Result], total: int, title: str) -> Iterator[Result]:
    yield from tqdm(results, total=total, desc=title, unit="case", mininterval=0.5)


def _map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    # Not forked: SimpleITK's threads of this process would be missing in the copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=4)
        except BrokenProcessPool as error:
            raise RuntimeError(_why_broken(pool, workers)) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _why_broken(pool: ProcessPoolExecutor, workers: int) -> str:
    """What to tell of a worker that died. Only one that was killed can have wanted memory."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown()  # ends the others with SIGTERM, and waits for the exit codes
    codes = {process.exitcode for process in processes} - {None, 0, -signal.SIGTERM}
    if -signal.SIGKILL in codes or not codes:
        return f"a worker process died, perhaps for want of memory. Use fewer than {workers} workers (--workers)."
    code = min(codes)
    reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return (
        f"a worker process crashed ({reason}), perhaps at a damaged file. "
        "Run it with --workers 1 to see after how many files."
    )


def _start_worker() -> None:
    """A worker ends with its parent, even one that was killed: it must not go on writing beside the next conversion."""

    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
