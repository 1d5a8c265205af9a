"""nnU-Net's training loop, made to survive non-finite batches and being killed. Knows nothing of networks or echo.

- A batch with a non-finite loss or gradient changes no weight, and a few in a row end the training with the reason.
- Checkpoints replace each other atomically and are minutes apart, also within an epoch and on SIGTERM. ``--c`` then
  runs what the epoch still lacks: epochs, steps and learning rates are those of an uninterrupted training.
"""

from __future__ import annotations

import os
import signal
import threading
import zipfile
from contextlib import nullcontext
from time import monotonic

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, distributed, nn


class SafeTrainer(nnUNetTrainer):
    """See the module's docstring. The class attributes may be set in a subclass."""

    max_grad_norm = 12.0  # nnU-Net's value
    non_finite_batches_allowed = 4  # in a row
    seconds_between_saves = 300.0  # within an epoch
    seconds_between_epoch_saves = 120.0

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device
    ) -> None:
        # nnU-Net's command adds this key and its constructor removes it, with no default for other callers.
        plans.setdefault("continue_training", False)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._epoch_losses: list[float] = []  # one for each training iteration done in the current epoch
        self._non_finite: list[str] = []  # one line for each batch of the current streak
        self._asked_to_stop = False
        self._last_save = monotonic()

    def initialize(self) -> None:
        super().initialize()
        # nnU-Net's checkpoint has no place for the progress within an epoch; the optimiser's state may carry it.
        self.optimizer.register_state_dict_post_hook(self._add_progress)
        self.optimizer.register_load_state_dict_pre_hook(self._take_progress)

    def run_training(self) -> None:
        """nnU-Net's loop. SIGTERM meanwhile saves a checkpoint after the current step and exits with code 143."""
        if threading.current_thread() is not threading.main_thread():  # Python sets handlers in no other thread
            return super().run_training()
        trainer_process = os.getpid()

        def ask_to_stop(signum: int, _frame: object) -> None:
            if os.getpid() != trainer_process:  # a worker that loads data has inherited the handler: it just ends
                os._exit(128 + signum)
            signal.signal(signum, signal.SIG_DFL)  # a second signal does not wait
            self._asked_to_stop = True

        previous = signal.signal(signal.SIGTERM, ask_to_stop)
        try:
            super().run_training()
        finally:
            signal.signal(signal.SIGTERM, previous)
        if self._asked_to_stop:  # after the last step, so checkpoint_final is there and only the validation is left
            self._exit()

    def on_train_start(self) -> None:
        super().on_train_start()
        self._last_save = monotonic()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._resumed_at = len(self._epoch_losses)
        self.num_iterations_per_epoch -= self._resumed_at

    def train_step(self, batch: dict) -> dict:
        """One step as nnU-Net takes it, unless loss or gradient is not finite.

        Raises RuntimeError when more than `non_finite_batches_allowed` batches in a row were not finite.
        """
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [t.to(self.device, non_blocking=True) for t in target]
        else:
            target = target.to(self.device, non_blocking=True)

        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss = self.loss(self.network(data), target)
        scaler = self.grad_scaler or torch.GradScaler(self.device.type, enabled=False)
        scaler.scale(loss).backward()
        scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)

        finite_loss, finite_norm, go_on = self._everywhere(loss.isfinite(), norm.isfinite(), not self._asked_to_stop)
        if finite_loss and finite_norm:
            scaler.step(self.optimizer)
            self._non_finite = []
        elif not finite_loss or scaler.get_scale() <= 1:
            self._report_non_finite(batch["keys"], loss.item(), norm.item())
        # else float16 gradients overflowed because the loss was scaled too high; `update` lowers the scale
        scaler.update()

        self._epoch_losses.append(loss.item())
        if not go_on:
            self.save_latest()
            self._exit()
        if monotonic() - self._last_save > self.seconds_between_saves:
            self.save_latest()
        return {"loss": loss.detach().cpu().numpy()}

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        # `train_outputs` lacks the iterations before an interruption
        super().on_train_epoch_end([{"loss": loss} for loss in self._epoch_losses])
        self.num_iterations_per_epoch += self._resumed_at

    def validation_step(self, batch: dict) -> dict:
        output = super().validation_step(batch)
        if self._asked_to_stop and not self.is_ddp:  # with DDP the ranks agree on it in the next training step
            self.save_latest()
            self._exit()
        return output

    def on_epoch_end(self) -> None:
        self._epoch_losses = []
        super().on_epoch_end()
        unfinished = self.current_epoch < self.num_epochs
        if unfinished and monotonic() - self._last_save > self.seconds_between_epoch_saves:
            self.save_latest()

    def save_checkpoint(self, filename: str) -> None:
        """Write beside `filename` and rename, so that a kill at any time leaves a complete checkpoint."""
        if self.local_rank != 0 or self.disable_checkpointing:  # nothing will be written
            return super().save_checkpoint(filename)
        temporary = f"{filename}.tmp"
        super().save_checkpoint(temporary)
        os.replace(temporary, filename)

    def save_latest(self) -> None:
        """Save such that ``--c`` goes on with what `current_epoch` still lacks."""
        self.current_epoch -= 1  # nnU-Net stores current_epoch + 1 as the epoch to go on with
        try:
            self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_latest.pth"))
        finally:
            self.current_epoch += 1
        self._last_save = monotonic()

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load as nnU-Net does. Raises RuntimeError for a file that was cut while it was written."""
        if not zipfile.is_zipfile(filename_or_checkpoint):
            raise RuntimeError(
                f"{filename_or_checkpoint} is not a complete checkpoint: its writer was killed or the disk was full. "
                "Remove it and run the same command again; nnU-Net then takes the next of checkpoint_final, "
                "checkpoint_latest, checkpoint_best."
            )
        super().load_checkpoint(filename_or_checkpoint)
        for values in self.logger.get_checkpoint().values():
            del values[self.current_epoch :]  # what was logged of an unfinished epoch is logged anew

    def _everywhere(self, *flags: Tensor | bool) -> list[bool]:
        """The flags, each true only if it is on every rank: the ranks of DDP have to step, stop and fail alike."""
        if not self.is_ddp:
            return [bool(flag) for flag in flags]
        votes = torch.tensor([int(flag) for flag in flags], device=self.device)
        distributed.all_reduce(votes, op=distributed.ReduceOp.MIN)
        return [bool(vote) for vote in votes.tolist()]

    def _report_non_finite(self, cases: list[str], loss: float, norm: float) -> None:
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self._non_finite.append(
            f"cases {', '.join(cases)}: loss {loss:.4g}, gradient norm {norm:.4g}, learning rate {learning_rate:.4g}"
        )
        self.print_to_log_file(f"Skipped a batch that is not finite. {self._non_finite[-1]}")
        if len(self._non_finite) > self.non_finite_batches_allowed:
            raise RuntimeError(
                f"{len(self._non_finite)} batches in a row gave a loss or a gradient that is not finite:\n"
                + "\n".join(self._non_finite)
                + "\nThe weights are those before the first of them. If these cases are sound (finite intensities, "
                "labels as in dataset.json), train with a smaller `initial_lr`, a class attribute of the trainer."
            )

    def _exit(self) -> None:
        self.print_to_log_file("Stopped by SIGTERM. The same command with --c goes on from here.")
        raise SystemExit(128 + signal.SIGTERM)

    def _add_progress(self, _optimizer: torch.optim.Optimizer, state_dict: dict) -> None:
        if self._epoch_losses:
            state_dict["epoch_losses"] = list(self._epoch_losses)

    def _take_progress(self, _optimizer: torch.optim.Optimizer, state_dict: dict) -> None:
        self._epoch_losses = state_dict.pop("epoch_losses", [])
