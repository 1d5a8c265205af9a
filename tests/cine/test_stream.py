"""Items through workers: in order, few at a time, one thread of PyTorch each, errors in their turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from nnunet_echo.cine.stream import in_order


def test_order_and_threads() -> None:
    torch.set_num_threads(3)
    try:

        def work(n: int) -> tuple[int, int, str]:
            time.sleep(0.002 * (n % 3))
            return n, torch.get_num_threads(), threading.current_thread().name

        results = list(in_order(range(20), work, workers=3))
        assert [n for n, _, _ in results] == list(range(20))
        assert {threads for _, threads, _ in results} == {1}
        assert len({name for _, _, name in results}) == 3
        assert torch.get_num_threads() == 3
        later: list[int] = []  # of a thread that starts now
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(1)


def test_the_source_is_read_as_results_are_taken() -> None:
    taken = []

    def source() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    results = in_order(source(), lambda n: n, workers=2)
    assert taken == []
    for n in range(5):
        assert next(results) == n
        assert len(taken) == n + 4
    results.close()
    assert len(taken) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnunet-echo")]


def test_errors_come_in_their_turn() -> None:
    def work(n: int) -> int:
        if n == 3:
            raise ValueError("item 3")
        return n

    seen = []
    with pytest.raises(ValueError, match="item 3"):
        for n in in_order(range(50), work, workers=2):
            seen.append(n)
    assert seen == [0, 1, 2]

    def source() -> Iterator[int]:
        yield from range(3)
        raise OSError("file ends here")

    seen = []
    with pytest.raises(OSError, match="file ends here"):
        for n in in_order(source(), lambda n: n, workers=4):
            seen.append(n)
    assert seen == [0, 1, 2]


def test_nothing_is_started_once_nobody_wants_it() -> None:
    started = []

    def work(n: int) -> int:
        started.append(n)
        time.sleep(0.1 if n else 0)
        return n

    results = in_order(range(9), work, workers=2)
    assert next(results) == 0
    results.close()
    assert len(started) < 4, started


def test_no_workers() -> None:
    with pytest.raises(ValueError, match="workers=0"):
        in_order([], str, workers=0)
