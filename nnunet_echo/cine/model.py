"""A trained 2D model of nnU-Net that stays loaded: frames in, label maps out.

model = CineModel.load("nnUNet_results/Dataset751_CAMUS/nnUNetTrainerLKMUNet__nnUNetPlans__2d")
for frame in model.stream(read_clip("loop.dcm")):
    frame.mask  # (H, W) uint8
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from torch import Tensor

from nnunet_echo.cine.clips.clip import Clip
from nnunet_echo.cine.loading import Fold, load_folder
from nnunet_echo.cine.steps import Forward, Properties, Steps, edge_entropy
from nnunet_echo.cine.stream import FrameResult, default_workers, in_order
from nnunet_echo.nnunet.plans import median_image_mm

_FAR = 999  # nnU-Net's distance between the slices of a single one, in pixels


@dataclass(frozen=True)
class SelfTest:
    """Of an exported model: `different` of `pixels` labels are others than PyTorch gave when it was exported."""

    different: int
    pixels: int


@dataclass(frozen=True, eq=False)
class CineModel:
    """Networks that are loaded once, with nnU-Net's steps before and after them. Made by `load`.

    `source` are the files that its weights are from, `trainer` the trainer's name, `engine` "torch" or "onnxruntime",
    `folds` those of the networks, whose logits are averaged. A model may be used by several threads at once.

    >>> try:
    ...     CineModel.load("nnUNet_results/Dataset751_CAMUS")
    ... except FileNotFoundError as error:
    ...     print(str(error).partition(":")[2])
     there is no such file. Name a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results.
    """

    steps: Steps
    networks: tuple[Forward, ...]
    source: tuple[Path, ...]
    trainer: str
    network: str
    folds: tuple[Fold, ...] = (0,)
    engine: str = "torch"
    workers: int = field(default_factory=default_workers)
    test_frame: tuple[ndarray, tuple[float, float], ndarray] | None = None  # frame (C, H, W), spacing, labels

    @classmethod
    def load(
        cls,
        path: str | Path,
        folds: Sequence[Fold] | None = (0,),
        device: str = "cpu",
        checkpoint: str = "checkpoint_final.pth",
        *,
        workers: int | None = None,
        mirroring: bool = True,
        step_size: float = 0.5,
        import_trainer: bool = False,
    ) -> CineModel:
        """A folder TRAINER__PLANS__CONFIGURATION of nnUNet_results, or a file that `nnunet-echo export` wrote.

        Several `folds` (None: all there are) are an ensemble, as in nnU-Net; an exported file has its own. `workers`
        frames are computed at once (default: one for each processor; 1 on a GPU). `mirroring` False leaves out the
        mirrored forms that the checkpoint asks for, as nnU-Net's --disable_tta. For the rest, and what is raised, see
        `loading.load_folder`; a file raises as `export.archive.load_archive`.
        """
        path = Path(path)
        if path.is_file():
            from nnunet_echo.cine.export.archive import load_archive

            model = load_archive(path, device=device, mirroring=mirroring, step_size=step_size)
        else:
            loaded = load_folder(
                path, folds, checkpoint, device, mirroring=mirroring, step_size=step_size, import_trainer=import_trainer
            )
            model = cls(loaded.steps, loaded.networks, loaded.files, loaded.trainer, loaded.network_name, loaded.folds)
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: must be at least 1.")
        return replace(model, workers=workers or (default_workers() if device == "cpu" else 1))

    @property
    def labels(self) -> dict[str, int]:
        """Structure -> its number in the masks, without the background."""
        return self.steps.labels

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the files that the weights are from, in hexadecimal digits."""
        digest = hashlib.sha256()
        for file in self.source:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def predict(self, image: ndarray, properties: Properties) -> ndarray:
        """The label map (Z, H, W) that nnU-Net predicts of an image (C, Z, H, W) with nnU-Net's `properties`.

        Computes on as many threads as PyTorch has here; `map` and `stream` on one for each worker.
        """
        properties = dict(properties)
        return self.steps.segmentation(self._logits(image, properties), properties)

    def map(self, items: Iterable[Any], work: Callable[[CineModel, Any], Any]) -> Iterator[Any]:
        """``work(model, item)`` of each item, in order, by this model's workers; see `stream.in_order`."""
        return in_order(items, lambda item: work(self, item), self.workers)

    def stream(
        self,
        clip: Clip | Iterable[ndarray],
        *,
        spacing_mm: tuple[float, float] | None = None,
        edge_of: str = "",
        probabilities: bool = False,
    ) -> Iterator[FrameResult]:
        """The label map of each frame, in order, while the clip is read: memory does not grow with its length.

        `clip` is what `read_clip` gives, or any iterable of grey frames (H, W), whose pixels are `spacing_mm` (height,
        width) large. Only the clip's `region`, if it has one, is looked at, and outside it the mask is 0. Without a
        spacing it is assumed by `assumed_spacing`. `edge_of` names a structure: results then have the entropy along
        its edge. With `probabilities` they have those too, (K, H, W), background beyond the region; class k of them is
        label k of the masks. Raises ValueError for a model of several channels, an unknown structure, frames that are
        none, and probabilities of a model of regions, which may be in several of them at once.
        """
        if self.steps.channels != 1:
            raise ValueError(
                f"the model takes {self.steps.channels} channels, but frames of a clip are grey. Use a model of one "
                "channel; images of several go through nnunet-echo predict."
            )
        if edge_of and (edge_of not in self.labels or self.steps.label_manager.has_regions):
            raise ValueError(f"edge_of={edge_of!r}: expected one of {', '.join(self.labels)}, and no regions.")
        if probabilities and self.steps.label_manager.has_regions:
            raise ValueError(
                "probabilities=True: the model predicts regions that overlap, of which masks cannot be averaged over "
                "time. Use it without smoothing."
            )
        region = None
        frames: Iterable[ndarray]
        if isinstance(clip, Clip):
            frames, region, spacing_mm = clip.frames(), clip.region, spacing_mm or clip.spacing_mm
        else:
            frames = clip
        if spacing_mm is not None and not (len(spacing_mm) == 2 and all(0 < n < np.inf for n in spacing_mm)):
            raise ValueError(f"spacing_mm={spacing_mm!r}: expected height and width of a pixel, both above 0.")
        label = self.labels[edge_of] if edge_of else None
        return in_order(
            frames, lambda frame: self._frame(frame, spacing_mm, region, label, probabilities), self.workers
        )

    def assumed_spacing(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Height and width (mm) of a pixel for frames (H, W) of unknown scale, assumed square.

        So large that the frame just fits into the median image of the training. Good enough to find structures by, as
        networks see many sizes in training; never a scale to measure with. Raises ValueError for a model whose plan
        does not say how large its images are.
        """
        sizes = median_image_mm(self.steps.manager.plans["configurations"], self.steps.configuration)
        if sizes is None:
            raise ValueError(
                "the clip does not say how large a pixel is, and the model's plan not how large its images are "
                "(median_image_size_in_voxels). Give the size of a pixel with --spacing."
            )
        pixel = min(size / n for size, n in zip(sizes[-2:], shape, strict=True))
        return float(pixel), float(pixel)

    def self_test(self) -> SelfTest:
        """Predict the frame that an exported model carries. Raises ValueError for a model that has none."""
        if self.test_frame is None:
            raise ValueError("only exported models carry a self-test. Make one with nnunet-echo export.")
        frame, spacing, expected = self.test_frame
        mask = self.predict(frame[:, None], self.frame_properties(spacing))[0]
        return SelfTest(int((mask != expected).sum()), expected.size)

    def frame_properties(self, spacing_mm: tuple[float, float]) -> Properties:
        """What nnU-Net's reader says of a frame whose pixels are so large; of pictures such as PNG it knows no size."""
        in_pixels = self.steps.manager.image_reader_writer_class.__name__ == "NaturalImage2DIO"
        pixel = (1.0, 1.0) if in_pixels else spacing_mm
        return {"spacing": (_FAR * max(pixel), *pixel)}

    def _frame(
        self,
        frame: ndarray,
        spacing: tuple[float, float] | None,
        region: tuple[int, int, int, int] | None,
        label: int | None,
        with_probabilities: bool,
    ) -> FrameResult:
        if frame.ndim != 2 or not frame.size or frame.dtype.kind not in "uif":
            raise ValueError(f"frame: expected grey numbers (H, W), got {frame.dtype} {frame.shape}.")
        y0, y1, x0, x1 = region or (0, frame.shape[0], 0, frame.shape[1])
        seen = frame[y0:y1, x0:x1]
        pixel = spacing or self.assumed_spacing(seen.shape)
        image, properties = seen[None, None], self.frame_properties(pixel)
        logits = self._logits(image, properties)
        whole = None
        if with_probabilities:
            labels, probabilities = self.steps.probabilities(logits, properties)
            whole = np.zeros((len(probabilities), *frame.shape), np.float32)
            whole[0] = 1
            whole[:, y0:y1, x0:x1] = probabilities[:, 0]
        else:
            labels = self.steps.segmentation(logits, properties)
        mask = np.zeros(frame.shape, labels.dtype)
        mask[y0:y1, x0:x1] = labels[0]
        return FrameResult(mask, None if label is None else edge_entropy(logits[:, 0], label), whole)

    def _logits(self, image: ndarray, properties: Properties) -> Tensor:
        return self.steps.logits(self.steps.preprocess(image, properties), self.networks)
