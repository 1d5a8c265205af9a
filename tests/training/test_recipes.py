"""Recipes on trainers: optimiser, learning rates through interruptions, passes over the data, loss, log."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from toy_training import CASES, CONFIGURATION, DATASET_JSON, PATCH, Stub, Toy, ToyTokens, initialized, log_of, make

from nnunet_echo.leaderboard.report import short_names
from nnunet_echo.training.recipes import RECIPES
from nnunet_echo.training.trainer import other_lengths

pytest_plugins = ("toy_training",)

COSINE = [1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * epoch / 50)) / 2 for epoch in range(300)]
WARM = [5e-4 * (i + 1) / 250 for i in range(250)]
RATES = {  # of an epoch
    "vil30": [1e-4] * 30,
    "vmunet300": COSINE,
    "vmunet300cosine": [1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * epoch / 300)) / 2 for epoch in range(300)],
    "samus": [1e-4] * 200,
    "samuspublished": [5e-4] * 200,
    "samuswarmup": (WARM + [5e-4 * (1 - i / 800) ** 0.9 for i in range(550)])[::4],  # 4 iterations an epoch
}


def recipe(name, trainer=Toy):
    return other_lengths(trainer)(f"{trainer.__name__}_{name}")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("trainer", [Toy, ToyTokens])
def test_learning_rates_of_the_epochs(toy_dataset, name, trainer):
    one = initialized(recipe(name, trainer))
    assert one.num_epochs == len(RATES[name])
    found = []
    for epoch in range(one.num_epochs):
        one.lr_scheduler.step(epoch)
        (rate,) = {group["lr"] for group in one.optimizer.param_groups}
        found.append(rate)
    assert found == pytest.approx(RATES[name])


@pytest.mark.parametrize(
    ("name", "optimizer", "decay"),
    [
        ("vil30", torch.optim.AdamW, 0.01),
        ("vmunet300", torch.optim.AdamW, 0.01),
        ("vmunet300cosine", torch.optim.AdamW, 0.01),
        ("samus", torch.optim.Adam, 0.0),
        ("samuspublished", torch.optim.Adam, 0.0),
        ("samuswarmup", torch.optim.AdamW, 0.1),
    ],
)
def test_optimisers(toy_dataset, name, optimizer, decay):
    one = initialized(recipe(name))
    decayed, spared = one.optimizer.param_groups
    assert type(one.optimizer) is optimizer and (decayed["weight_decay"], spared["weight_decay"]) == (decay, 0)
    assert decayed["betas"] == (0.9, 0.999)
    assert [id(parameter) for parameter in decayed["params"]] == [id(one.network.conv.weight)]


class Frozen(Stub):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.conv.requires_grad_(False)


class ToyFrozen(ToyTokens):
    network_path = f"{__name__}:Frozen"


@pytest.mark.parametrize("trainer_of", [lambda: ToyFrozen, lambda: recipe("samuswarmup", ToyFrozen)])
def test_frozen_parameters_stay_as_they_are(toy_dataset, trainer_of):
    one = make(trainer_of())
    one.num_epochs = 2
    one.initialize()
    before = [parameter.clone() for parameter in one.network.conv.parameters()]
    one.run_training()
    assert all(torch.equal(a, b) for a, b in zip(before, one.network.conv.parameters(), strict=True))
    assert not (one.network.dynamics == 1).all()
    assert sum(len(group["params"]) for group in one.optimizer.param_groups) == 3


# An epoch is a pass over the data


@pytest.mark.parametrize(
    ("batch", "iterations", "validation"), [(2, 4, 1), (3, 3, 1), (8, 1, 1), (32, 1, 1), (1, 8, 1)]
)
def test_passes_are_iterations(toy_dataset, monkeypatch, batch, iterations, validation):
    monkeypatch.setitem(CONFIGURATION, "batch_size", batch)
    one = initialized(recipe("vil30"))  # 8 of 12 cases train
    assert (one.num_iterations_per_epoch, one.num_val_iterations_per_epoch) == (iterations, validation)


def test_fold_all_passes_over_all_cases(toy_dataset):
    assert initialized(recipe("samus"), fold="all").num_iterations_per_epoch == len(CASES) / 2


def test_a_length_replaces_the_pass(toy_dataset):
    one = initialized(recipe("samus_2epochs_15iterations"))
    assert (one.num_iterations_per_epoch, one.num_val_iterations_per_epoch) == (15, 3)


# Interruptions


class Stopped(Toy):
    """Stops as at SIGTERM after training step number `stop`, and notes the learning rate of each."""

    stop = 0
    rates: list = []

    def train_step(self, batch):
        self._asked_to_stop = len(self.rates) + 1 == self.stop
        try:
            return super().train_step(batch)
        finally:
            self.rates.append(self.optimizer.param_groups[0]["lr"])


def run(name, rates, stop=0):
    Stopped.stop, Stopped.rates = stop, rates
    one = make(recipe(name, Stopped))
    maybe_load_checkpoint(one, continue_training=os.path.isdir(one.output_folder), validation_only=False)
    if stop:
        with pytest.raises(SystemExit):
            one.run_training()
    else:
        one.run_training()
    return one


@pytest.mark.parametrize("stop", [2, 5, 8, 11])
@pytest.mark.parametrize("name", ["vmunet300cosine_3epochs", "samuswarmup_3epochs", "vmunet300_3epochs"])
def test_a_continued_training_has_the_rates_of_an_unbroken_one(toy_dataset, name, stop):
    rates: list = []
    run(name, rates, stop)
    assert len(rates) == stop
    one = run(name, rates)
    assert one.current_epoch == 3 and one.num_iterations_per_epoch == 4 and len(rates) == 12
    if "samus" in name:
        assert rates == pytest.approx([5e-4 * (i + 1) / 250 for i in range(12)])
    else:
        down = 3 if "cosine" in name else 50
        of_epoch = [1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * epoch / down)) / 2 for epoch in range(3)]
        assert rates == pytest.approx(np.repeat(of_epoch, 4).tolist())
    logged = one.logger.get_checkpoint()["lrs"]
    assert logged == pytest.approx(rates[::4])


# Losses and targets


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_loss_keeps_the_weights_of_deep_supervision(toy_dataset, name, deep_supervision):
    class Trainer(Toy):
        enable_deep_supervision = deep_supervision

    one, stock = initialized(recipe(name, Trainer)), initialized(Trainer)
    assert isinstance(one.loss, DeepSupervisionWrapper) == deep_supervision
    inner = one.loss
    if deep_supervision:
        assert one.loss.weight_factors == stock.loss.weight_factors
        inner = one.loss.loss
    assert inner.difference and inner.formula == RECIPES[name].one_class


LABELS = {
    "one class": {"background": 0, "LV": 1},
    "several": {"background": 0, "LV": 1, "MYO": 2},
    "ignored": {"background": 0, "LV": 1, "MYO": 2, "ignore": 3},
    "regions": {"background": 0, "heart": [1, 2], "LV": 1},
    "regions, ignored": {"background": 0, "heart": [1, 2], "LV": 1, "ignore": 3},
}


def draw_labels(toy_dataset, ignored):
    """Two structures, and with `ignored` what nnU-Net keeps of cases that are labelled in part."""
    for case in CASES:
        for file in (toy_dataset / "nnUNetPlans_2d").glob(f"{case}*"):
            file.unlink()
        label = np.zeros((1, 1, 20, 30), np.int16)
        label[..., 5:15, 8:20], label[..., 8:12, 10:16] = 2, 1
        if ignored:
            label[..., 18:] = 3
        places = {key: np.argwhere(label == key) for key in (1, 2)}
        places[(1, 2)] = np.argwhere((label == 1) | (label == 2))
        places[(-1, 0, 1, 2)] = np.argwhere(label < 3)  # where anything is labelled
        target = str(toy_dataset / "nnUNetPlans_2d" / case)
        image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
        properties = {"class_locations": places}
        nnUNetDatasetBlosc2.save_case(image, label, properties, target, chunks=label.shape, blocks=label.shape)


@pytest.mark.parametrize("name", ["vil30", "vmunet300", "samus"])
@pytest.mark.parametrize("kind", LABELS)
def test_all_kinds_of_labels_train_and_validate(toy_dataset, name, kind):
    if kind != "one class":
        draw_labels(toy_dataset, "ignored" in kind)
    dataset_json = {**DATASET_JSON, "labels": LABELS[kind]}
    if "regions" in kind:
        dataset_json["regions_class_order"] = [2, 1]
    one = make(recipe(f"{name}_1epochs_5iterations"), dataset_json=dataset_json)
    one.run_training()
    losses = one.logger.get_checkpoint()
    assert np.isfinite(losses["train_losses"]).all() and np.isfinite(losses["val_losses"]).all()
    assert one.network.conv.out_channels == len([label for label in LABELS[kind] if label != "ignore"]) - (
        "regions" in kind
    )


def names(loader):
    return [type(getattr(step, "transform", step)).__name__ for step in loader.data_loader.transforms.transforms]


def test_augmentation_reaches_the_loader_and_loads_enough(toy_dataset):
    one = make(recipe("samus"))
    rotation, in_plane, loaded, mirror_axes = one.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert np.degrees(rotation) == pytest.approx([-30, 30]) and not in_plane and mirror_axes is None
    assert (loaded > PATCH).all() and one.inference_allowed_mirroring_axes is None
    one.initialize()
    training, validation = one.get_dataloaders()
    assert names(training)[:3] == ["GammaTransform", "SpatialTransform", "ContrastTransform"]
    assert names(validation) == names(training)[3:]


def test_a_recipe_without_augmentation_has_nnunets(toy_dataset):
    one, stock = initialized(recipe("vmunet300")), initialized(Toy)
    ours, theirs = (names(trainer.get_dataloaders()[0]) for trainer in (one, stock))
    assert ours == theirs and "GaussianNoiseTransform" in ours
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            one.configure_rotation_dummyDA_mirroring_and_inital_patch_size(),
            stock.configure_rotation_dummyDA_mirroring_and_inital_patch_size(),
            strict=True,
        )
    )


def test_a_mirroring_trainer_does_not_mirror_by_a_recipe(toy_dataset):
    class Mirrored(Toy):
        mirroring = True

    assert make(recipe("samus", Mirrored)).configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1] is None


# What is said of it


def test_the_log_names_recipe_source_and_what_was_chosen_here(toy_dataset):
    one = make(recipe("vmunet300_1epochs"))
    one.run_training()
    log = log_of(one)
    row = RECIPES["vmunet300"]
    for part in (
        "AdamW, learning rate 0.001, cosine, 50 epochs down and 50 up, weight decay 0.01, gradients not clipped,",
        f"Recipe vmunet300, of VM-UNet, arXiv 2402.02491, released code. Chosen here: {row.inferred}.",
        "Augmentation: that of nnU-Net. The recipe's batch is 32, this plan's 2.",
        "An epoch is one pass over the data: 8 training cases in batches of 2, drawn at random, are 4 iterations.",
        "per_image=True) of the difference of the two logits.",
    ):
        assert part in log, part
    one = make(recipe("vil30_1epochs_2iterations"))
    one.run_training()
    log = log_of(one)
    assert RECIPES["vil30"].augmentation.title in log and "pass over the data" not in log and "batch is" not in log


def test_a_plan_with_the_published_batch_is_not_worth_a_line(toy_dataset):
    row = replace(RECIPES["samus"], batch_size=2)
    one = make(other_lengths(Toy, {"own": row})("Toy_own_1epochs_1iterations"))
    one.run_training()
    assert "Recipe own" in log_of(one) and "batch is" not in log_of(one)


def test_the_gradients_of_a_recipe_are_not_clipped(toy_dataset):
    one = initialized(recipe("samus"))
    loss = one.loss
    one.loss = lambda outputs, target: 1e6 * loss(outputs, target)
    loader, _ = one.get_dataloaders()
    one.train_step(next(loader))
    assert torch.cat([p.grad.flatten() for p in one.network.parameters()]).norm() > 1e3


def test_recipes_are_models_of_their_own(toy_dataset):
    names = ["nnUNetTrainerViL", *(f"nnUNetTrainerViL_{name}" for name in RECIPES)]
    assert len(set(short_names(names))) == len(names)
    folders = {make(recipe(name)).output_folder for name in RECIPES} | {make(Toy).output_folder}
    assert len(folders) == len(RECIPES) + 1
