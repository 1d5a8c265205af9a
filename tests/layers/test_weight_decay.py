"""Which parameters weight decay spares."""

from __future__ import annotations

import pytest
from torch import nn

from nnunet_echo.layers.mamba import Mamba
from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.layers.weight_decay import spare_from_weight_decay
from nnunet_echo.networks.vil.encoder import PositionEmbed


def spared(module: nn.Module) -> set[str]:
    return {name for name, x in module.named_parameters() if getattr(x, "_no_weight_decay", False)}


@pytest.mark.parametrize(
    ("module", "names"),
    [(Mamba(4), {"A_log", "D"}), (SS2D(4), {"A_logs", "Ds"}), (PositionEmbed((2, 2), 4), {"embed"})],
    ids=["Mamba", "SS2D", "PositionEmbed"],
)
def test_dynamics_and_positions_are_spared(module: nn.Module, names: set[str]) -> None:
    assert spared(module) == names


def test_only_what_is_named_is_spared() -> None:
    layer = nn.Linear(2, 2)
    spare_from_weight_decay(layer.weight)
    assert spared(layer) == {"weight"}
