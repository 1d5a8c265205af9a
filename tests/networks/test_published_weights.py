"""Published weights of VM-UNet as people save them: found in their wrappings, or refused with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_echo.networks import from_upstream
from nnunet_echo.networks.vm_unet import VSSM

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
            r"in state_dict\['model'\] do not fit.*By the names they have here: 1 missing.*kwargs are",
        ),
        (lambda w: {}, "no weights of vm_unet"),
        (
            lambda w: {key: value.to(torch.int8) for key, value in w.items()},
            r"67 not of plain numbers: patch.*torch.int8",
        ),
        (
            lambda w: {key: value * float("nan") if value.is_floating_point() else value for key, value in w.items()},
            r"67 with NaN or infinite values: patch",
        ),
        (lambda w: {key: value.to_sparse() for key, value in w.items()}, "67 not of plain numbers: .*torch.sparse_coo"),
        (lambda w: {key: value.to("meta") for key, value in w.items()}, "67 not of plain numbers: .*on meta"),
        *(
            (
                lambda w, end=end: {key.replace(".weight", end): value for key, value in w.items()},
                "parametrisation. Save",
            )
            for end in (".weight_orig", ".weight_g", ".parametrizations.weight.original")
        ),
    ],
)
def test_weights_that_cannot_be_unwrapped_say_why(wrap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_upstream("vm_unet", TOY_VSSM, wrap(published()))
