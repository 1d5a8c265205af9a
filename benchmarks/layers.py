"""Layers that a CPU computes in another way than PyTorch's operator of that name: how fast are both?

    python benchmarks/layers.py [--repeats 15]

- the convolution and SiLU in front of the scan, in C. u (B, D, L) lies token by token, half of what a projection made,
  and half of its channels read backwards, as in LKM-UNet;
- linear maps of (tokens, channels), as convolutions;
- instance norm of (B, C, H, W), as group norm, without gradients only.

First outputs and gradients are compared. Prints medians in Markdown, both in turns.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from timing import seconds_of
from torch import Tensor, nn

from nnunet_echo.ops.causal_conv import causal_conv_silu
from nnunet_echo.ops.instance_norm import InstanceNorm2d
from nnunet_echo.ops.linear import linear
from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE
from nnunet_echo.training.memory import keep_freed_memory

CONVOLUTIONS = [(49, 128, 1600), (49, 256, 400), (16, 512, 400), (16, 1024, 100), (4, 2048, 100), (1, 128, 65536)]
TAPS = 4
LINEAR_MAPS = [(78400, 32, 256), (78400, 64, 32), (19600, 64, 512), (6400, 128, 1024), (1600, 256, 2048)]
NORMS = [(1, 32, 256, 256), (1, 64, 128, 128), (1, 128, 64, 64), (1, 256, 32, 32), (1, 512, 16, 16)]


@dataclass(frozen=True)
class Pair:
    layer: str
    shape: tuple[int, ...]
    theirs: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    leaves: list[Tensor]
    has_backward: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}\n")
    print("| layer | shape | forward, PyTorch ms | ours | with backward, PyTorch ms | ours |\n|---|---|" + "---:|" * 4)
    for pair in pairs():
        check(pair)
        times = times_of(pair, forward, args.repeats)
        if pair.has_backward:
            times += times_of(pair, with_backward, args.repeats)
        cells = [f"{1e3 * t:.2f}" for t in times] + [""] * (4 - len(times))
        print(f"| {pair.layer} | {', '.join(map(str, pair.shape))} | {' | '.join(cells)} |", flush=True)


def pairs() -> Iterator[Pair]:
    for shape in CONVOLUTIONS:
        batch, channels, length = shape
        u = torch.randn(batch, length, 2 * channels).mT[:, :channels]
        leaves = [u, torch.randn(channels, 1, TAPS), torch.randn(channels)]
        yield Pair("convolution", shape, convolution_by("chunked"), convolution_by("cpu"), leaves)
    for shape in LINEAR_MAPS:
        tokens, inputs, outputs = shape
        leaves = [torch.randn(1, tokens, inputs), torch.randn(outputs, inputs)]
        yield Pair("linear", shape, F.linear, linear, leaves)
    for shape in NORMS:
        channels = shape[1]
        layers = [norm(channels, affine=True) for norm in (nn.InstanceNorm2d, InstanceNorm2d)]
        yield Pair("instance norm", shape, *layers, [torch.randn(shape)], has_backward=False)


def convolution_by(backend: str) -> Callable[..., Tensor]:
    def convolve(*leaves: Tensor) -> Tensor:
        os.environ[BACKEND_VARIABLE] = backend
        return causal_conv_silu(*leaves, (False, True))

    return convolve


def forward(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [function(*leaves)]


def with_backward(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in leaves]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]


def check(pair: Pair) -> None:
    run = with_backward if pair.has_backward else forward
    for theirs, ours in zip(run(pair.theirs, pair.leaves), run(pair.ours, pair.leaves), strict=True):
        error = float((ours - theirs).norm() / theirs.norm())
        if not error < 1e-5:
            raise SystemExit(f"{pair.layer} is wrong: relative error {error:.1e}. It is not timed.")


def times_of(pair: Pair, run: Callable[..., object], repeats: int) -> list[float]:
    """Median seconds of PyTorch's and ours."""
    runs = [partial(run, function, pair.leaves) for function in (pair.theirs, pair.ours)]
    return [median(seconds) for seconds in seconds_of(runs, repeats)]


if __name__ == "__main__":
    main()
