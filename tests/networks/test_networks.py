"""One battery that every row of the table passes; compilers and exports are in test_exports."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from network_cases import (
    CASES,
    build,
    every_network,
    every_network_but_slow_ones,
    image,
    outputs_and_gradients,
    slow_but_for,
)
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor, nn


def sizes(output: Tensor | list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in (output if isinstance(output, list) else [output])]


@every_network
@pytest.mark.parametrize(("channels", "classes"), [(1, 4), (3, 2)])
def test_shapes(name: str, channels: int, classes: int) -> None:
    patch = CASES[name][2]
    network = build(name, channels, classes, deep_supervision=True)
    strides = network.deep_supervision_strides
    assert set(strides[0]) == {1}
    x = image(name, channels, batch=2)
    expected = [(2, classes, *(n // s for n, s in zip(patch, stride, strict=True))) for stride in strides]
    assert sizes(network(x)) == expected
    network.decoder.deep_supervision = False
    full = network(x)
    assert isinstance(full, Tensor)
    assert sizes(full) == expected[:1]
    network.decoder.deep_supervision = True
    assert sizes(network(x)) == expected


@every_network
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 37, 53), (7, 50, 29)])
def test_sizes_that_no_stride_divides(name: str, size: tuple[int, ...]) -> None:
    network = build(name, deep_supervision=True)
    size = size[-len(CASES[name][2]) :]
    expected = [
        (1, 4, *(-(-n // s) for n, s in zip(size, stride, strict=True))) for stride in network.deep_supervision_strides
    ]
    output = network(torch.randn(1, 1, *size))
    assert sizes(output) == expected
    assert all(x.isfinite().all() for x in output)


@every_network
def test_a_wrong_number_of_axes_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="input has shape .* expected"):
        build(name)(image(name)[None])


@every_network
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name, deep_supervision=True)
    for module in network.modules():  # zero at the start by design (last norm of a residual block, gates of the mLSTM)
        for parameter in module.parameters(recurse=False):
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    output = network(image(name, batch=2))
    sum(x.square().mean() for x in output).backward()
    trained = {key: p for key, p in network.named_parameters() if p.requires_grad}  # SAM has parts without a use here
    dead = [key for key, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not dead
    assert all(p.grad.isfinite().all() for p in trained.values())


@every_network
def test_state_dict_round_trip(name: str) -> None:
    one, other = build(name, deep_supervision=True).eval(), build(name, deep_supervision=False).eval()
    other.load_state_dict(one.state_dict(), strict=True)
    x = image(name)
    torch.testing.assert_close(one(x)[0], other(x), rtol=0, atol=0)


@slow_but_for("umamba_enc-2d")
def test_training_is_deterministic(name: str) -> None:
    """Bit by bit, with as many threads as PyTorch takes."""
    x = image(name, batch=2)
    weights = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            torch.manual_seed(1)
            network = build(name, deep_supervision=True)
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99, nesterov=True)
            for _ in range(3):
                outputs_and_gradients(network, x)
                optimizer.step()
            weights.append(network.state_dict())
    finally:
        torch.set_num_threads(before)
    assert all(x.isfinite().all() for x in weights[0].values())  # NaN equals nothing
    assert all(torch.equal(x, weights[1][key]) for key, x in weights[0].items())


@every_network_but_slow_ones
def test_a_few_steps_overfit_one_image(name: str) -> None:
    patch = CASES[name][2]
    network = build(name)
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in patch), indexing="ij"))
    target = (grid.square().sum(0) < 0.5).long() + (grid[-1] > 0.3).long()[None]  # an ellipse, and a side of the image
    x = torch.randn(1, 1, *patch) + target
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0], losses[::8]


@every_network_but_slow_ones
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_stays_finite(name: str, dtype: torch.dtype) -> None:
    network = build(name)
    x = 100 * image(name)  # nnU-Net's z-scored images stay within about 10
    with torch.autocast("cpu", dtype=dtype):
        output = network(x)
        loss = F.cross_entropy(output.float(), torch.zeros(1, *x.shape[2:], dtype=torch.long))
    assert output.isfinite().all()
    loss.backward()
    # PyTorch 2.15 leaves parts of the weight gradient of a 3D convolution in bfloat16 unwritten on a CPU.
    skip = 5 if dtype == torch.bfloat16 else None
    grads = [p.grad for p in network.parameters() if p.grad is not None and p.ndim != skip]  # unused heads have none
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


@every_network
def test_weights_of_other_classes_are_taken_over_but_for_the_last_layers(name: str, tmp_path: Path) -> None:
    """By nnU-Net's own loader, as `nnUNetv2_train -pretrained_weights` has it."""
    four, two = build(name, classes=4), build(name, classes=2)
    before = {key: value.clone() for key, value in two.state_dict().items()}
    torch.save({"network_weights": four.state_dict()}, tmp_path / "four.pth")
    load_pretrained_weights(two, str(tmp_path / "four.pth"))
    other = {key for key, value in four.state_dict().items() if value.shape != before[key].shape}
    assert other and all(".seg_layers." in key for key in other)
    for key, value in two.state_dict().items():
        expected = before[key] if ".seg_layers." in key else four.state_dict()[key]
        assert torch.equal(value, expected), key


@every_network
def test_a_copy_is_the_same_network(name: str) -> None:
    network, x = build(name).eval(), image(name)
    with torch.no_grad():
        assert torch.equal(deepcopy(network)(x), network(x))
