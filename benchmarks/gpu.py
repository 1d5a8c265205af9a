"""What only a GPU can show; `gpu.sh` runs all of it, each step with a limit of time.

    python benchmarks/gpu.py found                    # is there a GPU? Exit status 3 where there is none
    python benchmarks/gpu.py scan                     # the Triton scan against float64
    python benchmarks/gpu.py float16 [--steps 100]    # each trainer's network learns in float16, without NaN
    python benchmarks/gpu.py plan [--compile]         # memory and time of an epoch at nnU-Net's plan of CAMUS

`scan` compares outputs and all gradients at the shapes of scan.py's table: with 197 tokens against the reference, and
at full length, with two sequences at most, against the scan in chunks, which the reference would take hours for.
`float16` trains as nnU-Net does, with autocast and a gradient scaler, on discs with noise; a network fails where a loss
or a weight is not finite, or where the loss does not fall. `plan` has patch 512 x 640, batch 9, 8 stages; an epoch is
250 training iterations, without loading and validation. With `--device cpu` all of it runs on a CPU, for tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from networks import CLASSES, PLAIN, SUBJECTS, Case, build, prepare
from scan import CHECK_TOKENS, SHAPES, forward_backward, scan_inputs, triton_scan
from timing import seconds_of
from torch import Tensor

from nnunet_echo.networks import NETWORKS, list_networks
from nnunet_echo.ops.selective_scan import chunked, reference, selective_scan
from nnunet_echo.ops.selective_scan.inputs import ScanInputs
from nnunet_echo.training.memory import peak_memory_gib

OURS = list_networks(2, installed=True)
# Trained with Adam or AdamW.
TOKENS = ("vm_unet", "vil", "vil2", "samus", "samus_tra_lia", *(name for name, row in NETWORKS.items() if row.extra))
ITERATIONS = 250  # of an epoch
NO_GPU = 3
NAMES = ("y", "u", "delta", "A", "B", "C", "D", "z", "bias")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["found", "scan", "float16", "plan"])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS)
    parser.add_argument("--shapes", nargs="+", default=SHAPES["cuda"], metavar="B,D,L,N,groups")
    parser.add_argument("--size", metavar="HxW")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--stages", type=int)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        print(f"no GPU: PyTorch {torch.__version__} finds no CUDA device")
        return NO_GPU
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}", flush=True)
    steps: dict[str, Callable[[argparse.Namespace], int]] = {"scan": scan, "float16": float16, "plan": plan}
    return steps[args.step](args) if args.step in steps else 0


def scan(args: argparse.Namespace) -> int:
    ours = triton_scan if args.device.type == "cuda" else default_scan
    limits = {"y": 2e-6} | dict.fromkeys(NAMES[1:], 1e-5)
    print("| B, D, L, N, groups | against | output | worst gradient | of | |\n|---|---|---:|---:|---|---|")
    wrong = 0
    for text in args.shapes:
        batch, channels, tokens, states, groups = (int(n) for n in text.split(","))
        for truth, few, length in (("reference", batch, min(tokens, CHECK_TOKENS)), ("chunked", min(batch, 2), tokens)):
            inputs = scan_inputs(few, channels, length, states, groups, device=args.device)
            errors = scan_errors(ours, {"reference": reference, "chunked": chunked}[truth].selective_scan, inputs)
            worst = max(NAMES[1:], key=errors.get)
            right = all(errors[name] < limits[name] for name in NAMES)  # NaN is not
            wrong += not right
            print(
                f"| {few}, {channels}, {length}, {states}, {groups} | {truth} | {errors['y']:.1e} "
                f"| {errors[worst]:.1e} | {worst} | {'' if right else 'WRONG'} |",
                flush=True,
            )
    return int(wrong > 0)


def default_scan(*inputs: Tensor) -> Tensor:
    return selective_scan(*inputs, delta_softplus=True)


def scan_errors(ours: Callable[..., Tensor], truth: Callable[..., tuple], inputs: list[Tensor]) -> dict[str, float]:
    """Relative error to float64 of the output and of each gradient."""
    exact = forward_backward(lambda *x: truth(ScanInputs(*x, delta_softplus=True))[0], [x.double() for x in inputs])()
    found = forward_backward(ours, inputs)()
    return {name: float((a - b).norm() / b.norm()) for name, a, b in zip(NAMES, found, exact, strict=True)}


def cases(args: argparse.Namespace, size: str, batch: int, stages: int, networks: list[str]) -> list[Case]:
    height, width = (int(n) for n in (args.size or size).split("x"))
    return [
        Case(name, (height, width), args.batch or batch, args.stages or stages, args.device, 3, False, False)
        for name in args.networks or networks
    ]


def float16(args: argparse.Namespace) -> int:
    print(f"{args.steps} steps\n| network | loss, first | last | left out by the scaler | |\n|---|---:|---:|---:|---|")
    wrong = 0
    for case in cases(args, "256x256", 4, 7, OURS):
        try:
            losses, left_out, finite = train(case, args.steps)
            verdict = "" if finite and min(losses[-5:]) < losses[0] else "WRONG"
            print(f"| {case.network} | {losses[0]:.3f} | {losses[-1]:.3f} | {left_out} | {verdict} |", flush=True)
        except RuntimeError as error:  # the others still have their turn
            verdict = "WRONG"
            print(f"| {case.network} | | | | WRONG: {str(error).splitlines()[0]} |", flush=True)
        wrong += bool(verdict)
    return int(wrong > 0)


def train(case: Case, steps: int) -> tuple[list[float], int, bool]:
    """Losses, how many steps had gradients out of float16's range, and whether losses and weights are finite."""
    torch.manual_seed(0)
    network = build(case).to(case.device)
    if case.network in TOKENS:
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    else:
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    cuda = case.device.type == "cuda"
    scaler = torch.amp.GradScaler(case.device.type, enabled=cuda)
    losses, left_out = [], 0
    for _ in range(steps):
        images, labels = discs(case)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(case.device.type, torch.float16, enabled=cuda):
            outputs = network(images)
        loss = F.cross_entropy(outputs[0].float(), labels)
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        scaler.step(optimiser)
        scaler.update()
        left_out += scaler.get_scale() < scale
        losses.append(float(loss.detach()))
    finite = all(bool(torch.isfinite(x).all()) for x in (torch.tensor(losses), *network.parameters()))
    return losses, left_out, finite


def discs(case: Case) -> tuple[Tensor, Tensor]:
    """Images of noise (B, 1, H, W) in which each class is a brighter ring around one centre, and their labels."""
    rows, columns = (torch.linspace(-1, 1, n, device=case.device) for n in case.size)
    centre = torch.rand(case.batch, 2, 1, 1, device=case.device) - 0.5
    radius = torch.hypot(rows[:, None] - centre[:, 0], columns[None, :] - centre[:, 1])
    labels = (CLASSES - 1 - (radius * 4).long()).clamp(min=0)
    return (labels + 0.5 * torch.randn(labels.shape, device=case.device))[:, None] - 1, labels


def plan(args: argparse.Namespace) -> int:
    print("compiled" if args.compile else "as it is")
    print("| network | first step, s | step, s | epoch, min | peak, GiB |\n|---|---:|---:|---:|---:|")
    for case in cases(args, "512x640", 9, 8, [PLAIN, *OURS]):
        try:
            network, _, step = prepare(case)
            if args.compile:
                network.compile()
            if case.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(case.device)
            began = time.perf_counter()
            step()
            case.wait()
            first = time.perf_counter() - began
            seconds = median(seconds_of([step], case.repetitions, case.wait)[0])
            print(
                f"| {case.network} | {first:.1f} | {seconds:.3f} | {ITERATIONS * seconds / 60:.1f} "
                f"| {peak_memory_gib(case.device):.1f} |",
                flush=True,
            )
            del network, step
        except RuntimeError as error:  # out of memory, say; the others still have their turn
            print(f"| {case.network} | | | | {str(error).splitlines()[0]} |", flush=True)
        if case.device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
