"""SAMUS with TRA and LIA on clips: the identity that it starts as, what its modules see, and their parts."""

from __future__ import annotations

import pytest
import torch
from test_samus import FIXED, PATCH, TOY, toy, vary
from torch import nn

from nnunet_echo.networks.samus.temporal import CoordinateAttention, LocalMHRA, STAdapter, TemporalAttention


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("options", [TOY, {**FIXED, "lia": "neck", "norm": "group"}])
@pytest.mark.parametrize("frames", [1, 2, 10])
def test_a_fresh_network_computes_what_samus_does_on_each_frame(frames: int, options: dict, mode: str) -> None:
    """Bit for bit, and from one seed without loading anything."""
    samus_options = {key: value for key, value in options.items() if key not in ("lia", "norm")}
    torch.manual_seed(1)
    samus = toy(**samus_options).train(mode == "train")
    torch.manual_seed(1)
    clips = toy("samus_tra_lia", frames, **options).train(mode == "train")
    x = torch.randn(1, 1, frames, *PATCH)
    with torch.no_grad():
        expected = samus(x.transpose(1, 2).flatten(0, 1))
        assert torch.equal(clips(x), expected.unflatten(0, (1, frames)).transpose(1, 2))


@pytest.mark.parametrize("temporal", ["local_mhra", "st_adapter", "attention"])
def test_frames_are_told_apart_and_clips_too(temporal: str) -> None:
    """A frame changes its neighbours, or all frames, of its clip, and no other clip."""
    network = vary(toy("samus_tra_lia", 6, temporal=temporal)).double()
    x = torch.randn(2, 1, 6, *PATCH, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 1] += 1
    with torch.no_grad():
        touched = (network(changed) - network(x)).abs().amax((1, 3, 4)) > 1e-9
    assert not touched[1].any()
    # Two global blocks, each with the frames next to it.
    assert touched[0].tolist() == ([True] * 6 if temporal == "attention" else [True] * 4 + [False] * 2)


@pytest.mark.parametrize("options", [{"temporal": "none"}, {"lia": "none"}, {"temporal": "none", "lia": "none"}])
def test_without_a_module_its_parameters_are_gone(options: dict) -> None:
    keys = set(toy("samus_tra_lia", 2, **options).state_dict())
    assert any(".tra." in key for key in keys) == ("temporal" not in options)
    assert any(".lia." in key for key in keys) == ("lia" not in options)


def test_attention_of_rows_and_columns_takes_part_where_it_stands() -> None:
    x = torch.randn(1, 1, 2, *PATCH)
    for place in ("branch", "neck"):
        network = toy("samus_tra_lia", 2, lia=place).eval()
        before = network(x)
        for key, parameter in network.named_parameters():
            if key.endswith("gamma"):
                nn.init.ones_(parameter)
        assert not torch.allclose(network(x), before)


def test_images_and_clips_have_the_same_weights() -> None:
    clips, images = vary(toy("samus_tra_lia", 3)), toy("samus_tra_lia").eval()
    images.load_state_dict(clips.state_dict())
    x = torch.randn(2, 1, *PATCH)
    torch.testing.assert_close(images(x), clips(x[:, :, None])[:, :, 0])
    assert not torch.allclose(clips(torch.stack([x] * 3, 2))[:, :, 1], images(x))  # a neighbour is not nothing


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (LocalMHRA(6), (2, 6, 3, 4, 5)),
        (LocalMHRA(6, norm_kind="group"), (2, 6, 3, 4, 5)),
        (STAdapter(6, 3), (2, 3, 4, 5, 6)),
        (TemporalAttention(6, 2), (2, 3, 4, 5, 6)),
    ],
)
def test_what_is_added_starts_at_zero(module: nn.Module, shape: tuple[int, ...]) -> None:
    assert not module(torch.randn(shape)).any()
    assert vary(module)(torch.randn(shape)).shape == shape


def test_temporal_attention_is_attention_over_the_frames_of_a_pixel() -> None:
    module = vary(TemporalAttention(6, 1)).double()
    x = torch.randn(1, 4, 2, 2, 6, dtype=torch.float64)
    q, k, v = module.qkv(module.norm(x[0, :, 1, 0])).chunk(3, -1)
    expected = module.proj((q @ k.T / 6**0.5).softmax(-1) @ v)
    torch.testing.assert_close(module(x)[0, :, 1, 0], expected)


def test_coordinate_attention_weights_rows_and_columns() -> None:
    module = CoordinateAttention(4, 4).double().eval()
    ratio = module(torch.ones(1, 4, 3, 5, dtype=torch.float64) + torch.rand(1, 4, 3, 5)) / 1
    assert ratio.shape == (1, 4, 3, 5)
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    weights = (module(x) / x)[0, 0]  # an outer product: one number of each row times one of each column
    torch.testing.assert_close(weights * weights[0, 0], weights[:, :1] * weights[:1])


def test_odd_kernels_alone() -> None:
    with pytest.raises(ValueError, match="pos_kernel_size=4 has to be odd"):
        LocalMHRA(4, pos_kernel_size=4)
    with pytest.raises(ValueError, match=r"kernel_size=\(2, 1, 1\): expected odd numbers"):
        STAdapter(4, 2, (2, 1, 1))
