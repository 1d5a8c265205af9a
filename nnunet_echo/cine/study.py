"""From the files of a study to its numbers: clips are read, go through a model frame by frame, and are measured.

model = CineModel.load("nnUNet_results/Dataset751_CAMUS/nnUNetTrainerLKMUNet__nnUNetPlans__2d")
result = measure_study(model, ["loop.dcm"], views=["4CH"])
result.save("out")
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy import ndarray

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips import Clip, ClipError, read_clip
from nnunet_echo.cine.clips.sector import find_sector
from nnunet_echo.cine.masks import Masks
from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.result import VIEWS, CineResult
from nnunet_echo.cine.seg import open_source
from nnunet_echo.cine.smooth import smooth_masks
from nnunet_echo.cine.sr import check_header
from nnunet_echo.cine.stream import FrameResult
from nnunet_echo.data.errors import printable

Progress = Callable[[int, int], None]
_LV = "LV"


def measure_study(
    model: CineModel,
    paths: Sequence[str | Path],
    *,
    views: Sequence[str] = (),
    spacing: tuple[float, float] | None = None,
    fps: float | None = None,
    region: int | None = None,
    smooth: bool = False,
    progress: Progress = lambda done, total: None,
) -> CineResult:
    """Masks, beats and numbers of one clip, or of two clips of one study, by a model that is loaded.

    `paths` are files, or folders of pictures that are one clip each. `views` has one of `VIEWS` for each of them; two
    clips need both, and are biplane. `spacing`, `fps` and `region` as `read_clip` takes
    them, for all clips. `smooth` averages the masks over time; numbers without it stand beside. `progress` is told how
    many frames of how many are done, of all clips together.
    Raises `ClipError` for a file that is no clip or is damaged, FileNotFoundError, and ValueError for arguments that
    cannot be, a model of several channels, and `smooth` with one that predicts regions.

    >>> model = None  # CineModel.load("nnUNet_results/Dataset751_CAMUS/nnUNetTrainerLKMUNet__nnUNetPlans__2d")
    >>> try:
    ...     measure_study(model, ["a4c.dcm", "a2c.dcm"], views=["4CH"])
    ... except ValueError as error:
    ...     print(error)
    views=['4CH']: two clips are two views. Name both, 4CH and 2CH.
    """
    names = check_views(paths, views)
    clips = [read_clip(path, spacing=spacing, fps=fps, region=region) for path in paths]
    count = _Counter(sum(clip.count for clip in clips), progress)
    sectors = [find_sector(clip) for clip in clips]
    masks = [_masks(model, clip, sector, smooth, count) for clip, sector in zip(clips, sectors, strict=True)]
    plain, smoothed = zip(*masks, strict=True)
    return analyse(
        clips[0],
        plain[0],
        structures(model),
        view=names[0],
        second=(clips[1], plain[1], names[1]) if len(clips) == 2 else None,
        smooth=smoothed[0],
        second_smooth=smoothed[-1] if len(clips) == 2 else None,
        sector=sectors[0],
        second_sector=sectors[-1],
        model=about(model),
    )


def structures(model: CineModel) -> dict[str, int | list[int]]:
    """Structure -> its values in the model's masks, as `analyse` takes labels; of a region all that lie in it."""
    named = model.steps.dataset_json["labels"]
    return {name: value for name, value in named.items() if name != "ignore" and value not in (0, [0])}


def about(model: CineModel) -> dict[str, str]:
    """What result.json says of a model; no path. One of another engine says what its self-test gave."""
    told = {
        "hash": model.hash,
        "network": model.network,
        "trainer": model.trainer,
        "configuration": model.steps.configuration,
        "folds": " ".join(map(str, model.folds)),
        "engine": model.engine,
    }
    if model.engine != "torch" and model.test_frame is not None:
        test = model.self_test()
        told["self_test"] = f"{test.different} of {test.pixels} labels differ from PyTorch's"
    return told


def check_sources(save: Iterable[str], path: str | Path) -> None:
    """Raise before any work what would stop SR and SEG, where they are among `save`, after it.

    ValueError for a first clip that is no DICOM file, has no study, or whose header a report cannot repeat,
    FileNotFoundError, and RuntimeError without highdicom.
    """
    wanted = {"sr", "seg"} & set(save)
    if not wanted:
        return
    data = open_source(path)
    if "sr" in wanted:
        if find_spec("highdicom") is None:
            raise RuntimeError("SR is written by highdicom. Install it: pip install 'nnunet-echo[dicom]'.")
        check_header(data, printable(Path(path).name))


def check_views(paths: Sequence[str | Path], views: Sequence[str]) -> list[str]:
    """The view of each clip, "" where it is not named.

    Raises ValueError for other clips and views than `measure_study` takes, and for two files of the same bytes.

    >>> check_views(["a4c.dcm"], [])
    ['']
    """
    if len(paths) not in (1, 2):
        raise ValueError(f"paths: a study is one clip or two, got {len(paths)}. Measure others one by one.")
    names = list(views) or [""] * len(paths)
    if unknown := [name for name in names if name not in ("", *VIEWS)]:  # names of files are made of them
        raise ValueError(f"views={unknown[0]!r}: must be among {', '.join(VIEWS)}.")
    if len(paths) == 2 and sorted(names) != sorted(VIEWS):
        raise ValueError(f"views={list(views)}: two clips are two views. Name both, 4CH and 2CH.")
    if len(names) != len(paths):
        raise ValueError(f"views={names}: {len(names)} for one clip. Name one, or none.")
    first, last = Path(paths[0]), Path(paths[-1])
    if len(paths) == 2 and first.is_file() and last.is_file() and filecmp.cmp(first, last, shallow=False):
        name = printable(last.name)
        raise ValueError(f"{name}: has the same content as the first clip. Give the other view, or one clip alone.")
    return names


class _Counter:
    """Counts frames of all clips for `progress`."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = 0, total, progress
        progress(0, total)

    def one_more(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _masks(model: CineModel, clip: Clip, sector: ndarray, smooth: bool, count: _Counter) -> tuple[Masks, Masks | None]:
    """The masks of a clip, and those averaged over time where they are asked for, in one pass of the network.

    The network sees the sector alone, as in its training, where all around is black: a screen has text, an ECG and a
    second picture, which it would normalise by and find hearts in. Where the size of a pixel is not known, the sector
    is taken to be as large as the images of the training.
    """
    spacing = clip.spacing_mm
    if sector.any():
        rows, columns = (int(np.ptp(np.flatnonzero(sector.any(axis)))) + 1 for axis in (1, 0))
        spacing = spacing or model.assumed_spacing((rows, columns))
    plain, averaged = Masks(), Masks()
    entropies: list[float | None] = []
    edge = _LV if _LV in model.labels and not model.steps.label_manager.has_regions else ""

    def frames() -> Iterator[FrameResult]:
        seen = (np.where(sector, frame, 0) for frame in clip.frames()) if sector.any() else clip
        for frame in model.stream(seen, spacing_mm=spacing, edge_of=edge, probabilities=smooth):
            plain.append(frame)
            entropies.append(frame.entropy)
            count.one_more()
            yield frame

    def probabilities() -> Iterator[ndarray]:
        for frame in frames():
            assert frame.probabilities is not None
            yield frame.probabilities

    if not smooth:
        for _ in frames():
            pass
        return plain, None
    for number, (_, mask) in enumerate(smooth_masks(probabilities())):
        averaged.append(FrameResult(mask, entropies[number]))
    return plain, averaged


__all__ = ["ClipError", "measure_study"]
