"""What VM-UNet and the Vision-LSTM networks share: stochastic depth and padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_vision import TOY_VIL, TOY_VM_UNET, vil, vil2

from nnunet_echo.networks.vil.unet import ViL2UNet, ViLUNet
from nnunet_echo.networks.vm_unet import VMUNet


def test_stochastic_depth_drops_the_path_of_whole_samples_while_training() -> None:
    block = vil().blocks[0]
    block.drop_path.drop_prob = 0.3
    tokens = torch.randn(1, 16, 16).expand(2000, -1, -1)
    with torch.no_grad():
        path = block(tokens[:1], (4, 4)) - tokens[:1]
        change = block.train()(tokens, (4, 4)) - tokens
    dropped = (change == 0).flatten(1).all(1)
    assert 0.26 < dropped.float().mean() < 0.34
    kept = change[~dropped]
    torch.testing.assert_close(kept, (path / 0.7).expand_as(kept), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, float("nan")])
@pytest.mark.parametrize(
    "build",
    [
        lambda **rate: VMUNet(1, 2, dims=8, **rate),
        lambda **rate: vil2(**rate),
        lambda **rate: vil(**rate, drop_path_decay=True),
    ],
)
def test_a_rate_that_drops_everything_is_refused(build, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"drop_path_rate={rate} has to be in \[0, 1\)"):
        build(drop_path_rate=rate)


@pytest.mark.parametrize("size", [(5, 70), (48, 32), (33, 49)])
@pytest.mark.parametrize(
    "network",
    [VMUNet(2, 3, **TOY_VM_UNET), ViLUNet(2, 3, **TOY_VIL), ViL2UNet(2, 3, **TOY_VIL)],
    ids=["VMUNet", "ViLUNet", "ViL2UNet"],
)
def test_padding_is_zeros_at_the_end(network: nn.Module, size: tuple[int, int]) -> None:
    """An image and the same image on a larger black canvas get the same logits where the padded sizes agree."""
    network = network.eval()
    image = torch.randn(1, 2, *size)
    canvas = torch.zeros(1, 2, *(-(-n // m) * m for n, m in zip(size, network.size_multiple, strict=True)))
    canvas[..., : size[0], : size[1]] = image
    expected: Tensor = network(canvas)[..., : size[0], : size[1]]
    torch.testing.assert_close(network(image), expected)
