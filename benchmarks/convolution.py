"""The convolution and SiLU in front of the scan: in C and as PyTorch's operators, on a CPU.

    python benchmarks/convolution.py [--repeats 15]

u lies token by token, half of what a projection made, and half of its channels read backwards, as in LKM-UNet. First
outputs and gradients are compared. Prints medians in Markdown, both in turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from nnunet_echo.memory import keep_freed_memory
from nnunet_echo.scan import BACKEND_VARIABLE
from nnunet_echo.scan.convolution import causal_conv_silu

SHAPES = [(49, 128, 1600), (49, 256, 400), (16, 512, 400), (16, 1024, 100), (4, 2048, 100), (1, 128, 65536)]
TAPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}\n")
    print("| B, D, L | forward, PyTorch ms | C ms | with backward, PyTorch ms | C ms |\n|---|---:|---:|---:|---:|")
    for batch, channels, length in SHAPES:
        u = torch.randn(batch, length, 2 * channels).mT[:, :channels]
        leaves = [x.requires_grad_() for x in (u, torch.randn(channels, 1, TAPS), torch.randn(channels))]
        grad_y = torch.randn(u.shape)
        check(leaves, grad_y)
        times = [t for run in (forward, backward) for t in times_of(run, leaves, grad_y, args.repeats)]
        print(f"| {batch}, {channels}, {length} | {' | '.join(f'{1e3 * t:.1f}' for t in times)} |", flush=True)


def forward(leaves: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [causal_conv_silu(*leaves, (False, True))]


def backward(leaves: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    y = causal_conv_silu(*leaves, (False, True))
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y)]


def check(leaves: list[Tensor], grad_y: Tensor) -> None:
    results = []
    for backend in ("chunked", "cpu"):
        os.environ[BACKEND_VARIABLE] = backend
        results.append(backward(leaves, grad_y))
    for theirs, ours in zip(*results, strict=True):
        error = float((ours - theirs).norm() / theirs.norm())
        if not error < 1e-5:
            raise SystemExit(f"The convolution in C is wrong: relative error {error:.1e}. Nothing is timed.")


def times_of(
    run: Callable[[list[Tensor], Tensor], object], leaves: list[Tensor], grad_y: Tensor, repeats: int
) -> list[float]:
    """Median seconds with PyTorch and in C, after one run of each that is not counted."""
    seconds = {"chunked": [], "cpu": []}
    for _ in range(1 + repeats):
        for backend, times in seconds.items():
            os.environ[BACKEND_VARIABLE] = backend
            began = time.perf_counter()
            run(leaves, grad_y)
            times.append(time.perf_counter() - began)
    return [median(times[1:]) for times in seconds.values()]


if __name__ == "__main__":
    main()
