"""How far each trainer's network sees: its effective receptive field (ERF).

The ERF of a pixel (Luo et al., NeurIPS 2016, arXiv 1701.04128) is the size of the gradient of its output with respect
to every pixel of the input, averaged over inputs. Here it is that of the middle pixel's finest logits, absolute values
summed over classes and input channels, scaled to a sum of 1. Written are

    NAME.png   the ERF of each network, relative to its largest value, on a logarithmic scale
    erf.png    all of them side by side, as in LKM-UNet's figure 3 (arXiv 2403.07332)
    erf.csv    the share of the image that holds 50 and 95 % of it, in as few pixels as can be

Networks have random weights and the shape that nnU-Net's rule gives a 2D plan of this size, or are trained ones from
results folders. Inputs are noise of mean 0 and variance 1, which is what nnU-Net's z-score gives images. Normalisation
over the image lets every pixel have a little influence on every other, even in a network of small kernels.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from numpy import ndarray
from torch import Tensor, nn

from nnunet_echo.analysis.costs import build_network
from nnunet_echo.evaluation.output import write_table
from nnunet_echo.networks import NETWORKS, list_networks
from nnunet_echo.networks.checkpoints import load_checkpoint
from nnunet_echo.nnunet.commands import silent
from nnunet_echo.nnunet.plans import divisible, unet_architecture

BASELINE = "nnUNetTrainer"
SIZE = (256, 256)
CHANNELS, CLASSES = 1, 4  # of networks with random weights
SHARES = (0.5, 0.95)
_FAINTEST = 1e-4  # of the largest value, in pictures


@dataclass(frozen=True)
class Subject:
    """A network to look at: its name in files, where its weights are from, and the (channels, H, W) of its input."""

    name: str
    weights: str
    network: nn.Module
    shape: tuple[int, int, int]


def effective_receptive_field(network: nn.Module, images: Tensor) -> ndarray:
    """The ERF (Luo et al. 2016, arXiv 1701.04128) of the middle pixel, (H // 2, W // 2): (H, W), with sum 1.

    It is the mean over `images` (N, C, H, W). The network is set to inference. Of several outputs the first, finest one
    counts. Each class has a gradient of its own, because a loss with softmax leaves the sum of the logits untrained.
    Raises `ValueError` where no pixel of the input has any influence, or where a gradient is not finite.

    >>> network = nn.Conv2d(1, 2, kernel_size=3, padding=1)
    >>> field = effective_receptive_field(network, torch.randn(2, 1, 9, 9))
    >>> field.shape, int((field > 0).sum()), round(float(field.sum()), 6)
    ((9, 9), 9, 1.0)
    """
    network.eval()
    height, width = images.shape[2:]
    field = torch.zeros(height, width, dtype=torch.float64, device=images.device)
    for image in images.split(1):
        image.requires_grad_()
        logits = network(image)
        logits = logits if isinstance(logits, Tensor) else logits[0]
        for logit in logits[0, :, height // 2, width // 2]:
            (gradient,) = torch.autograd.grad(logit, image, retain_graph=True)
            field += gradient[0].abs().sum(dim=0)
    total = float(field.sum())
    if not 0 < total < math.inf:
        raise ValueError(f"gradients of {type(network).__name__} sum to {total}; they must be finite and not all 0.")
    return (field / total).cpu().numpy()


def area_fraction(field: ndarray, share: float) -> float:
    """The smallest share of the pixels of `field` (H, W) that holds `share`, between 0 and 1, of its sum."""
    held = np.cumsum(np.sort(field, axis=None)[::-1])
    return float(1 + np.searchsorted(held, share * held[-1])) / field.size


def random_network(trainer: str, size: tuple[int, int]) -> Subject:
    """The network that nnU-Net's trainer of that name builds for a 2D plan of patches of `size`, with random weights.

    Raises RuntimeError for a trainer that nnU-Net does not find, ValueError for a size that its rule cannot divide.
    """
    configuration = _configuration(size)
    with redirect_stdout(io.StringIO()):  # nnU-Net prints every module that it looks into
        trainer_class = recursive_find_trainer_class_by_name(trainer)
    torch.manual_seed(0)
    network = trainer_class.build_network_architecture(
        None, configuration, CHANNELS, CLASSES, enable_deep_supervision=False
    )
    return Subject(trainer, "random", network, (CHANNELS, *size))


def trained_network(folder: Path, size: tuple[int, int] | None) -> Subject:
    """The network in nnU-Net's results folder TRAINER__PLANS__CONFIGURATION, with the final weights of its first fold.

    `size` is that of the input, by default the plan's patch. Raises FileNotFoundError for a folder without a finished
    fold, ValueError for one that is not 2D.
    """
    finished = sorted(folder.glob("fold_*/checkpoint_final.pth"), key=lambda file: (len(str(file)), file))
    if not finished:
        raise FileNotFoundError(
            f"{folder}: has no fold_*/checkpoint_final.pth. Name a folder of nnUNet_results, "
            "TRAINER__PLANS__CONFIGURATION, in which a fold is trained to its end."
        )
    checkpoint = load_checkpoint(finished[0])  # not by nnU-Net, which would run what the file says
    try:
        plans, dataset = (json.loads((folder / name).read_text()) for name in ("plans.json", "dataset.json"))
        trainer, configuration = str(checkpoint["trainer_name"]), checkpoint["init_args"]["configuration"]
        weights = checkpoint["network_weights"]
        with redirect_stdout(io.StringIO()):  # nnU-Net prints every module that it looks into
            network, (channels, *patch) = build_network(plans, dataset, trainer, configuration)
        network.load_state_dict(weights)
    except Exception as error:  # of nnU-Net's, for whatever plans may say
        raise ValueError(f"{finished[0]} and {folder}/plans.json do not make a network ({error}).") from error
    if len(patch) != 2:
        raise ValueError(f"{folder}: its patches have {len(patch)} axes; only 2D networks can be drawn.")
    return Subject(folder.name, str(folder), network, (channels, *(size or patch)))


def draw_fields(
    out: Path,
    *,
    trainers: Sequence[str] | None = None,
    checkpoints: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
    inputs: int = 4,
    device: str | None = None,
    say: Callable[[str], None] = silent,
) -> list[dict[str, Any]]:
    """Write pictures and erf.csv to the folder `out`; returns the rows of the table.

    The networks are those of `checkpoints`, folders TRAINER__PLANS__CONFIGURATION of nnUNet_results, or else of
    `trainers` with random weights (default: all of this package, and nnUNetTrainer). `size` (height, width) is that of
    the input (default: that of a checkpoint's plan, or 256 x 256), of which `inputs` are averaged. `device` is by
    default cuda where there is one. `say` gets the areas of each network when it is done. Raises `ValueError` for a
    network that is named twice and for no inputs, and as `trained_network` and `random_network`.
    """
    if inputs < 1:
        raise ValueError(f"--inputs {inputs}: must be 1 or more.")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folders = _distinct_names([folder.resolve() for folder in checkpoints])
    if trainers and len(set(trainers)) < len(trainers):
        raise ValueError(f"--trainers {' '.join(trainers)}: one is named twice. Name each once.")
    out.mkdir(parents=True, exist_ok=True)
    fields, rows = {}, []
    for subject in _subjects(trainers, folders, size):
        noise = torch.randn(inputs, *subject.shape, generator=torch.Generator().manual_seed(0))
        field = fields[subject.name] = effective_receptive_field(subject.network.to(place), noise.to(place))
        areas = {f"area_fraction_{share * 100:g}": area_fraction(field, share) for share in SHARES}
        rows.append(
            {
                "network": subject.name,
                "weights": subject.weights,
                "height": field.shape[0],
                "width": field.shape[1],
                "inputs": inputs,
                **areas,
            }
        )
        _picture({subject.name: field}, out / f"{subject.name}.png")
        say(f"{subject.name}: {_areas(field)}")
    _picture(fields, out / "erf.png")
    write_table(out / "erf.csv", rows)
    return rows


def _distinct_names(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by name, which pictures get; those of one name by as many parents, too, as tell them apart.

    Raises ValueError for a folder that is named twice.
    """
    if len(set(folders)) < len(folders):
        raise ValueError(f"--checkpoint: {max(folders, key=folders.count)} is named twice. Name each folder once.")
    names: dict[str, Path] = {}
    for folder in folders:
        others = [other for other in folders if other != folder]
        for length in range(1, len(folder.parts)):
            name = _name(folder, length)  # compared as file systems do that do not tell large letters from small ones
            if name.casefold() not in {"erf", *(_name(other, length).casefold() for other in others)}:
                break
        else:
            name = f"{name}_{len(names)}"
        names[name] = folder
    return names


def _name(folder: Path, length: int) -> str:
    return "__".join(folder.parts[-length:])


def _subjects(
    trainers: Sequence[str] | None, folders: Mapping[str, Path], size: tuple[int, int] | None
) -> Iterator[Subject]:
    """One at a time, so that only one network is in memory."""
    for name, folder in folders.items():
        yield replace(trained_network(folder, size), name=name)
    if not folders:
        ours = (NETWORKS[name].trainer for name in list_networks(2, installed=True))
        for trainer in trainers or [BASELINE, *ours]:
            yield random_network(trainer, size or SIZE)


def _configuration(size: tuple[int, int]) -> ConfigurationManager:
    """What nnU-Net plans for 2D patches of this size with square pixels, at its default of 32 to 512 features."""
    shape = unet_architecture(size)
    fitting = divisible(size, shape["strides"])
    if fitting != size:
        raise ValueError("size is {}x{}, which its stages do not divide. Take {}x{}.".format(*size, *fitting))
    return ConfigurationManager(
        {
            "patch_size": list(size),
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    **shape,
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    )


def _picture(fields: Mapping[str, ndarray], path: Path) -> None:
    """The fields in rows of up to four, on one scale."""
    columns = min(len(fields), 4)
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.8, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, field) in zip(axes, fields.items(), strict=False):
        image = _draw(ax, name, field)
    for ax in axes[len(fields) :]:
        ax.set_axis_off()
    figure.colorbar(image, ax=axes.tolist(), label="gradient / largest gradient", extend="min")
    figure.savefig(path, dpi=150)


def _draw(ax: Axes, name: str, field: ndarray) -> AxesImage:
    ax.set_title(f"{name}\n{_areas(field)}", fontsize=7)
    ax.set(xticks=[], yticks=[])
    return ax.imshow(np.maximum(field / field.max(), _FAINTEST), norm=LogNorm(_FAINTEST, 1), cmap="viridis")


def _areas(field: ndarray) -> str:
    return ", ".join(f"{share:.0%} in {area_fraction(field, share):.2%}" for share in SHARES) + " of the area"
