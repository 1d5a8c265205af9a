"""Weights that others have released, into a network of this package: which of its tensors they fill, and which not.

A released file has names and shapes of its own. Each kind of file is one row of `LAYOUTS`: how it is recognised, and
which tensor of the network each of its tensors fills. To add a kind, write the two functions beside the network that it
is for (`samus.weights` is an example), and add the row.

Nothing is matched by a part of a name, nothing is left out in silence: what does not fit is an error, and the report
names what was taken, what kept its initial value and what the file has besides.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_echo.networks import vm_unet_weights as vmamba
from nnunet_echo.networks.layouts import KEYS_SHOWN, Layout, Move, Weights
from nnunet_echo.networks.samus import weights as sam
from nnunet_echo.networks.vil import weights as vil
from nnunet_echo.networks.wrapped_weights import sets_of_weights, without_wrapping
from nnunet_echo.nnunet.pretrained import hash_of_file

NOTE = "pretrained_sha256"  # a buffer in which a network may keep whose weights it has
ENTRY = "['model']"  # which of several sets of weights in one file is taken; the others are copies, such as averages


LAYOUTS: tuple[Layout, ...] = (
    Layout("SAM or SAMUS", sam.recognise, sam.moves),
    Layout("VMamba v0", vmamba.recognise, vmamba.moves),
    Layout("VMamba v1 or v2", vmamba.recognise_later, vmamba.refuse_later),
    Layout("Vision-LSTM 1", vil.recognise_1, vil.moves_1),
    Layout("Vision-LSTM 2", vil.recognise_2, vil.moves_2),
)


@dataclass(frozen=True)
class PretrainedReport:
    """What `load_pretrained` did. Names are the network's, those of `unused` the file's; `resized` are among `taken`.

    `layout` is the row of `LAYOUTS`, `entry` where in the file the weights are (empty: at its top), `sha256` that of
    the file, or of the tensors where no file was given.
    """

    layout: str
    entry: str
    sha256: str
    taken: tuple[str, ...]
    untouched: tuple[str, ...]
    unused: tuple[str, ...]
    resized: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.layout}{f' in {self.entry}' if self.entry else ''}: {len(self.taken)} tensors taken, "
            f"{len(self.resized)} of them resized; {len(self.untouched)} of the network keep their initial values; "
            f"{len(self.unused)} of the file are not used"
        )


def load_pretrained(network: nn.Module, source: str | Path | Mapping[str, Any]) -> PretrainedReport:
    """Load released weights into `network`, in place; `source` is a file, or what such a file holds.

    A file is read without running code from it. Prefixes of wrappers (``module.``) are taken off. Raises
    FileNotFoundError; ValueError for a file that is none of weights, of no kind in `LAYOUTS`, or does not fit the
    network, which then is as it was.

    A network that treats pretrained weights in its own way has a buffer `NOTE` of 32 bytes, which gets the hash.

    >>> from nnunet_echo.networks import create_network
    >>> network = create_network("vm_unet", 1, 4, (64, 64), dims=16, depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
    >>> load_pretrained(network, {"a": torch.zeros(1)})
    Traceback (most recent call last):
    ValueError: ...
    """
    if not isinstance(source, str | os.PathLike | Mapping):
        raise ValueError(
            f"source is a {type(source).__name__}: expected a file, or the dict that it holds. Of a module pass its "
            "state_dict()."
        )
    saved, sha256 = (source, None) if isinstance(source, Mapping) else _read(Path(source))
    layout, entry, weights = _recognised(saved, source if sha256 else "the mapping")
    ours = network.state_dict()
    if strange := [key for key, x in weights.items() if x.is_meta or x.layout != torch.strided]:
        raise ValueError(f"{layout.name}: {strange[0]} holds no plain numbers. Save the weights as dense tensors.")
    try:
        moves = list(layout.moves(weights, network))
    except (IndexError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{layout.name}: a tensor has other axes than its name says ({error}). Take another file of weights."
        ) from error
    taken: dict[str, Move] = {}
    for move in moves:
        if move.target in taken or move.target not in ours:
            why = "twice" if move.target in taken else "but the network has none of that name"
            raise ValueError(f"{layout.name}: {move.source} would become {move.target}, {why}.")
        if move.tensor.shape != ours[move.target].shape:
            raise ValueError(
                f"{layout.name}: {move.source} {tuple(weights[move.source].shape)} does not fit {move.target} "
                f"{tuple(ours[move.target].shape)}. Build the network with the width and depth of the file."
            )
        if move.tensor.is_floating_point() != ours[move.target].is_floating_point():
            raise ValueError(
                f"{layout.name}: {move.source} is {move.tensor.dtype}, {move.target} {ours[move.target].dtype}. Take "
                "the file before it was quantised or converted."
            )
        if not torch.isfinite(move.tensor).all():
            raise ValueError(f"{layout.name}: {move.source} has NaN or infinite values. Take another file of weights.")
        taken[move.target] = move
    sha256 = sha256 or _hash_of_tensors(weights)
    note = {NOTE: torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8)} if NOTE in ours else {}
    network.load_state_dict({**ours, **{key: move.tensor for key, move in taken.items()}, **note})
    sources = {move.source for move in taken.values()}
    return PretrainedReport(
        layout.name,
        entry,
        sha256,
        taken=tuple(taken),
        untouched=tuple(key for key in ours if key not in taken and key != NOTE),
        unused=tuple(key for key in weights if key not in sources),
        resized=tuple(key for key, move in taken.items() if move.tensor.shape != weights[move.source].shape),
    )


def _read(file: Path) -> tuple[Any, str]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: expected a file of weights (.pth, .pt, .th).")
    try:
        return torch.load(file, map_location="cpu", weights_only=True), hash_of_file(file)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{file} was not read: it {f'names {named[1]}' if named else 'is no pickle of weights'}, and what is no "
            "weight could run code. If you trust it, save its weights alone, as torch.save(model.state_dict(), FILE)."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(f"{file} is not a whole file of weights ({error}). Download it again.") from error


def _hash_of_tensors(weights: Weights) -> str:
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _recognised(saved: Any, where: object) -> tuple[Layout, str, dict[str, Tensor]]:
    """The row, the entry of the file and the weights in it. ValueError where none is recognised, or several are."""
    sets = [(entry, without_wrapping(weights, entry)) for entry, weights in sets_of_weights(saved)]
    found = [(row, entry, weights) for entry, weights in sets for row in LAYOUTS if row.recognise(weights)]
    if len(found) > 1:
        found = [item for item in found if item[1] == ENTRY] or found
    if len(found) > 1:
        names = ", ".join(f"{row.name} in {entry or 'its top'}" for row, entry, _ in found)
        raise ValueError(f"{where} holds several sets of weights: {names}. Pass one of them.")
    if not found:
        keys = [key for _, weights in sets for key in weights]
        raise ValueError(
            f"{where} is of no known kind: expected {', '.join(row.name for row in LAYOUTS)}. "
            + (f"Its names begin {', '.join(keys[:KEYS_SHOWN])}." if keys else "It holds no tensors by name.")
        )
    return found[0]
