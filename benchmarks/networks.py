"""What does each network cost, beside nnU-Net's own U-Nets and beside itself with a scan that loops over tokens?

    python benchmarks/networks.py [--sizes 256x256 512x512] [--batch 1] [--device cpu] [--token-loop]
    python benchmarks/networks.py --growth --sizes 512x512
    python benchmarks/networks.py --device cuda --sizes 512x640 --batch 9 --stages 8      # nnU-Net's plan of CAMUS

Every network runs in a process of its own: one channel, four classes, deep supervision, features from 32 doubling up to
512; under float16 autocast on CUDA, in float32 on a CPU. Before a network is timed its output is compared with the one
that the reference scan gives; a wrong one is not timed. Prints one table for each size, in Markdown: parameters, FLOPs
of a forward (a multiply-add is two; a scan has seven for each token, channel and state), medians of the forward without
gradients and of forward plus backward, and the peak memory of forward plus backward beyond what the process held
before. Ratios are to nnU-Net's plain U-Net, which runs in the same process, in turns with the network: medians of the
ratios of the turns, so that what else the machine does meets both. `--token-loop` adds, in turns with them too, how
many times slower the forward is with the scan as a loop over tokens; `--default-allocator` leaves out what trainers do
to keep freed memory on a CPU.
`--growth` prints, instead, both times over those at half the height and width, in turns.
`--kept` computes nothing: from shapes alone it prints what autograd keeps between forward and backward under 16 bit
autocast, weights left out; what a backward needs meanwhile comes on top.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from timing import seconds_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from nnunet_echo.analysis.costs import flop_formulas
from nnunet_echo.networks import NETWORKS, list_networks, network_from_plan
from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.nnunet.plans import SMALLEST_MAP, unet_architecture
from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE, choose_backend, cpu
from nnunet_echo.training.memory import keep_freed_memory, peak_memory_gib

CLASSES = 4
PLAIN = "nnU-Net plain"
RESIDUAL = "nnU-Net ResEnc"
RELEASED = "lkm_unet released"  # the windows of the published code, which scans whole maps at these sizes
SUBJECTS = (PLAIN, RESIDUAL, *list_networks(2, installed=True), RELEASED)
WITH_A_SCAN = (*(name for name, row in NETWORKS.items() if row.scan), RELEASED)


@dataclass(frozen=True)
class Case:
    network: str
    size: tuple[int, ...]
    batch: int
    stages: int
    device: torch.device
    repetitions: int
    token_loop: bool
    keep_memory: bool

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Costs:
    parameters: int
    flops: int
    forward_s: float
    forward_ratio: float
    step_s: float
    step_ratio: float
    peak_gib: float
    token_loop_ratio: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x512"], metavar="HxW")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--stages", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--token-loop", action="store_true")
    parser.add_argument("--default-allocator", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--kept", action="store_true")
    args = parser.parse_args()
    columns = ["M parameters", "GFLOPs", "forward, s", "ratio", "with backward, s", "ratio", "peak, GiB"]
    columns += ["token loop, times slower"] * args.token_loop
    row = measured_row
    if args.growth:
        columns, row = ["forward, over that of half the size", "with backward"], grown_row
    if args.kept:
        columns, row = ["kept, GiB"], kept_row
    print(f"scan: {choose_backend(args.device)}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for size in (tuple(int(n) for n in text.split("x")) for text in args.sizes):
        print(f"\n{size[0]} x {size[1]}, batch {args.batch}, {args.stages} stages\n")
        print(f"| network | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
        for network in args.networks:
            case = Case(
                network,
                size,
                args.batch,
                args.stages,
                args.device,
                args.repetitions,
                args.token_loop,
                keep_memory=args.device.type == "cpu" and not args.default_allocator,
            )
            print(f"| {network} | {' | '.join(row(case))} |", flush=True)


def measured_row(case: Case) -> list[str]:
    in_a_fresh_process(check, case)
    costs = in_a_fresh_process(measure, case)
    cells = [
        f"{costs.parameters / 1e6:.2f}",
        f"{costs.flops / 1e9:.1f}",
        f"{costs.forward_s:.3f}",
        f"{costs.forward_ratio:.1f}",
        f"{costs.step_s:.3f}",
        f"{costs.step_ratio:.1f}",
        f"{costs.peak_gib:.2f}",
    ]
    if case.token_loop:
        cells.append("" if math.isnan(costs.token_loop_ratio) else f"{costs.token_loop_ratio:.1f}")
    return cells


def grown_row(case: Case) -> list[str]:
    in_a_fresh_process(check, case)
    return [f"{times:.1f}" for times in in_a_fresh_process(growth, case)]


def kept_row(case: Case) -> list[str]:
    return [f"{kept_gib(replace(case, device=torch.device('cpu'))):.1f}"]


def in_a_fresh_process(function: Callable[[Case], Any], case: Case) -> Any:
    """So that none pays for memory or threads of the one before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, case).result()


def measure(case: Case) -> Costs:
    """All costs of one network."""
    if case.keep_memory:
        keep_freed_memory()
    network, forward, step = prepare(case)
    held = peak_memory_gib(case.device)
    step()
    peak_gib = peak_memory_gib(case.device) - held
    _, plain_forward, plain_step = prepare(replace(case, network=PLAIN))
    steps, plain_steps = seconds_of([step, plain_step], case.repetitions, case.wait)
    loop = [lambda: with_scan("reference", forward)] if case.token_loop and case.network in WITH_A_SCAN else []
    forwards, plain_forwards, *loops = seconds_of([forward, plain_forward, *loop], case.repetitions, case.wait)
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as flops:
        forward()
    parameters = sum(p.numel() for p in network.parameters())
    return Costs(
        parameters,
        flops.get_total_flops(),
        median(forwards),
        ratio(forwards, plain_forwards),
        median(steps),
        ratio(steps, plain_steps),
        peak_gib,
        ratio(loops[0], forwards) if loops else math.nan,
    )


def growth(case: Case) -> tuple[float, float]:
    """Forward, and forward plus backward, over those of half the height and width, all in turns."""
    if case.keep_memory:
        keep_freed_memory()
    half = replace(case, size=tuple(n // 2 for n in case.size))
    (_, forward, step), (_, half_forward, half_step) = prepare(case), prepare(half)
    runs = [forward, half_forward, step, half_step]
    forwards, half_forwards, steps, half_steps = seconds_of(runs, case.repetitions, case.wait)
    return ratio(forwards, half_forwards), ratio(steps, half_steps)


def prepare(case: Case, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Callable[[], None], Callable[[], None]]:
    """The network, its forward without gradients, and its forward plus backward."""
    torch.manual_seed(0)
    network = build(case).to(case.device, dtype)
    x = torch.randn(case.batch, 1, *case.size, device=case.device).to(dtype)
    autocast = torch.autocast("cuda", torch.float16) if case.device.type == "cuda" else nullcontext()

    @torch.no_grad()
    def forward() -> None:
        with autocast:
            network(x)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with autocast:
            loss = sum(logits.float().square().mean() for logits in network(x))
        loss.backward()

    return network, forward, step


def kept_gib(case: Case) -> float:
    network, kept = build(case), {}
    cpu.MOST_WEIGHTS = 0  # PyTorch convolves, as on a GPU

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode() as mode, torch.autocast("cpu", torch.bfloat16):
        weights = {name: mode.from_tensor(x) for name, x in [*network.named_parameters(), *network.named_buffers()]}
        x = torch.empty(case.batch, 1, *case.size)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = torch.func.functional_call(network, weights, (x,))
        del output  # only now, so that no storage is freed and its place counted twice
        for weight in weights.values():
            kept.pop(weight.untyped_storage()._cdata, None)
    return sum(kept.values()) / 2**30


def build(case: Case) -> nn.Module:
    if len(case.size) == 3:  # of volumes nnU-Net plans at most 320 features
        plan = unet_architecture(case.size, features=(32, 320))
    else:
        plan = unet_architecture((SMALLEST_MAP * 2 ** (case.stages - 1),) * 2)
    if case.network not in (PLAIN, RESIDUAL):
        options = {"window_mode": "released"} if case.network == RELEASED else {}
        name = case.network.split()[0]
        return network_from_plan(name, 1, CLASSES, case.size, plan, deep_supervision=True, **options)
    shape = UNetShape.from_plan(1, CLASSES, plan)
    arguments = {
        "n_stages": shape.n_stages,
        "features_per_stage": shape.features_per_stage,
        "num_classes": CLASSES,
        "kernel_sizes": shape.kernel_sizes,
        "strides": shape.strides,
        "deep_supervision": True,
        **shape.block_arguments(),
        "norm_op": nn.InstanceNorm3d if shape.dim == 3 else nn.InstanceNorm2d,
    }
    if case.network == PLAIN:
        return PlainConvUNet(1, n_conv_per_stage=2, n_conv_per_stage_decoder=2, **arguments)
    blocks = [1, 3, 4, *[6] * (case.stages - 3)]  # those of nnU-Net's residual encoder presets
    return ResidualEncoderUNet(1, n_blocks_per_stage=blocks, n_conv_per_stage_decoder=1, **arguments)


def check(case: Case) -> None:
    """RuntimeError where the output of a network is not what the reference scan gives."""
    torch.manual_seed(0)
    network = build(case).to(case.device).eval()
    side = 2**case.stages  # leaves two pixels at the coarsest stage, which instance norm needs
    x = torch.randn(1, 1, side, side, device=case.device)
    with torch.no_grad():
        ours, truth = network(x)[0], with_scan("reference", lambda: network(x)[0])
    error = float((ours - truth).norm() / truth.norm())
    if not error < 1e-4:
        raise RuntimeError(f"{case.network} is wrong: relative error {error:.1e} of its output. It is not timed.")


def with_scan(backend: str, function: Callable[[], Any]) -> Any:
    before = os.environ.get(BACKEND_VARIABLE, "auto")
    os.environ[BACKEND_VARIABLE] = backend
    try:
        return function()
    finally:
        os.environ[BACKEND_VARIABLE] = before


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the turns' ratios: what slows the machine down for a while meets both times of a turn."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
