"""The peer of `benchmarks/scan.py` in Numba: the algorithm of the C scan, written to see whether C is needed.

Rows in parallel, the states of a token vectorised by LLVM, states recomputed in the backward.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import float32, int32, njit, prange
from numba.extending import intrinsic

CHUNK = 64


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
            if t % CHUNK == 0:
                starts[b, d, t // CHUNK] = h
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
        h, e = np.empty((CHUNK + 1, states), np.float32), np.empty((CHUNK, states), np.float32)
        steps, g = np.empty(CHUNK, np.float32), np.empty(states, np.float32)
        for row in range(task * share, (task + 1) * share):
            b, d = row // channels, row % channels
            g[:] = 0
            for i in range(starts.shape[2] - 1, -1, -1):
                first, count = i * CHUNK, min(CHUNK, length - i * CHUNK)
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
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        u, delta, A, B, C, D, z, bias = arrays = [x.numpy() for x in inputs]
        arrays[3], arrays[4] = (np.ascontiguousarray(x[:, 0].swapaxes(1, 2)) for x in (B, C))
        y, starts = np.empty_like(u), np.empty((*u.shape[:2], -(-u.shape[2] // CHUNK), A.shape[1]), np.float32)
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
