"""RecipeTrainer: any of our trainers, trained by a row of `recipes.RECIPES`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_echo.training.losses import LabelLoss
from nnunet_echo.training.optimizers import parameter_groups
from nnunet_echo.training.recipes import Recipe
from nnunet_echo.training.schedules import EpochSchedule, set_learning_rate
from nnunet_echo.training.trainer import EchoTrainer


class RecipeTrainer(EchoTrainer):
    """First base of a class that `lengths.other_lengths` makes; the second is the trainer of a network.

    From the recipe come optimiser, learning rates, loss, augmentation, and how long it trains. Network, deep
    supervision and its weights, folds and the loop stay those of the trainer, patch and batch those of the plan.
    """

    recipe_name: str
    recipe: Recipe
    passes_over_the_data = True  # an epoch; else it has `num_iterations_per_epoch`

    @staticmethod
    def attributes_of(name: str, recipe: Recipe) -> dict[str, Any]:
        """The class attributes of a trainer that trains by this recipe."""
        return {
            "recipe_name": name,
            "recipe": recipe,
            "num_epochs": recipe.epochs,
            "initial_lr": recipe.initial_lr,
            "weight_decay": recipe.weight_decay,
            "schedule": recipe.schedule.title,
            "max_grad_norm": recipe.max_grad_norm,
            "mirroring": False,
        }

    def initialize(self) -> None:
        if self.passes_over_the_data:
            self.dataset_class = infer_dataset_class(
                self.preprocessed_dataset_folder
            )  # for a split that is not there yet
            self._training_cases = len(self._cases_now()["train"])
            # the batch of the plan: under DDP the ranks share it
            self.num_iterations_per_epoch = math.ceil(self._training_cases / self.configuration_manager.batch_size)
            self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self._iterations = self.num_iterations_per_epoch  # which SafeTrainer lowers in an epoch that it goes on with
        super().initialize()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        groups = parameter_groups(self.network)
        optimizer = self.recipe.optimizer(groups, lr=self.initial_lr, weight_decay=self.weight_decay)  # type: ignore[call-arg]
        return optimizer, EpochSchedule(optimizer, self.learning_rate)

    def learning_rate(self, epoch: int, iteration: int = 0) -> float:
        """Learning rate of an epoch and, where it changes within one, of an iteration of it; both counted from 0."""
        schedule = self.recipe.schedule
        if schedule.every_iteration:
            step, steps = epoch * self._iterations + iteration, self.num_epochs * self._iterations
            return schedule.rate(self.initial_lr, step, steps)
        return schedule.rate(self.initial_lr, epoch, self.num_epochs)

    def train_step(self, batch: dict) -> dict:
        if self.recipe.schedule.every_iteration:
            set_learning_rate(self.optimizer, self.learning_rate(self.current_epoch, len(self._epoch_losses)))
        return super().train_step(batch)

    def _build_loss(self) -> nn.Module:
        ours = LabelLoss(self.recipe.one_class, self.recipe.several_classes, self.label_manager)
        stock = super()._build_loss()
        if not isinstance(stock, DeepSupervisionWrapper):
            return ours
        stock.loss = ours
        return stock

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        rotation, in_plane, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if (augmentation := self.recipe.augmentation) is not None:
            rotation = -augmentation.rotation, augmentation.rotation
            patch_size = self.configuration_manager.patch_size
            in_plane, initial_patch_size = len(patch_size) == 3, augmentation.initial_patch_size(patch_size)
        return rotation, in_plane, initial_patch_size, mirror_axes

    @classmethod
    def get_training_transforms(  # nnU-Net's is static, and called of the trainer
        cls, patch_size: np.ndarray | tuple[int, ...], *arguments: Any, **options: Any
    ) -> BasicTransform:
        stock = super().get_training_transforms(patch_size, *arguments, **options)
        return stock if cls.recipe.augmentation is None else cls.recipe.augmentation.replace(stock, patch_size)

    def on_train_start(self) -> None:
        super().on_train_start()
        recipe, batch = self.recipe, self.configuration_manager.batch_size
        lines = [f"Recipe {self.recipe_name}, of {recipe.source}. Chosen here: {recipe.inferred}."]
        loss = self.loss.loss if isinstance(self.loss, DeepSupervisionWrapper) else self.loss
        lines.append(f"Loss: {loss.formula}{' of the difference of the two logits' if loss.difference else ''}.")
        lines.append(f"Augmentation: {recipe.augmentation.title if recipe.augmentation else 'that of nnU-Net'}.")
        if recipe.batch_size not in (None, batch):
            lines.append(f"The recipe's batch is {recipe.batch_size}, this plan's {batch}.")
        if self.passes_over_the_data:
            lines.append(
                f"An epoch is one pass over the data: {self._training_cases} training cases in batches of {batch}, "
                f"drawn at random, are {self._iterations} iterations."
            )
        self.print_to_log_file(*lines)
