"""Learning rates over the epochs of a training."""

from __future__ import annotations

from collections.abc import Callable

import torch


class EpochSchedule:
    """Learning rate as a function of the epoch alone, so that a resumed training has the rates of an unbroken one.

    nnU-Net calls `step(epoch)` when an epoch starts; PyTorch's schedulers count by themselves and warn of an argument.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, learning_rate: Callable[[int], float]) -> None:
        self.optimizer = optimizer
        self.learning_rate = learning_rate

    def step(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(epoch)
