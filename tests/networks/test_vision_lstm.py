"""What is special to the Vision-LSTM networks, encoders and U-Nets; the battery that all pass is in test_networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy_vision import TOY_VIL, vil, vil2

from nnunet_echo.networks.vil.encoder import BOTTOM_RIGHT, TOP_LEFT, PositionEmbed, VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vil.unet import ViL2UNet, ViLUNet

PLAN = {"features_per_stage": [4, 6, 8, 10, 12, 12]}


def depends_on_last_patch(encoder: nn.Module) -> bool:
    """Whether the first token's features depend on the bottom right patch of a 32 x 32 image."""
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    encoder.features(image, [len(encoder.blocks)])[0][0, :, 0, 0].square().sum().backward()
    return bool(image.grad[..., 24:, 24:].any())


def test_directions_decide_what_the_first_token_sees() -> None:
    assert depends_on_last_patch(vil())
    assert not depends_on_last_patch(vil(directions=(TOP_LEFT,)))
    assert depends_on_last_patch(vil(directions=(BOTTOM_RIGHT,)))
    reverse = [block.layer.reverse for block in VisionLSTM(16, (1, 32, 32), 8, depth=4).blocks]
    assert reverse == [False, True, False, True]


def test_order_within_a_pair_matters() -> None:
    image = torch.randn(1, 1, 32, 32)
    published, swapped = vil2(), vil2(directions=(BOTTOM_RIGHT, TOP_LEFT))
    swapped.load_state_dict(published.state_dict())
    assert not torch.allclose(published(image), swapped(image))
    pair = published.blocks[0]
    assert not pair[TOP_LEFT].layer.reverse
    assert pair[BOTTOM_RIGHT].layer.reverse


def test_versions_return_tokens_and_a_map() -> None:
    image = torch.randn(2, 1, 32, 24)
    assert vil()(image).shape == (2, 12, 16)
    assert vil2()(image).shape == (2, 16, 4, 3)


def test_position_embedding_is_resampled_for_other_sizes() -> None:
    embed = PositionEmbed((3, 4), 2)
    with torch.no_grad():
        embed.embed.copy_(torch.tensor([5.0, 0.0]).expand(1, 3, 4, 2))
        embed.embed[..., 1] = torch.arange(3.0)[:, None]  # the second channel is the row
    torch.testing.assert_close(embed(torch.zeros(1, 2, 3, 4)), embed.embed.permute(0, 3, 1, 2))
    wide = embed(torch.zeros(1, 2, 6, 10)).detach()
    torch.testing.assert_close(wide[0, 0], torch.full((6, 10), 5.0))
    row = wide[0, 1]
    torch.testing.assert_close(row, row[:, :1].expand(6, 10))
    assert (row[1:, 0] > row[:-1, 0]).all()
    assert row.mean().item() == pytest.approx(1.0)


def test_features_are_normalised_at_every_depth() -> None:
    encoder = VisionLSTM(16, (1, 32, 32), 8, depth=4)
    features = encoder.features(1e4 * torch.randn(2, 1, 32, 32), [2, 4])
    assert len(features) == 2
    for x in features:
        torch.testing.assert_close(x.mean(1), torch.zeros(2, 4, 4), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.std(1, correction=0), torch.ones(2, 4, 4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("build", [vil, vil2])
def test_sum_over_a_patch_does_not_overflow_in_float16(build) -> None:
    with torch.autocast("cpu", dtype=torch.float16):
        assert build()(1e5 * torch.ones(1, 1, 32, 32)).isfinite().all()


def test_rate_of_stochastic_depth_is_constant_unless_it_decays() -> None:
    def rates(**arguments) -> list[float]:
        encoder = VisionLSTM(16, (1, 32, 32), 8, depth=3, drop_path_rate=0.2, **arguments)
        return [block.drop_path.drop_prob for block in encoder.blocks]

    assert rates() == [0.2, 0.2, 0.2]
    assert rates(drop_path_decay=True) == pytest.approx([0.0, 0.1, 0.2])


def test_published_arguments() -> None:
    small = {"dim": 16, "input_shape": [1, 32, 32], "patch_size": 8, "depth": 1}
    none = {"mode": None, "pooling": None, "output_shape": None}
    encoder = VisionLSTM.from_published({**small, **none, "alternation": "bidirectional", "legacy_norm": True})
    assert "legacy_norm.weight" in encoder.state_dict()
    assert not any(key.endswith("proj_up.bias") for key in encoder.state_dict())
    # the published class does not hand the kernel size on to its blocks
    encoder = VisionLSTM2.from_published({**small, "mode": "features", "pooling": "to_image", "conv_kernel_size": 5})
    assert encoder.blocks[0][TOP_LEFT].layer.conv.kernel_size == (3, 3)
    assert vil2(conv_kernel_size=5).blocks[0][TOP_LEFT].layer.conv.kernel_size == (5, 5)
    with pytest.raises(ValueError, match="mode='classifier': only the feature extractor"):
        VisionLSTM.from_published({**small, "mode": "classifier"})
    with pytest.raises(ValueError, match="pooling='bilateral_flatten'"):
        VisionLSTM2.from_published({**small, "pooling": "bilateral_flatten"})


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (vil, {"directions": ()}, "directions="),
        (vil, {"directions": ("columns",)}, "directions="),
        (vil2, {"directions": (TOP_LEFT,)}, "in either order"),
        (vil2, {"conv_kind": "3d"}, "conv_kind='3d': expected '2d' or 'causal1d'"),
        (vil2, {"conv_kernel_size": 4}, "conv_kernel_size=4 has to be odd"),
        (vil2, {"input_shape": (1, 32, 30)}, "do not divide the image"),
        (vil2, {"input_shape": (1, 8, 32, 32)}, "expected \\(channels, height, width\\)"),
    ],
)
def test_encoder_arguments_are_checked(build, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_decoder_takes_four_evenly_spaced_depths() -> None:
    assert ViLUNet(1, 2, (32, 32), dim=8).depths == [6, 12, 18, 24]
    assert ViL2UNet(1, 2, (32, 32), dim=8).depths == [3, 6, 9, 12]


@pytest.mark.parametrize("network", [ViLUNet, ViL2UNet])
def test_pyramid_brings_the_shallowest_features_to_the_finest_map(network: type[nn.Module]) -> None:
    model = network(1, 2, **TOY_VIL)
    x = torch.randn(1, 1, 32, 48)
    tokens = model.encoder.features(x, model.depths)
    skips = model.pyramid(x, tokens)
    assert [tuple(s.shape[1:]) for s in skips] == [(4, 32, 48), (4, 16, 24), (4, 8, 12), (4, 4, 6), (16, 2, 3)]
    assert skips[-1] is tokens[-1]
    assert [sum(isinstance(m, nn.ConvTranspose2d) for m in way.modules()) for way in model.pyramid.lateral] == [3, 2, 1]
    changed = model.pyramid(x, [torch.randn_like(tokens[0]), *tokens[1:]])
    assert [torch.equal(a, b) for a, b in zip(skips, changed, strict=True)] == [True, False, True, True, True]


@pytest.mark.parametrize("network", [ViLUNet, ViL2UNet])
def test_parameters_are_listed_once_and_do_not_depend_on_deep_supervision(network: type[nn.Module]) -> None:
    on, off = network(1, 2, **TOY_VIL, deep_supervision=True), network(1, 2, **TOY_VIL)
    assert on.state_dict().keys() == off.state_dict().keys()
    assert not any(key.startswith("decoder.encoder.") for key in on.state_dict())


def test_token_size_sets_the_number_of_resolutions() -> None:
    network = ViLUNet.from_plan(1, 2, (30, 40), PLAN, True, dim=16, depth=3, token_size=8)
    assert network.deep_supervision_strides == ((1, 1), (2, 2), (4, 4))
    assert network.encoder.pos_embed.embed.shape == (1, 4, 5, 16)  # 30 x 40 is padded to 32 x 40
    assert [tuple(x.shape[1:]) for x in network(torch.randn(1, 1, 30, 40))] == [(2, 30, 40), (2, 15, 20), (2, 8, 10)]
    assert network.depths == [1, 2, 3]


def test_decoder_has_the_features_of_the_plan() -> None:
    def widths(architecture: dict, **options) -> list[int]:
        network = ViL2UNet.from_plan(1, 2, (32, 32), architecture, True, dim=8, depth=4, **options)
        return [head.in_channels for head in network.decoder.seg_layers][::-1]

    assert widths(PLAN) == [4, 6, 8, 10]
    assert widths({"features_per_stage": [4, 6]}) == [4, 6, 6, 6]
    assert widths(PLAN, features=(3, 5, 7, 9)) == [3, 5, 7, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token_size": 12}, "token_size=12 has to be a power of two"),
        ({"token_size": 8}, "token_size=8 needs 3 numbers of channels"),
        ({"depth": 3}, "depth=3: the decoder takes features from 4 depths"),
    ],
)
def test_network_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViLUNet(1, 2, **{**TOY_VIL, **arguments})
