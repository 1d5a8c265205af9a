"""A trainer for networks that keep parts of their pretrained weights as they are.

nnU-Net loads ``-pretrained_weights`` when optimiser and DDP are there already, and a checkpoint too. The network knows
by then what it freezes: its parameters leave the optimiser, so that neither gradient nor weight decay nor momentum
moves them, and DDP is told anew which gradients there are.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_echo.nnunet.plans import median_image_mm
from nnunet_echo.training.trainer import TokenTrainer


class PretrainedTrainer(TokenTrainer):
    """For networks that know whether they are `pretrained`, and whose weights: `networks.samus.network.SAMUS`.

    >>> class nnUNetTrainerNativeSAMUS(PretrainedTrainer):
    ...     network_path, network_options, enable_deep_supervision = "samus", {"grid": "native"}, False
    >>> nnUNetTrainerNativeSAMUS.schedule
    'warm-up, then cosine'
    """

    def on_train_start(self) -> None:
        super().on_train_start()
        network = self._bare_network()
        count = {
            flag: sum(p.numel() for p in network.parameters() if p.requires_grad is flag) for flag in (True, False)
        }
        trained, frozen = (f"{count[flag] / 1e6:.2f} M parameters" for flag in (True, False))
        if network.pretrained:
            sha256 = bytes(network.pretrained_sha256.tolist()).hex()
            self.print_to_log_file(f"Pretrained weights, SHA-256 {sha256}: {trained} train, {frozen} stay as they are.")
        else:
            self.print_to_log_file(
                f"No pretrained weights: everything trains, {trained} ({frozen} have no use). Published results start "
                "from those of SAM: nnunet-echo weights makes a file for -pretrained_weights."
            )
        self._note_a_small_patch()

    def _note_a_small_patch(self) -> None:
        size = median_image_mm(self.plans_manager.plans["configurations"], self.configuration_name)
        if size is None:
            return
        patch, pixel = (getattr(self.configuration_manager, of)[-2:] for of in ("patch_size", "spacing"))
        shape = tuple(round(n / mm) for n, mm in zip(size[-2:], pixel, strict=True))
        if any(n > one for n, one in zip(shape, patch, strict=True)):
            self.print_to_log_file(
                f"The patch {tuple(patch)} is smaller than the median image {shape}: the network sees parts of "
                "images, and was made for complete ones. A coarser spacing (nnunet-echo plan) makes them fit."
            )

    def _weights_changed(self, network: nn.Module, keys: object) -> None:
        """Parameters may have been frozen: the optimiser and DDP forget them."""
        super()._weights_changed(network, keys)
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        if self.is_ddp:
            self.network = DistributedDataParallel(self.network.module, device_ids=self.network.device_ids)
