"""EchoTrainer: a network of this package under nnU-Net's trainer, with patient-wise folds and a loop that survives.

nnU-Net stays in charge of loop, data, loss and validation. What differs from its own trainer, besides what
`SafeTrainer` and `RecordedStart` do:

- the network is `network_path`, built from the plan; torch.compile only where the user sets ``nnUNet_compile``;
- no patient on both sides of a fold, no fold that the split file does not have, and no training that goes on, or
  validates, on other cases than it began with (nnunet/cases.py);
- no mirroring: left and right of an apical view are fixed, and inference is four times faster without.

A trainer file holds one class with class attributes, and ``__getattr__ = other_lengths(...)`` for its other lengths and
its recipes. nnU-Net imports all of them to find one, so nothing that might fail is imported here: a network's module is
imported when it is built.
"""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_echo.data.cases import five_folds_of_cases, patient_of
from nnunet_echo.data.errors import some
from nnunet_echo.networks import network_from_plan, title_of
from nnunet_echo.nnunet.cases import REMEDY, Cases, has_record, keep_cases, other_split, read_splits
from nnunet_echo.nnunet.folders import replace_file
from nnunet_echo.nnunet.plans import imported_arguments
from nnunet_echo.ops.selective_scan import choose_backend
from nnunet_echo.training.lengths import other_lengths
from nnunet_echo.training.memory import keep_freed_memory, peak_memory_gib
from nnunet_echo.training.optimizers import parameter_groups
from nnunet_echo.training.recorded_start import RecordedStart
from nnunet_echo.training.schedules import EpochSchedule

__all__ = ["EchoTrainer", "TokenTrainer", "other_lengths"]  # what a trainer file imports


class EchoTrainer(RecordedStart):
    """Base of the trainers; as it is, the one for convolutional networks.

    It keeps nnU-Net's optimiser (Isensee et al. 2021), as the published U-Mamba and LKM-UNet do: SGD with Nesterov
    momentum 0.99, learning rate 0.01 with polynomial decay, weight decay 3e-5, gradient norm clipped at 12.

    Class attributes named like nnU-Net's settings replace the values that nnU-Net's constructor sets.

    >>> class nnUNetTrainerWideViL(EchoTrainer):
    ...     network_path, network_options, initial_lr = "vil", {"dim": 384}, 1e-3
    >>> nnUNetTrainerWideViL.initial_lr, nnUNetTrainerWideViL.num_epochs
    (0.001, 1000)
    """

    network_path: str  # a name of `networks.NETWORKS`, or "module:Class" of one of your own that keeps their contract
    network_options: dict = {}  # further arguments of `from_plan`
    mirroring = False

    num_epochs = 1000
    num_iterations_per_epoch = 250  # of training; validation takes a fifth of it
    enable_deep_supervision = True
    initial_lr = 1e-2
    weight_decay = 3e-5
    schedule = "polynomial decay"  # for the log

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in ("num_epochs", "num_iterations_per_epoch", "enable_deep_supervision", "initial_lr", "weight_decay"):
            setattr(self, name, getattr(type(self), name))
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self._continued = False

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network of `network_path` for this plan. nnU-Net calls it to train and to predict."""
        plan = configuration_manager
        return network_from_plan(
            cls.network_path,
            num_input_channels,
            num_output_channels,
            plan.patch_size,
            imported_arguments(plan.network_arch_init_kwargs, plan.network_arch_init_kwargs_req_import),
            enable_deep_supervision,
            **cls.network_options,
        )

    def _do_i_compile(self) -> bool:
        # All networks compile into one graph, but what that gives on a GPU has not been measured: for those who ask.
        return "nnUNet_compile" in os.environ and super()._do_i_compile()

    def _build_loss(self) -> nn.Module:
        """nnU-Net's; the outputs of a network with ``deep_supervision_weights`` count by those, and a single one by 1.

        nnU-Net gives the last output the weight 0 and divides by the sum: of a single output, 0 / 0.
        """
        with np.errstate(invalid="ignore"):
            loss = super()._build_loss()
        network = self._bare_network()
        if self.enable_deep_supervision:
            if len(network.deep_supervision_strides) == 1:
                loss.weight_factors = (1.0,)
            elif hasattr(network, "deep_supervision_weights"):
                loss.weight_factors = network.deep_supervision_weights
        return loss

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        network = self._bare_network()
        return [[1 / step for step in stride] for stride in network.deep_supervision_strides]

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        *others, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.mirroring:
            mirror_axes = None
        self.inference_allowed_mirroring_axes = mirror_axes  # stored in checkpoints for the predictor
        return *others, mirror_axes

    def do_split(self) -> tuple[list[str], list[str]]:
        """Training and validation cases of this fold; fold ``all`` as in nnU-Net.

        Writes a split by patient if there is no split file. Raises ValueError for a fold that the file does not have,
        RuntimeError for a patient on both sides and for cases that are not preprocessed.
        """
        if self.fold == "all":
            return super().do_split()
        file = Path(self.preprocessed_dataset_folder_base, "splits_final.json")
        preprocessed = self._preprocessed_cases()
        if not file.is_file():
            self._write_splits(file, preprocessed)
        folds = len(load_json(str(file)))
        if not 0 <= self.fold < folds:
            raise ValueError(f"fold {self.fold}: {file} has folds 0 to {folds - 1}. Train one of them, or add yours.")
        train, validation = super().do_split()

        missing = sorted({*train, *validation}.difference(preprocessed))
        if missing:
            raise RuntimeError(
                f"{len(missing)} cases of fold {self.fold} in {file} are not in {self.preprocessed_dataset_folder}: "
                f"{some(missing)}. Run nnUNetv2_preprocess again. If they are no longer in nnUNet_raw either, convert "
                "the dataset again."
            )
        train_patients = {patient_of(case, self.dataset_json) for case in train}
        validation_patients = {patient_of(case, self.dataset_json) for case in validation}
        on_both_sides = sorted(train_patients & validation_patients)
        if on_both_sides:
            raise RuntimeError(
                f"fold {self.fold} of {file} trains and validates on the same patients: {some(on_both_sides)}. "
                "Split by patient; if you remove the file, such a split is made."
            )
        self.print_to_log_file(
            f"Split by patient: {len(train_patients)} patients to train on, {len(validation_patients)} to validate on."
        )
        return train, validation

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """For ``--c`` and ``--val``. Raises RuntimeError when the checkpoint is of another split than there is now."""
        if not self.was_initialized:
            self.initialize()
        self._compare_cases()
        if not self._continued and not has_record(Path(self.output_folder)):
            self.print_to_log_file(
                f"{self.output_folder} keeps no record of the cases that it was trained on, as older versions did not. "
                "Compared with the split are their numbers in its log, and the cases that it validated."
            )
        super().load_checkpoint(filename_or_checkpoint)
        self._continued = True

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As nnU-Net's. Raises RuntimeError when the split was changed while this trainer trained."""
        self._compare_cases()
        super().perform_actual_validation(save_probabilities)

    def _compare_cases(self) -> None:
        if other := self._other_split():
            raise RuntimeError(
                f"fold {self.fold} in {self.output_folder} is of another split than there is now in "
                f"{self.preprocessed_dataset_folder_base}: {other}. {REMEDY}."
            )

    def _cases_now(self) -> Cases:
        """As `do_split`, but not noted in the log, from which the numbers of an earlier training are read."""
        file = Path(self.preprocessed_dataset_folder_base, "splits_final.json")
        if self.fold != "all" and file.is_file() and 0 <= self.fold < len(folds := read_splits(file)):
            return folds[self.fold]
        train, validation = self.do_split()
        return {"train": train, "val": validation}

    def _other_split(self) -> str:
        patient = partial(patient_of, dataset_json=self.dataset_json)
        return other_split(Path(self.output_folder), self._cases_now(), patient)

    def _keep_cases(self) -> None:
        """Note the cases of a training that starts; what an earlier one of other cases left here is moved aside."""
        folder = Path(self.output_folder)
        if not self._continued and (not has_record(folder) or self._other_split()):
            self._set_aside("whose cases are others or not on record")
        if not (self._continued and has_record(folder)):
            keep_cases(folder, self._cases_now())

    def on_train_start(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()
        super().on_train_start()
        if self.local_rank == 0:
            self._keep_cases()
            if not self._continued:
                self._keep_start()
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        options = f" with {self.network_options}" if self.network_options else ""
        finite = math.isfinite(self.max_grad_norm)
        clipping = f"gradient norm clipped at {self.max_grad_norm}" if finite else "gradients not clipped"
        self.print_to_log_file(
            *filter(None, [title_of(type(self).__name__)]),
            f"{type(self).__name__}: {self.network_path}{options}, {parameters / 1e6:.2f} M parameters.",
            f"{type(self.optimizer).__name__}, learning rate {self.initial_lr}, {self.schedule},",
            f"weight decay {self.weight_decay}, {clipping},",
            f"{self.num_epochs} epochs of {self.num_iterations_per_epoch} iterations,",
            f"deep supervision {_on(self.enable_deep_supervision)}, mirroring {_on(self.mirroring)},",
            f"torch.compile {_on(self._do_i_compile())}.",
            f"Selective scan on {self.device}: {choose_backend(self.device)}.",
        )

    def on_epoch_end(self) -> None:
        self.print_to_log_file(f"Peak memory {peak_memory_gib(self.device):.2f} GiB")
        super().on_epoch_end()

    def _preprocessed_cases(self) -> list[str]:
        return sorted(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))

    def _write_splits(self, file: Path, cases: list[str]) -> None:
        # where nothing tells which cases share a patient: nnU-Net's own split
        splits = five_folds_of_cases(cases, self.dataset_json) or generate_crossval_split(cases)
        replace_file(file, json.dumps(splits, indent=4))  # folds may start together; all write the same


class TokenTrainer(EchoTrainer):
    """For networks of tokens: AdamW, a linear warm-up, then a cosine down to a hundredth of the learning rate.

    Weight decay spares biases, norms and what a network marks with `_no_weight_decay`: positional embeddings and the
    dynamics of a state space. The values are those of nnU-Net's own token trainers (Primus, Wald et al. 2025, arXiv
    2503.01835), the cosine is that of Vision-LSTM (Alkin et al. 2024, arXiv 2406.04303), whose learning rate of 1e-3
    goes with far larger batches.

    >>> class nnUNetTrainerLongViL(TokenTrainer):
    ...     network_path, num_epochs = "vil", 2000
    >>> nnUNetTrainerLongViL.initial_lr, nnUNetTrainerLongViL.schedule
    (0.0003, 'warm-up, then cosine')
    """

    initial_lr = 3e-4
    weight_decay = 0.05
    schedule = "warm-up, then cosine"
    max_grad_norm = 1.0
    warm_up = 0.05  # share of the epochs, rounded up

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer = torch.optim.AdamW(parameter_groups(self.network), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, EpochSchedule(optimizer, self.learning_rate)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        warm_up = math.ceil(self.warm_up * self.num_epochs)
        if epoch < warm_up:
            return self.initial_lr * (epoch + 1) / (warm_up + 1)
        cosine = (1 + math.cos(math.pi * (epoch - warm_up) / (self.num_epochs - warm_up))) / 2
        return self.initial_lr * (0.01 + 0.99 * cosine)


def _on(flag: bool) -> str:
    return "on" if flag else "off"
