"""Losses of the recipes against their published formulas, written down once more in numpy, and against SAMUS's."""

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_echo.training.losses import LabelLoss, SigmoidLoss, SoftmaxLoss
from nnunet_echo.training.recipes import RECIPES

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "goldens" / "sam" / "samus_loss.safetensors"
BCE_DICE, CE_DICE = RECIPES["vmunet300"].one_class, RECIPES["vmunet300"].several_classes


def labels(heads, regions=False, ignore=None):
    return SimpleNamespace(has_regions=regions, num_segmentation_heads=heads, ignore_label=ignore)


def loss_of(name, heads, **kind):
    recipe = RECIPES[name]
    return LabelLoss(recipe.one_class, recipe.several_classes, labels(heads, **kind))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x)
    return e / e.sum(1, keepdims=True)


def samus(x, t):
    """One channel: 0.8 Dice + 0.2 BCE that counts the pixels of the target twice."""
    p = sigmoid(x)
    dice = (2 * (p * t).sum() + 1e-5) / ((p**2).sum() + (t**2).sum() + 1e-5)
    return 0.8 * (1 - dice) + 0.2 * np.mean(-2 * t * np.log(p) - (1 - t) * np.log(1 - p))


def bce_dice(x, t):
    p = sigmoid(x)
    dice = [(2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, t, strict=True)]
    return np.mean(-t * np.log(p) - (1 - t) * np.log(1 - p)) + 1 - np.mean(dice)


def ce_dice(x, t, weights=(1.0, 1.0), first=0):
    p = softmax(x)
    of = [(p[:, k], t[:, k]) for k in range(first, x.shape[1])]
    dice = [1 - (2 * (a * b).sum() + 1e-5) / ((a**2).sum() + (b**2).sum() + 1e-5) for a, b in of]
    return weights[0] * np.mean(-np.log((p * t).sum(1))) + weights[1] * np.mean(dice)


def noise(classes, batch=3, size=(5, 7), seed=0):
    """Logits (B, K, *S), a map of labels (B, 1, *S), and its one-hot form."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(batch, classes, *size))
    target = rng.integers(0, classes, (batch, 1, *size))
    return logits, target, (target == np.arange(classes).reshape(-1, *[1] * len(size))).astype(float)


def close(loss, expected):
    return float(loss.detach()) == pytest.approx(expected, rel=2e-6)


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


# By hand: one channel of two pixels, both of probability 1/2, the first in the target; I = 1/2, P = T = 1


def test_values_by_hand():
    logits, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    assert close(SigmoidLoss()(logits, target), 0.8 * (1 - 1.00001 / 1.50001) + 0.2 * 1.5 * np.log(2))
    assert close(BCE_DICE(logits, target), np.log(2) + 1 - 2 / 3)
    assert close(
        CE_DICE(torch.zeros(1, 2, 1, 2), torch.cat((1 - target, target), 1)), np.log(2) + 1 - 1.00001 / 1.50001
    )


def test_a_perfect_prediction_costs_nothing_and_an_empty_target_is_finite():
    target = torch.tensor([[[[1.0, 0.0]]]])
    for formula in (SigmoidLoss(), BCE_DICE):
        assert float(formula(200 * (target - 0.5), target)) < 1e-5
        logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
        formula(logits, 0 * target).backward()
        assert logits.grad.isfinite().all() and (logits.grad > 0).all()


@pytest.mark.parity
@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference tensors are not here")
def test_samus_loss_is_the_published_one():
    from safetensors.torch import load_file

    golden = load_file(GOLDEN)
    logits = golden["logits"].requires_grad_()
    loss = SigmoidLoss()(logits, golden["target"])
    loss.backward()
    assert torch.allclose(loss, golden["loss"][0], rtol=1e-5)
    assert (logits.grad - golden["grad"]).norm() < 1e-5 * golden["grad"].norm()
    for name in ("samus", "vil30"):  # as two channels, of which nnU-Net takes the larger
        two = torch.cat((torch.full_like(logits, 0.3), logits + 0.3), 1)
        assert torch.allclose(loss_of(name, 2)(two, golden["target"]), golden["loss"][0], rtol=1e-5)


# What nnU-Net gives: labels


@pytest.mark.parametrize(
    ("name", "formula"), [("samus", samus), ("samuswarmup", samus), ("vil30", samus), ("vmunet300", bce_dice)]
)
def test_one_foreground_class_is_one_channel(name, formula):
    logits, target, _ = noise(2)
    loss = loss_of(name, 2)(*tensors(logits, target.astype(np.int16)))
    assert close(loss, formula(logits[:, 1] - logits[:, 0], target[:, 0]))


@pytest.mark.parametrize("size", [(5, 7), (3, 5, 4)])
def test_several_classes(size):
    logits, target, one_hot = noise(4, size=size)
    pair = tensors(logits, target.astype(np.int16))
    assert close(loss_of("vmunet300", 4)(*pair), ce_dice(logits, one_hot))
    assert close(loss_of("vmunet300cosine", 4)(*pair), ce_dice(logits, one_hot))
    assert close(loss_of("samus", 4)(*pair), ce_dice(logits, one_hot, (0.2, 0.8), first=1))
    each = np.mean([samus(logits[:, k], one_hot[:, k]) for k in range(4)])
    assert close(loss_of("vil30", 4)(*pair), each)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_largest_logit_learns_the_labels(name, classes):
    """nnU-Net predicts the argmax of all channels: the background has to win where it is."""
    _, target, _ = noise(classes, batch=1)
    logits = torch.zeros(1, classes, 5, 7, requires_grad=True)
    loss = loss_of(name, classes)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(loss(logits, torch.from_numpy(target)), logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    assert (logits.argmax(1) == torch.from_numpy(target)[:, 0]).all()


# Regions, which may overlap, and the ignore label


@pytest.mark.parametrize(("name", "formula"), [("samus", samus), ("vil30", samus), ("vmunet300", bce_dice)])
@pytest.mark.parametrize("regions", [1, 2, 3])
def test_regions_are_channels_of_their_own(name, formula, regions):
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(2, regions, 4, 6)), rng.random((2, regions, 4, 6)) < 0.4
    expected = np.mean([formula(logits[:, k], target[:, k].astype(float)) for k in range(regions)])
    assert close(loss_of(name, regions, regions=True)(*tensors(logits, target)), expected)


@pytest.mark.parametrize("name", ["samus", "vil30", "vmunet300"])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_ignored_pixels_change_nothing(name, classes, regions):
    """What they hold has no part: the loss is that of the pixels that are known, and so are its gradients."""
    logits, target, one_hot = noise(classes, batch=2, size=(6, 8))
    known = loss_of(name, classes, regions=regions)
    ignoring = loss_of(name, classes, regions=regions, ignore=classes)
    whole = one_hot if regions else target
    wrong = np.full((2, 1, 6, 3), classes)  # the first three columns are not labelled
    if regions:
        ignored = np.zeros((2, 1, 6, 8))
        ignored[..., :3] = 1
        masked = np.concatenate((np.random.default_rng(2).random(one_hot.shape) < 0.5, ignored), 1)
        masked[:, :-1, :, 3:] = one_hot[..., 3:]
    else:
        masked = np.concatenate((wrong, target[..., 3:]), -1)
    x = torch.from_numpy(logits).requires_grad_()
    loss = ignoring(x, torch.from_numpy(masked))
    loss.backward()
    assert close(loss, float(known(*tensors(logits[..., 3:], whole[..., 3:]))))
    assert (x.grad[..., :3] == 0).all() and (x.grad[..., 3:] != 0).all()


@pytest.mark.parametrize("name", ["samus", "vil30", "vmunet300"])
@pytest.mark.parametrize("regions", [False, True])
def test_a_batch_without_any_label_costs_nothing(name, regions):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.ones(2, 4, 4, 4) if regions else torch.full((2, 1, 4, 4), 3)
    loss = loss_of(name, 3, regions=regions, ignore=3)(logits, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6) and (logits.grad == 0).all()


def test_half_precision_is_not_used():
    """Sums of more than 65,504 pixels overflow in 16 bits."""
    logits = torch.full((1, 1, 300, 300), 3.0, dtype=torch.float16)
    for formula in (SigmoidLoss(), SigmoidLoss(squares=False, per_image=True)):
        assert close(
            formula(logits, torch.ones_like(logits)), float(formula(logits.float(), torch.ones(1, 1, 300, 300)))
        )
    two = torch.cat((logits, -logits), 1)
    assert SoftmaxLoss()(two, torch.ones_like(two) * torch.tensor([1, 0]).reshape(1, 2, 1, 1)).isfinite()


def _rank(rank, folder, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    logits, target, one_hot = noise(3, batch=2)
    here = slice(rank, rank + 1)
    no_entropy = SoftmaxLoss(entropy_weight=0.0), SigmoidLoss(entropy_weight=0.0)
    answers.put([float(formula(*tensors(logits[here], one_hot[here]))) for formula in no_entropy])


def test_dice_of_the_batch_is_that_of_all_ranks(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, tmp_path, answers)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    first, second = [answers.get(timeout=60) for _ in ranks]
    for rank in ranks:
        rank.join()
    logits, _, one_hot = noise(3, batch=2)
    together = [float(f(*tensors(logits, one_hot))) for f in (SoftmaxLoss(1.0, 0.0), SigmoidLoss(entropy_weight=0.0))]
    assert first == second == pytest.approx(together)
