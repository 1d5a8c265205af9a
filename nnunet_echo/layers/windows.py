"""Feature maps to sequences and back, the only place that does it. Maps are (B, C, *S) with S = H, W or Z, H, W."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, *S) -> (B, L, C), the last axis of S fastest, L = product of S.

    >>> import torch
    >>> to_tokens(torch.zeros(2, 32, 8, 10)).shape
    torch.Size([2, 80, 32])
    """
    return x.flatten(2).transpose(1, 2)


def to_image(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """(B, L, C) -> (B, C, *size), the inverse of `to_tokens`.

    >>> import torch
    >>> x = torch.randn(2, 32, 8, 10)
    >>> torch.equal(to_image(to_tokens(x), (8, 10)), x)
    True
    """
    return tokens.transpose(1, 2).unflatten(2, tuple(size))


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """Append zeros to each spatial axis of (B, C, *S) until it is a multiple of `multiple`; `x` itself if it is.

    >>> import torch
    >>> pad_to_multiple(torch.ones(1, 1, 5, 8), (4, 4)).shape
    torch.Size([1, 1, 8, 8])
    """
    missing = [-size % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    return F.pad(x, [n for m in reversed(missing) for n in (0, m)]) if any(missing) else x


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` elements of each spatial axis: undoes `pad_to_multiple`.

    >>> import torch
    >>> crop_to(torch.ones(1, 1, 8, 8), (5, 8)).shape
    torch.Size([1, 1, 5, 8])
    """
    return x[(...,) + tuple(slice(0, n) for n in size)]


def partition_windows(x: Tensor, window: Sequence[int], strided: bool = False) -> Tensor:
    """Cut (B, C, *S) into windows, each a sequence of its own: (B * number of windows, C, *size of a window).

    Contiguous (`strided` False): windows of `window` neighbouring pixels; S is padded with zeros at its end.
    Strided: neighbours of one sequence are `window` pixels apart, a dilated grid; S must be a multiple of `window`
    (ValueError). `merge_windows` is the inverse of both.

    >>> import torch
    >>> x = torch.arange(16).view(1, 1, 4, 4)
    >>> partition_windows(x, (2, 2))[0, 0].tolist()
    [[0, 1], [4, 5]]
    >>> partition_windows(x, (2, 2), strided=True)[0, 0].tolist()
    [[0, 2], [8, 10]]
    """
    if strided:
        if any(size % w for size, w in zip(x.shape[2:], window, strict=True)):
            raise ValueError(f"map {tuple(x.shape[2:])}: expected a multiple of the stride {tuple(window)}. Pad it.")
    else:
        x = pad_to_multiple(x, window)
    axes = len(window)
    split = [n for size, w in zip(x.shape[2:], window, strict=True) for n in (size // w, w)]
    outer, inner = list(range(2, 2 + 2 * axes, 2)), list(range(3, 3 + 2 * axes, 2))
    batch, sequence = (inner, outer) if strided else (outer, inner)
    x = x.reshape(*x.shape[:2], *split).permute(0, *batch, 1, *sequence)
    return x.flatten(0, axes)


def merge_windows(windows: Tensor, size: Sequence[int], strided: bool = False) -> Tensor:
    """Put windows (B * number, C, *size of a window) back into maps (B, C, *size), padding cut off.

    >>> import torch
    >>> x = torch.arange(15).view(1, 1, 3, 5)
    >>> windows = partition_windows(x, (2, 2))
    >>> windows.shape
    torch.Size([6, 1, 2, 2])
    >>> torch.equal(merge_windows(windows, (3, 5)), x)
    True
    """
    axes = len(size)
    extent = windows.shape[2:]
    counts = [-(-s // e) for s, e in zip(size, extent, strict=True)]
    x = windows.unflatten(0, (-1, *counts))  # (B, *counts, C, *extent)
    order = [n for a in range(axes) for n in ((2 + axes + a, 1 + a) if strided else (1 + a, 2 + axes + a))]
    x = x.permute(0, 1 + axes, *order)
    return crop_to(x.reshape(*x.shape[:2], *(c * e for c, e in zip(counts, extent, strict=True))), size)
