"""AdamTrainer: Adam or AdamW with the settings of a publication, as class attributes."""

from __future__ import annotations

from torch.optim import Adam, AdamW

from nnunet_echo.training.schedules import EpochSchedule, Schedule, cosine, polynomial
from nnunet_echo.training.trainer import EchoTrainer, other_lengths

__all__ = ["Adam", "AdamTrainer", "cosine", "other_lengths", "polynomial"]  # what a trainer file imports


class AdamTrainer(EchoTrainer):
    """For networks that others have trained with Adam in nnU-Net.

    As they did, weight decay applies to all parameters that are trained. A subclass says the rest: `optimizer_class`,
    `initial_lr`, `weight_decay`, `epsilon`, `rates`.

    >>> class nnUNetTrainerOurSegResNet(AdamTrainer):
    ...     network_path, optimizer_class, initial_lr, epsilon, rates = "segresnet", Adam, 1e-4, 1e-8, polynomial()
    >>> nnUNetTrainerOurSegResNet.schedule
    'polynomial decay'
    """

    optimizer_class: type[Adam | AdamW] = AdamW
    epsilon: float
    rates: Schedule

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "rates" in vars(cls):
            cls.schedule = cls.rates.title  # for the log

    def configure_optimizers(self) -> tuple[Adam | AdamW, EpochSchedule]:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = self.optimizer_class(trained, lr=self.initial_lr, weight_decay=self.weight_decay, eps=self.epsilon)
        return optimizer, EpochSchedule(optimizer, self.learning_rate)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.rates.rate(self.initial_lr, epoch, self.num_epochs)
