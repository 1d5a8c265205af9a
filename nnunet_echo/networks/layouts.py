"""The words in which a kind of released file is described: a row of `pretrained.LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

Weights = Mapping[str, Tensor]
KEYS_SHOWN = 5  # names listed in an error


class Move(NamedTuple):
    """`tensor`, made from `source` of the file, becomes `target` of the network. It has the target's shape."""

    target: str
    source: str
    tensor: Tensor


@dataclass(frozen=True)
class Layout:
    """One kind of released file.

    `recognise(weights)` tells it by its names; `moves(weights, network)` says what goes where, and raises ValueError
    where the network is none that the file is for, or the file is a kind that cannot be used.
    """

    name: str
    recognise: Callable[[Weights], bool]
    moves: Callable[[Weights, nn.Module], Iterable[Move]]
