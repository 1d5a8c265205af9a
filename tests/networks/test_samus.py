"""What is special to SAMUS; clips are in test_samus_clips, the battery that all networks pass in test_networks."""

from __future__ import annotations

import builtins
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_echo.networks import NETWORKS, create_network
from nnunet_echo.networks.samus.encoder import SAMUSEncoder
from nnunet_echo.networks.samus.published import PublishedSAMUS

PATCH = (32, 48)
TOY = NETWORKS["samus"].toy
FIXED = {**TOY, "grid": "fixed", "img_size": 64}


def toy(name: str = "samus", frames: int | None = None, channels: int = 1, classes: int = 4, **options) -> nn.Module:
    patch = PATCH if frames is None else (frames, *PATCH)
    return create_network(name, channels, classes, patch, **{**TOY, **options})


def vary(network: nn.Module) -> nn.Module:
    """Random values for the parameters that start at zero, so that they take part."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


# The image's way through


def test_building_a_network_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    toy()  # what is imported, is imported
    monkeypatch.setattr(builtins, "open", lambda *a, **k: pytest.fail("a file is read"))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("weights are read"))
    toy()
    toy("samus_tra_lia", 2)


def test_images_are_resized_inside_and_the_decoders_logits_back() -> None:
    network = vary(toy(**FIXED))
    x = torch.randn(1, 1, 40, 56)
    embedding = network.image_encoder(F.interpolate(x, (64, 64), mode="bilinear", align_corners=False))
    logits = network.decoder.logits(embedding, network.prompt_encoder, network.mask_decoder)
    assert logits.shape == (1, 4, 128, 128)
    torch.testing.assert_close(network(x), F.interpolate(logits, (40, 56), mode="bilinear", align_corners=False))


def test_a_native_grid_has_a_token_for_every_8_pixels() -> None:
    network = toy()
    seen = []
    network.image_encoder.neck.register_forward_hook(lambda _module, _args, out: seen.append(tuple(out.shape[2:])))
    for size in ((32, 48), (33, 41), (1, 9)):
        network(torch.randn(1, 1, *size))
    assert seen == [(4, 6), (5, 6), (2, 2)]


def test_a_grid_of_32_is_the_published_one_on_both_ways() -> None:
    """At 256 x 256 `native` and `fixed` are one network."""
    one, other = (toy(grid=grid, img_size=256) for grid in ("fixed", "native"))
    other = create_network("samus", 1, 4, (256, 256), **{**TOY, "grid": "native"}).eval()
    other.load_state_dict(vary(one).state_dict())
    x = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x))


def test_channels() -> None:
    grey, colour = vary(toy()), toy(channels=3).eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, *PATCH)
    torch.testing.assert_close(colour(x.expand(-1, 3, -1, -1)), grey(x))
    five = toy(channels=5)
    assert five.input_conv.weight.shape == (3, 5, 1, 1) and five(torch.randn(1, 5, *PATCH)).shape == (1, 4, *PATCH)


def test_unit_range_forgets_scale_and_offset_of_each_image() -> None:
    network, plain = vary(toy(unit_range=True)), vary(toy())
    x = torch.randn(2, 1, *PATCH)
    scale, offset = torch.tensor([3.0, 0.2])[:, None, None, None], torch.tensor([-5.0, 1.0])[:, None, None, None]
    torch.testing.assert_close(network(x * scale + offset), network(x), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain(x * scale + offset), plain(x), atol=1e-2)
    assert network(torch.zeros(1, 1, *PATCH)).isfinite().all()


def test_recomputation_changes_nothing() -> None:
    x = torch.randn(2, 1, 3, *PATCH)
    gradients, statistics = [], []
    plain = toy("samus_tra_lia", 3, use_checkpoint=False)
    for network in (plain, toy("samus_tra_lia", 3)):
        network.load_state_dict(plain.state_dict())
        network.mixers[0].tra.pos_embed[0].reset_running_stats()
        network(x).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
        statistics.append(network.mixers[0].tra.pos_embed[0].running_mean)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert torch.equal(*statistics)  # the norms see each batch once


def test_recomputation_keeps_less() -> None:
    def kept(network: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network.image_encoder(torch.randn(1, 1, 128, 128))
        return sum(sizes.values())

    def of_nine_blocks(use_checkpoint: bool) -> int:
        few, many = (toy(depth=depth, use_checkpoint=use_checkpoint) for depth in (3, 12))
        return kept(many) - kept(few)

    assert of_nine_blocks(True) < 0.3 * of_nine_blocks(False)


def test_positions_are_computed_once_in_eval_and_anew_when_weights_change() -> None:
    network = vary(toy())
    calls = []
    network.image_encoder.post_pos_embed.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(1, 1, *PATCH)
    with torch.no_grad():
        first = network(x)
        assert torch.equal(network(x), first) and len(calls) == 1
        network(torch.randn(1, 1, 40, 40))  # another grid
        assert len(calls) == 2
        network.image_encoder.pos_embed += 1
        changed = network(x)
        assert len(calls) == 3 and not torch.allclose(changed, first)
        network.image_encoder.pos_embed.data -= 1  # which PyTorch does not count
        network.train().eval()
        torch.testing.assert_close(network(x), first)
        state = deepcopy(network.state_dict())
        network.load_state_dict({**state, "image_encoder.pos_embed": state["image_encoder.pos_embed"] + 1})
        torch.testing.assert_close(network(x), changed)
        network.double()
        torch.testing.assert_close(network(x.double()).float(), changed, rtol=1e-3, atol=1e-4)
    assert network(x.double()).requires_grad
    with torch.inference_mode():
        network(x.double())
    network(x.double()).mean().backward()
    assert network.image_encoder.pos_embed.grad.any()


# Classes


def test_tokens_start_at_sams_clicks() -> None:
    network = toy()
    embeddings = [network.prompt_encoder.point_embeddings[i].weight[0] for i in (0, 1, 1, 1)]
    offsets = network.decoder.tokens(network.prompt_encoder) - torch.stack(embeddings)
    torch.testing.assert_close(offsets, network.decoder.seg_layers.offsets.detach() * 1, rtol=1e-4, atol=1e-5)
    # As clicks at different places differ: a start close to one click gives all objects one mask.
    places = network.prompt_encoder.pe_layer(8, 8)
    assert 0.7 < offsets.std() / places.std() < 1.4
    single = toy(classes=1)
    torch.testing.assert_close(
        single.decoder.tokens(single.prompt_encoder)[0],
        single.prompt_encoder.point_embeddings[1].weight[0] + single.decoder.seg_layers.offsets[0],
    )


@pytest.mark.parametrize("options", [TOY, FIXED])
def test_a_class_is_one_pass_of_the_published_decoder(options: dict) -> None:
    network = vary(toy(**options))
    x = torch.randn(2, 1, *PATCH)
    with torch.no_grad():
        embedding = network._encode(x, ())
        for k, token in enumerate(network.decoder.tokens(network.prompt_encoder)):
            masks, _ = network.mask_decoder(
                embedding,
                network.prompt_encoder.pe_layer(*embedding.shape[2:]),
                token.expand(2, 1, -1),
                network.prompt_encoder.no_mask(2, embedding.shape[2:]),
                multimask_output=False,
            )
            expected = F.interpolate(masks, PATCH, mode="bilinear", align_corners=False)
            torch.testing.assert_close(network(x)[:, k : k + 1], expected, rtol=1e-4, atol=1e-5)


def test_clicks_are_the_published_networks() -> None:
    """In Python, to compare: no trainer has them."""
    network = vary(toy(**FIXED))
    side, dim = 64, TOY["decoder_dim"]
    encoder = {key: TOY[key] for key in ("embed_dim", "depth", "num_heads", "window_size", "global_attn_indexes")}
    transformer = {"embedding_dim": dim, "num_heads": 8, "mlp_dim": TOY["decoder_mlp_dim"]}
    published = PublishedSAMUS(
        {**encoder, "img_size": side, "patch_size": 2, "out_chans": dim},
        {"embed_dim": dim, "image_embedding_size": (32, 32), "input_image_size": (side, side)},
        {"transformer_dim": dim, "transformer": transformer},
    ).eval()
    keys = published.load_state_dict(network.state_dict(), strict=False)
    assert not keys.missing_keys
    x, points, labels = torch.randn(2, 1, side, side), torch.rand(2, 1, 2) * side, torch.ones(2, 1, dtype=torch.int)
    expected = F.interpolate(published(x, points, labels)[0], (side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.segment_at(x, points, labels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": "free"}, r"grid='free': expected one of \('fixed', 'native'\)"),
        ({"decoder": "click"}, r"decoder='click': expected one of \('class_tokens', 'class_masks'\)"),
        ({"decoder_dim": 24}, "decoder_dim=24: expected a multiple of 16"),
        ({**FIXED, "img_size": 100}, "img_size=100: expected 32 times a power of 2"),
        ({"embed_dim": 25}, "embed_dim=25: expected a multiple of num_heads=2 and of 4"),
        ({"global_attn_indexes": (1, 9)}, r"global_attn_indexes=\(1, 9\): expected numbers of blocks, from 0 to 2"),
        ({"temporal": "lstm"}, "temporal='lstm': expected one of .*'local_mhra', 'st_adapter'"),
        ({"lia": "stem"}, r"lia='stem': expected one of \('branch', 'neck', 'none'\)"),
        ({"norm": "layer"}, r"norm='layer': expected one of \('batch', 'group'\)"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy("samus_tra_lia", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 3}, "patch_size=3: expected a power of 2"),
        ({"img_size": 60, "patch_size": 8}, "img_size=60: expected a multiple of patch_size=8"),
        ({"img_size": 1024, "patch_size": 8}, "img_size=1024: .* at most 64 times"),
    ],
)
def test_encoders_that_cannot_be(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMUSEncoder(embed_dim=16, depth=2, num_heads=2, global_attn_indexes=(1,), **arguments)
