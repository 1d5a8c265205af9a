"""How fast is the selective scan on this machine, beside other ways to compute it?

    python benchmarks/scan.py [--repeats 15] [--layout token] [--shapes B,D,L,N ...] [--only NAME ...]
    python benchmarks/scan.py --device cuda [--repeats 15] [--layout token] [--shapes B,D,L,N,groups ...]

Every implementation runs in this process on the same inputs: softplus, bias, D and z. Each is compared with the
reference in float64 first; a wrong one is not timed. Prints one table, in Markdown, of medians in milliseconds of the
forward and of forward plus backward. The layout "token" has u, delta, z, B and C with channels and states as neighbours
in memory, as a Mamba block makes them.

On a CPU, with `torch.get_num_threads()` threads and one group: a loop over tokens, plain PyTorch in chunks, Numba where
it is installed (pip install numba; it is no dependency), and C. The token loop has the arithmetic of mamba_ssm's
selective_scan_ref: exp(delta A) and delta B u for all tokens at once, then one update and one product with C per token.
It takes the tokens apart with `unbind`: indexing them, as mamba_ssm does, costs a zero tensor of full length per token
in the backward, which no long sequence finishes.

On a GPU: Triton, and mamba_ssm's kernel where it runs, else dashes. Both are checked at each shape with 197
tokens. A time is that of one call, from its first launch until the GPU has finished. "of the floor" is the time that
the bytes of inputs, outputs and gradients take, each moved once by a forward and once by a backward, at the speed of a
copy measured in the same run, over Triton's time. "few rows": B * D < 4 * multiprocessors.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from timing import seconds_of
from torch import Tensor

from nnunet_echo.ops.selective_scan import chunked, cpu, cuda, reference, triton
from nnunet_echo.ops.selective_scan.inputs import ScanInputs

SHAPES = {
    "cpu": ["1,64,65536,16", "64,64,1024,16", "2,128,4096,16", "8,512,256,16"],
    "cuda": [
        "2,64,65536,16,1",
        "24,64,65536,16,1",
        "128,64,1024,16,1",
        "12,768,4096,16,4",
        "12,1536,1024,16,4",
        "2,1024,256,16,1",
        "4,128,40960,16,1",
    ],
}
SLOW = "token loop"
CHECK_TOKENS = 197
CHECK = (2, 24, CHECK_TOKENS, 16)
COPIED_BYTES = 1 << 30

Scan = Callable[..., Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--shapes", nargs="+", metavar="B,D,L,N[,groups]")
    parser.add_argument("--repeats", type=int, default=15, help="of each fast one; the token loop has a fifth of it")
    parser.add_argument("--only", nargs="+", help="implementations to time on a CPU, by name")
    parser.add_argument("--layout", choices=["channel", "token"], default="channel", help="neighbours in memory")
    args = parser.parse_args()

    table, length = (cpu_table, 4) if args.device == "cpu" else (gpu_table, 5)
    shapes = [tuple(int(x) for x in text.split(",")) for text in args.shapes or SHAPES[args.device]]
    if any(len(shape) != length for shape in shapes):
        parser.error(f"--shapes: on {args.device} a shape has {length} numbers.")
    table(shapes, args)


def cpu_table(shapes: list[tuple[int, ...]], args: argparse.Namespace) -> None:
    scans = {name: scan for name, scan in implementations().items() if not args.only or name in args.only}
    for name, scan in scans.items():
        check(name, scan, scan_inputs(*CHECK))
    print(f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, layout: {args.layout}\n")
    print("| B, D, L, N | implementation | forward ms | times faster | forward + backward ms | times faster |")
    print("|---|---|---:|---:|---:|---:|")
    for shape in shapes:
        inputs = scan_inputs(*shape, layout=args.layout)
        base = None
        for name, scan in scans.items():
            repeats = max(1, args.repeats // 5) if name == SLOW else args.repeats
            times = [time_of(f, repeats) for f in (forward(scan, inputs), forward_backward(scan, inputs))]
            base = times if base is None else base
            cells = "".join(f" {t * 1e3:.2f} | {b / t:.1f} |" for t, b in zip(times, base, strict=True))
            print(f"| {', '.join(map(str, shape))} | {name} |{cells}", flush=True)


def gpu_table(shapes: list[tuple[int, ...]], args: argparse.Namespace) -> None:
    device = torch.device("cuda", 0)
    if not torch.cuda.is_available():
        raise SystemExit("Nothing to measure: PyTorch finds no CUDA device.")
    reason = triton.why_not(device, torch.float32)
    if reason is not None:
        raise SystemExit(f"Nothing to measure: {reason}.")
    no_peer = cuda.why_not(device, torch.float32)
    properties = torch.cuda.get_device_properties(device)
    speed = copied_bytes_per_second(device, args.repeats)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "triton")]
    peer = no_peer or f"mamba_ssm {importlib.metadata.version('mamba_ssm')}"
    print(f"{properties.name}, {properties.multi_processor_count} multiprocessors, copies at {speed / 1e9:.0f} GB/s,")
    print(f"{', '.join(versions)}, layout: {args.layout}; {peer}\n")
    print("| B, D, L, N, groups | few rows | pass | Triton ms | mamba_ssm ms | times faster | of the floor |")
    print("|---|---|---|---:|---:|---:|---:|")
    for batch, channels, tokens, states, groups in shapes:
        few = "yes" if batch * channels < 4 * properties.multi_processor_count else "no"
        few_tokens = scan_inputs(batch, channels, CHECK_TOKENS, states, groups, args.layout, device)
        check("Triton", triton_scan, few_tokens)
        if no_peer is None:
            check("mamba_ssm", mamba_scan, few_tokens, tolerance=1e-3)  # compiled with fast, less exact functions
        inputs = scan_inputs(batch, channels, tokens, states, groups, args.layout, device)
        read, written = sum(x.nbytes for x in inputs), inputs[0].nbytes
        moved = {"forward": read + written, "forward + backward": 3 * read + 2 * written}
        for run, (name, volume) in zip((forward, forward_backward), moved.items(), strict=True):
            ours = time_of(run(triton_scan, inputs), args.repeats)
            theirs = time_of(run(mamba_scan, inputs), args.repeats) if no_peer is None else None
            peer = "- | -" if theirs is None else f"{theirs * 1e3:.3f} | {theirs / ours:.2f}"
            floor = volume / speed / ours
            shape = f"{batch}, {channels}, {tokens}, {states}, {groups}"
            print(f"| {shape} | {few} | {name} | {ours * 1e3:.3f} | {peer} | {floor:.0%} |", flush=True)


def copied_bytes_per_second(device: torch.device, repeats: int) -> float:
    """Bytes read and written in a second by a large copy."""
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / time_of(lambda: target.copy_(source), repeats)


def triton_scan(*inputs: Tensor) -> Tensor:
    return triton.selective_scan(ScanInputs(*inputs, delta_softplus=True), (False,) * inputs[3].shape[1])[0]


def mamba_scan(*inputs: Tensor) -> Tensor:
    return cuda.selective_scan(ScanInputs(*inputs, delta_softplus=True))[0]


def implementations() -> dict[str, Scan]:
    """What is measured on a CPU."""
    reason = cpu.why_not(torch.device("cpu"), torch.float32)
    if reason is not None:
        raise SystemExit(f"Nothing to measure: {reason}.")
    scans = {
        SLOW: token_loop,
        "PyTorch in chunks": lambda *x: chunked.selective_scan(ScanInputs(*x, delta_softplus=True))[0],
    }
    if importlib.util.find_spec("numba"):
        from scan_numba import NumbaScan

        scans["Numba"] = NumbaScan.apply
    for width in (4, 8, 16):
        if width <= cpu.widest_vector():
            scans[f"C, vectors of {width}"] = c_scan(width)
    return scans


def c_scan(width: int) -> Scan:
    def scan(*inputs: Tensor) -> Tensor:
        cpu.vector_width = width
        return cpu.selective_scan(ScanInputs(*inputs, delta_softplus=True), (False,))[0]

    return scan


def token_loop(u, delta, A, B, C, D, z, delta_bias) -> Tensor:
    """mamba_ssm's arithmetic, one group."""
    delta = F.softplus(delta + delta_bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B[:, 0], u)
    h, y = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for decay_t, drive_t, C_t in zip(decay.unbind(2), drive.unbind(2), C[:, 0].unbind(2), strict=True):
        h = decay_t * h + drive_t
        y.append(torch.einsum("bdn,bn->bd", h, C_t))
    return (torch.stack(y, dim=2) + D[:, None] * u) * F.silu(z)


def scan_inputs(
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int = 1,
    layout: str = "channel",
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """u, delta, A, B, C, D, z, delta_bias in float32, the steps as Mamba starts with them: 0.001 to 0.1."""
    torch.manual_seed(0)
    row, state = (batch, channels, length), (batch, groups, states, length)
    u, delta, z = (torch.randn(row, device=device) for _ in range(3))
    B, C = (torch.randn(state, device=device) for _ in range(2))
    if layout == "token":
        u, delta, z, B, C = (x.mT.contiguous().mT for x in (u, delta, z, B, C))
    A = -torch.arange(1.0, states + 1, device=device).repeat(channels, 1)
    step = torch.exp(torch.empty(channels, device=device).uniform_(math.log(1e-3), math.log(1e-1)))
    return [u, delta, A, B, C, torch.ones_like(step), z, step + torch.log(-torch.expm1(-step))]


def forward(scan: Scan, inputs: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            scan(*inputs)

    return run


def forward_backward(scan: Scan, inputs: list[Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    weight = torch.ones_like(inputs[0])

    def run() -> tuple[Tensor, ...]:
        y = scan(*leaves)
        return (y.detach(), *torch.autograd.grad(y, leaves, weight))

    return run


def time_of(run: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one run that is not counted."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    return median(seconds_of([run], repeats, wait)[0])


def check(name: str, scan: Scan, inputs: list[Tensor], tolerance: float = 1e-5) -> None:
    """Exit unless outputs and gradients are those of the reference in float64."""
    ours = forward_backward(scan, inputs)()
    truth = forward_backward(
        lambda *x: reference.selective_scan(ScanInputs(*x, delta_softplus=True))[0], [x.double() for x in inputs]
    )()
    for what, x, expected in zip(("y", "u", "delta", "A", "B", "C", "D", "z", "bias"), ours, truth, strict=True):
        error = float((x - expected).norm() / expected.norm())
        if not error < tolerance:
            raise SystemExit(f"{name} is wrong: relative error {error:.1e} of {what}. Nothing is timed.")


def processor() -> str:
    """Model and vector instructions, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    known = [flag for flag in ("avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl") if flag in flags]
    return f"{fields.get('model name', platform.machine())} ({' '.join(known)})"


if __name__ == "__main__":
    main()
