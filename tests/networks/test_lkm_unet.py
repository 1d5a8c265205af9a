"""What is special to LKM-UNet; the battery that all networks pass is in test_networks."""

from __future__ import annotations

import pytest
import torch
from network_cases import PATCHES, build, image, outputs_and_gradients
from torch import Tensor, nn

from nnunet_echo.layers import mamba
from nnunet_echo.networks import NETWORKS, create_network
from nnunet_echo.networks.lkm_unet import LKMUNet, PixelLevelSSM
from nnunet_echo.networks.plan import UNetShape


def test_lkm_unet_learns_everywhere_from_the_first_step() -> None:
    """Residual branches that start at zero, as in the released code, made its training on CAMUS far too slow."""
    network = build("lkm_unet-2d", deep_supervision=True)
    outputs_and_gradients(network, image("lkm_unet-2d", batch=2))
    assert all(p.grad.any() for key, p in network.named_parameters() if ".conv" in key and key.endswith("conv.weight"))


def test_pixel_level_ssm_stays_in_its_window() -> None:
    """A pixel changes the output inside its window alone, in both directions: the paper's mode."""
    layer = PixelLevelSSM(4, (4, 4)).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 5, 1] += 1  # one channel: LayerNorm takes out what is added to all
    touched = (layer(changed) != layer(x)).any(1)[0]
    assert touched[4:, :4].all()
    assert touched.sum() == 16


def test_lkm_unet_windows_are_the_papers() -> None:
    shape = UNetShape(1, 2, [4] * 7, [[3, 3]] * 7, [[1, 1], *[[2, 2]] * 6], 1, 1)
    mixers = LKMUNet(shape).encoder.mixers
    assert [m.pim.window[0] for m in mixers] == [40, 20, 20, 10, 10, 5, 5]
    assert [m.pam.patch for m in mixers] == [m.pim.window for m in mixers]
    assert [m.pam.patch[0] for m in LKMUNet(shape, window_mode="released").encoder.mixers] == [8, 4, 4, 2, 2, 1, 1]


def test_lkm_unet_ablations() -> None:
    def ablated(**options) -> nn.Module:
        return create_network("lkm_unet", 1, 4, PATCHES[2], **{**NETWORKS["lkm_unet"].toy, **options})

    x = torch.randn(1, 1, *PATCHES[2])
    full = ablated()
    parameters = {sum(p.numel() for p in full.parameters())}
    for switches in ({"pixel_level": False}, {"patch_level": False}, {"bidirectional": False}):
        network = ablated(**switches)
        assert network(x).shape == (1, 4, *PATCHES[2])
        parameters.add(sum(p.numel() for p in network.parameters()))
    assert len(parameters) == 3  # PiM and PaM are of the same size
    other = ablated(window_sizes=[7, (3, 5), 2, 3])
    other.load_state_dict(full.state_dict())
    assert not torch.allclose(other.eval()(x), full.eval()(x))


def test_many_windows_are_recomputed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build("lkm_unet-2d", deep_supervision=True).double(), image("lkm_unet-2d", batch=3).double()
    whole, kept = outputs_and_gradients(network, x), kept_for_the_backward(network, x)
    monkeypatch.setattr(mamba, "_LARGEST_MAP", 5000)
    for ours, expected in zip(outputs_and_gradients(network, x), whole, strict=True):
        torch.testing.assert_close(ours, expected)
    assert kept_for_the_backward(network, x) < 0.6 * kept


def kept_for_the_backward(network: nn.Module, x: Tensor) -> int:
    """Bytes of all tensors that autograd keeps, parameters among them."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    return sum(kept.values())
