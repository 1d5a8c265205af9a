"""What is special to U-Mamba; the battery that all networks pass is in test_networks."""

from __future__ import annotations

import torch
from network_cases import build

from nnunet_echo.networks.u_mamba import ChannelTokens


def test_channel_tokens_take_other_sizes_in_tiles() -> None:
    layer = ChannelTokens((3, 4)).eval()
    x = torch.randn(1, 5, 6, 4)
    torch.testing.assert_close(layer(x)[:, :, 3:], layer(x[:, :, 3:]))
    assert layer(x[:, :, :2, :3]).shape == (1, 5, 2, 3)


def test_umamba_enc_takes_channels_as_tokens_where_they_outnumber_pixels() -> None:
    mixers = build("umamba_enc-2d").encoder.mixers
    assert [type(m).__name__ for m in mixers] == ["Identity", "PixelTokens", "Identity", "ChannelTokens"]
    assert mixers[3].size == (4, 6)


def test_no_mamba_is_u_mamba_without_the_mixers() -> None:
    control, mamba = build("no_mamba-2d"), build("umamba_bot-2d")
    keys = {key for key in mamba.state_dict() if ".mixers." not in key}
    assert set(control.state_dict()) == keys
