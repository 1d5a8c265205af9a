"""Full precision inside, whatever autocast says outside: the recurrences lose their state in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Context in which autocast is off for `device`; inputs that autocast has already made 16 bit are yours to cast.

    >>> a = torch.ones(4, 4)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     outside = a @ a
    ...     with autocast_off(a.device):
    ...         inside = a @ a
    >>> outside.dtype, inside.dtype
    (torch.bfloat16, torch.float32)
    """
    if device.type == "meta":  # has no numbers and no autocast
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
