"""The convolution in front of the scan, in C: against its definition in float64, every instruction set and layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from test_scan import assert_close
from test_scan_cpu import compiled, lay_out, width  # noqa: F401 (the fixture is used by name)
from torch import Tensor

from nnunet_echo.ops.causal_conv import causal_conv_silu
from nnunet_echo.ops.selective_scan import cpu

every_width = pytest.mark.usefixtures("width")


def conv_inputs(
    batch: int = 2, channels: int = 38, length: int = 197, taps: int = 4, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    shapes = {"u": (batch, channels, length), "weight": (channels, 1, taps), "bias": (channels,)}
    return {name: torch.randn(shape, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}


def outputs_and_gradients(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], reverse: Sequence[bool]
) -> dict[str, Tensor]:
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    y = function(**leaves, reverse=reverse)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (y * weight.to(y)).sum().backward()
    return {"y": y, **{f"gradient at {name}": x.grad for name, x in leaves.items()}}


def by_definition(u: Tensor, weight: Tensor, bias: Tensor, reverse: Sequence[bool]) -> Tensor:
    """The sum over taps, one group after the other, flipped where it reads backwards."""
    parts, groups = [], len(reverse)
    for x, w, b, turn in zip(u.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), reverse, strict=True):
        x = F.pad(x.flip(-1) if turn else x, (w.shape[-1] - 1, 0)).unfold(-1, w.shape[-1], 1)
        y = F.silu((x * w).sum(-1) + b[:, None])
        parts.append(y.flip(-1) if turn else y)
    return torch.cat(parts, dim=1)


def check(inputs: dict[str, Tensor], reverse: Sequence[bool] = (False, True)) -> None:
    truth = outputs_and_gradients(by_definition, {k: x.double() for k, x in inputs.items()}, reverse)
    ours = outputs_and_gradients(causal_conv_silu, inputs, reverse)
    assert_close(ours, truth, 1e-6)


@compiled
@every_width
@pytest.mark.parametrize("taps", [1, 4, 17])
@pytest.mark.parametrize("length", [1, 3, 63, 64, 197])
def test_it_is_the_sum_over_taps(length: int, taps: int) -> None:
    check(conv_inputs(length=length, taps=taps))


@compiled
@every_width
@pytest.mark.parametrize("channels", [2, 32, 74])
@pytest.mark.parametrize("reverse", [(False,), (True,), (True, False)])
def test_directions_and_any_number_of_channels(channels: int, reverse: tuple[bool, ...]) -> None:
    check(conv_inputs(channels=channels), reverse)


@compiled
@every_width
@pytest.mark.parametrize("layout", ["token by token", "every second"])
def test_any_layout_in_memory(layout: str) -> None:
    inputs = conv_inputs()
    views = inputs | {"u": lay_out(inputs["u"], layout)}
    assert not views["u"].is_contiguous()
    ours, truth = (outputs_and_gradients(causal_conv_silu, x, (False, True)) for x in (views, inputs))
    assert all(torch.equal(x, ours[k]) for k, x in truth.items())


@pytest.mark.parametrize(("taps", "dtype"), [(4, torch.float64), (18, torch.float32)])
def test_what_c_cannot_is_pytorchs(taps: int, dtype: torch.dtype) -> None:
    check(conv_inputs(taps=taps, dtype=dtype))


@compiled
@every_width
def test_every_element_is_written() -> None:
    torch.use_deterministic_algorithms(True)  # new tensors are full of NaN then
    try:
        check(conv_inputs())
    finally:
        torch.use_deterministic_algorithms(False)


@compiled
def test_threads_do_not_change_a_bit() -> None:
    inputs, results, before = conv_inputs(batch=3), [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(outputs_and_gradients(causal_conv_silu, inputs, (False, True)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, results[1][name]) for name, x in results[0].items())


@compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_operator_is_registered_well() -> None:
    inputs = conv_inputs(length=20)
    u, weight, bias = inputs["u"], inputs["weight"].squeeze(1), inputs["bias"]
    torch.library.opcheck(cpu._convolve, tuple(x.requires_grad_() for x in (u, weight, bias)) + ([True, False],))
