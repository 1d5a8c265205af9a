"""A configuration of nnU-Net's plan that is small enough for a CPU: coarser pixels, a smaller patch, fewer features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_echo.crossval.prepare import plan_configuration, read_configurations


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
    still have to be preprocessed: ``nnUNetv2_preprocess -d DATASET -c NAME``.

    Raises ValueError when the plan has no whole `base` or when the patch is not what nnU-Net's rule can divide.
    """
    plans_file = Path(plans_file)
    plans = json.loads(plans_file.read_text())
    try:
        of_base = plan_configuration(plans_file, read_configurations(plans_file), base)
    except ValueError as error:
        raise ValueError(f"base={base!r}: {error}") from error
    if "architecture" not in of_base:
        raise ValueError(f"base={base!r}: in {plans_file} it has no architecture; plan again.")
    _, strides, kernels, divisible_patch, _ = get_pool_and_conv_props(spacing_mm, patch_size, 4, 999999)
    divisible_patch = tuple(int(n) for n in divisible_patch)
    if divisible_patch != tuple(patch_size):
        raise ValueError(f"patch_size={tuple(patch_size)}: its stages need {divisible_patch}, take that.")
    stages = len(strides)
    architecture = deepcopy(of_base["architecture"])
    arguments = architecture["arch_kwargs"]
    per_stage = "n_conv_per_stage" if "n_conv_per_stage" in arguments else "n_blocks_per_stage"
    arguments.update(
        n_stages=stages,
        features_per_stage=[min(features[0] * 2**s, features[1]) for s in range(stages)],
        kernel_sizes=[[int(n) for n in kernel] for kernel in kernels],
        strides=[[int(n) for n in stride] for stride in strides],
        n_conv_per_stage_decoder=[arguments["n_conv_per_stage_decoder"][0]] * (stages - 1),
        **{per_stage: (arguments[per_stage] + [arguments[per_stage][-1]] * stages)[:stages]},
    )
    plans["configurations"][name] = {
        "inherits_from": base,
        "data_identifier": f"{plans['plans_name']}_{name}",
        "spacing": [float(n) for n in spacing_mm],
        "patch_size": [int(n) for n in patch_size],
        "batch_size": batch_size,
        "architecture": architecture,
    }
    plans_file.write_text(json.dumps(plans, indent=4))
