"""Parameters and FLOPs of a trainer's network at its plan's patch, from shapes: nothing is computed.

A multiply-add is two FLOPs. Matrix products, convolutions and attention count, as PyTorch counts them, and selective
scans and the convolutions in front of them, whose operators have formulas of their own (`_operator` of the scan).
"""

from __future__ import annotations

import inspect
import io
import json
import math
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from nnunet_echo._startup import register_trainers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Costs:
    """Numbers of parameters, and of FLOPs of a forward of one patch; NaN where `reason` says why they are not known."""

    parameters: float = math.nan
    flops: float = math.nan
    patch: str = ""
    reason: str = ""


def network_costs(model_folder: Path, trainer: str, configuration: str) -> Costs:
    """Build the network as nnU-Net's predictor does, from plans.json and dataset.json in the folder, and count.

    Returns the `Costs` of one patch (1, C, *S); a multiply-add is two FLOPs. Raises nothing: whatever a trainer raises
    becomes the `reason`, for it may be one that is not installed here.

    >>> network_costs(Path("nnUNet_results/none"), "nnUNetTrainer", "2d").reason
    'plans.json: No such file or directory'
    """
    costs = Costs()
    try:
        plans, dataset = (json.loads((model_folder / name).read_text()) for name in ("plans.json", "dataset.json"))
        with redirect_stdout(io.StringIO()):  # nnU-Net prints each place where it looks for the trainer
            network, shape = build_network(plans, dataset, trainer, configuration)
        costs = Costs(sum(p.numel() for p in network.parameters()), patch="x".join(map(str, shape[1:])))
        return Costs(costs.parameters, _flops(network, shape), costs.patch)
    except OSError as error:  # without the folders of this machine: reports are passed on
        return Costs(reason=f"{Path(error.filename or '').name}: {error.strerror}")
    except Exception as error:  # other people's trainers
        message = (str(error).strip() or "no message").splitlines()[0].rstrip(".")  # tables join reasons
        return Costs(costs.parameters, patch=costs.patch, reason=f"{type(error).__name__}: {message}")


def build_network(plans: dict, dataset: dict, trainer: str, configuration: str) -> tuple:
    """The network without deep supervision, and the shape (C, H, W) of its input."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_echo.networks.checkpoints import check_classes

    register_trainers()
    try:
        build = recursive_find_trainer_class_by_name(trainer).build_network_architecture
    except RuntimeError as error:  # its message lists this machine's folders
        raise LookupError(f"{trainer} is not installed here. Set nnUNet_extTrainer to the folder it is in.") from error
    manager = PlansManager(plans)
    plan = manager.get_configuration(configuration)
    check_classes(plan)
    channels = determine_num_input_channels(manager, plan, dataset)
    shapes = channels, manager.get_label_manager(dataset).num_segmentation_heads
    if "plans_manager" in inspect.signature(build).parameters:
        network = build(manager, plan, *shapes, False)
    else:  # the signature of nnU-Net before 2.8
        network = build(
            plan.network_arch_class_name,
            plan.network_arch_init_kwargs,
            plan.network_arch_init_kwargs_req_import,
            *shapes,
            False,
        )
    return network, (channels, *plan.patch_size)


def flop_formulas() -> dict[Any, Any]:
    """For `FlopCounterMode`: the fused attention of CPUs, which PyTorch 2.14 has no formula for."""
    import torch
    from torch.utils.flop_counter import flop_registry, sdpa_flop_count

    def of_shapes(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return {} if attention in flop_registry else {attention: of_shapes}


def _flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE

    tensors = [*network.named_parameters(), *network.named_buffers()]
    # One backend on every machine, whose operators have formulas; "auto" might trace into another's steps.
    with patch.dict(os.environ, {BACKEND_VARIABLE: "cpu"}), FakeTensorMode() as mode, torch.no_grad():
        weights: dict[str, Tensor] = {name: mode.from_tensor(tensor) for name, tensor in tensors}
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            torch.func.functional_call(network.eval(), weights, (torch.empty(1, *shape),))
    return counter.get_total_flops()
