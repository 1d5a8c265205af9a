"""SS2D against four scans written out, its initialisation and its precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_vision import TOY_VM_UNET, vary

from nnunet_echo.layers import mamba
from nnunet_echo.layers.ss2d import SS2D
from nnunet_echo.networks.vm_unet import VMUNet
from nnunet_echo.ops.selective_scan import selective_scan


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
