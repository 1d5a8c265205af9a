"""nnU-Net's trainer, with a record of the weights that its training starts from; ``-pretrained_weights`` leaves none.

nnU-Net loads that file into the network and tells the trainer nothing: that weights came is seen at the network, from
which file at the command line.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_echo.nnunet.pretrained import file_given, in_words, keep_pretrained, source_of_any
from nnunet_echo.training.resumable import SafeTrainer


class RecordedStart(SafeTrainer):
    """Knows by `weights_came` whether anything was loaded into its network since that was built."""

    network: Any
    weights_came = False

    def initialize(self) -> None:
        super().initialize()
        self._bare_network().register_load_state_dict_post_hook(self._weights_changed)

    def _bare_network(self) -> Any:
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def _weights_changed(self, _network: nn.Module, _keys: object) -> None:
        self.weights_came = True

    def _keep_start(self) -> None:
        """Note and log what a training starts from; of one that continues its first start tells."""
        file = file_given(sys.argv) if self.weights_came else None
        source = source_of(file) if file else {} if self.weights_came else None
        keep_pretrained(Path(self.output_folder), source)
        if source is not None:
            self.print_to_log_file(f"Starts from {in_words(source)}.")


def source_of(file: Path) -> Mapping[str, str]:
    """Name, SHA-256 and kind of the release in a file of `nnunet-echo weights`; of another file, its own."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # nnU-Net's own checkpoints hold more than tensors
        saved = {}
    return saved.get("pretrained") or source_of_any(file)
