"""Read what nnU-Net's trainers save, without running code from it.

nnU-Net reads its checkpoints with pickle, which calls any function that a file names. Here a file may name nothing but
tensors, plain Python values, and the scalars of numpy that nnU-Net's log consists of. Plans name classes, which nnU-Net
calls whatever they are; here they have to be layers and networks.
"""

from __future__ import annotations

import pickle
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

scalar = np.float64().__reduce__()[0]  # the function that a pickled scalar names

_PACKAGES = ("torch.nn.", "dynamic_network_architectures.", "nnunet_echo.networks.")
_SCALAR_TYPES = ("float16", "float32", "float64", "int32", "int64", "bool")
# Files written under numpy 1 name its module without the underscore.
_ALLOWED: list[Any] = [
    (scalar, "numpy._core.multiarray.scalar"),
    (scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in _SCALAR_TYPES),
]


def load_checkpoint(file: Path) -> dict[str, Any]:
    """The checkpoint in `file`, on the CPU. Raises ValueError for a file that is none, is cut, or names code to run."""
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names {named[1]}" if named else "is not a pickle of weights"
        raise ValueError(
            f"{file} was not read: it {what}, and a checkpoint of nnU-Net has weights, settings and a log only; "
            "anything else could run code. If it is yours and you trust it, load it with torch.load(..., "
            "weights_only=False) and save its network_weights, trainer_name and init_args again."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(
            f"{file} is not a complete checkpoint ({str(error) or type(error).__name__}): its writer was killed, or it "
            "is something else. Take another fold, or train this one again."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{file} holds a {type(checkpoint).__name__}: expected nnU-Net's checkpoint, a dict.")
    return checkpoint


def check_classes(plan: ConfigurationManager) -> None:
    """ValueError where `plan` names anything but layers and networks, all of which nnU-Net calls."""
    arguments = plan.network_arch_init_kwargs
    names = [plan.network_arch_class_name, *(arguments[key] for key in plan.network_arch_init_kwargs_req_import)]
    for name in names:
        if name is None:
            continue
        try:
            found = pkgutil.resolve_name(name) if str(name).startswith(_PACKAGES) else None
        except (ImportError, AttributeError, ValueError):
            continue  # moved: nnU-Net looks for a class of that name in dynamic_network_architectures
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ValueError(
                f"the plan names {name!r}, which would be called to build the network: expected a module of "
                f"{' or '.join(package.rstrip('.') for package in _PACKAGES)}. Only use plans that you trust."
            )
