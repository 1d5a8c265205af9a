"""What is special to VM-UNet and the Vision-LSTM networks; the battery that all networks pass is in test_networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.layers import mamba
from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.networks import from_upstream
from nnunet_echo.networks.vil.encoder import BOTTOM_RIGHT, TOP_LEFT, PositionEmbed, VisionLSTM, VisionLSTM2
from nnunet_echo.networks.vil.unet import ViL2UNet, ViLUNet
from nnunet_echo.networks.vm_unet import VSSM, PatchExpand, PatchMerging, VMUNet
from nnunet_echo.ops.selective_scan import selective_scan

TOY_VM_UNET = {"depths": (1, 1), "depths_decoder": (1, 1), "dims": 8, "d_state": 4}
TOY_VIL = {"patch_size": (32, 48), "dim": 16, "depth": 4, "features": (4, 4, 4, 4)}
PLAN = {"features_per_stage": [4, 6, 8, 10, 12, 12]}


def vary(network: nn.Module) -> nn.Module:
    """Random values for the parameters that start at zero, so that they take part."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


# SS2D and VM-UNet


def test_ss2d_is_four_scans_along_explicit_paths() -> None:
    height, width, d_inner = 3, 4, 8
    layer = vary(SS2D(4, d_state=3)).double()
    x = torch.randn(2, height, width, 4, dtype=torch.float64)
    u, z = layer.in_proj(x).chunk(2, dim=-1)
    u = F.silu(layer.conv2d(u.permute(0, 3, 1, 2)))
    rows = [(r, c) for r in range(height) for c in range(width)]
    columns = [(r, c) for c in range(width) for r in range(height)]
    expected = torch.zeros(2, height, width, d_inner, dtype=torch.float64)
    for k, path in enumerate([rows, columns, rows[::-1], columns[::-1]]):
        tokens = torch.stack([u[:, :, r, c] for r, c in path], dim=-1)  # (B, d_inner, L)
        delta, B, C = (layer.x_proj_weight[k] @ tokens).split([1, 3, 3], dim=1)
        own = slice(k * d_inner, (k + 1) * d_inner)
        y = selective_scan(
            tokens,
            layer.dt_projs_weight[k] @ delta,
            -layer.A_logs[own].exp(),
            B,
            C,
            layer.Ds[own],
            delta_bias=layer.dt_projs_bias[k],
            delta_softplus=True,
            backend="reference",
        )
        for t, (r, c) in enumerate(path):
            expected[:, r, c] += y[:, :, t]
    expected = layer.out_proj(layer.out_norm(expected) * F.silu(z))
    torch.testing.assert_close(layer(x), expected)


def test_ss2d_initialisation_survives_that_of_vm_unet() -> None:
    network = VMUNet(1, 2, **TOY_VM_UNET)
    layers = [module for module in network.modules() if isinstance(module, SS2D)]
    assert len(layers) == 4
    for layer in layers:
        steps = F.softplus(layer.dt_projs_bias)
        assert steps.min() > 0.9e-3
        assert steps.max() < 0.11
        torch.testing.assert_close(-layer.A_logs[0].exp(), -torch.arange(1.0, 5.0))
        assert layer.dt_projs_weight.abs().max() > 0.2  # trunc_normal of 0.02 would end at 0.04 or so
        assert layer.A_logs._no_weight_decay
        assert layer.Ds._no_weight_decay
    assert 0.015 < network.vmunet.layers[1].blocks[0].self_attention.in_proj.weight.std() < 0.025


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ss2d_scans_in_full_precision_under_autocast(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def scan(*tensors: Tensor | None, **options) -> Tensor:
        seen.extend(tensor for tensor in tensors if tensor is not None)
        return selective_scan(*tensors, **options)

    monkeypatch.setattr(mamba, "selective_scan", scan)
    with torch.autocast("cpu", dtype=dtype):
        assert SS2D(4)(torch.randn(1, 3, 5, 4)).dtype == dtype
    assert len(seen) == 7
    assert all(tensor.dtype == torch.float32 for tensor in seen)


def test_ss2d_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match="d_conv=4 has to be odd"):
        SS2D(4, d_conv=4)


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


# stochastic depth


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


# Vision-LSTM, the encoders


def depends_on_last_patch(encoder: nn.Module) -> bool:
    """Whether the first token's features depend on the bottom right patch of a 32 x 32 image."""
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    encoder.features(image, [len(encoder.blocks)])[0][0, :, 0, 0].square().sum().backward()
    return bool(image.grad[..., 24:, 24:].any())


def vil(**arguments) -> VisionLSTM:
    return vary(VisionLSTM(dim=16, input_shape=(1, 32, 32), patch_size=8, depth=2, **arguments))


def vil2(**arguments) -> VisionLSTM2:
    return vary(VisionLSTM2(**{"dim": 16, "input_shape": (1, 32, 32), "patch_size": 8, "depth": 1, **arguments}))


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


# Vision-LSTM, the networks


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


def test_older_checkpoints_have_the_last_layer_under_its_published_name() -> None:
    network = VMUNet(1, 3, **TOY_VM_UNET)
    older = {k.replace("decoder.seg_layers.0.", "vmunet.final_conv."): v for k, v in network.state_dict().items()}
    assert "vmunet.final_conv.weight" in older
    again = VMUNet(1, 3, **TOY_VM_UNET)
    again.load_state_dict(older)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    assert "vmunet.final_conv.weight" in older  # the checkpoint itself stays


TOY_VSSM = {
    "in_chans": 3,
    "num_classes": 1,
    "depths": [1, 1],
    "depths_decoder": [1, 1],
    "dims": [4, 8],
    "dims_decoder": [8, 4],
    "d_state": 2,
}


def published() -> dict[str, torch.Tensor]:
    """With values of its own in every weight."""
    return {f"vmunet.{key}": torch.randn_like(value) for key, value in VSSM(**TOY_VSSM).state_dict().items()}


def under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def as_a_module(weights: dict[str, torch.Tensor]) -> nn.Module:
    network = VSSM(**TOY_VSSM)
    network.load_state_dict({key.removeprefix("vmunet."): value for key, value in weights.items()})
    return network


def with_thop(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    zero = torch.zeros(1)
    return {**weights, "total_ops": zero, "vmunet.total_params": zero, "vmunet.final_up.norm.total_ops": zero}


WRAPPINGS = {
    "as it is": lambda w: w,
    "without vmunet.": lambda w: {key.removeprefix("vmunet."): value for key, value in w.items()},
    "DataParallel": lambda w: under("module.", w),
    "compiled": lambda w: under("_orig_mod.", w),
    "both": lambda w: under("module._orig_mod.module.", w),
    "a compiled part": lambda w: {key.replace("vmunet.layers.", "vmunet.layers._orig_mod."): x for key, x in w.items()},
    "Lightning": lambda w: {"state_dict": under("model.", w), "epoch": 3, "optimizer_states": [{"state": {}}]},
    "nnU-Net": lambda w: {"network_weights": w, "optimizer_state": {"state": {0: {"momentum": torch.ones(3)}}}},
    "model_state_dict": lambda w: {"model_state_dict": under("module.", w), "min_loss": torch.tensor(0.1)},
    "nested": lambda w: {"net": {"state_dict": under("net.module.", w)}},
    "an average": lambda w: {"ema": {"n_averaged": torch.tensor(5), **under("module.", w)}},
    "a network in two": lambda w: {"discriminator": {"weight": torch.ones(3)}, "generator": w},
    "thop": with_thop,
    "thop in DataParallel": lambda w: {"model": under("module.", with_thop(w))},
    "numpy": lambda w: {"params": {key: value.numpy() for key, value in w.items()}},
    "lists": lambda w: {"models": [w, {}], "losses": (0.5, torch.ones(3))},
    "a module": as_a_module,
    "modules": lambda w: {"model": as_a_module(w), "epoch": 1},
    "ours": lambda w: {key.replace("vmunet.final_conv.", "decoder.seg_layers.0."): x for key, x in w.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_published_weights_as_people_save_them(wrapping: str) -> None:
    weights = published()
    network = from_upstream("vm_unet", TOY_VSSM, WRAPPINGS[wrapping](weights))
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[f"vmunet.{key}"])


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda w: {"model": w, "ema": {"module." + k: v + 1 for k, v in w.items()}},
            r"several sets of weights fit vm_unet: in state_dict\['model'\], in state_dict\['ema'\]. Pass one",
        ),
        (lambda w: {**w, **under("module.", w)}, "hold vmunet.*twice, as vmunet.*and module.vmunet"),
        (
            lambda w: {"state_dict": {**under("model.", w), "loss.weight": torch.ones(2)}},
            r"in state_dict\['state_dict'\] do not fit.*under 'model.vmunet.', beside 1 others \(loss.weight\)",
        ),
        (lambda w: {"epoch": 3, "optimizer": {"state": {}}}, "no weights of vm_unet: state_dict holds no tensors"),
        (
            lambda w: {"model": dict(list(w.items())[1:])},
            r"in state_dict\['model'\] do not fit.* 1 missing.*kwargs are",
        ),
        (lambda w: {}, "no weights of vm_unet"),
        (
            lambda w: {key: value.to(torch.int8) for key, value in w.items()},
            r"67 not of plain numbers: patch.*torch.int8",
        ),
        (lambda w: {key: value.to_sparse() for key, value in w.items()}, "67 not of plain numbers: .*torch.sparse_coo"),
        (lambda w: {key: value.to("meta") for key, value in w.items()}, "67 not of plain numbers: .*on meta"),
        *(
            (
                lambda w, end=end: {key.replace(".weight", end): value for key, value in w.items()},
                "parametrisation: save",
            )
            for end in (".weight_orig", ".weight_g", ".parametrizations.weight.original")
        ),
    ],
)
def test_weights_that_cannot_be_unwrapped_say_why(wrap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_upstream("vm_unet", TOY_VSSM, wrap(published()))
