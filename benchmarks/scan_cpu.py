"""How fast is the selective scan in C on this CPU, beside a loop over tokens, plain PyTorch in chunks, and Numba?

    python benchmarks/scan_cpu.py [--shapes B,D,L,N ...] [--repeats 15] [--only NAME ...] [--layout token]

Every implementation runs in this process with `torch.get_num_threads()` threads on the same inputs: softplus, bias, D
and z, one group. Each is compared with the reference in float64 first; a wrong one is not timed. Prints one table, in
Markdown: medians in milliseconds of the forward and of forward plus backward, and how many times faster than the token
loop that is. Numba is measured where it is installed (pip install numba); it is no dependency.

The token loop has the arithmetic of mamba_ssm's selective_scan_ref: exp(delta A) and delta B u for all tokens at once,
then one update and one product with C per token. It takes the tokens apart with `unbind`: indexing them, as mamba_ssm
does, costs a zero tensor of full length per token in the backward, which no long sequence finishes. The layout "token"
has u, delta, z, B and C with channels and states as neighbours in memory, as a Mamba block makes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_echo.scan import chunked, cpu, reference

SHAPES = ["1,64,65536,16", "64,64,1024,16", "2,128,4096,16", "8,512,256,16"]
SLOW = "token loop"
CHECK = (2, 24, 197, 16)

Scan = Callable[..., Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="B,D,L,N")
    parser.add_argument("--repeats", type=int, default=15, help="of each fast one; the token loop has a fifth of it")
    parser.add_argument("--only", nargs="+", help="implementations to time, by name")
    parser.add_argument("--layout", choices=["channel", "token"], default="channel", help="neighbours in memory")
    args = parser.parse_args()

    scans = {name: scan for name, scan in implementations().items() if not args.only or name in args.only}
    for name, scan in scans.items():
        check(name, scan)
    print(f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, layout: {args.layout}\n")
    print("| B, D, L, N | implementation | forward ms | times faster | forward + backward ms | times faster |")
    print("|---|---|---:|---:|---:|---:|")
    for shape in (tuple(int(x) for x in text.split(",")) for text in args.shapes):
        inputs = scan_inputs(*shape, layout=args.layout)
        base = None
        for name, scan in scans.items():
            repeats = max(1, args.repeats // 5) if name == SLOW else args.repeats
            times = [time_of(f, repeats) for f in (forward(scan, inputs), forward_backward(scan, inputs))]
            base = times if base is None else base
            cells = "".join(f" {t * 1e3:.2f} | {b / t:.1f} |" for t, b in zip(times, base, strict=True))
            print(f"| {', '.join(map(str, shape))} | {name} |{cells}", flush=True)


def implementations() -> dict[str, Scan]:
    scans = {SLOW: token_loop, "PyTorch in chunks": lambda *x: chunked.selective_scan(*x, delta_softplus=True)[0]}
    if importlib.util.find_spec("numba"):
        scans["Numba"] = numba_scan()
    reason = cpu.why_not(torch.device("cpu"), torch.float32)
    if reason is not None:
        raise SystemExit(f"Nothing to measure: {reason}.")
    for width in (4, 8, 16):
        if width <= cpu.widest_vector():
            scans[f"C, vectors of {width}"] = c_scan(width)
    return scans


def c_scan(width: int) -> Scan:
    def scan(*inputs: Tensor) -> Tensor:
        cpu.vector_width = width
        return cpu.selective_scan(*inputs, delta_softplus=True)[0]

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


def scan_inputs(batch: int, channels: int, length: int, states: int, layout: str = "channel") -> list[Tensor]:
    """u, delta, A, B, C, D, z, delta_bias in float32, the steps as Mamba starts with them: 0.001 to 0.1."""
    torch.manual_seed(0)
    row, state = (batch, channels, length), (batch, 1, states, length)
    u, delta, z = (torch.randn(row) for _ in range(3))
    B, C = (torch.randn(state) for _ in range(2))
    if layout == "token":
        u, delta, z, B, C = (x.mT.contiguous().mT for x in (u, delta, z, B, C))
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    step = torch.exp(torch.empty(channels).uniform_(math.log(1e-3), math.log(1e-1)))
    return [u, delta, A, B, C, torch.ones(channels), z, step + torch.log(-torch.expm1(-step))]


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
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def check(name: str, scan: Scan) -> None:
    """Exit unless outputs and gradients are those of the reference in float64, to 1e-5."""
    inputs = scan_inputs(*CHECK)
    ours = forward_backward(scan, inputs)()
    truth = forward_backward(
        lambda *x: reference.selective_scan(*x, delta_softplus=True)[0], [x.double() for x in inputs]
    )()
    for what, x, expected in zip(("y", "u", "delta", "A", "B", "C", "D", "z", "bias"), ours, truth, strict=True):
        error = float((x - expected).norm() / expected.norm())
        if not error < 1e-5:
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


def numba_scan() -> Scan:
    """The same algorithm in Numba: rows in parallel, the states of a token vectorised by LLVM, states recomputed."""
    import numpy as np
    from llvmlite import ir
    from numba import float32, int32, njit, prange
    from numba.extending import intrinsic

    chunk = 64

    @intrinsic
    def float_of_bits(_context, _bits):
        def generate(_, builder, __, arguments):
            return builder.bitcast(arguments[0], ir.FloatType())

        return float32(int32), generate

    @njit(fastmath=True, inline="always")
    def exp(x):
        x = max(x * float32(1.44269504), float32(-126))
        k = np.floor(x + float32(0.5))
        r = x - k
        p = float32(1.3396814e-3) * r + float32(9.6184370e-3)
        p = ((p * r + float32(5.5503324e-2)) * r + float32(2.4022648e-1)) * r + float32(6.9314720e-1)
        return (p * r + float32(1)) * float_of_bits((int32(k) + int32(127)) << int32(23))

    @njit(fastmath=True)
    def softplus(x):
        return max(x, float32(0)) + np.log1p(exp(-abs(x)))

    @njit(fastmath=True)
    def sigmoid(x):
        e = exp(-abs(x))
        return float32(1) / (float32(1) + e) if x > 0 else e / (float32(1) + e)

    @njit(parallel=True, fastmath=True)
    def scan_forward(u, delta, A, B, C, D, z, bias, y, starts):
        batch, channels, length = u.shape
        states = A.shape[1]
        for row in prange(batch * channels):
            b, d = row // channels, row % channels
            h = np.zeros(states, np.float32)
            for t in range(length):
                if t % chunk == 0:
                    starts[b, d, t // chunk] = h
                step = softplus(delta[b, d, t] + bias[d])
                du, total = step * u[b, d, t], float32(0)
                for n in range(states):
                    h[n] = exp(step * A[d, n]) * h[n] + du * B[b, t, n]
                    total += h[n] * C[b, t, n]
                v = z[b, d, t]
                y[b, d, t] = (total + D[d] * u[b, d, t]) * v * sigmoid(v)

    @njit(parallel=True, fastmath=True)
    def scan_backward(u, delta, A, B, C, D, z, bias, starts, dy, du, ddelta, dA, dB, dC, dD, dz, dbias):
        batch, channels, length = u.shape
        states, tasks = A.shape[1], dB.shape[0]
        share = batch * channels // tasks  # rows of a task, all of one sequence
        for task in prange(tasks):
            h, e = np.empty((chunk + 1, states), np.float32), np.empty((chunk, states), np.float32)
            steps, g = np.empty(chunk, np.float32), np.empty(states, np.float32)
            for row in range(task * share, (task + 1) * share):
                b, d = row // channels, row % channels
                g[:] = 0
                for i in range(starts.shape[2] - 1, -1, -1):
                    first, count = i * chunk, min(chunk, length - i * chunk)
                    h[0] = starts[b, d, i]
                    for k in range(count):
                        t = first + k
                        steps[k] = softplus(delta[b, d, t] + bias[d])
                        product = steps[k] * u[b, d, t]
                        for n in range(states):
                            e[k, n] = exp(steps[k] * A[d, n])
                            h[k + 1, n] = e[k, n] * h[k, n] + product * B[b, t, n]
                    for k in range(count - 1, -1, -1):
                        t = first + k
                        step, x, v = steps[k], u[b, d, t], z[b, d, t]
                        gate = sigmoid(v)
                        dp = dy[b, d, t] * v * gate
                        total, at_product, at_step = float32(0), float32(0), float32(0)
                        for n in range(states):
                            total += h[k + 1, n] * C[b, t, n]
                            dC[task, t, n] += h[k + 1, n] * dp
                            here = g[n] + C[b, t, n] * dp
                            dB[task, t, n] += here * step * x
                            at_product += here * B[b, t, n]
                            g[n] = here * e[k, n]
                            q = g[n] * h[k, n]
                            dA[b, d, n] += q * step
                            at_step += q * A[d, n]
                        dz[b, d, t] = dy[b, d, t] * (total + D[d] * x) * gate * (float32(1) + v * (float32(1) - gate))
                        du[b, d, t] = at_product * step + D[d] * dp
                        ddelta[b, d, t] = (at_step + at_product * x) * sigmoid(delta[b, d, t] + bias[d])
                        dD[b, d] += dp * x
                        dbias[b, d] += ddelta[b, d, t]

    class NumbaScan(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            u, delta, A, B, C, D, z, bias = arrays = [x.numpy() for x in inputs]
            arrays[3], arrays[4] = (np.ascontiguousarray(x[:, 0].swapaxes(1, 2)) for x in (B, C))
            y, starts = np.empty_like(u), np.empty((*u.shape[:2], -(-u.shape[2] // chunk), A.shape[1]), np.float32)
            scan_forward(*arrays, y, starts)
            ctx.arrays = (*arrays, starts)
            return torch.from_numpy(y)

        @staticmethod
        def backward(ctx, dy):
            u, delta, A, B, C, D, z, bias, starts = ctx.arrays
            batch, channels, _ = u.shape
            parts = math.gcd(channels, 4)
            du, ddelta, dz = (np.empty_like(u) for _ in range(3))
            dB, dC = (np.zeros((batch * parts, *B.shape[1:]), np.float32) for _ in range(2))
            dA, dD, dbias = (np.zeros((batch, *x.shape), np.float32) for x in (A, D, bias))
            scan_backward(*ctx.arrays, dy.contiguous().numpy(), du, ddelta, dA, dB, dC, dD, dz, dbias)
            dB, dC = (x.reshape(batch, parts, *B.shape[1:]).sum(1).swapaxes(1, 2)[:, None] for x in (dB, dC))
            return tuple(torch.from_numpy(x) for x in (du, ddelta, dA.sum(0), dB, dC, dD.sum(0), dz, dbias.sum(0)))

    import numba

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    return NumbaScan.apply


if __name__ == "__main__":
    main()
