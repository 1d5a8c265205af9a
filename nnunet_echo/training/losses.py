"""Losses of the recipes, by their published formulas, for every kind of labels that nnU-Net has.

A formula sees logits (B, K, *S), a target of the same shape in {0, 1}, and a mask (B, 1, *S) that is 0 where no label
is known. `LabelLoss` makes these of what nnU-Net gives. All is computed in 32 bits, whatever autocast says.

B is the batch, K the channels (classes or regions), *S the axes of space. p is a predicted probability, t the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, distributed, nn
from torch.nn import functional


class Formula(Protocol):
    """Loss, a scalar, of logits (B, K, *S), a target in {0, 1} of that shape, and a mask (B, 1, *S) or None."""

    def __call__(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class SigmoidLoss:
    """``dice_weight (1 - Dice) + entropy_weight BCE``; each channel is a question of its own, p its sigmoid.

    Dice is ``(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``, with ``p**2`` and ``t**2`` below where `squares`;
    the sums run over the batch, or with `per_image` over each image, and the mean is taken of all channels and images.
    BCE is the mean of all pixels and channels; `positive_weight` counts the pixels of the target that many times.

    The defaults are the loss of SAMUS (Lin et al. 2023, arXiv 2309.06824, released code).

    >>> SigmoidLoss()(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # 0.8 (1 - 4 / 5) + 0.2 * 2 log 2
    tensor(0.4373)
    """

    dice_weight: float = 0.8
    entropy_weight: float = 0.2
    positive_weight: float = 2.0
    smooth: float = 1e-5
    squares: bool = True
    per_image: bool = False

    def __call__(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        logits, target = logits.float(), target.float()
        dice = _dice(logits.sigmoid(), target, mask, self.smooth, self.squares, self.per_image).mean()
        weight = logits.new_tensor(self.positive_weight)
        entropy = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return self.dice_weight * (1 - dice) + self.entropy_weight * _mean(entropy, mask)


@dataclass(frozen=True)
class SoftmaxLoss:
    """``dice_weight (1 - Dice) + entropy_weight CE`` of classes that exclude each other; p is their softmax.

    Dice is ``(2 sum(p t) + smooth) / (sum(p**2) + sum(t**2) + smooth)`` of each class, its sums over the whole batch;
    the mean is taken of all classes, of which the background is the first, or of those after it. nnU-Net's own loss
    has neither the background nor the squares. CE is the mean of all pixels.

    The defaults are CeDice of VM-UNet (Ruan et al. 2024, arXiv 2402.02491, released code).

    >>> target = torch.eye(2)[None, :, None]  # (1, 2, 1, 2): one pixel of each class
    >>> SoftmaxLoss()(torch.zeros(1, 2, 1, 2), target)  # 1 - 2 * 0.5 / (0.5 + 1) + log 2
    tensor(1.0265)
    """

    dice_weight: float = 1.0
    entropy_weight: float = 1.0
    smooth: float = 1e-5
    background: bool = True

    def __call__(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        logits, target = logits.float(), target.float()
        dice = _dice(logits.softmax(1), target, mask, self.smooth, squares=True, per_image=False)
        entropy = -(target * logits.log_softmax(1)).sum(1, keepdim=True)
        dice = dice if self.background else dice[1:]
        return self.dice_weight * (1 - dice.mean()) + self.entropy_weight * _mean(entropy, mask)


class LabelLoss(nn.Module):
    """What nnU-Net calls with logits and labels: one formula, applied to labels, to regions, around an ignore label.

    - Regions: the formula `one` for each region. An ignore label is the last channel of the target.
    - One foreground class, background and class as two channels: the formula `one`, of the difference of the two
      logits. Its sigmoid is their softmax, so the loss is the published one of a single channel, and the larger of the
      two channels is still the prediction.
    - Several classes: the formula `several`, of one channel for each class, background included.

    `labels` is nnU-Net's label manager, of which three attributes are read.

    >>> from types import SimpleNamespace
    >>> labels = SimpleNamespace(has_regions=False, ignore_label=None, num_segmentation_heads=4)
    >>> loss = LabelLoss(SigmoidLoss(), SoftmaxLoss(dice_weight=0.0), labels)
    >>> loss(torch.zeros(2, 4, 8, 8), torch.ones(2, 1, 8, 8))  # log 4
    tensor(1.3863)
    """

    def __init__(self, one: Formula, several: Formula, labels: LabelManager) -> None:
        super().__init__()
        self.has_regions = labels.has_regions
        self.ignore_label = labels.ignore_label
        self.difference = not labels.has_regions and labels.num_segmentation_heads == 2
        self.formula = one if self.has_regions or self.difference else several

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, *S); target (B, 1, *S) of labels, or (B, K or K + 1, *S) of regions in {0, 1}."""
        mask = None
        if self.has_regions:
            if self.ignore_label is not None:
                target, mask = target[:, :-1], 1 - target[:, -1:].float()
            return self.formula(logits, target, mask)
        target = target.long()
        if self.ignore_label is not None:
            known = target != self.ignore_label
            target, mask = target * known, known.float()
        if self.difference:
            return self.formula(logits[:, 1:].float() - logits[:, :1].float(), target, mask)
        return self.formula(logits, torch.zeros_like(logits, dtype=torch.float32).scatter_(1, target, 1.0), mask)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Of all channels of the pixels that count; 0 where none does."""
    if mask is None:
        return values.mean()
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp_min(1)


def _dice(p: Tensor, t: Tensor, mask: Tensor | None, smooth: float, squares: bool, per_image: bool) -> Tensor:
    """(K,), or with `per_image` (B, K)."""
    axes = tuple(range(2, p.ndim)) if per_image else (0, *range(2, p.ndim))
    terms = p * t, p**2 + t**2 if squares else p + t
    overlap, size = ((term if mask is None else term * mask).sum(axes) for term in terms)
    if not per_image and distributed.is_available() and distributed.is_initialized():
        overlap, size = AllGatherGrad.apply(torch.stack((overlap, size))).sum(0)  # the batch is that of all ranks
    return (2 * overlap + smooth) / (size + smooth)
