"""Full precision inside, whatever autocast says outside: the recurrences lose their state in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Context in which autocast is off for `device`; inputs that autocast has already made 16 bit are yours to cast."""
    if device.type == "meta":  # has no numbers and no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
