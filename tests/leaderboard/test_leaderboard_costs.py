"""What a network and its training cost, in the leaderboard's columns and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from leaderboard_study import BASELINE, FOREIGN, Study
from leaderboard_tables import rows

pytest_plugins = ("camus_download", "leaderboard_study", "leaderboard_tables")


def test_costs_of_training_and_network(tables: Path) -> None:
    """Logged: epochs of 30 and 40 s in each of five folds, peaks of 1.5 to 5.5 GiB, a validation case each 0.5 s."""
    good, baseline, foreign = rows(tables / "leaderboard.csv")
    for row in (good, baseline, foreign):
        assert (row["epochs"], row["epoch_s"], row["validation_s_per_case"], row["device"], row["torch"]) == (
            "2",
            "35",
            "0.5",
            "cpu",
            "2.6.0",
        )
        assert float(row["training_h"]) == pytest.approx(5 * 70 / 3600, rel=1e-4)
        assert float(row["peak_memory_gib"]) == 5.5  # of fold 4
    assert foreign["parameters"] == foreign["flops"] == ""
    assert f"{FOREIGN} is not installed here" in foreign["not_known"]
    assert "/" not in foreign["not_known"]  # no folder of this machine in a report that is passed on
    assert baseline["patch"] == "64x96"
    assert baseline["not_known"] == ""
    assert float(good["parameters"]) > float(baseline["parameters"]) > 1000


def test_flops_of_a_mamba_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projections, convolution and scan, by hand; the last two are operators of ours."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nnunet_echo.layers.mamba import Mamba
    from nnunet_echo.ops.selective_scan import BACKEND_VARIABLE, cpu

    if reason := cpu.why_not(torch.device("cpu"), torch.float32):
        pytest.skip(reason)
    monkeypatch.setenv(BACKEND_VARIABLE, "cpu")
    tokens, width, block = 20, 16, Mamba(16)
    inner, state, rank = block.A_log.shape[0], block.A_log.shape[1], block.dt_proj.weight.shape[1]
    products = 2 * tokens * inner * (2 * width + rank + 2 * state + rank + width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(torch.randn(1, tokens, width))
    assert counter.get_total_flops() == products + tokens * inner * (2 * block.conv1d.weight.shape[-1] + 7 * state)


def test_flops_of_attention_and_of_a_network_that_keeps_its_positions() -> None:
    """Fused attention on a CPU, by hand; and SAMUS, whose parts are read by PyTorch's counter as modules."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nnunet_echo.analysis.costs import _flops, flop_formulas
    from nnunet_echo.networks import NETWORKS, create_network

    query, key = torch.randn(1, 2, 8, 4), torch.randn(1, 2, 6, 4)
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert counter.get_total_flops() == 2 * (2 * 2 * 8 * 6 * 4)
    network = create_network("samus", 1, 4, (32, 48), **NETWORKS["samus"].toy)
    tokens, dim = 24, 24
    assert _flops(network, (1, 32, 48)) > 3 * 2 * tokens * dim * 4 * dim * 2  # the layers of three blocks alone


def test_flops_of_a_plain_network(study: Study, tmp_path: Path) -> None:
    """All of nnU-Net's U-Net of this plan, summed up by hand: convolutions, transposed ones, the segmentation layer."""
    from nnunet_echo.analysis.costs import network_costs

    def convolution(pixels: int, kernel: int, channels_in: int, channels_out: int) -> int:
        return 2 * pixels * kernel * channels_in * channels_out

    pixels, features = [64 * 96 // 4**stage for stage in range(3)], [4, 8, 16]
    expected = sum(
        convolution(n, 9, before, after) + convolution(n, 9, after, after)
        for n, before, after in zip(pixels, [1, *features], features, strict=False)
    )
    for stage in (1, 0):
        expected += convolution(pixels[stage + 1], 4, features[stage + 1], features[stage])
        expected += convolution(pixels[stage], 9, 2 * features[stage], features[stage])
        expected += convolution(pixels[stage], 9, features[stage], features[stage])
    expected += convolution(pixels[0], 1, features[0], 4)
    costs = network_costs(study.model(BASELINE), BASELINE, "2d")
    assert costs.reason == ""
    assert costs.flops == expected
