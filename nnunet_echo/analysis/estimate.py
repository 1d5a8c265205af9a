"""How long an epoch takes on this machine's CPU: some training steps of the very network, on noise."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_echo.analysis.costs import build_network
from nnunet_echo.nnunet.plans import plan_configuration

ITERATIONS = 250  # of nnU-Net's epochs; validation takes a fifth


@dataclass(frozen=True)
class Estimate:
    """Seconds of a training step and of a validation step of one batch, how many of each an epoch has, and threads."""

    training_s: float
    validation_s: float
    iterations: int
    validations: int
    threads: int

    @property
    def epoch_s(self) -> float:
        """An epoch without what happens beside the network: loading, augmentation, checkpoints."""
        return self.iterations * self.training_s + self.validations * self.validation_s


def estimate_epoch(plans: dict, dataset_json: Mapping, trainer: str, configuration: str, steps: int = 3) -> Estimate:
    """Build the network of `trainer` for the configuration of `plans` and run `steps` training steps of its batch.

    One step before is not counted, and of the others the fastest is taken, for other work on the machine only slows
    down. Deep supervision, which costs little, is left out. Raises `ValueError` for fewer than one step, and what the
    trainer's network raises.
    """
    import torch

    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is measured.")
    network, shape = build_network(plans, dict(dataset_json), trainer, configuration)
    batch = plan_configuration(Path("plans"), plans["configurations"], configuration)["batch_size"]
    images = torch.randn(batch, *shape)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    network.train()
    training = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        optimizer.zero_grad()
        logits = network(images)
        torch.nn.functional.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long)).backward()
        optimizer.step()
        training.append(time.perf_counter() - began)
    network.eval()
    began = time.perf_counter()
    with torch.no_grad():
        network(images)
    validation = time.perf_counter() - began
    iterations = _iterations(trainer, dataset_json, batch)
    return Estimate(min(training[1:]), validation, iterations, max(1, iterations // 5), torch.get_num_threads())


def _iterations(trainer: str, dataset_json: Mapping, batch: float) -> int:
    """Training iterations of an epoch: as named, nnU-Net's, or by a recipe one pass over the cases of a fold."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    if named := re.search(r"_(\d+)iterations$", trainer):
        return int(named[1])
    if getattr(recursive_find_trainer_class_by_name(trainer), "passes_over_the_data", False):
        return math.ceil(dataset_json["numTraining"] * 4 / 5 / batch)  # four of five folds
    return ITERATIONS
