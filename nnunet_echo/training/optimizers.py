"""What an optimiser is given of a network."""

from __future__ import annotations

from torch import nn


def parameter_groups(network: nn.Module) -> list[dict]:
    """The parameters that are trained: those with weight decay, then those without.

    Weight decay spares biases, norms and what a network marks with `_no_weight_decay`: positional embeddings and the
    dynamics of a state space. Frozen parameters are in neither group.

    >>> [len(group["params"]) for group in parameter_groups(nn.Conv2d(1, 1, 3))]
    [1, 1]
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            spare = parameter.ndim <= 1 or getattr(parameter, "_no_weight_decay", False)
            (spared if spare else decayed).append(parameter)
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
