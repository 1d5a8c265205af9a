"""EchoTrainer, TokenTrainer and SafeTrainer in this process, with a stub network and a toy dataset of noise."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_echo.training.trainer import EchoTrainer, TokenTrainer, other_lengths

PATCH = (16, 24)
CASES = [f"p{patient}_{phase}" for patient in range(6) for phase in ("ED", "ES")]
DATASET_JSON = {
    "channel_names": {"0": "ultrasound"},
    "labels": {"background": 0, "LV": 1},
    "file_ending": ".nii.gz",
    "case_id_pattern": r"(?P<patient>p\d)_(?P<phase>ED|ES)",
}
CONFIGURATION = {
    "data_identifier": "nnUNetPlans_2d",
    "batch_size": 2,
    "patch_size": list(PATCH),
    "spacing": [1.0, 1.0],
    "use_mask_for_norm": [False],
    "batch_dice": True,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "dropout_op": None,
            "nonlin": "torch.nn.LeakyReLU",
            "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
            "features_per_stage": [4, 8, 8, 8],
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}


class Stub(nn.Module):
    """The least that is a network: logits at strides 1, 2, 4, of which only the first without deep supervision."""

    deep_supervision_strides = ((1, 1), (2, 2), (4, 4))

    def __init__(self, channels, classes, deep_supervision):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3, padding=1)
        self.norm = nn.InstanceNorm2d(classes, affine=True)
        self.dynamics = nn.Parameter(torch.ones(classes, 1, 1))
        self.dynamics._no_weight_decay = True
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision

    @classmethod
    def from_plan(cls, num_input_channels, num_classes, patch_size, architecture, deep_supervision, **options):
        network = cls(num_input_channels, num_classes, deep_supervision)
        network.arguments = patch_size, architecture, options
        return network

    def forward(self, x):
        logits = self.dynamics * self.norm(self.conv(x))
        pooled = [nn.functional.avg_pool2d(logits, stride) for stride, _ in self.deep_supervision_strides]
        return pooled if self.decoder.deep_supervision else logits


class Toy(EchoTrainer):
    network_path = f"{__name__}:Stub"
    num_epochs = 3
    num_iterations_per_epoch = 4


class ToyTokens(TokenTrainer):
    network_path = f"{__name__}:Stub"
    num_epochs = 3
    num_iterations_per_epoch = 4


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preprocessed") / "Dataset001_Toy"
    (folder / "nnUNetPlans_2d").mkdir(parents=True)
    (folder / "dataset_fingerprint.json").write_text("{}")
    rng = np.random.default_rng(0)
    for case in CASES:
        image = rng.normal(size=(1, 1, 20, 30)).astype(np.float32)
        label = np.zeros((1, 1, 20, 30), np.int16)
        label[..., 5:15, 8:20] = 1
        properties = {"class_locations": {1: np.argwhere(label == 1)}}
        target = str(folder / "nnUNetPlans_2d" / case)
        nnUNetDatasetBlosc2.save_case(image, label, properties, target, chunks=image.shape, blocks=image.shape)
    return folder


@pytest.fixture
def dataset(preprocessed, tmp_path, monkeypatch):
    """A copy of the toy dataset without a split file; nnU-Net's folders point to it, and it draws no curves."""
    folder = tmp_path / "preprocessed" / preprocessed.name
    shutil.copytree(preprocessed, folder)
    for variable, value in {"raw": "raw", "preprocessed": "preprocessed", "results": "results"}.items():
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / value))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.delenv("nnUNet_compile", raising=False)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    return folder


def make(trainer_class, fold=0, dataset_json=DATASET_JSON):
    plans = {"dataset_name": "Dataset001_Toy", "plans_name": "nnUNetPlans", "configurations": {"2d": CONFIGURATION}}
    trainer = trainer_class(plans, "2d", fold, dataset_json, torch.device("cpu"))
    trainer.dataset_class = nnUNetDatasetBlosc2
    return trainer


def initialized(trainer_class, **arguments):
    trainer = make(trainer_class, **arguments)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


def batch(trainer, value=1.0):
    target = [torch.randint(0, 2, (2, 1, PATCH[0] // h, PATCH[1] // w)) for h, w in Stub.deep_supervision_strides]
    return {
        "data": value * torch.randn(2, 1, *PATCH),
        "target": target if trainer.enable_deep_supervision else target[0],
        "keys": ["p1_ED", "p2_ES"],
    }


def weights(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def log_of(trainer):
    return Path(trainer.log_file).read_text()


# What nnU-Net is given


def test_network_is_built_from_the_plan_with_its_classes_resolved(dataset):
    class Ablation(Toy):
        network_options = {"window_mode": "released"}

    trainer = initialized(Ablation)
    patch_size, architecture, options = trainer.network.arguments
    assert patch_size == list(PATCH) and options == {"window_mode": "released"}
    assert (architecture["conv_op"], architecture["norm_op"]) == (nn.Conv2d, nn.InstanceNorm2d)
    assert architecture["dropout_op"] is None and architecture["nonlin"] is nn.LeakyReLU
    in_the_plan = trainer.configuration_manager.network_arch_init_kwargs["conv_op"]
    assert in_the_plan == "torch.nn.modules.conv.Conv2d"


def test_other_lengths():
    find = other_lengths(Toy)
    trainer = find("Toy_7epochs")
    assert (trainer.__name__, trainer.num_epochs, trainer.num_iterations_per_epoch) == ("Toy_7epochs", 7, 4)
    trainer = find("Toy_120epochs_50iterations")
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (120, 50)
    assert issubclass(trainer, Toy) and trainer.__module__ == Toy.__module__


@pytest.mark.parametrize(
    "name",
    ["Toy_0epochs", "Toy_05epochs", "Toy_-5epochs", "Toy_epochs", "Toy_5epoch", "Toy_5epochs\n", "Toy", "Toy2_5epochs"]
    + ["Toy_5iterations", "Toy_5epochs_0iterations", "Toy_5epochs_5iterations_more"],
)
def test_names_that_are_no_length_are_refused(name):
    with pytest.raises(AttributeError, match="has no attribute"):
        other_lengths(Toy)(name)


def test_lengths_reach_nnunet_and_the_folder_of_results(dataset):
    trainer = make(other_lengths(Toy)("Toy_7epochs_9iterations"))
    lengths = trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    assert lengths == (7, 9, 1)
    assert "/Toy_7epochs_9iterations__nnUNetPlans__2d/fold_0" in trainer.output_folder
    assert make(EchoTrainer).num_val_iterations_per_epoch == 50


def test_constructor_keeps_nnunets_parameters_and_can_be_repeated(dataset):
    trainer = make(Toy)
    assert set(trainer.my_init_kwargs) == {"plans", "configuration", "fold", "dataset_json", "device"}
    assert Toy(**trainer.my_init_kwargs).output_folder == trainer.output_folder


def test_no_mirroring_unless_asked_for(dataset):
    class Mirrored(Toy):
        mirroring = True

    for trainer_class, axes in ((Toy, None), (Mirrored, (0, 1))):
        trainer = make(trainer_class)
        *_, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert mirror_axes == axes and trainer.inference_allowed_mirroring_axes == axes


@pytest.mark.parametrize(("wish", "compiles"), [(None, False), ("0", False), ("1", True)])
def test_torch_compile_only_for_those_who_ask(dataset, monkeypatch, wish, compiles):
    if wish:
        monkeypatch.setenv("nnUNet_compile", wish)
    trainer = make(Toy)
    trainer.device = torch.device("cuda")  # on a CPU nnU-Net never compiles
    assert trainer._do_i_compile() is compiles


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_targets_have_the_sizes_of_the_outputs(dataset, deep_supervision):
    class Trainer(Toy):
        enable_deep_supervision = deep_supervision

    trainer = initialized(Trainer)
    for loader in trainer.get_dataloaders():
        one = next(loader)
        outputs, targets = trainer.network(one["data"]), one["target"]
        if not deep_supervision:
            outputs, targets = [outputs], [targets]
        assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in targets]
    assert trainer.train_step(one)["loss"] > 0


def test_convolutional_networks_get_nnunets_optimiser(dataset):
    trainer = initialized(Toy)
    (group,) = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD) and isinstance(trainer.lr_scheduler, PolyLRScheduler)
    settings = [group[name] for name in ("initial_lr", "weight_decay", "momentum", "nesterov")]
    assert settings == [1e-2, 3e-5, 0.99, True] and trainer.max_grad_norm == 12


def test_tokens_get_adamw_that_spares_biases_norms_and_marked_parameters(dataset):
    trainer = initialized(ToyTokens)
    decayed, spared = trainer.optimizer.param_groups
    network = trainer.network
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert decayed["weight_decay"] == 0.05 and spared["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(network.conv.weight)}
    expected = [network.conv.bias, network.norm.weight, network.norm.bias, network.dynamics]
    assert {id(p) for p in spared["params"]} == {id(p) for p in expected}


@pytest.mark.parametrize(("epochs", "warm_up"), [(1, 1), (12, 1), (100, 5), (1000, 50)])
def test_token_schedule_warms_up_and_falls_to_a_hundredth(dataset, epochs, warm_up):
    trainer = initialized(other_lengths(ToyTokens)(f"ToyTokens_{epochs}epochs"))
    rates = []
    for epoch in range(epochs):
        trainer.lr_scheduler.step(epoch)
        (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
        rates.append(rate)
    rising = np.diff([0, *rates[: warm_up + 1]])
    assert np.allclose(rising, 3e-4 / (warm_up + 1))
    assert all(np.diff(rates[warm_up:]) < 0)
    if epochs >= 100:
        assert max(rates) == pytest.approx(3e-4) and rates[-1] == pytest.approx(3e-6, rel=0.1)
    trainer.lr_scheduler.step(0)
    assert trainer.optimizer.param_groups[0]["lr"] == rates[0]


# Folds


def split_into(dataset, *folds):
    (dataset / "splits_final.json").write_text(json.dumps([{"train": t, "val": v} for t, v in folds]))


def test_fold_of_the_split_file(dataset):
    split_into(dataset, (CASES[2:], CASES[:2]), (CASES[:-4], CASES[-4:]))
    trainer = make(Toy, fold=1)
    assert trainer.do_split() == (CASES[:-4], CASES[-4:])
    assert "4 patients to train on, 2 to validate on" in log_of(trainer)


@pytest.mark.parametrize("fold", [2, 5, -1])
def test_fold_that_the_file_lacks_is_an_error(dataset, fold):
    split_into(dataset, (CASES[2:], CASES[:2]), (CASES[:-2], CASES[-2:]))
    with pytest.raises(ValueError, match=rf"fold {fold}: .*splits_final.json has folds 0 to 1"):
        make(Toy, fold=fold).do_split()


def test_patient_on_both_sides_is_an_error_that_names_the_patient(dataset):
    split_into(dataset, (CASES[1:], CASES[:1]))  # p0_ES trains, p0_ED validates
    with pytest.raises(RuntimeError, match="on the same patients: p0\\."):
        make(Toy).do_split()


def test_case_on_both_sides_is_an_error_without_a_pattern(dataset):
    split_into(dataset, (CASES, CASES[:1]))
    without = {key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}
    with pytest.raises(RuntimeError, match="on the same patients: p0_ED\\."):
        make(Toy, dataset_json=without).do_split()


def test_case_that_was_not_preprocessed_is_an_error(dataset):
    split_into(dataset, (CASES[2:] + ["p8_ED", "p9_ED"], CASES[:2]))
    with pytest.raises(RuntimeError, match="2 cases of fold 0 .*: p8_ED, p9_ED\\. Run nnUNetv2_preprocess"):
        make(Toy).do_split()


def test_without_a_split_file_one_by_patient_is_written(dataset):
    sides = [make(Toy, fold=fold).do_split() for fold in range(5)]
    assert json.loads((dataset / "splits_final.json").read_text()) == [{"train": t, "val": v} for t, v in sides]
    for train, validation in sides:
        assert sorted(train + validation) == CASES
        assert not {case[:2] for case in train} & {case[:2] for case in validation}
    assert sorted(case for _, validation in sides for case in validation) == CASES
    assert not list(dataset.glob("*.tmp"))


def test_without_patients_the_split_is_nnunets(dataset):
    without = {key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}
    trainer = make(Toy, dataset_json=without)
    ours = trainer.do_split()
    (dataset / "splits_final.json").unlink()
    assert ours == nnUNetTrainer.do_split(trainer)


def test_fold_all_trains_and_validates_on_everything(dataset):
    train, validation = make(Toy, fold="all").do_split()
    assert sorted(train) == sorted(validation) == CASES and not (dataset / "splits_final.json").exists()


# A split that changes


FIRST, SECOND = (CASES[2:], CASES[:2]), (CASES[:-2], CASES[-2:])  # validate on p0, on p5


def trained(dataset, fold=0, *folds):
    """A fold that was trained to the end, in the split of these folds, and its folder."""
    split_into(dataset, *(folds or (FIRST,)))
    trainer = make(Toy, fold=fold)
    trainer.run_training()
    return Path(trainer.output_folder)


def go_on(fold=0, validation_only=False, **arguments):
    """nnU-Net's ``--c`` or ``--val``, until the checkpoint is loaded."""
    trainer = make(Toy, fold=fold, **arguments)
    maybe_load_checkpoint(trainer, continue_training=not validation_only, validation_only=validation_only)
    return trainer


@pytest.mark.parametrize("validation_only", [False, True])
def test_a_fold_of_another_split_is_refused_and_the_patient_named(dataset, validation_only):
    folder = trained(dataset)
    go_on(validation_only=validation_only)
    split_into(dataset, (FIRST[0][::-1], FIRST[1][::-1]))  # the order says nothing
    go_on(validation_only=validation_only)
    split_into(dataset, SECOND)
    message = r"fold 0 .*other split.*trained on p5 \(1 such patients\).*Train the fold anew"
    with pytest.raises(RuntimeError, match=message) as error:
        go_on(validation_only=validation_only)
    assert str(folder) in str(error.value)


def test_a_split_that_only_lost_a_patient_is_another_one(dataset):
    trained(dataset)
    split_into(dataset, (CASES[4:], CASES[:2]))
    with pytest.raises(RuntimeError, match="with 10 training and 2 validation cases, .* has 8 and 2.* is p1"):
        go_on()


def test_a_split_that_changes_while_it_trains_is_noticed_before_the_validation(dataset):
    split_into(dataset, FIRST)
    trainer = make(Toy)
    trainer.run_training()
    split_into(dataset, SECOND)
    with pytest.raises(RuntimeError, match="trained on p5"):
        trainer.perform_actual_validation()
    assert not Path(trainer.output_folder, "validation").exists()


@pytest.mark.parametrize("record", [True, False])
def test_a_training_anew_is_not_taken_for_the_old_one(dataset, record):
    """Killed before it saved, it leaves nothing that --c would continue or --val validate."""
    folder = trained(dataset)
    (folder / "validation").mkdir()
    if not record:
        (folder / "split.json").unlink()
    split_into(dataset, SECOND)
    trainer = make(Toy)
    trainer.on_train_start()
    assert not list(folder.glob("checkpoint_*.pth")) and not (folder / "validation").exists()
    assert len(list(folder.glob("checkpoint_final.pth.before_*"))) == len(list(folder.glob("validation.before_*"))) == 1
    assert "checkpoint_final.pth is of an earlier training" in log_of(trainer)
    trainer.save_latest()
    assert go_on()._continued


def test_a_training_anew_in_the_same_split_moves_nothing(dataset):
    folder = trained(dataset)
    make(Toy).on_train_start()
    assert (folder / "checkpoint_final.pth").exists()


def test_pretrained_weights_may_come_from_another_split(dataset):
    source = trained(dataset)
    split_into(dataset, SECOND, SECOND)
    trainer = make(Toy, fold=1)
    maybe_load_checkpoint(trainer, False, False, pretrained_weights_file=str(source / "checkpoint_final.pth"))
    trainer.on_train_start()
    assert json.loads(Path(trainer.output_folder, "split.json").read_text())["val"] == SECOND[1]


def test_fold_all_keeps_its_cases_too(dataset):
    split_into(dataset, FIRST)
    make(Toy, fold="all").run_training()
    go_on(fold="all")
    for file in (dataset / "nnUNetPlans_2d").glob("p5_*"):
        file.unlink()
    with pytest.raises(RuntimeError, match="with 12 training and 12 validation cases, .* has 10 and 10.* is p5"):
        go_on(fold="all")


def test_a_copied_fold_is_another_fold(dataset):
    folder = trained(dataset, 0, FIRST, SECOND)
    shutil.copytree(folder, folder.with_name("fold_1"))
    with pytest.raises(RuntimeError, match="fold 1 .*trained on p5"):
        go_on(fold=1)


def test_without_a_record_it_says_so_once_and_compares_what_there_is(dataset):
    folder = trained(dataset)
    (folder / "split.json").unlink()
    time.sleep(1.1)  # logs are named by the second
    trainer = go_on()
    trainer.load_checkpoint(str(folder / "checkpoint_final.pth"))  # as --val_best does
    assert log_of(trainer).count("keeps no record") == 1
    trainer.on_train_start()
    assert json.loads((folder / "split.json").read_text()) == {"train": FIRST[0], "val": FIRST[1]}

    (folder / "split.json").unlink()
    split_into(dataset, (CASES[4:], CASES[:4]))
    with pytest.raises(RuntimeError, match="it has 10 training and 2 validation cases, not 8 and 4"):
        go_on()
    split_into(dataset, SECOND)  # as many cases: known are only those that it validated
    go_on(validation_only=True)
    (folder / "validation").mkdir()
    (folder / "validation" / "p0_ED.nii.gz").touch()
    with pytest.raises(RuntimeError, match=r"validates p0_ED \(1 such"):
        go_on(validation_only=True)


def test_a_damaged_record_is_refused(dataset):
    folder = trained(dataset)
    for content in ("", "5", "[]", '{"train": []}', '{"train": 1, "val": []}', '{"train": [1], "val": []}'):
        (folder / "split.json").write_text(content)
        with pytest.raises(RuntimeError, match="its split.json is damaged"):
            go_on()


def test_only_the_first_rank_keeps_the_cases(dataset):
    split_into(dataset, FIRST)
    trainer = make(Toy)
    trainer.initialize()
    trainer.local_rank = 1
    trainer.on_train_start()
    assert not Path(trainer.output_folder, "split.json").exists()


# Batches that are not finite


def test_non_finite_batches_change_nothing_and_a_few_in_a_row_end_the_training(dataset):
    trainer = initialized(ToyTokens)
    trainer.train_step(batch(trainer))
    before, moments = weights(trainer), str(trainer.optimizer.state_dict()["state"])
    for _ in range(4):
        assert not np.isfinite(trainer.train_step(batch(trainer, float("nan")))["loss"])
    assert equal(weights(trainer), before) and str(trainer.optimizer.state_dict()["state"]) == moments
    with pytest.raises(RuntimeError, match="5 batches in a row") as error:
        trainer.train_step(batch(trainer, float("nan")))
    for part in ("cases p1_ED, p2_ES", "loss nan", "gradient norm nan", "learning rate 0.0003", "initial_lr"):
        assert part in str(error.value)
    assert equal(weights(trainer), before)
    assert log_of(trainer).count("Skipped a batch that is not finite. cases p1_ED, p2_ES") == 5


def test_a_finite_batch_ends_the_streak(dataset):
    trainer = initialized(Toy)
    for _ in range(3):
        for _ in range(4):
            trainer.train_step(batch(trainer, float("inf")))
        before = weights(trainer)
        trainer.train_step(batch(trainer))
        assert not equal(weights(trainer), before)


def test_finite_loss_with_a_non_finite_gradient_counts(dataset):
    trainer = initialized(Toy)
    trainer.loss = lambda outputs, target: (0 * outputs[0].mean()).sqrt()  # 0, but its derivative is infinite
    before = weights(trainer)
    with pytest.raises(RuntimeError, match="loss 0, gradient norm nan"):
        for _ in range(5):
            trainer.train_step(batch(trainer))
    assert equal(weights(trainer), before)


def overflow_like_float16(trainer):
    for parameter in trainer.network.parameters():
        parameter.register_hook(lambda gradient: gradient.half().to(gradient.dtype))


def test_too_high_a_loss_scale_is_left_to_the_scaler(dataset):
    trainer = initialized(Toy)
    overflow_like_float16(trainer)
    trainer.grad_scaler = torch.GradScaler("cpu", init_scale=2.0**30)
    before = weights(trainer)
    steps = 0
    while equal(weights(trainer), before):
        trainer.train_step(batch(trainer))
        steps += 1
    assert steps > 6  # more than the batches allowed, had they counted
    assert 1 < trainer.grad_scaler.get_scale() == 2.0 ** (31 - steps)
    assert "not finite" not in log_of(trainer)


def test_gradients_that_overflow_at_any_loss_scale_end_the_training(dataset):
    trainer = initialized(Toy)
    overflow_like_float16(trainer)
    trainer.grad_scaler = torch.GradScaler("cpu", init_scale=2.0)
    loss = trainer.loss
    trainer.loss = lambda outputs, target: 1e9 * loss(outputs, target)
    with pytest.raises(RuntimeError, match="gradient norm (inf|nan)"):
        for _ in range(6):
            trainer.train_step(batch(trainer))


def test_a_non_finite_loss_counts_under_a_scaler_too(dataset):
    trainer = initialized(Toy)
    trainer.grad_scaler = torch.GradScaler("cpu")
    with pytest.raises(RuntimeError, match="loss nan"):
        for _ in range(5):
            trainer.train_step(batch(trainer, float("nan")))


def test_gradients_are_clipped(dataset):
    trainer = initialized(Toy)
    trainer.max_grad_norm = 1e-3
    loss = trainer.loss
    trainer.loss = lambda outputs, target: 1e6 * loss(outputs, target)
    trainer.train_step(batch(trainer))
    norm = torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def _vote(rank, folder, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trainer = EchoTrainer.__new__(EchoTrainer)
    trainer.is_ddp, trainer.device = True, torch.device("cpu")
    answers.put(trainer._everywhere(torch.tensor(rank == 0), True, rank == 1))


def test_ranks_decide_alike(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=_vote, args=(rank, tmp_path, answers)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [answers.get(timeout=60) for _ in ranks] == [[False, True, False]] * 2
    for rank in ranks:
        rank.join()


# Interruptions


def adam_steps(trainer):
    (steps,) = {int(state["step"]) for state in trainer.optimizer.state.values()}
    return steps


def record(trainer):
    """What an interrupted training must share with an uninterrupted one."""
    logged = trainer.logger.get_checkpoint()
    entries = {name: len(values) for name, values in logged.items()}
    return trainer.current_epoch, adam_steps(trainer), logged["lrs"], entries


def interrupted(kind, at, action):
    """A trainer that does `action` before its call number `at` (from 0) of `kind`."""

    class Interrupted(ToyTokens):
        calls = 0

        def _maybe(self, this):
            if this == kind:
                type(self).calls += 1
                if self.calls == at + 1:
                    action()

        def train_step(self, one):
            self._maybe("train")
            return super().train_step(one)

        def validation_step(self, one):
            self._maybe("validation")
            return super().validation_step(one)

    Interrupted.__name__ = "ToyTokens"  # the same folder of results
    return Interrupted


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("when", [("train", 0), ("train", 5), ("train", 7), ("validation", 1), ("validation", 2)])
def test_sigterm_saves_and_the_continued_training_equals_an_unbroken_one(dataset, when, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    unbroken = make(ToyTokens)
    unbroken.run_training()
    shutil.rmtree(unbroken.output_folder)

    first = make(interrupted(*when, terminate))
    with pytest.raises(SystemExit) as stop:
        first.run_training()
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is handler
    assert not Path(first.output_folder, "checkpoint_final.pth").exists()
    last_losses = list(first._epoch_losses)

    second = make(ToyTokens)
    maybe_load_checkpoint(second, continue_training=True, validation_only=False)
    assert second._epoch_losses == last_losses
    second.run_training()
    assert "logging issue" not in capsys.readouterr().out  # nnU-Net's complaint of an epoch that is logged twice
    assert record(second) == record(unbroken)
    epochs, steps, rates, entries = record(second)
    assert (epochs, steps, len(set(rates)), set(entries.values())) == (3, 12, 3, {3})
    assert second.num_iterations_per_epoch == 4
    for name in ("best", "final"):
        checkpoint = torch.load(Path(second.output_folder, f"checkpoint_{name}.pth"), weights_only=False)
        assert "epoch_losses" not in checkpoint["optimizer_state"]
    assert checkpoint["current_epoch"] == 3 and checkpoint["inference_allowed_mirroring_axes"] is None
    assert not Path(second.output_folder, "checkpoint_latest.pth").exists()


def test_logged_loss_of_a_continued_epoch_is_the_mean_of_all_its_iterations(dataset):
    first = make(interrupted("train", 2, terminate))
    with pytest.raises(SystemExit):
        first.run_training()
    second = make(ToyTokens)
    second.num_epochs = 1
    second.load_checkpoint(os.path.join(first.output_folder, "checkpoint_latest.pth"))
    new_losses = []
    step = second.train_step
    second.train_step = lambda one: new_losses.append(step(one)["loss"]) or {"loss": new_losses[-1]}
    second.run_training()
    assert len(first._epoch_losses) == 3 and len(new_losses) == 1
    logged = second.logger.get_value("train_losses", 0)
    assert logged == pytest.approx(np.mean([*first._epoch_losses, *new_losses]))


def test_sigterm_after_the_last_step_leaves_only_the_validation(dataset):
    class Late(ToyTokens):
        def on_train_end(self):
            terminate()
            super().on_train_end()

    trainer = make(Late)
    with pytest.raises(SystemExit) as stop:
        trainer.run_training()
    assert stop.value.code == 143 and Path(trainer.output_folder, "checkpoint_final.pth").exists()


def test_a_crash_loses_no_more_than_the_time_between_saves(dataset):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    trainer = make(interrupted("train", 6, crash))
    trainer.seconds_between_saves = -1  # save after every step
    with pytest.raises(Crash):
        trainer.run_training()
    second = make(ToyTokens)
    second.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
    assert (second.current_epoch, len(second._epoch_losses), adam_steps(second)) == (1, 2, 6)

    shutil.rmtree(trainer.output_folder)
    trainer = make(interrupted("train", 6, crash))
    trainer.seconds_between_epoch_saves = -1  # save after every epoch
    with pytest.raises(Crash):
        trainer.run_training()
    second = make(ToyTokens)
    second.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
    assert (second.current_epoch, second._epoch_losses, adam_steps(second)) == (1, [], 4)


def test_no_time_no_save(dataset):
    trainer = make(ToyTokens)
    saved = []
    trainer.save_latest = lambda: saved.append(trainer.current_epoch)
    trainer.run_training()
    assert saved == []


def test_the_checkpoint_is_replaced_only_by_a_whole_one(dataset, monkeypatch):
    trainer = initialized(Toy)
    os.makedirs(trainer.output_folder, exist_ok=True)
    trainer.save_latest()
    latest = Path(trainer.output_folder, "checkpoint_latest.pth")
    whole = latest.read_bytes()

    def killed_while_writing(checkpoint, filename):
        Path(filename).write_bytes(whole[: len(whole) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed_while_writing)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_latest()
    assert latest.read_bytes() == whole and trainer.current_epoch == 0


def test_half_a_checkpoint_is_an_error_with_the_remedy(dataset):
    trainer = initialized(Toy)
    os.makedirs(trainer.output_folder, exist_ok=True)
    trainer.save_latest()
    latest = Path(trainer.output_folder, "checkpoint_latest.pth")
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match="checkpoint_latest.pth is not a whole checkpoint.*Remove it"):
        maybe_load_checkpoint(make(Toy), continue_training=True, validation_only=False)


def test_disabled_checkpoints_stay_disabled(dataset):
    trainer = initialized(Toy)
    trainer.disable_checkpointing = True
    trainer.save_latest()
    assert not list(Path(trainer.output_folder).glob("*.pth*"))


def test_a_forked_worker_ends_at_sigterm_although_it_inherits_the_handler(dataset):
    context = multiprocessing.get_context("fork")
    running = context.Event()
    worker = context.Process(target=lambda: running.set() or time.sleep(600), daemon=True)

    def terminate_worker():
        worker.start()
        assert running.wait(timeout=60)
        worker.terminate()
        worker.join(timeout=60)

    trainer = make(interrupted("train", 1, terminate_worker))
    trainer.run_training()
    assert worker.exitcode == 143 and trainer.current_epoch == 3


def test_pretrained_weights_reach_the_network(dataset):
    source = initialized(Toy)
    os.makedirs(source.output_folder, exist_ok=True)
    source.save_latest()
    trainer = make(Toy)
    file = os.path.join(source.output_folder, "checkpoint_latest.pth")
    maybe_load_checkpoint(trainer, continue_training=False, validation_only=False, pretrained_weights_file=file)
    assert equal(weights(trainer), weights(source)) and trainer.current_epoch == 0


def test_the_log_says_what_is_trained_and_how(dataset):
    trainer = make(ToyTokens)
    trainer.num_epochs = 1
    trainer.run_training()
    log = log_of(trainer)
    for part in (
        f"ToyTokens: {__name__}:Stub, 0.00 M parameters. AdamW, learning rate 0.0003, warm-up, then cosine,",
        "weight decay 0.05, gradient norm clipped at 1.0, 1 epochs of 4 iterations,",
        "deep supervision on, mirroring off, torch.compile off. Selective scan on cpu: ",
    ):
        assert part in log
    peak_gib = float(re.search(r"Peak memory (\S+) GiB", log)[1])
    assert 0.1 < peak_gib < 1000
