"""Shapes of U-Nets in the words of nnU-Net's plan, from a patch size; and configurations small enough for a CPU.

The rule is nnU-Net's own (Isensee et al., Nature Methods 18:203-211, 2021, supplementary note 2.3): an axis is halved
while its map has at least 8 pixels and its pixels are less than twice as long as the shortest ones; a kernel is 3 along
an axis from the stage on where its pixels are less than twice as long as the shortest ones.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from nnunet_echo.nnunet.folders import replace_file
from nnunet_echo.nnunet.logs import read_json

SMALLEST_MAP = 4  # pixels that halving leaves along an axis, at least
FEATURES = (32, 512)  # of nnU-Net's 2D plans


def unet_architecture(
    patch_size: Sequence[int], spacing: Sequence[float] | None = None, features: tuple[int, int] = FEATURES
) -> dict[str, Any]:
    """The ``arch_kwargs`` of nnU-Net's plan (Isensee et al. 2021, Nature Methods 18:203) that give a U-Net its shape.

    `patch_size` in pixels and `spacing` (any unit; None: equal along all axes) have the same axes, 2 or 3; `features`
    are those of the first stage, doubled from stage to stage, and their largest value. Each stage has two convolutions.

    Raises ValueError when the patch is too small to be halved once.

    >>> unet_architecture((64, 48))["features_per_stage"]
    [32, 64, 128, 256]
    """
    strides, kernel_sizes = _stages(patch_size, (1.0,) * len(patch_size) if spacing is None else spacing)
    stages = len(strides)
    if stages < 2:
        raise ValueError(
            f"patch_size={tuple(patch_size)}: a U-Net halves it at least once, which needs {2 * SMALLEST_MAP} pixels "
            f"along two axes or {3 * SMALLEST_MAP} along one. Take a larger patch."
        )
    return {
        "n_stages": stages,
        "features_per_stage": [min(features[0] * 2**s, features[1]) for s in range(stages)],
        "kernel_sizes": kernel_sizes,
        "strides": strides,
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }


def imported_arguments(arguments: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`arguments` of a network in a plan, where those of `names` are no longer paths but what they name.

    >>> imported_arguments({"norm_op": "pathlib.Path", "dropout_op": None}, ["norm_op", "dropout_op"])
    {'norm_op': <class 'pathlib.Path'>, 'dropout_op': None}
    """
    named = {key: pkgutil.resolve_name(arguments[key]) for key in names if arguments[key] is not None}
    return {**arguments, **named}


def divisible(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The smallest patch of at least `patch_size` that all `strides` divide.

    >>> divisible((150, 192), [[1, 1], [2, 2], [2, 2]])
    (152, 192)
    """
    result = []
    for axis, n in enumerate(patch_size):
        multiple = 1
        for stride in strides:
            multiple *= stride[axis]
        result.append(-(-n // multiple) * multiple)
    return tuple(result)


def fitting_patch(size: Sequence[float], spacing: Sequence[float] | None = None) -> tuple[int, ...]:
    """The smallest patch of at least `size` (pixels, rounded) that a U-Net of this patch divides.

    Raises `ValueError` as `unet_architecture`.

    >>> fitting_patch((153.8, 192))
    (160, 192)
    """
    patch = tuple(max(1, round(n)) for n in size)
    while (fitting := divisible(patch, unet_architecture(patch, spacing)["strides"])) != patch:
        patch = fitting
    return patch


def _stages(patch_size: Sequence[int], spacing: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Strides and kernels of all stages, finest first."""
    size, pixel, axes = list(patch_size), list(spacing), range(len(patch_size))
    kernel = [1] * len(size)
    strides, kernels = [[1] * len(size)], []
    while True:
        large = [a for a in axes if size[a] >= 2 * SMALLEST_MAP]
        halved = [a for a in large if pixel[a] < 2 * min(pixel[b] for b in large)]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST_MAP):
            break
        kernel = [3 if pixel[a] < 2 * min(pixel) else kernel[a] for a in axes]
        kernels.append(list(kernel))
        strides.append([2 if a in halved else 1 for a in axes])
        for a in halved:
            size[a], pixel[a] = -(-size[a] // 2), 2 * pixel[a]
    return strides, [*kernels, [3] * len(size)]  # the coarsest stage has 3 along every axis


def add_configuration(
    plans_file: str | Path,
    name: str,
    spacing_mm: Sequence[float],
    patch_size: Sequence[int],
    batch_size: int,
    features: tuple[int, int],
    base: str = "2d",
) -> None:
    """Add configuration `name` to the plan in `plans_file`, derived from `base`.

    `spacing_mm` and `patch_size` (pixels) are in the axis order of the plan. The stages follow from them by nnU-Net's
    own rule; `features` are those of the first stage, doubled from stage to stage, and their largest value. Data for it
    still have to be preprocessed: ``nnUNetv2_preprocess -d DATASET -c NAME``. The same again changes nothing.

    Raises ValueError when the plan has no complete `base`, when it has `name` with other content, and when the patch is
    not what nnU-Net's rule can divide; FileNotFoundError without the file.

    >>> kwargs = {**unet_architecture((256, 256)), "conv_op": "torch.nn.modules.conv.Conv2d"}
    >>> content = {"plans_name": "nnUNetPlans", "configurations": {"2d": {"architecture": {"arch_kwargs": kwargs}}}}
    >>> _ = Path("nnUNetPlans.json").write_text(json.dumps(content))
    >>> add_configuration("nnUNetPlans.json", "2d_small", (1.0, 1.0), (160, 192), batch_size=8, features=(16, 256))
    >>> small = json.loads(Path("nnUNetPlans.json").read_text())["configurations"]["2d_small"]
    >>> small["patch_size"], small["architecture"]["arch_kwargs"]["features_per_stage"]
    ([160, 192], [16, 32, 64, 128, 256, 256])
    """
    plans_file = Path(plans_file)
    plans = json.loads(plans_file.read_text())
    try:
        of_base = plan_configuration(plans_file, read_configurations(plans_file), base)
    except ValueError as error:
        raise ValueError(f"base={base!r}: {error}") from error
    if "architecture" not in of_base:
        raise ValueError(f"base={base!r}: in {plans_file} it has no architecture. Plan again.")
    shape = unet_architecture(patch_size, spacing_mm, features)
    fitting = divisible(patch_size, shape["strides"])
    if fitting != tuple(patch_size):
        raise ValueError(f"patch_size={tuple(patch_size)}: its stages need {fitting}. Take that.")
    stages = shape["n_stages"]
    architecture = deepcopy(of_base["architecture"])
    arguments = architecture["arch_kwargs"]
    per_stage = "n_conv_per_stage" if "n_conv_per_stage" in arguments else "n_blocks_per_stage"
    arguments.update(
        {key: shape[key] for key in ("n_stages", "features_per_stage", "kernel_sizes", "strides")},
        n_conv_per_stage_decoder=[arguments["n_conv_per_stage_decoder"][0]] * (stages - 1),
        **{per_stage: (arguments[per_stage] + [arguments[per_stage][-1]] * stages)[:stages]},
    )
    new = {
        "inherits_from": base,
        "data_identifier": f"{plans['plans_name']}_{name}",
        "spacing": [float(n) for n in spacing_mm],
        "patch_size": [int(n) for n in patch_size],
        "batch_size": batch_size,
        "architecture": architecture,
    }
    old = plans["configurations"].get(name)
    if old == new:
        return
    if old is not None:
        changes = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        raise ValueError(
            f"name={name!r}: {plans_file} has a configuration of this name with another "
            f"{', '.join(changes)}, which data and results may depend on. Choose another name."
        )
    plans["configurations"][name] = new
    replace_file(plans_file, json.dumps(plans, indent=4))


def plan_configuration(file: Path, configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration of the plans in a file, with what it inherits, as nnU-Net resolves it.

    Raises `ValueError` for one that is not there, that inherits one that is not there, or itself.
    """
    chain: list[str] = []
    contents: list[Mapping[str, Any]] = []
    while True:
        if not isinstance(name, str) or name not in configurations:
            what = f"configuration {chain[-1]} inherits from {name}" if chain else f"configuration {name}"
            raise ValueError(f"{what}: {file} has {', '.join(configurations)}.")
        if name in chain:
            raise ValueError(
                f"configuration {chain[0]}: in {file} it inherits from itself, "
                f"{' -> '.join([*chain, name])}. Correct inherits_from there."
            )
        content = configurations[name]
        if not isinstance(content, dict):
            raise ValueError(f"configuration {name}: in {file} it is not an object with settings. Plan again.")
        chain.append(name)
        contents.append(content)
        if "inherits_from" not in content:
            return {key: value for content in reversed(contents) for key, value in content.items()}
        name = content["inherits_from"]


def median_image_mm(configurations: Mapping[str, Any], name: str) -> tuple[float, ...] | None:
    """How large the median image of the training is along the axes of a plan, in mm; None where the plan does not say.

    A configuration that inherits from one of another spacing inherits the median in pixels, of which it is not true.

    >>> configurations = {
    ...     "2d": {"spacing": [0.5, 0.5], "median_image_size_in_voxels": [300.0, 400.0]},
    ...     "2d_1mm": {"inherits_from": "2d", "spacing": [1.0, 1.0]},
    ... }
    >>> median_image_mm(configurations, "2d_1mm")
    (150.0, 200.0)
    """
    while "median_image_size_in_voxels" not in configurations[name]:
        if "inherits_from" not in configurations[name]:
            return None
        name = configurations[name]["inherits_from"]
    found = plan_configuration(Path("the plan"), configurations, name)
    return tuple(float(n * mm) for n, mm in zip(found["median_image_size_in_voxels"], found["spacing"], strict=True))


def read_configurations(file: Path) -> dict[str, Any]:
    """The configurations of plans. Raises `ValueError` where the file has none."""
    content = read_json(file)
    configurations = content.get("configurations") if isinstance(content, dict) else None
    if not isinstance(configurations, dict) or not configurations:
        raise ValueError(f"{file} holds no plans of nnU-Net (an object with configurations). Plan again.")
    return configurations
