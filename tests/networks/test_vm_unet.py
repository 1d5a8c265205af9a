"""What is special to VM-UNet; the battery that all networks pass is in test_networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_vision import TOY_VM_UNET

from nnunet_echo.networks.vm_unet import VSSM, PatchExpand, PatchMerging, VMUNet


def test_merging_takes_the_neighbours_down_the_column_first() -> None:
    layer = PatchMerging(1)
    layer.norm = nn.Identity()
    layer.reduction = nn.Identity()
    x = torch.arange(16.0).view(1, 4, 4, 1)
    assert layer(x)[0, 1, 0].tolist() == [8, 12, 9, 13]


def test_expanding_spreads_a_token_over_a_square() -> None:
    layer = PatchExpand(2, 2)
    layer.norm = nn.Identity()
    layer.expand.weight = nn.Parameter(torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    x = torch.tensor([[[[1.0, 0], [10, 0]]]])  # one row of two tokens
    assert layer(x)[0, ..., 0].tolist() == [[1, 2, 10, 20], [3, 4, 30, 40]]


def test_vm_unet_has_the_published_number_of_parameters() -> None:
    network = VMUNet(in_channels=3, num_classes=1)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 27.43


def test_vm_unet_defaults_to_the_published_rates_of_stochastic_depth() -> None:
    network = VMUNet(1, 2, dims=8)
    down = [block.drop_path.drop_prob for layer in network.vmunet.layers for block in layer.blocks]
    up = [block.drop_path.drop_prob for layer in network.vmunet.layers_up for block in layer.blocks]
    assert down == pytest.approx([i * 0.2 / 7 for i in range(8)])
    assert up == pytest.approx([i * 0.2 / 6 for i in range(6, -1, -1)])


def test_vm_unet_skips_are_added() -> None:
    """The decoder's second stage gets what its first returns plus what the encoder's last got."""
    network = VMUNet(1, 2, **TOY_VM_UNET).eval().vmunet
    seen = {}
    network.layers[1].register_forward_pre_hook(lambda _, args: seen.update(skip=args[0]))
    network.layers_up[0].register_forward_hook(lambda _module, _args, out: seen.update(below=out))
    network.layers_up[1].register_forward_pre_hook(lambda _, args: seen.update(sum=args[0]))
    network(torch.randn(1, 1, 16, 24))
    assert seen["sum"].shape == (1, 2, 3, 16)
    torch.testing.assert_close(seen["sum"], seen["skip"] + seen["below"])


def test_vm_unet_recomputation_changes_nothing() -> None:
    x = torch.randn(1, 1, 16, 24)
    plain = VMUNet(1, 2, drop_path_rate=0.0, **TOY_VM_UNET)
    saving = VMUNet(1, 2, drop_path_rate=0.0, use_checkpoint=True, **TOY_VM_UNET)
    saving.load_state_dict(plain.state_dict())
    for network in (plain, saving):
        network(x).square().mean().backward()
    for (key, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=key)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 1, 1)}, "expected one entry per stage"),
        ({"dims": (8, 12)}, "twice the one before"),
        ({"dims": (8, 16), "dims_decoder": (16, 16)}, "has to be dims reversed"),
    ],
)
def test_vm_unet_stages_have_to_fit(arguments: dict, message: str) -> None:
    fitting = {"depths": (1, 1), "depths_decoder": (1, 1), "dims": (8, 16), "dims_decoder": (16, 8)}
    with pytest.raises(ValueError, match=message):
        VSSM(**{**fitting, **arguments})


def test_older_checkpoints_have_the_last_layer_under_its_published_name() -> None:
    network = VMUNet(1, 3, **TOY_VM_UNET)
    older = {k.replace("decoder.seg_layers.0.", "vmunet.final_conv."): v for k, v in network.state_dict().items()}
    assert "vmunet.final_conv.weight" in older
    again = VMUNet(1, 3, **TOY_VM_UNET)
    again.load_state_dict(older)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    assert "vmunet.final_conv.weight" in older  # the checkpoint itself stays
