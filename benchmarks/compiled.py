"""What does torch.compile give each network?

    python benchmarks/compiled.py [--networks lkm_unet ...] [--size 256x256] [--stages 7] [--batch 1] [--device cpu]

Every network runs in a process of its own, in evaluation mode, since stochastic depth would differ, compiled whole
(`fullgraph=True`) by PyTorch's default backend, which needs a C++ compiler on a CPU. A network whose gradients are more
than 2e-2 of the largest one's norm off those in float64, and more than twice as far as without compilation, is not
timed: 1e-2 is what one activation does that rounds to the other side of LeakyReLU's kink. Prints a table in Markdown:
seconds until the first forward and backward are done, and how many times faster later ones are than without, in turns.
"""

from __future__ import annotations

import argparse
import time

import torch
from networks import SUBJECTS, Case, in_a_fresh_process, prepare, ratio
from timing import seconds_of
from torch import nn

from nnunet_echo.training.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--size", default="256x256", metavar="HxW")
    parser.add_argument("--stages", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    print(f"{args.device.type}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}\n")
    print("| network | first step, s | forward, times faster | with backward |\n|---|---:|---:|---:|")
    size = tuple(int(n) for n in args.size.split("x"))
    for network in args.networks:
        case = Case(network, size, args.batch, args.stages, args.device, args.repetitions, False, True)
        print(f"| {network} | {' | '.join(f'{n:.2f}' for n in in_a_fresh_process(measure, case))} |", flush=True)


def measure(case: Case) -> tuple[float, float, float]:
    """Seconds of the first step, and how many times faster forward and step are; RuntimeError for wrong gradients."""
    if case.keep_memory:
        keep_freed_memory()
    (network, forward, step), (compiled, compiled_forward, compiled_step) = prepare(case), prepare(case)
    exact, _, exact_step = prepare(case, torch.float64)
    compiled.compile(fullgraph=True)
    for one in (network, compiled, exact):
        one.eval()
    step()
    exact_step()
    began = time.perf_counter()
    compiled_step()
    first = time.perf_counter() - began
    error, usual = (worst_error(one, exact) for one in (compiled, network))
    if not error < max(2e-2, 2 * usual):
        raise RuntimeError(
            f"{case.network} compiled is wrong: error {error:.1e} of its gradients, {usual:.1e} without. Not timed."
        )
    runs = [forward, compiled_forward, step, compiled_step]
    forwards, compiled_forwards, steps, compiled_steps = seconds_of(runs, case.repetitions, case.wait)
    return first, ratio(forwards, compiled_forwards), ratio(steps, compiled_steps)


def worst_error(network: nn.Module, exact: nn.Module) -> float:
    """Largest error of the gradient of a parameter, in the norm of the largest gradient."""
    parameters = zip(network.parameters(), exact.parameters(), strict=True)
    pairs = [(x.grad, y.grad) for x, y in parameters if y.grad is not None]
    return float(max((x - y).norm() for x, y in pairs) / max(y.norm() for _, y in pairs))


if __name__ == "__main__":
    main()
