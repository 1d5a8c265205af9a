"""The mark of parameters that weight decay spares, the one that mamba_ssm uses."""

from __future__ import annotations

from typing import Any

from torch import nn


def spare_from_weight_decay(*parameters: nn.Parameter) -> None:
    """Mark positional embeddings, and the dynamics of a state space, which decay would pull to a fixed time scale.

    >>> import torch
    >>> position = nn.Parameter(torch.zeros(2))
    >>> spare_from_weight_decay(position)
    >>> position._no_weight_decay
    True
    """
    parameter: Any  # PyTorch declares no such attribute
    for parameter in parameters:
        parameter._no_weight_decay = True
