"""What `train_fold` runs: the training of a fold, or a prediction by all folds. Standard library only.

Both have `base`, which the names of their files begin with (BASE.log, BASE.lock, BASE.json), `is_done`, `command`,
which makes the disk ready for the command that it returns, `finish`, called when that succeeded, and `arguments`,
which describe it to a `train_fold` in another process.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nnunet_echo.nnunet.cases import REMEDY, cases_of_fold, keep_cases, other_split
from nnunet_echo.nnunet.commands import find_program
from nnunet_echo.nnunet.pretrained import OPTION, keep_pretrained, source_of_any
from nnunet_echo.nnunet.results import check_name, is_done, model_folder

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")  # in the order of nnU-Net's --c


@dataclass(frozen=True)
class Model:
    """A trainer, its plans and configuration, for the dataset called `dataset`, on a device as nnU-Net calls it."""

    dataset: str
    configuration: str
    trainer: str
    plans: str
    device: str

    def __post_init__(self) -> None:
        """Raises `ValueError` for names that cannot be."""
        for what in ("configuration", "trainer", "plans"):
            check_name(what, getattr(self, what))

    @property
    def folder(self) -> Path:
        """Where nnU-Net keeps its folds."""
        return model_folder(self.dataset, self.trainer, self.plans, self.configuration)

    def options(self) -> list[str]:
        """Those that nnU-Net's commands, and `train_fold`, have in common."""
        return ["-tr", self.trainer, "-p", self.plans, "-device", self.device]


@dataclass(frozen=True)
class Training:
    """One fold, trained and validated; it may start from a file of `weights`."""

    model: Model
    fold: str
    weights: Path | None = None

    def __str__(self) -> str:
        return f"{self.model.trainer} fold {self.fold}"

    @property
    def folder(self) -> Path:
        return self.model.folder / f"fold_{self.fold}"

    @property
    def base(self) -> Path:
        return self.folder / "train_fold"

    def is_done(self) -> bool:
        return is_done(self.folder) and not self._other_split()

    def _other_split(self) -> str:
        """What shows that the results here are of other cases than the split has now; "" if none."""
        now = cases_of_fold(self.model.dataset, self.fold)
        return "" if now is None else other_split(self.folder, now)

    def arguments(self) -> list[str]:
        return [*self._nnunet_arguments(), *self._start()]

    def _nnunet_arguments(self) -> list[str]:
        return [self.model.dataset, self.model.configuration, self.fold, *self.model.options()]

    def _start(self) -> list[str]:
        return [] if self.weights is None else [OPTION, str(self.weights)]

    def command(self) -> list[str]:
        """nnU-Net's command for what is left to do. A torn checkpoint, on which it fails for ever, is renamed.

        The first one notes the fold's cases and weights, as nnU-Net's own trainers do not. Raises `RuntimeError` when
        the split is another by now.
        """
        complete = []
        for checkpoint in (self.folder / name for name in CHECKPOINTS):
            if not checkpoint.exists():
                continue
            if zipfile.is_zipfile(checkpoint):
                complete.append(checkpoint.name)
            else:  # torch.save writes in place, and the archive's directory comes last
                checkpoint.replace(f"{checkpoint}.torn")
        if (complete or is_done(self.folder)) and (other := self._other_split()):
            raise RuntimeError(f"{self} is of another split: {other}. {REMEDY}.")
        if not complete and (now := cases_of_fold(self.model.dataset, self.fold)) is not None:
            keep_cases(self.folder, now)
        if not complete:
            keep_pretrained(self.folder, None if self.weights is None else source_of_any(self.weights))
        left = ["--val"] if CHECKPOINTS[0] in complete else ["--c"] if complete else self._start()
        return [find_program("nnUNetv2_train"), *self._nnunet_arguments(), *left]

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class Prediction:
    """The images of a folder, predicted by the mean of some folds, in a folder predicted_<its name> of the model's."""

    model: Model
    folds: tuple[str, ...]
    images: Path

    def __str__(self) -> str:
        return f"{self.model.trainer} on {self.images.name}"

    @property
    def base(self) -> Path:
        return self.model.folder / f"predicted_{self.images.name}"

    @property
    def _unfinished(self) -> Path:
        return Path(f"{self.base}.unfinished")

    def is_done(self) -> bool:
        return self.base.is_dir()

    def arguments(self) -> list[str]:
        return [
            self.model.dataset,
            self.model.configuration,
            *self.folds,
            *self.model.options(),
            "--predict",
            str(self.images),
        ]

    def command(self) -> list[str]:
        shutil.rmtree(self._unfinished, ignore_errors=True)  # nnU-Net writes in place: any file may be cut short
        return [
            find_program("nnUNetv2_predict"),
            "-i",
            str(self.images),
            "-o",
            str(self._unfinished),
            "-d",
            self.model.dataset,
            "-c",
            self.model.configuration,
            "-f",
            *self.folds,
            *self.model.options(),
        ]

    def finish(self) -> None:
        os.replace(self._unfinished, self.base)
