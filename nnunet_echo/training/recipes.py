"""Recipes: how the authors of published systems trained, one row each, for any of our networks.

``nnUNetTrainerViL_vil30`` trains the network of nnUNetTrainerViL by the row ``vil30``. Batch and patch are those of the
plan, as for every trainer of nnU-Net: ``nnunet-echo plan`` adds a configuration that has the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from nnunet_echo.training import schedules
from nnunet_echo.training.augmentation import Augmentation
from nnunet_echo.training.losses import Formula, SigmoidLoss, SoftmaxLoss
from nnunet_echo.training.schedules import Schedule


@dataclass(frozen=True)
class Recipe:
    """A way to train. `source` says where it is published, `inferred` what is not stated there and was chosen here.

    `one_class` is the loss of one foreground class, and of each of several regions; `several_classes` that of labels
    that exclude each other (see `losses.LabelLoss`). Without an `augmentation` of its own a recipe has nnU-Net's; no
    recipe mirrors. `epochs` are passes over the training cases, as everywhere but in nnU-Net, whose epochs have 250
    iterations. `batch_size` is the published one, for the log: the plan decides.

    >>> slower = replace(RECIPES["vil30"], inferred="a lower learning rate", initial_lr=1e-5)
    >>> slower.initial_lr, slower.epochs
    (1e-05, 30)
    """

    source: str
    inferred: str
    optimizer: type[torch.optim.Optimizer]
    initial_lr: float
    weight_decay: float
    schedule: Schedule
    epochs: int
    one_class: Formula
    several_classes: Formula
    augmentation: Augmentation | None = None
    batch_size: int | None = None
    max_grad_norm: float = math.inf


_SPARED = "weight decay spares biases, norms and what a network marks"
_SEVERAL = "with several classes cross entropy, and Dice without the background"

_VIL30 = Recipe(
    source="a report on Vision-LSTM in echocardiography, without code; its loss and augmentation are those of SAMUS, "
    "arXiv 2309.06824, released code",
    inferred="amount of weight decay, constant learning rate, gradients not clipped; with several classes the loss of "
    f"each against the rest, the background included, so that the largest logit is the prediction; {_SPARED}",
    optimizer=torch.optim.AdamW,
    initial_lr=1e-4,
    weight_decay=1e-2,
    schedule=schedules.constant(),
    epochs=30,
    one_class=SigmoidLoss(),
    several_classes=SigmoidLoss(),
    augmentation=Augmentation(),
)

_VMUNET300 = Recipe(
    source="VM-UNet, arXiv 2402.02491, released code",
    inferred="the augmentation is nnU-Net's without mirroring, since the published one (flips, turns through 360 "
    f"degrees) is for images of skin; {_SPARED}",
    optimizer=torch.optim.AdamW,
    initial_lr=1e-3,
    weight_decay=1e-2,
    schedule=schedules.cosine(1e-5, epochs_down=50),
    epochs=300,
    one_class=SigmoidLoss(1.0, 1.0, positive_weight=1.0, smooth=1.0, squares=False, per_image=True),
    several_classes=SoftmaxLoss(),
    batch_size=32,
)

_SAMUS = Recipe(
    source="SAMUS with temporal relations and local attention, without code, for the learning rate; all else is SAMUS, "
    "arXiv 2309.06824, released code",
    inferred=f"number of epochs (SAMUS's); {_SEVERAL}",
    optimizer=torch.optim.Adam,
    initial_lr=1e-4,
    weight_decay=0.0,
    schedule=schedules.constant(),
    epochs=200,
    one_class=SigmoidLoss(),
    several_classes=SoftmaxLoss(0.8, 0.2, background=False),
    augmentation=Augmentation(),
    batch_size=8,
)

RECIPES: Mapping[str, Recipe] = {
    "vil30": _VIL30,
    "vmunet300": _VMUNET300,
    "vmunet300cosine": replace(
        _VMUNET300,
        inferred=f"the cosine spans the whole training, where the published one swings back; {_VMUNET300.inferred}",
        schedule=schedules.cosine(1e-5),
    ),
    "samus": _SAMUS,
    "samuspublished": replace(
        _SAMUS, source="SAMUS, arXiv 2309.06824, released code", inferred=_SEVERAL, initial_lr=5e-4
    ),
    "samuswarmup": replace(
        _SAMUS,
        source="SAMUS, arXiv 2309.06824, released code with --warmup",
        inferred=f"the decay counts from the end of the warm-up; {_SPARED}; {_SEVERAL}",
        optimizer=torch.optim.AdamW,
        initial_lr=5e-4,
        weight_decay=0.1,
        schedule=schedules.warm_up_then_polynomial(250),
    ),
}
