"""What must hold of real trainings that were killed and went on, told from their events and what they left."""

from __future__ import annotations

import json
from itertools import combinations, pairwise

import pytest
import torch
from crossval_place import DATASET, EPOCHS, Place

from nnunet_echo.nnunet.results import read_fold


def check_events(place: Place, continued: int) -> None:
    """So many trainings or more were continued after they were killed."""
    events = place.events()
    assert not [event for event in events if event["event"] == "conflict"]
    assert len([event for event in events if event["event"] == "start" and event["epoch"] > 0]) >= continued, events


def check_fold(place: Place, trainer: str, fold: int) -> None:
    """Nothing was done twice, there never were two writers, and the end is that of an undisturbed training."""
    mine = place.events(trainer=trainer, fold=fold)
    assert [event["event"] for event in mine].count("done") == 1 and mine[-1]["event"] == "done", mine
    processes = {event["process"] for event in mine}
    spans = [[event["time"] for event in mine if event["process"] == process] for process in processes]
    for first, second in combinations(spans, 2):
        assert max(first) < min(second) or max(second) < min(first), mine
    epochs = [event["epoch"] for event in mine if event["event"] == "epoch"]
    assert set(epochs) == set(range(EPOCHS))
    # a killed training repeats the epoch that it had not saved, and no other
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(epochs)), epochs
    assert len(epochs) - EPOCHS <= len(processes) - 1, epochs

    folder = place.fold(trainer, fold)
    assert read_fold(folder).state == "done"
    checkpoint = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert checkpoint["current_epoch"] == EPOCHS
    rates = [pytest.approx(0.01 * (1 - epoch / EPOCHS) ** 0.9) for epoch in range(EPOCHS)]
    assert checkpoint["logging"]["lrs"] == rates
    assert len(checkpoint["logging"]["train_losses"]) == EPOCHS
    splits = json.loads((place.folder / "preprocessed" / DATASET / "splits_final.json").read_text())
    validated = {path.name.removesuffix(".nii.gz") for path in (folder / "validation").glob("*.nii.gz")}
    assert validated == set(splits[fold]["val"])
