"""Learning rates of the recipes, and what an optimiser is given."""

import math

import pytest
import torch
from torch import nn

from nnunet_echo.training import schedules
from nnunet_echo.training.optimizers import parameter_groups


def rates(schedule, initial_lr, steps):
    return [schedule.rate(initial_lr, step, steps) for step in range(steps)]


def test_constant():
    assert rates(schedules.constant(), 1e-4, 30) == [1e-4] * 30


@pytest.mark.parametrize(("down", "epochs"), [(50, 300), (None, 300), (None, 7)])
def test_cosine_is_pytorchs(down, epochs):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=down or epochs, eta_min=1e-5)
    ours = rates(schedules.cosine(1e-5, down), 1e-3, epochs)
    for epoch in range(epochs):
        assert ours[epoch] == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_published_cosine_swings_back():
    ours = rates(schedules.cosine(1e-5, epochs_down=50), 1e-3, 300)
    assert [ours[epoch] for epoch in (0, 100, 200)] == pytest.approx([1e-3] * 3)
    assert [ours[epoch] for epoch in (50, 150, 250)] == pytest.approx([1e-5] * 3)
    assert ours[25] == pytest.approx((1e-3 + 1e-5) / 2) and ours[299] == pytest.approx(9.99e-4, rel=1e-3)
    whole = rates(schedules.cosine(1e-5), 1e-3, 300)
    assert whole == sorted(whole, reverse=True) and whole[-1] == pytest.approx(1e-5, rel=0.01)


def test_warm_up_then_polynomial():
    schedule = schedules.warm_up_then_polynomial(250)
    ours = rates(schedule, 5e-4, 1000)
    assert ours[:250] == pytest.approx([5e-4 * i / 250 for i in range(1, 251)])
    assert ours[250] == 5e-4 and ours[999] == pytest.approx(5e-4 * (1 - 749 / 1000) ** 0.9)
    assert schedule.every_iteration and ours[250:] == sorted(ours[250:], reverse=True)
    assert max(rates(schedule, 5e-4, 100)) == pytest.approx(2e-4)  # shorter than its warm-up


def test_one_rate_for_all_groups():
    optimizer = torch.optim.Adam([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=1.0)
    schedules.EpochSchedule(optimizer, lambda epoch: math.exp(-epoch)).step(2)
    assert [group["lr"] for group in optimizer.param_groups] == [math.exp(-2)] * 2


def test_frozen_parameters_are_no_business_of_the_optimiser():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    network[0].requires_grad_(False)
    network[2].weight._no_weight_decay = True
    decayed, spared = parameter_groups(network)
    assert decayed == {"params": []}
    assert spared["weight_decay"] == 0
    found = [network[1].weight, network[1].bias, network[2].weight, network[2].bias]
    assert [id(parameter) for parameter in spared["params"]] == [id(parameter) for parameter in found]
