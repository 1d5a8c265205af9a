"""Weights as people save them: inside a checkpoint, under the prefixes of wrappers, beside the counts of a profiler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Modules that wrap another one: DataParallel and DDP, torch.compile, FSDP, activation checkpoints.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_COUNTS = frozenset({"total_ops", "total_params"})  # buffers that thop adds to every module
_OF_THE_AVERAGE = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_COMPUTED_FROM = re.compile(r"\.parametrizations\.|\.(weight|bias)_(orig|mask|g|v)$")  # of torch.nn.utils


def sets_of_weights(saved: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping from names to tensors or numpy's arrays, and module, in `saved`, and where it is: ``['model']``."""
    if isinstance(saved, nn.Module):
        saved = saved.state_dict()
    if isinstance(saved, list | tuple):
        saved = dict(enumerate(saved))
    if not isinstance(saved, Mapping):
        return
    arrays = {k: torch.tensor(x) for k, x in saved.items() if isinstance(x, np.ndarray) and x.dtype.kind in "bfiu"}
    tensors = {key: x for key, x in {**saved, **arrays}.items() if isinstance(key, str) and isinstance(x, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in saved.items():
        yield from sets_of_weights(value, f"{path}[{key!r}]")


def without_wrapping(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """`weights` without what wrappers and thop add to the names. Raises ValueError where two then have one name."""
    found: dict[str, str] = {}
    for key in weights:
        parts = key.split(".")
        if parts[-1] in _COUNTS or key == _OF_THE_AVERAGE:
            continue
        name = ".".join(part for part in parts if part not in _WRAPPERS)
        if name in found:
            raise ValueError(f"the weights{where} hold {name} twice, as {found[name]} and {key}. Pass one set of them.")
        found[name] = key
    return {name: weights[key] for name, key in found.items()}


def is_computed_from(key: str) -> bool:
    """Whether `key` names not a weight but what a weight is computed from in every forward."""
    return _COMPUTED_FROM.search(key) is not None


def matching_names(
    weights: dict[str, Tensor], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]], names: set[str]
) -> dict[str, Tensor]:
    """`weights` renamed; where that does not give `names`, without the prefixes that all of them share, if that does.

    A network that is an attribute of another module, such as Lightning's, has its weights under the attribute's name.
    """
    inner = weights
    while inner:
        renamed = rename(inner)
        if renamed.keys() == names:
            return renamed
        first = {key.partition(".")[0] for key in inner}
        if len(first) > 1:
            break
        inner = {key.partition(".")[2]: value for key, value in inner.items()}
        if "" in inner:
            break
    return rename(weights)


def common_prefix(weights: Mapping[str, Tensor], names: set[str]) -> str | None:
    """The prefix under which `weights` hold all of `names`, beside others."""
    last = max(names, key=len, default="")
    prefixes = (key[: -len(last)] for key in weights if key.endswith("." + last))
    return next((p for p in prefixes if all(p + name in weights for name in names)), None)
