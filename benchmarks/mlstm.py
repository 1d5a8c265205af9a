"""From how many tokens on is the mLSTM cell faster in chunks than in parallel, and in chunks of which size?

    python benchmarks/mlstm.py [--tokens 128 256 ...] [--chunks 32 64 128] [--device cpu]

One image, 4 heads of 96 channels as in ViL and ViL2, forward plus backward in float32, medians of five in milliseconds.
The first column is the parallel form, one chunk of all tokens. Before anything is timed each chunked result is compared
with it in float64.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from timing import seconds_of
from torch import Tensor

from nnunet_echo.layers.vil import HEADS
from nnunet_echo.ops.mlstm import mlstm

CHANNELS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--chunks", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {args.device}\n")
    print("| tokens | parallel | " + " | ".join(f"chunks of {chunk}" for chunk in args.chunks) + " |")
    print("|---:|" + "---:|" * (1 + len(args.chunks)))
    for tokens in args.tokens:
        inputs = cell_inputs(tokens, args.device)
        for chunk in args.chunks:
            check(inputs, chunk)
        cells = [f"{1e3 * median_seconds(inputs, chunk):.1f}" for chunk in (tokens, *args.chunks)]
        print(f"| {tokens} | " + " | ".join(cells) + " |", flush=True)


def cell_inputs(tokens: int, device: str) -> list[Tensor]:
    """q, k, v, input gate, forget gate; the gates as a new cell has them, memories of 20 to 400 tokens."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, CHANNELS, device=device) for _ in range(3))
    noise = torch.randn(2, 1, HEADS, tokens, device=device)
    forget = noise[1] + torch.linspace(3, 6, HEADS, device=device)[:, None]
    return [x.requires_grad_() for x in (q, k, v, noise[0], forget)]


def check(inputs: list[Tensor], chunk: int) -> None:
    with torch.no_grad():
        double = [x.double() for x in inputs]
        parallel, chunked = mlstm(*double, chunk=len(inputs[0][0, 0])), mlstm(*double, chunk=chunk)
    error = float((chunked - parallel).norm() / parallel.norm())
    if not error < 1e-9:
        raise SystemExit(f"Chunks of {chunk} are wrong: relative error {error:.1e}. Nothing is timed.")


def median_seconds(inputs: list[Tensor], chunk: int) -> float:
    """Of forward plus backward."""
    wait = torch.cuda.synchronize if inputs[0].is_cuda else lambda: None
    return median(seconds_of([lambda: torch.autograd.grad(mlstm(*inputs, chunk=chunk).sum(), inputs)], 5, wait)[0])


if __name__ == "__main__":
    main()
