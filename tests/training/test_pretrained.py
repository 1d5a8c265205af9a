"""The trainers of SAMUS: what stays as pretrained, through steps, weight decay, a checkpoint and DDP.

In this process, with small networks on the toy dataset of toy_training.
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from toy_training import PATCH, log_of, make

from nnunet_echo.networks import NETWORKS, create_network, load_pretrained
from nnunet_echo.training.pretrained import PretrainedTrainer
from nnunet_echo.training.trainer import TokenTrainer

pytest_plugins = ("toy_training",)
pytestmark = pytest.mark.usefixtures("toy_dataset")
SHA256 = "0f" * 32


class Toy(PretrainedTrainer):
    network_path = "samus_tra_lia"
    network_options = {**NETWORKS["samus_tra_lia"].toy, "use_checkpoint": True}
    enable_deep_supervision = False
    initial_lr = 1e-2
    weight_decay = 0.5


def batch() -> dict:
    return {"data": torch.randn(2, 1, *PATCH), "target": torch.randint(0, 2, (2, 1, *PATCH)), "keys": ["a", "b"]}


def pretrained_file(folder: Path) -> Path:
    """As `nnunet-echo weights` writes it."""
    network = create_network("samus_tra_lia", 1, 2, PATCH, **NETWORKS["samus_tra_lia"].toy)
    note = {"pretrained_sha256": torch.tensor(list(bytes.fromhex(SHA256)), dtype=torch.uint8)}
    torch.save({"network_weights": {**network.state_dict(), **note}}, folder / "start.pth")
    return folder / "start.pth"


def started(folder: Path | None = None) -> PretrainedTrainer:
    """A trainer as nnU-Net's command has it before the first epoch; in `folder` it finds its pretrained weights."""
    trainer = make(Toy)
    trainer.initialize()
    if folder is not None:
        load_pretrained_weights(trainer.network, str(pretrained_file(folder)))
    trainer.set_deep_supervision_enabled(False)
    return trainer


def values(trainer: PretrainedTrainer, frozen: bool) -> dict[str, Tensor]:
    network = trainer._bare_network()
    return {
        key: p.detach().clone()
        for key, p in network.named_parameters()
        if not key.startswith(network.decoder.unused) and network.is_frozen(key) == frozen
    }


def assert_frozen(trainer: PretrainedTrainer, before: dict[str, Tensor], trained: dict[str, Tensor]) -> None:
    after, moved = values(trainer, frozen=True), values(trainer, frozen=False)
    assert before and all(torch.equal(after[key], value) for key, value in before.items())
    stays = [key for key, value in trained.items() if torch.equal(moved[key], value)]
    # A norm takes this bias away: it moves by rounding or not at all.
    assert trained and not [key for key in stays if not key.endswith("lia.attention.conv1.bias")]


def test_without_weights_everything_trains_and_the_log_says_so() -> None:
    trainer = started()
    trainer.on_train_start()
    assert "No pretrained weights: everything trains, 0." in log_of(trainer)
    assert "nnunet-echo weights makes a file for -pretrained_weights" in log_of(trainer)
    before = {**values(trainer, frozen=True), **values(trainer, frozen=False)}
    for _ in range(3):
        trainer.train_step(batch())
    after = {**values(trainer, frozen=True), **values(trainer, frozen=False)}
    assert not [key for key, value in before.items() if torch.equal(after[key], value)]


def test_frozen_parameters_stay_over_ten_steps_and_a_resume(tmp_path: Path) -> None:
    trainer = started(tmp_path)
    trainer.on_train_start()
    assert f"Pretrained weights, SHA-256 {SHA256}: 0." in log_of(trainer)
    stay = re.search(r"train, (\d\.\d+) M parameters stay as they are", log_of(trainer))
    assert float(stay[1]) > 0
    in_optimizer = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert sorted(in_optimizer) == sorted(id(p) for p in trainer.network.parameters() if p.requires_grad)
    before, trained = values(trainer, frozen=True), values(trainer, frozen=False)
    batches = [batch() for _ in range(12)]
    for one in batches[:10]:
        trainer.train_step(one)
    assert_frozen(trainer, before, trained)
    trainer.on_epoch_start = trainer.on_epoch_end = lambda: None
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))

    resumed = started()
    assert all(p.requires_grad for p in values_of(resumed))
    resumed.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert resumed.network.pretrained
    for one in batches[10:]:
        trainer.train_step(deepcopy(one))
        resumed.train_step(deepcopy(one))
    assert_frozen(resumed, before, trained)
    unbroken = trainer.network.state_dict()
    assert all(torch.equal(value, unbroken[key]) for key, value in resumed.network.state_dict().items())


def values_of(trainer: PretrainedTrainer) -> list[torch.nn.Parameter]:
    network = trainer._bare_network()
    return [p for key, p in network.named_parameters() if not key.startswith(network.decoder.unused)]


def test_frozen_parameters_stay_in_ddp(tmp_path: Path) -> None:
    """DDP waits for a gradient of every parameter that wanted one when it was made: it has to be made anew."""
    trainer = started()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        trainer.network = DistributedDataParallel(trainer.network)
        trainer.is_ddp = True
        state = torch.load(pretrained_file(tmp_path), weights_only=True)["network_weights"]
        trainer.network.module.load_state_dict(state)
        assert isinstance(trainer.network, DistributedDataParallel)
        before, trained = values(trainer, frozen=True), values(trainer, frozen=False)
        for _ in range(3):
            trainer.train_step(batch())
        assert_frozen(trainer, before, trained)
    finally:
        torch.distributed.destroy_process_group()


def test_tokens_have_no_weight_decay(tmp_path: Path) -> None:
    trainer = started(tmp_path)
    decayed, spared = trainer.optimizer.param_groups
    offsets = trainer.network.decoder.seg_layers.offsets
    assert spared["weight_decay"] == 0 and decayed["weight_decay"] == 0.5
    assert any(p is offsets for p in spared["params"]) and not any(p is offsets for p in decayed["params"])


def test_a_token_trainer_leaves_out_what_never_trains() -> None:
    class Tokens(TokenTrainer):
        network_path = "samus"
        network_options = NETWORKS["samus"].toy
        enable_deep_supervision = False

    trainer = make(Tokens)
    trainer.initialize()
    (unused,) = {p for key, p in trainer.network.named_parameters() if key.endswith("not_a_point_embed.weight")}
    assert not any(p is unused for group in trainer.optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize(
    ("median", "of_base", "warns"),
    [
        ([20, 24], None, True),
        ([16, 24], None, False),
        ([20, 24], 0.5, False),
        ([16, 24], 2.0, True),
        (None, 1.0, False),
    ],
)
def test_a_patch_smaller_than_the_images_is_noted(
    monkeypatch: pytest.MonkeyPatch, median: list[int] | None, of_base: float | None, warns: bool
) -> None:
    """`of_base`: the median is said by a configuration of this spacing, from which the trained one inherits."""
    trainer = started()
    configurations = trainer.plans_manager.plans["configurations"]
    saying = configurations["2d"]
    if of_base is not None:
        saying = {"spacing": [of_base, of_base]}
        monkeypatch.setitem(configurations, "base", saying)
        monkeypatch.setitem(configurations["2d"], "inherits_from", "base")
    if median is not None:
        monkeypatch.setitem(saying, "median_image_size_in_voxels", median)
    trainer.on_train_start()
    assert ("is smaller than the median image" in log_of(trainer)) is warns


def test_weights_given_in_python_reach_a_training() -> None:
    """`load_pretrained` on the trainer's network, without nnU-Net's command."""
    trainer = started()
    state = {key: value.clone() for key, value in trainer.network.state_dict().items() if "Adapter" not in key}
    state = {k: v for k, v in state.items() if k.startswith(("image_encoder.", "prompt_encoder.", "mask_decoder."))}
    state = {re.sub(r"(blocks\.\d+\.mlp)\.fc", r"\1.lin", key): value for key, value in state.items()}
    state = {k: v for k, v in state.items() if "cnn_embed" not in k and "post_pos_embed" not in k}
    load_pretrained(trainer.network, state)
    before = values(trainer, frozen=True)
    in_optimizer = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert trainer.network.pretrained and all(p.requires_grad for p in in_optimizer)
    trainer.train_step(batch())
    assert all(torch.equal(values(trainer, frozen=True)[key], value) for key, value in before.items())
