"""nnU-Net's own trainer under the budget of benchmarks/camus_budget.py: no mirroring, 12 epochs of 50 iterations."""

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring

from nnunet_echo.training.memory import keep_freed_memory, peak_memory_gib


class nnUNetTrainerNoMirroring_12epochs_50iterations(nnUNetTrainerNoMirroring):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 12
        self.num_iterations_per_epoch = 50
        self.num_val_iterations_per_epoch = 10
        if self.device.type == "cpu":
            keep_freed_memory()  # as the other trainers do, so that the epoch times compare

    def on_epoch_end(self):
        self.print_to_log_file(f"Peak memory {peak_memory_gib(self.device):.2f} GiB")
        super().on_epoch_end()
