"""xLSTM-UNet: which stage has which layer, and what its tokens are. Parity is in test_parity_networks2."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_echo.networks.plan import UNetShape
from nnunet_echo.networks.u_mamba import NoMamba
from nnunet_echo.networks.xlstm_unet import ViLTokens, XLSTMUNetBot, XLSTMUNetEnc

LETTERS = {"Identity": "-", "BasicBlockD": "c", "ViLTokens": "v"}


def shape(stages: int, axes: int, features: int = 8) -> UNetShape:
    return UNetShape(1, 2, features, 3, [[1] * axes, *[[2] * axes] * (stages - 1)], 1, 1)


def layers(network: nn.Module) -> str:
    return "".join(LETTERS[type(mixer).__name__] for mixer in network.encoder.mixers)


@pytest.mark.parametrize(
    ("axes", "stages", "expected"),
    [
        (2, 2, "-c"),
        (2, 3, "-cv"),
        (2, 4, "-c-v"),
        (2, 5, "-cv-v"),
        (2, 6, "-c-v-v"),
        (2, 7, "-cv-v-v"),
        (3, 3, "ccc"),
        (3, 4, "cccv"),
        (3, 6, "cccvvv"),
    ],
)
def test_layers_of_the_encoder(axes: int, stages: int, expected: str) -> None:
    size = (2 ** (stages + 1),) * axes
    assert layers(XLSTMUNetEnc(shape(stages, axes), patch_size=size)) == expected
    assert layers(XLSTMUNetBot(shape(stages, axes))) == "-" * (stages - 1) + "v"


def test_channels_are_tokens_where_they_are_as_many_as_the_pixels() -> None:
    def tokens(features: int) -> tuple[int, ...] | None:
        return XLSTMUNetEnc(shape(4, 2, features), patch_size=(32, 24)).encoder.mixers[-1].size

    assert tokens(12) == (4, 3)
    assert tokens(8) is None
    assert XLSTMUNetBot(shape(4, 2, 64)).encoder.mixers[-1].size is None


@pytest.mark.parametrize(("dim", "heads"), [(8, 4), (12, 4), (6, 2), (15, 2)])
def test_heads(dim: int, heads: int) -> None:
    layer = ViLTokens(dim).vil.layer
    assert layer.mlstm_cell.igate.out_features == layer.mlstm_cell.heads == heads
    assert layer.q_proj.weight.shape == (2 * dim // heads, heads, heads)
    x = torch.randn(1, dim, 3, 5)
    assert ViLTokens(dim)(x).shape == x.shape


def test_an_odd_number_of_pixels_may_describe_a_channel() -> None:
    x = torch.randn(1, 20, 3, 5)
    assert ViLTokens(20, (3, 5))(x).shape == x.shape


def test_it_reads_from_the_top_left_and_adds() -> None:
    module, x = ViLTokens(8).eval(), torch.randn(1, 8, 3, 4)
    changed = x.clone()
    changed[0, 0, 1, 2] += 1
    touched = (module(changed) != module(x)).any(1)[0].flatten()
    assert not touched[:6].any() and touched[6:].all()
    nn.init.zeros_(module.vil.layer.proj_down.weight)
    assert torch.equal(module(x), x)


def test_channel_tokens_take_other_sizes_in_tiles() -> None:
    module, x = ViLTokens(12, (3, 4)).eval(), torch.randn(1, 12, 6, 4)
    torch.testing.assert_close(module(x)[:, :, 3:], module(x[:, :, 3:]))
    assert module(x[:, :, :2, :3]).shape == (1, 12, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_computes_in_32_bits(dtype: torch.dtype) -> None:
    module, x = ViLTokens(8).eval(), 100 * torch.randn(1, 8, 3, 4)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(module(x), module(x.float()))
        assert module(x.to(dtype)).dtype == torch.float32


def test_the_rest_is_u_mamba() -> None:
    control, network = NoMamba(shape(5, 2)), XLSTMUNetBot(shape(5, 2))
    assert set(control.state_dict()) == {key for key in network.state_dict() if ".mixers." not in key}
    with pytest.raises(ValueError, match=r"patch_size=\(32,\): expected 2 axes"):
        XLSTMUNetEnc(shape(4, 2), patch_size=(32,))
