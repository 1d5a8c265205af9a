"""Adam with published settings: optimiser, learning rates, and what a recipe replaces."""

import math

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from toy_training import Stub, initialized, log_of

from nnunet_echo.networks import NETWORKS
from nnunet_echo.training.adam_trainer import Adam, AdamTrainer, cosine, polynomial

pytest_plugins = ("toy_training",)

# Adam or AdamW, learning rate, weight decay, epsilon, schedule: as U-Mamba's and MedNeXt's released code and Auto3DSeg.
PUBLISHED = {
    "segresnet": ("Adam", 1e-4, 1e-5, 1e-5, "polynomial decay"),
    "unetr": ("AdamW", 1e-4, 1e-2, 1e-5, "polynomial decay of power 1"),
    "swin_unetr": ("AdamW", 8e-4, 1e-2, 1e-5, "cosine"),
    "mednext": ("AdamW", 1e-3, 3e-5, 1e-4, "polynomial decay"),
    "segresnet_ds": ("AdamW", 2e-4, 1e-5, 1e-8, "cosine"),
}


class ToyAdam(AdamTrainer):
    network_path = f"{Stub.__module__}:Stub"
    num_epochs = 3
    num_iterations_per_epoch = 2
    optimizer_class = Adam
    initial_lr = 1e-2
    weight_decay = 1e-3
    epsilon = 1e-5
    rates = polynomial(1.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name):
    trainer = recursive_find_trainer_class_by_name(NETWORKS[name].trainer)
    settings = trainer.initial_lr, trainer.weight_decay, trainer.epsilon, trainer.schedule
    assert (trainer.optimizer_class.__name__, *settings) == PUBLISHED[name]
    assert trainer.schedule == trainer.rates.title
    assert trainer.max_grad_norm == 12 and trainer.num_epochs == 1000


def test_every_baseline_is_here():
    assert PUBLISHED.keys() == {name for name, row in NETWORKS.items() if row.extra}


@pytest.mark.parametrize(
    ("rates", "scheduler"),
    [
        (polynomial(), lambda optimizer: PolyLRScheduler(optimizer, 8e-4, 10)),
        (polynomial(1.0), lambda optimizer: PolyLRScheduler(optimizer, 8e-4, 10, exponent=1)),
        (cosine(1e-6), lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=1e-6)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_learning_rates_are_those_of_the_published_schedulers(rates, scheduler):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8e-4)
    scheduler = scheduler(optimizer)
    for epoch in range(10):
        scheduler.step(epoch)
        assert math.isclose(rates.rate(8e-4, epoch, 10), optimizer.param_groups[0]["lr"], rel_tol=1e-9)


def test_the_optimiser_has_all_that_is_trained_and_nothing_frozen(toy_dataset):
    trainer = initialized(ToyAdam)
    trainer.network.norm.bias.requires_grad_(False)
    optimizer, schedule = trainer.configure_optimizers()
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.Adam
    assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-2, 1e-3, 1e-5)
    expected = [p for name, p in trainer.network.named_parameters() if name != "norm.bias"]
    assert len(group["params"]) == len(expected)
    assert all(ours is theirs for ours, theirs in zip(group["params"], expected, strict=True))
    rates = []
    for epoch in range(3):
        schedule.step(epoch)
        rates.append(group["lr"])
    assert rates == pytest.approx([1e-2, 1e-2 * 2 / 3, 1e-2 / 3])


def test_it_trains_and_says_how(toy_dataset):
    trainer = initialized(ToyAdam)
    trainer.run_training()
    assert trainer.logger.get_value("lrs", step=None) == pytest.approx([1e-2, 1e-2 * 2 / 3, 1e-2 / 3])
    log = log_of(trainer)
    assert "Adam, learning rate 0.01, polynomial decay of power 1," in log and "weight decay 0.001" in log


def test_a_recipe_replaces_all_of_it():
    trainer = recursive_find_trainer_class_by_name("nnUNetTrainerSwinUNETR_vil30")
    assert (trainer.initial_lr, trainer.weight_decay, trainer.schedule) == (1e-4, 1e-2, "constant")
    stub = trainer.__new__(trainer)
    stub.network, stub.initial_lr, stub.weight_decay, stub.num_epochs = Stub(1, 2, False), 1e-4, 1e-2, 30
    optimizer, _ = stub.configure_optimizers()
    assert len(optimizer.param_groups) == 2 and optimizer.param_groups[0]["eps"] == 1e-8
    assert stub.learning_rate(29) == 1e-4


@pytest.mark.parametrize(
    "name",
    ["segresnet_ds", *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED if name != "segresnet_ds")],
)
def test_a_baseline_trains(toy_dataset, name):
    """As it is, but for its length, on a toy dataset, with the targets that nnU-Net makes for deep supervision."""
    trainer = initialized(recursive_find_trainer_class_by_name(f"{NETWORKS[name].trainer}_1epochs_2iterations"))
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    trainer.run_training()
    assert all(math.isfinite(loss) for loss in trainer.logger.get_value("train_losses", step=None))
    moved = {key for key, value in trainer.network.named_parameters() if not torch.equal(value, before[key])}
    frozen = {key for key, value in trainer.network.named_parameters() if not value.requires_grad}
    assert any(".seg_layers.0." in key for key in moved) and not moved & frozen
