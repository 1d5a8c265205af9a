"""How much faster is the sLSTM cell in C than token by token in PyTorch?

    python benchmarks/slstm.py [--tokens 256 1280] [--repeats 5]

The cell of a layer of 192 channels in 4 heads, batch 2, forward plus backward in float32, in turns in one process, on
one thread: medians of its processor time in milliseconds, which other work on the machine changes less than the time by
the clock. The loop is `reference`. Before anything is timed the two are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from nnunet_echo.ops.slstm import slstm

BATCH, HEADS, SIZE = 2, 4, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1280])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}\n\n| tokens | loop | C | ratio |\n|---:|---:|---:|---:|")
    for tokens in args.tokens:
        inputs = cell_inputs(tokens)
        check(inputs)
        runs = [forward_and_backward(inputs, backend) for backend in ("reference", "cpu")]
        loop, in_c = (1e3 * median(times) for times in processor_seconds(runs, args.repeats))
        print(f"| {tokens} | {loop:.1f} | {in_c:.1f} | {loop / in_c:.1f} |", flush=True)


def cell_inputs(tokens: int) -> list[Tensor]:
    """x, R and b."""
    torch.manual_seed(0)
    shapes = (BATCH, tokens, 4 * HEADS * SIZE), (HEADS, 4, SIZE, SIZE), (4, HEADS, SIZE)
    scales = (1.0, SIZE**-0.5, 1.0)
    return [(scale * torch.randn(shape)).requires_grad_() for shape, scale in zip(shapes, scales, strict=True)]


def forward_and_backward(inputs: Sequence[Tensor], backend: str) -> Callable[[], tuple[Tensor, ...]]:
    def run() -> tuple[Tensor, ...]:
        y, state = slstm(*inputs, backend=backend)
        return y, *torch.autograd.grad(y.sum() + state.sum(), inputs)

    return run


def processor_seconds(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Of each its times, all in turns, after one round that is not counted."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(1 + repeats):
        for run, times in zip(runs, seconds, strict=True):
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
    return [times[1:] for times in seconds]


def check(inputs: Sequence[Tensor]) -> None:
    for ours, truth in zip(*(forward_and_backward(inputs, name)() for name in ("cpu", "reference")), strict=True):
        error = ((ours - truth).norm() / truth.norm()).item()
        if not error < 1e-4:
            raise SystemExit(f"C and PyTorch differ: relative error {error:.1e}. Nothing is timed.")


if __name__ == "__main__":
    main()
