"""A folder of nnUNet_results as networks with their weights: no trainer is imported, no code of a checkpoint run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nnunet_echo.cine.steps import Steps
from nnunet_echo.cine.trainers import TrainerNetwork, network_of_trainer
from nnunet_echo.networks import network_from_plan
from nnunet_echo.networks.checkpoints import check_classes, load_checkpoint
from nnunet_echo.nnunet.plans import imported_arguments

Fold = int | str


@dataclass(frozen=True)
class Loaded:
    """Networks, one for each fold, in evaluation mode, and what nnU-Net does to their images."""

    steps: Steps
    networks: tuple[nn.Module, ...]
    trainer: str
    network_name: str  # a name of NETWORKS, "module:Class", or the class that the plan names
    files: tuple[Path, ...]
    folds: tuple[Fold, ...]


def load_folder(
    folder: Path,
    folds: Sequence[Fold] | None = (0,),
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    *,
    mirroring: bool = True,
    step_size: float = 0.5,
    import_trainer: bool = False,
) -> Loaded:
    """The networks of `folds` (None: all that have a checkpoint) in a folder TRAINER__PLANS__CONFIGURATION.

    `import_trainer` lets nnU-Net import the trainer, which runs its file, to ask it for its network. Raises
    FileNotFoundError for a file that is not there, ValueError for a checkpoint that is damaged or holds anything but
    weights and settings, for a trainer whose network is not known, and as `Steps`.
    """
    plans, dataset_json = (_read_json(folder / name) for name in ("plans.json", "dataset.json"))
    if folds is None:
        names = [path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}")]
        folds = sorted(int(name) for name in names if name.isdecimal())
    if not folds:
        raise FileNotFoundError(
            f"{folder}: has no fold_*/{checkpoint}. Train a fold, or name its checkpoint with -chk."
        )
    files = [folder / f"fold_{fold}" / checkpoint for fold in folds]
    for file in files:
        if not file.is_file():
            there = sorted(str(path.relative_to(folder)) for path in folder.glob("fold_*/checkpoint_*.pth"))
            raise FileNotFoundError(f"{file}: there is no such file. There are {', '.join(there) or 'no checkpoints'}.")
    contents = [load_checkpoint(file) for file in files]
    try:
        trainer, configuration = contents[0]["trainer_name"], contents[0]["init_args"]["configuration"]
        weights = [content["network_weights"] for content in contents]
        axes = contents[0].get("inference_allowed_mirroring_axes")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{files[0]}: has no {error}. It is not a checkpoint of nnU-Net's trainers.") from error
    device = str(torch.device(device))  # whose errors are not those of the files
    try:
        steps = Steps(plans, dataset_json, configuration, axes if mirroring else None, step_size, device)
        check_classes(steps.plan)
    except (KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as error:  # of nnU-Net's own checks
        reason = str(error) if isinstance(error, RuntimeError) else repr(error)
        raise ValueError(
            f"{folder}: plans.json and dataset.json do not describe a model ({reason}). Take those of the training."
        ) from error
    with _NoRandomNumbers(), torch.random.fork_rng(devices=[]):
        if import_trainer:
            name, network = trainer, _by_trainer(plans, dataset_json, trainer, configuration)
        else:
            source = network_of_trainer(trainer)
            name, network = source.path or steps.plan.network_arch_class_name, _build(source, steps)
    networks = [network, *(deepcopy(network) for _ in weights[1:])]
    for file, module, state in zip(files, networks, weights, strict=True):
        try:
            module.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file}: its weights do not fit {trainer} with {folder / 'plans.json'}: "
                f"{str(error).splitlines()[0]} Take the plans.json of the training."
            ) from error
        module.to(steps.device).eval().requires_grad_(False)
    return Loaded(steps, tuple(networks), trainer, name, tuple(files), tuple(folds))


def _build(source: TrainerNetwork, steps: Steps) -> nn.Module:
    """The network of a plan, as the trainer builds it to predict."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan, shapes = steps.plan, (steps.channels, steps.classes)
    arguments, imported = plan.network_arch_init_kwargs, plan.network_arch_init_kwargs_req_import
    if source.path is None:
        return get_network_from_plans(
            plan.network_arch_class_name, arguments, imported, *shapes, allow_init=False, deep_supervision=False
        )
    architecture = imported_arguments(arguments, imported)
    return network_from_plan(source.path, *shapes, steps.patch_size, architecture, False, **source.options)


def _by_trainer(plans: dict, dataset_json: dict, trainer: str, configuration: str) -> nn.Module:
    import io
    from contextlib import redirect_stdout

    from nnunet_echo.analysis.costs import build_network

    with redirect_stdout(io.StringIO()):  # nnU-Net prints each place where it looks for the trainer
        return build_network(plans, dataset_json, trainer, configuration)[0]


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out the random numbers that weights get before a checkpoint replaces them: seconds for large networks."""

    _SLOW = frozenset(getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "erfinv_"))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self._SLOW and isinstance(args[0], nn.Parameter):
            return args[0]
        return function(*args, **(kwargs or {}))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file}: there is no such file. Name a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results."
        ) from None
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error}). Copy it again from the training.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, expected an object. Copy it again.")
    return content
