"""Segmentation networks, one row of `NETWORKS` (in `table`) each, and their published weights.

Contract of all of them: input (B, C, *S) of any size; output logits (B, K, *S), or, while
``network.decoder.deep_supervision`` is True, a list of logits, finest first, at ``network.deep_supervision_strides``.
The keys of the state_dict do not depend on that flag. The last layers, one for each class, have ``.seg_layers.`` in
their keys, which nnU-Net leaves out when it loads pretrained weights. A class has ``from_plan(in_channels, num_classes,
patch_size, architecture, deep_supervision, **options)``, `architecture` being the ``arch_kwargs`` of nnU-Net's plan.

B is the batch, C the channels of the image, K the classes (background included), *S the axes of space: H, W or Z, H, W.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from nnunet_echo.networks.table import NETWORKS, Network, title_of
from nnunet_echo.nnunet.plans import SMALLEST_MAP, unet_architecture

if TYPE_CHECKING:
    from torch import nn

    from nnunet_echo.networks.pretrained import load_pretrained
    from nnunet_echo.networks.published import from_upstream

__all__ = [
    "NETWORKS",
    "Network",
    "create_network",
    "from_upstream",
    "list_networks",
    "load_pretrained",
    "network_from_plan",
    "network_options",
    "title_of",
]


# What a plan says of a U-Net; None: as nnU-Net's rule has it for the patch.
SHAPE_OPTIONS = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder")


def list_networks(dims: int | None = None, installed: bool = False) -> list[str]:
    """The names that `create_network` knows; with `dims` those that have a form for 2 or for 3 axes of space.

    With `installed` without those that need a package which is missing here; ``NETWORKS[name].why_not()`` says which.

    >>> list_networks(dims=3)[:4]
    ['lkm_unet', 'umamba_bot', 'umamba_enc', 'no_mamba']
    """
    return [
        name
        for name, row in NETWORKS.items()
        if (dims is None or dims in row.dims) and not (installed and row.why_not())
    ]


def network_options(name: str) -> dict[str, Any]:
    """The options of a network that `create_network` takes, each with its default.

    The shape of a U-Net (`SHAPE_OPTIONS`) follows from the patch size unless it is given; its default here is None.
    Raises ValueError for an unknown name, with those there are.

    >>> network_options("lkm_unet")["window_mode"]
    'paper'
    """
    parameters = _parameters(name)
    fixed = {"shape", "in_channels", "num_classes", "patch_size", "deep_supervision"}
    options = {key: parameter.default for key, parameter in parameters.items() if key not in fixed}
    return {**(dict.fromkeys(SHAPE_OPTIONS) if _is_unet(name) else {}), **options}


def create_network(
    name: str,
    in_channels: int,
    num_classes: int,
    patch_size: Sequence[int],
    *,
    deep_supervision: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a network with random weights: no plan, no nnU-Net, no GPU.

    `name` is one of `list_networks`; `num_classes` counts the background; `patch_size` (*S, pixels) is the size that it
    is built for, while images of any size go through it. `options` are those of `network_options`. With
    `deep_supervision` it returns a list of logits, finest first, instead of (B, num_classes, *S).

    Raises ValueError for an unknown name or option, with those there are, for a patch with a number of axes that the
    network has no form for, and for sizes and values that cannot be; RuntimeError for a network that needs a package
    which is not installed.

    >>> network = create_network("umamba_bot", in_channels=1, num_classes=4, patch_size=(64, 48), n_conv_per_stage=1)
    >>> import torch
    >>> network(torch.zeros(1, 1, 64, 48)).shape
    torch.Size([1, 4, 64, 48])
    """
    _row(name)
    for argument, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
        if not _FITS[int](value):
            raise ValueError(f"{argument}={value!r}: expected a whole number of at least 1.")
    if not isinstance(patch_size, Iterable) or not all(map(_FITS[int], patch_size := tuple(patch_size))):
        raise ValueError(f"patch_size={patch_size!r}: expected a number of pixels along each axis, such as (256, 256).")
    if not isinstance(deep_supervision, bool):
        raise ValueError(f"deep_supervision={deep_supervision!r}: expected True or False.")
    _check_axes(name, patch_size)
    planned = patch_size
    if not _is_unet(name):  # it has no shape of a U-Net that a small patch could be too small for, and pads its input
        planned = tuple(max(n, 2 * SMALLEST_MAP) for n in patch_size)
    architecture = unet_architecture(planned)
    return network_from_plan(name, in_channels, num_classes, patch_size, architecture, deep_supervision, **options)


def network_from_plan(
    network: str,
    in_channels: int,
    num_classes: int,
    patch_size: Sequence[int],
    architecture: Mapping[str, Any],
    deep_supervision: bool,
    **options: Any,
) -> nn.Module:
    """The network of a plan: a name of `NETWORKS`, or ``module:Class`` for one of your own, which gets all as it is.

    `architecture` is the plan's ``arch_kwargs``, over which `options` go. Raises ValueError as `create_network` does.

    >>> plan = unet_architecture((32, 48), features=(4, 16))
    >>> network = network_from_plan("no_mamba", 1, 4, (32, 48), plan, True, n_conv_per_stage=1)
    >>> network.deep_supervision_strides
    ((1, 1), (2, 2), (4, 4))
    """
    if ":" in network:
        return pkgutil.resolve_name(network).from_plan(
            in_channels, num_classes, patch_size, architecture, deep_supervision, **options
        )
    row = _row(network)
    _check_axes(network, patch_size)
    _check_options(network, options)
    shape = {key: options.pop(key) for key in SHAPE_OPTIONS if key in options}
    planned = {**architecture, **{key: value for key, value in shape.items() if value is not None}}
    try:
        return row.load().from_plan(in_channels, num_classes, patch_size, planned, deep_supervision, **options)
    except TypeError as error:  # one number where there should be several, or the other way round
        raise ValueError(
            f"{network} cannot be built with {shape | options}: {error}. Its options and their defaults: "
            f"{network_options(network)}."
        ) from error


def _row(name: str) -> Network:
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"network {name!r}: expected one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_row(name).load()).parameters


def _is_unet(name: str) -> bool:
    """Whether it takes the shape of a U-Net from the plan."""
    return "shape" in _parameters(name)


def _check_axes(name: str, patch_size: Sequence[int]) -> None:
    axes, dims = len(patch_size), NETWORKS[name].dims
    if axes not in dims:
        raise ValueError(
            f"patch_size={tuple(patch_size)} has {axes} axes, but {name} is {' or '.join(f'{n}D' for n in dims)}. "
            f"Take a patch (or a configuration) of that kind, or a network for {axes} axes: "
            f"{', '.join(list_networks(axes)) or 'there is none'}."
        )


# By the type of a default: which values fit. None stands for counts that follow from the patch.
_FITS: dict[type, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= 1,
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    str: lambda value: isinstance(value, str),
}
_BLOCK_NUMBERS = ("slstm_at",)
_EXPECTED = {bool: "True or False", int: "whole numbers of at least 1", float: "a number", str: "names"}


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = network_options(name)
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"{', '.join(unknown)}: {name} has no such option. Choose from {', '.join(known)}.")
    for option, value in options.items():
        default = known[option]
        if option in _BLOCK_NUMBERS and value is not None:
            if isinstance(value, str | Real) or not all(isinstance(n, Integral) and int(n) >= 0 for n in value):
                raise ValueError(
                    f"{option}={value!r}: {name} expects numbers of blocks, counted from 0, such as (1, 3)."
                )
            continue
        kind = int if default is None else type(next(_leaves(default)))
        leaves = list(_leaves(value))
        if (value is not None or default is not None) and not (leaves and all(map(_FITS[kind], leaves))):
            raise ValueError(f"{option}={value!r}: {name} expects {_EXPECTED[kind]}; the default is {default!r}.")


def _leaves(value: Any) -> Iterator[Any]:
    """The single values in `value`, which may be nested sequences of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


_LAZY = {"from_upstream": "nnunet_echo.networks.published", "load_pretrained": "nnunet_echo.networks.pretrained"}


def __getattr__(name: str) -> Any:  # PEP 562: the table needs no PyTorch, the published weights do
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
