"""A folder of images in nnU-Net's layout through a model: the masks of nnUNetv2_predict."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from numpy import ndarray

from nnunet_echo.cine.model import CineModel
from nnunet_echo.cine.steps import Properties
from nnunet_echo.data.errors import SourceError, printable, some
from nnunet_echo.data.verify import verify_image
from nnunet_echo.nnunet.folders import replace_file

REFUSE, KEEP, REPLACE = "refuse", "keep", "replace"  # what becomes of masks that are there already


def list_cases(images: Path, ending: str) -> dict[str, list[Path]]:
    """Case -> its files CASE_0000ENDING, CASE_0001ENDING, ... in a folder, one for each channel.

    Raises FileNotFoundError for a folder that is not there or has none, ValueError for a channel that is missing.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder. Name the folder of the images with -i.")
    cases: dict[str, list[Path]] = {}
    for file in sorted(images.iterdir()):
        if match := re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name, re.DOTALL):
            cases.setdefault(match[1], []).append(file)
    if not cases:
        there = some(sorted(file.name for file in images.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{images}: has no images CASE_0000{ending}, as the model was trained on. There is {there}. Clips are for "
            "nnunet-echo cine; other images have to be converted first."
        )
    for case, files in cases.items():
        if [file.name for file in files] != [f"{case}_{channel:04d}{ending}" for channel in range(len(files))]:
            raise ValueError(f"{files[0]}: case {case} lacks a channel. Its files must be numbered 0000, 0001, ...")
    return cases


def predict_folder(
    model: CineModel,
    images: Path,
    masks: Path,
    *,
    existing: str = REFUSE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Predict each case in `images` and write its mask to `masks`, made if need be; returns the files written.

    A mask appears once it is complete, whenever this process ends; dataset.json and plans.json come last, as a sign
    that all are there. `existing` masks are refused before any work, kept and not predicted again ("keep"), or replaced
    ("replace"). `progress` gets how many of how many are done. Raises ValueError for masks that are there, for an image
    that is damaged (`verify_image` tells for NIfTI, MetaImage and PNG) or of other channels, and as `list_cases`.
    """
    ending = model.steps.dataset_json["file_ending"]
    cases = list_cases(images, ending)
    there = [case for case in cases if (masks / f"{case}{ending}").exists()]
    records = {
        name: json.dumps(content, indent=4) + "\n"
        for name, content in (("dataset.json", model.steps.dataset_json), ("plans.json", model.steps.manager.plans))
    }
    if existing == REFUSE and there:
        raise ValueError(
            f"{masks}: has {len(there)} of {len(cases)} masks already: {some(there)}. Choose another folder, keep them "
            "with --continue_prediction, or replace them with --overwrite."
        )
    if existing != REPLACE:
        for name, content in records.items():
            if (masks / name).exists() and not _same_json(masks / name, content):
                raise ValueError(
                    f"{masks / name}: is of another model, whose masks must not be mixed with these. Choose another "
                    "folder, or replace all with --overwrite."
                )
    if existing == KEEP:
        cases = {case: files for case, files in cases.items() if case not in there}
    masks.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with TemporaryDirectory(prefix=".unfinished-", dir=masks) as unfinished:
        progress(0, len(cases))
        for case in model.map(cases.items(), _Work(Path(unfinished), ending)):
            target = masks / f"{case}{ending}"
            os.replace(Path(unfinished, target.name), target)
            written.append(target)
            progress(len(written), len(cases))
    for name, content in records.items():
        if not (masks / name).exists() or not _same_json(masks / name, content):
            replace_file(masks / name, content)
    return written


class _Work:
    """What a worker does with one case: read, predict, write where nobody looks."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self.ending = folder, ending

    def __call__(self, model: CineModel, case_and_files: tuple[str, list[Path]]) -> str:
        case, files = case_and_files
        reader_writer = model.steps.manager.image_reader_writer_class()
        image, properties = _read(reader_writer, files)
        try:
            labels = model.predict(image, properties | {})
        except ValueError as error:
            raise ValueError(f"{files[0]}: {error}") from error
        reader_writer.write_seg(labels, str(self.folder / f"{case}{self.ending}"), properties)
        return case


def _read(reader: object, files: list[Path]) -> tuple[ndarray, Properties]:
    try:
        for file in files:
            verify_image(file, printable(file))
        return reader.read_images([str(file) for file in files])  # type: ignore[attr-defined]
    except SourceError:
        raise
    except Exception as error:  # of any library that nnU-Net reads images with
        reason = (str(error).strip() or "their sizes or spacings differ").splitlines()[-1].strip()
        raise ValueError(
            f"{files[0]}: nnU-Net cannot read it{' with its other channels' if len(files) > 1 else ''} ({reason}). "
            "Copy or convert it again, or take it out of the folder."
        ) from error


def _same_json(file: Path, content: str) -> bool:
    try:
        return json.loads(file.read_bytes()) == json.loads(content)
    except ValueError:
        return False
