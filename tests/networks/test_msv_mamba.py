"""The reconstruction of MSV-Mamba: its scan in windows, its skip connections, its options.

Parity of the aggregation with CM-UNet's is in test_parity_networks2.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_echo.layers.lms import LMS, LMSBlock
from nnunet_echo.layers.msaa import ChannelAttention, SkipFusion, SpatialAttention, nearest_levels, resize
from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.networks import NETWORKS, create_network, title_of
from nnunet_echo.networks.msv_mamba import MSVMamba
from nnunet_echo.networks.plan import UNetShape

SIZE = (32, 48)


def build(**options: object) -> nn.Module:
    return create_network("msv_mamba", 1, 4, SIZE, **{**NETWORKS["msv_mamba"].toy, **options})


def recording(monkeypatch: pytest.MonkeyPatch, layer: LMS) -> list[torch.Tensor]:
    """What the plain scan gets; it returns it unchanged."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(SS2D, "scan", lambda self, x: seen.append(x) or x)
    return seen


@pytest.mark.parametrize("scan", ["ss2d", "bi"])
def test_one_scale_and_a_window_as_large_as_the_map_are_the_plain_block(scan: str) -> None:
    layer = LMS(6, (9, 9), scales=(1,), scan=scan, csm_gate=False).eval()
    plain = SS2D(6, directions=4 if scan == "ss2d" else 2).eval()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, 9, 6)
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)


def test_windows_at_every_scale_on_an_image_of_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LMS(1, (3, 2), scales=(1, 2))
    seen = recording(monkeypatch, layer)
    index = torch.arange(24.0).view(1, 1, 4, 6)
    layer.scan(index)
    fine, coarse = seen
    assert fine[0, 0].tolist() == [[0, 1], [6, 7], [12, 13]]
    assert fine[1, 0].tolist() == [[2, 3], [8, 9], [14, 15]]
    assert fine[3, 0].tolist() == [[18, 19], [0, 0], [0, 0]]  # three rows to a window: two are padding
    assert coarse.shape == (2, 1, 2, 2)  # windows are clipped to the map of 2 x 3 patches
    assert coarse[0, 0].tolist() == [[3.5, 5.5], [15.5, 17.5]]
    assert coarse[1, 0].tolist() == [[7.5, 0], [19.5, 0]]


def test_scales_are_averaged_and_spread_over_their_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LMS(1, (8, 8), scales=(1, 2))
    recording(monkeypatch, layer)
    index = torch.arange(30.0).view(1, 1, 5, 6)
    patches = torch.tensor(
        [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5], [24.5, 26.5, 28.5]]
    )  # of the last row one row is there
    spread = patches.repeat_interleave(2, 0).repeat_interleave(2, 1)[:5]
    torch.testing.assert_close(layer.scan(index)[0, 0], (index[0, 0] + spread) / 2)


@pytest.mark.parametrize(("size", "scales"), [((8, 8), 3), ((8, 7), 2), ((3, 9), 1), ((1, 1), 1)])
def test_scales_of_more_than_half_the_map_are_left_out(
    size: tuple[int, int], scales: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LMS(1, (8, 8))
    seen = recording(monkeypatch, layer)
    layer.scan(torch.randn(1, 1, *size))
    assert len(seen) == scales


def test_a_pixel_stays_in_its_window() -> None:
    """In all four directions."""
    layer = LMS(2, (4, 4), scales=(1,)).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 5, 1] += 1
    touched = (layer.scan(changed) != layer.scan(x)).any(1)[0]
    assert touched[4:, :4].all()
    assert touched.sum() == 16


def test_two_directions_read_along_rows_only() -> None:
    """So a map of four columns is a row four times as long, which it is not along columns."""
    x = torch.randn(1, 8, 4, 4)
    for scan, same in {"bi": True, "ss2d": False}.items():
        layer = LMS(4, (16, 16), scales=(1,), scan=scan)
        assert len(layer.backwards) == len(layer.x_proj_weight) == (2 if same else 4)
        assert torch.allclose(layer.scan(x).flatten(2), layer.scan(x.view(1, 8, 1, 16)).flatten(2), atol=1e-5) == same


def test_gate_goes_through_both_attentions() -> None:
    layer = LMS(4, (4, 4)).eval()
    x = torch.randn(1, 4, 4, 4)
    gated = layer(x)
    nn.init.constant_(layer.gate.spatial.conv.weight, 0.0)
    halved = layer.gate(torch.ones(1, 2, 2, 8))
    assert not torch.equal(layer(x), gated)
    expected = ChannelSpatial(layer)(torch.ones(1, 2, 2, 8))
    torch.testing.assert_close(halved, expected)


class ChannelSpatial(nn.Module):
    """Half of what channel attention lets through: the sigmoid of 0."""

    def __init__(self, layer: LMS) -> None:
        super().__init__()
        self.channel = layer.gate.channel

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.channel(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) / 2


def test_block_is_a_residual_of_half_the_channels() -> None:
    block, x = LMSBlock(8, (4, 4)).eval(), torch.randn(2, 8, 4, 6)
    assert block.norm.normalized_shape == (4,)
    nn.init.zeros_(block.lms.out_proj.weight)
    through = x + block.up(block.down(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), through)


def test_attention_weights() -> None:
    x = torch.randn(2, 6, 5, 4)
    channel, spatial = ChannelAttention(6), SpatialAttention()
    per_channel, per_pixel = channel(x) / x, spatial(x) / x
    torch.testing.assert_close(per_channel, per_channel[:, :, :1, :1].expand_as(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(per_pixel, per_pixel[:, :1].expand_as(x), rtol=1e-4, atol=1e-5)


def test_levels_of_a_fused_skip_connection() -> None:
    assert [nearest_levels(i, 3) for i in range(3)] == [[0, 1, 2], [1, 0, 2], [2, 1, 0]]  # CM-UNet's
    assert [nearest_levels(i, 5) for i in range(5)] == [[0, 1, 2], [1, 0, 2], [2, 1, 3], [3, 2, 4], [4, 3, 2]]
    assert [nearest_levels(i, 2) for i in range(2)] == [[0, 1], [1, 0]]


def test_fusion_keeps_sizes_and_reads_its_neighbours_alone() -> None:
    fusion = SkipFusion([8, 8, 12, 16, 16])
    maps = [torch.randn(1, n, 32 >> i, 48 >> i) for i, n in enumerate([8, 8, 12, 16, 16])]
    fused = fusion(maps)
    assert [x.shape for x in fused] == [x.shape for x in maps]
    changed = fusion([*maps[:4], torch.randn_like(maps[4])])
    assert [torch.equal(a, b) for a, b in zip(fused, changed, strict=True)] == [True, True, True, False, False]


def test_resize_puts_corners_on_corners() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    larger = resize(x, (5, 7))
    assert larger[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 2, 3, 5]
    assert resize(x, (2, 3)) is x


def test_windows_are_lkm_unets() -> None:
    shape = UNetShape(1, 2, 4, 3, [[1, 1], *[[2, 2]] * 6], 1, 1)
    stages = MSVMamba(shape).decoder.stages
    assert [stage.block.lms.window[0] for stage in stages] == [5, 10, 10, 20, 20, 40]


def test_ablations() -> None:
    full = build(deep_supervision=True)
    x, keys = torch.randn(1, 1, *SIZE), set(full.state_dict())
    without = {name: build(deep_supervision=True, **{name: value}) for name, value in ABLATIONS.items()}
    part = {"lms": ".block.", "msaa": ".fusion.", "aux_mode": ".seg_layers."}
    for name, network in without.items():
        left = keys - set(network.state_dict())
        assert left and all(part[name] in key for key in left)
        assert network(x)[0].shape == (1, 4, *SIZE)
    assert len(without["aux_mode"](x)) == 1
    assert [type(stage.block).__name__ for stage in without["lms"].decoder.stages] == ["Identity"] * 3


ABLATIONS = {"lms": False, "msaa": False, "aux_mode": "none"}


def test_auxiliary_losses_of_cm_unet_are_at_full_size() -> None:
    plain, full = build(deep_supervision=True).eval(), build(deep_supervision=True, aux_mode="cm_unet").eval()
    full.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 37, 41)
    assert full.deep_supervision_strides == ((1, 1),) * 3
    assert full.deep_supervision_weights == (1.0, 0.4, 0.4)
    assert not hasattr(plain, "deep_supervision_weights")
    theirs, ours = full(x), plain(x)
    assert [y.shape for y in theirs] == [(1, 4, 37, 41)] * 3
    assert torch.equal(theirs[0], ours[0])
    torch.testing.assert_close(theirs[2][..., 0, 0], ours[2][..., 0, 0])  # corners on corners


def test_options_change_what_they_say() -> None:
    def parameters(**options: object) -> int:
        return sum(p.numel() for p in build(**options).parameters())

    full = parameters()
    assert parameters(scan="bi") < full
    assert parameters(csm_gate=False) < full
    assert parameters(d_state=2) < full
    assert parameters(scales=(1, 2)) == full
    assert parameters(window_sizes=[7, (3, 5), 2]) == full
    network, other = build().eval(), build(scales=(1,)).eval()
    other.load_state_dict(network.state_dict())
    x = torch.randn(1, 1, *SIZE)
    assert not torch.allclose(network(x), other(x))


def test_blocks_of_a_decoder_stage() -> None:
    def blocks(convolutions: int) -> list[int]:
        decoder = build(n_conv_per_stage_decoder=convolutions).decoder
        return [len(stage.convolutions) for stage in decoder.stages]

    assert [blocks(n) for n in (1, 2, 4)] == [[1] * 3, [1] * 3, [2] * 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aux_mode": "cmunet"}, "aux_mode='cmunet': expected one of .*'cm_unet'"),
        ({"scan": "4"}, r"scan='4': expected one of \('ss2d', 'bi'\)"),
        ({"scales": [[1, 2]]}, "scales=.*: expected the factors that the map is pooled by"),
        ({"window_sizes": [5]}, "window_sizes=.*expected 3 windows, one per stage"),
        ({"lms": "no"}, "lms='no': msv_mamba expects True or False"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_three_axes() -> None:
    with pytest.raises(ValueError, match="strides=.*: MSV-Mamba is 2D"):
        MSVMamba(UNetShape(1, 2, 4, 3, [[1] * 3, [2] * 3], 1, 1))


def test_every_title_says_what_it_is() -> None:
    for trainer, title in NETWORKS["msv_mamba"].trainers.items():
        assert "unofficial reconstruction" in title
        assert title_of(f"{trainer}_3epochs_2iterations") == title
    assert title_of("nnUNetTrainer") == title_of("nnUNetTrainer_250epochs") == ""
