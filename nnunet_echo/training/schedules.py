"""Learning rates over a training. They depend on the step alone, so a resumed training has those of an unbroken one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


class EpochSchedule:
    """Learning rate as a function of the epoch alone, so that a resumed training has the rates of an unbroken one.

    nnU-Net calls `step(epoch)` when an epoch starts; PyTorch's schedulers count by themselves and warn of an argument.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, learning_rate: Callable[[int], float]) -> None:
        self.optimizer = optimizer
        self.learning_rate = learning_rate

    def step(self, epoch: int) -> None:
        set_learning_rate(self.optimizer, self.learning_rate(epoch))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same one for all groups of parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@dataclass(frozen=True)
class Schedule:
    """Learning rates of a training: ``rate(initial_lr, step, steps)``, steps counted from 0, and its words for the log.

    A step is an epoch, or with `every_iteration` a training iteration.
    """

    title: str
    rate: Callable[[float, int, int], float]
    every_iteration: bool = False


def constant() -> Schedule:
    """The initial rate throughout.

    >>> constant().rate(1e-4, 7, 30)
    0.0001
    """
    return Schedule("constant", lambda initial_lr, step, steps: initial_lr)


def cosine(lowest: float, epochs_down: int | None = None) -> Schedule:
    """From the initial rate to the `lowest` by half a cosine, in `epochs_down` epochs, or in the whole training.

    After `epochs_down` epochs it rises again, and so on with a period of twice as many, as PyTorch's CosineAnnealingLR
    with that `T_max` does.

    >>> [round(cosine(0.0, 2).rate(1.0, epoch, 9), 3) for epoch in range(6)]
    [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]
    """

    def rate(initial_lr: float, step: int, steps: int) -> float:
        return lowest + (initial_lr - lowest) * (1 + math.cos(math.pi * step / (epochs_down or steps))) / 2

    return Schedule(f"cosine, {epochs_down} epochs down and {epochs_down} up" if epochs_down else "cosine", rate)


def polynomial(power: float = 0.9) -> Schedule:
    """``(1 - i / N) ** power`` of the initial rate, in step i of N.

    >>> [round(polynomial(1.0).rate(1.0, epoch, 4), 3) for epoch in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    title = "polynomial decay" if power == 0.9 else f"polynomial decay of power {power:g}"
    return Schedule(title, lambda initial_lr, step, steps: initial_lr * (1 - step / steps) ** power)


def warm_up_then_polynomial(warm_up: int, power: float = 0.9) -> Schedule:
    """`warm_up` iterations up to the initial rate, then ``(1 - i / N) ** power`` of it.

    i counts the iterations since the warm-up, N is the number of all iterations of the training.

    >>> [round(warm_up_then_polynomial(2, power=1.0).rate(1.0, iteration, 8), 3) for iteration in range(4)]
    [0.5, 1.0, 1.0, 0.875]
    """

    def rate(initial_lr: float, step: int, steps: int) -> float:
        if step < warm_up:
            return initial_lr * (step + 1) / warm_up
        return initial_lr * (1 - (step - warm_up) / steps) ** power

    return Schedule(f"warm-up of {warm_up} iterations, then polynomial decay", rate, every_iteration=True)
