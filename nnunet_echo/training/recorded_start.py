"""nnU-Net's trainer, with a record of the weights that its training starts from; ``-pretrained_weights`` leaves none.

nnU-Net loads that file into the network and tells the trainer nothing: that weights came is seen at the network, from
which file at the command line.
"""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_echo.nnunet.pretrained import (
    Source,
    file_given,
    in_words,
    keep_pretrained,
    pretrained_of,
    same_start,
    source_of_any,
)
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
        folder, source = Path(self.output_folder), None
        if self.weights_came:
            file = file_given(sys.argv)
            source = source_of(file) if file else {}
        if not same_start(source, pretrained_of(folder)):
            self._set_aside("which started from other weights")
        keep_pretrained(folder, source)
        if source is not None:
            self.print_to_log_file(f"Starts from {in_words(source)}.")

    def _set_aside(self, why: str) -> None:
        """What an earlier training left in the folder: --c and --val would take it for this one's."""
        folder = Path(self.output_folder)
        for path in (*folder.glob("checkpoint_*.pth"), folder / "validation"):
            if path.exists():
                aside = path.rename(f"{path}.before_{time.strftime('%Y%m%d_%H%M%S')}")
                self.print_to_log_file(f"{path.name} is of an earlier training, {why}: now {aside.name}.")


def source_of(file: Path) -> Source:
    """Name, SHA-256 and kind of the release in a file of `nnunet-echo weights`; of a checkpoint of nnU-Net, its own.

    Raises `ValueError` for what nnU-Net would not take as pretrained weights.
    """
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # nnU-Net's own checkpoints hold more than tensors
        return source_of_any(file)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"{file} is not a whole file of weights ({error}). Make it with nnunet-echo weights."
        ) from error
    if not isinstance(saved, dict) or "network_weights" not in saved:
        raise ValueError(
            f"{file} has no network_weights, as a checkpoint of nnU-Net has. nnunet-echo weights makes such a file of "
            "released weights."
        )
    released = saved.get("pretrained")
    return source_of_any(file, released if isinstance(released, dict) else None)  # others may have such a key, too
