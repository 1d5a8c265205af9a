"""Does a raw dataset hold what nnU-Net and a fair experiment need?

Looks at every file and reports all it finds, in two grades: a problem stops nnU-Net, or lets it train on or validate
with the wrong data; a remark is worth knowing. Works for any raw dataset of the endings in `READ`; of others it gives
no verdict. The checks by patient need the `case_id_pattern` that our converters write. dataset_json.py has what
concerns the JSON files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.dataset_json import (
    Finding,
    allowed_values,
    check_patients,
    check_report,
    check_splits,
    label_values,
    problem,
    read_dataset_json,
    remark,
)
from nnunet_echo.data.errors import SourceError, some
from nnunet_echo.data.images import read_image
from nnunet_echo.data.natural_image import NATURAL_ENDINGS, read_natural_image
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.data.target import SCRATCH

READ = (".nii.gz", ".nii", ".mha", ".nrrd", *NATURAL_ENDINGS)
NOT_READ = (".tif", ".tiff", ".gipl")  # by us; nnU-Net does
OVERWRITE = "overwrite_image_reader_writer"
CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "RGB": 3, "RGBA": 4, "P": 3}  # that nnU-Net sees in Pillow's modes


def check_dataset(folder: Path, workers: int | None = 1, progress: bool = False) -> list[Finding]:
    """Everything that is wrong or odd with the raw dataset in `folder`; an empty list when all is well.

    `workers` and `progress` are those of `map_in_order`. Raises `ValueError` for a dataset that can be nnU-Net's but
    whose files we do not read.

    >>> Path("Dataset799_Hearts").mkdir()
    >>> check_dataset(Path("Dataset799_Hearts"))
    [Finding(problem=True, text='dataset.json is missing: the conversion did not finish. Run it again.')]
    """
    findings = [*_check_leftovers(folder), *check_report(folder)]
    dataset_json = read_dataset_json(folder, findings)
    if dataset_json is None:
        return findings
    findings += _check_ending(folder, dataset_json)
    training = _list_cases(folder, "Tr", dataset_json, findings)
    test = _list_cases(folder, "Ts", dataset_json, findings)
    if len(training) != dataset_json["numTraining"]:
        findings.append(
            problem(
                f"imagesTr holds {len(training)} cases, dataset.json says numTraining "
                f"{dataset_json['numTraining']}: nnU-Net's planner stops."
            )
        )
    elif not training:
        findings.append(problem("imagesTr holds no case; there is nothing to learn."))
    findings += check_patients(training, test, dataset_json)
    findings += check_splits(folder, training, dataset_json)

    jobs = [("Tr", case, channels) for case, channels in training.items()]
    jobs += [("Ts", case, channels) for case, channels in test.items()]
    check = partial(_check_case, folder=folder, dataset_json=dataset_json)
    results = list(map_in_order(check, jobs, title=folder.name, workers=workers, progress=progress))
    findings += _check_axes({case: axes for (_, case, _), (_, axes) in zip(jobs, results, strict=True) if axes})
    return [*findings, *(finding for found, _ in results for finding in found)]


def _check_leftovers(folder: Path) -> Iterator[Finding]:
    left = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name == SCRATCH or path.name.endswith((".tmp", ".unfinished"))
    )
    if left:
        yield problem(f"leftovers of an interrupted conversion: {some(left)}. Run it again.")


def _check_ending(folder: Path, dataset_json: Mapping) -> Iterator[Finding]:
    """What nnU-Net says to the ending. Raises `ValueError` where it reads the dataset and we do not."""
    ending = dataset_json["file_ending"]
    if "dataset" in dataset_json:
        raise ValueError(
            f'{folder.name}: dataset.json lists its files under "dataset"; check reads imagesTr and '
            "labelsTr alone and gives no verdict. nnUNetv2_plan_and_preprocess --verify_dataset_integrity "
            "looks at the rest."
        )
    if ending in READ:
        return
    if ending.lower() in (*READ, *NOT_READ) or dataset_json.get(OVERWRITE, "None") != "None":
        raise ValueError(
            f"{folder.name}: file_ending is {ending}; check reads {', '.join(READ)} and gives no verdict. "
            "nnUNetv2_plan_and_preprocess --verify_dataset_integrity looks at it."
        )
    yield problem(
        f"dataset.json: file_ending is {ending!r}, which nnU-Net has no reader for; it reads "
        f"{', '.join(READ + NOT_READ)}."
    )


def _list_cases(folder: Path, part: str, dataset_json: Mapping, findings: list[Finding]) -> dict[str, list[str]]:
    """Case id -> channel files of imagesTr or imagesTs, and what is wrong with the names there and in the labels."""
    ending = dataset_json["file_ending"]
    images, labels = folder / f"images{part}", folder / f"labels{part}"
    cases: dict[str, list[str]] = {}
    if part == "Tr":
        findings += [problem(f"folder {place.name} is missing.") for place in (images, labels) if not place.is_dir()]
    for path in sorted(images.glob("*")):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", path.name)
        if match:
            cases.setdefault(match[1], []).append(path.name)
        elif path.name.endswith(ending):
            findings.append(problem(f"{images.name}/{path.name}: nnU-Net expects a channel number, NAME_0000{ending}."))
        else:
            findings.append(remark(f"{images.name}/{path.name}: not an image of this dataset; nnU-Net ignores it."))
    for case, files in cases.items():
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(len(files))]
        if files != expected:
            findings.append(problem(f"{images.name}: {case} has {', '.join(files)}, but needs {', '.join(expected)}."))
    labelled = {path.name[: -len(ending)] for path in labels.glob("*") if path.name.endswith(ending)}
    unlabelled, orphans = sorted(set(cases) - labelled), sorted(labelled - set(cases))
    if unlabelled:
        grade = problem if part == "Tr" else remark
        findings.append(grade(f"{len(unlabelled)} case(s) of {images.name} without a label: {some(unlabelled)}."))
    if orphans:
        findings.append(problem(f"{len(orphans)} label(s) of {labels.name} without an image: {some(orphans)}."))
    return cases


def _check_axes(axes: Mapping[str, int]) -> Iterator[Finding]:
    """nnU-Net plans for images that all have the same number of axes."""
    counts = Counter(axes.values()).most_common()
    if len(counts) > 1:
        others = sorted(case for case, count in axes.items() if count != counts[0][0])
        yield problem(
            f"{len(others)} case(s) have {', '.join(str(count) for count, _ in counts[1:])} axes, the others "
            f"{counts[0][0]}: {some(others)}. nnU-Net needs images of one kind: 2D or 3D."
        )


def _check_case(job: tuple[str, str, list[str]], folder: Path, dataset_json: Mapping) -> tuple[list[Finding], int]:
    """What is wrong with the pixels of one case, and how many axes its first image has (0 where none can be read)."""
    (part, case, channels), ending = job, dataset_json["file_ending"]
    names = [f"images{part}/{name}" for name in channels]
    label_name = f"labels{part}/{case}{ending}"
    if (folder / label_name).is_file():
        names.append(label_name)
    findings, images, seen = [], {}, 0
    for name in names:
        try:
            images[name], count = _read(folder / name, name, dataset_json)
        except SourceError as error:
            findings.append(problem(str(error)))
            continue
        if name == label_name and count > 1:
            findings.append(
                problem(
                    f"{name}: nnU-Net sees {count} values a pixel, a palette's colours or RGB. Write "
                    "the labels as grey values."
                )
            )
        seen += count if name != label_name else 0
    for name, image in images.items():
        findings += _check_grid(name, image, *next(iter(images.items())))
        if "sequence" in dataset_json:
            findings += _check_sequence(name, image)
        if name == label_name:
            findings += _check_label(name, image, dataset_json["labels"])
        elif not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
            findings.append(problem(f"{name}: NaN or infinite values."))
    read = [image for name, image in images.items() if name != label_name]
    if len(read) == len(channels):
        needed = len(dataset_json["channel_names"])
        if seen != needed:
            files = ", ".join(f"{case}_{channel:04d}{ending}" for channel in range(needed))
            findings.append(
                problem(f"images{part}: {case} has {seen} channel(s), but channel_names {needed}, as in {files}.")
            )
        if not any(sitk.GetArrayViewFromImage(image).any() for image in read):
            findings.append(problem(f"images{part}: {case}: every pixel is 0; the image has no content to learn from."))
    return findings, read[0].GetDimension() if read else 0


def _read(path: Path, name: str, dataset_json: Mapping) -> tuple[sitk.Image, int]:
    """The image, and how many channels nnU-Net takes it for."""
    ending, unit = dataset_json["file_ending"], dataset_json.get("spacing_unit", "mm")
    if ending in NATURAL_ENDINGS:
        pixels, mode = read_natural_image(path, name)
        if mode not in CHANNELS:
            raise SourceError(
                f"{name}: its pixels are {mode} (Pillow's name); nnU-Net reads grey values, RGB and RGBA."
            )
        return sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3), CHANNELS[mode]
    image = read_image(path, name, unit)
    axes = image.GetDimension()
    if str(dataset_json.get(OVERWRITE, "NibabelIO" if ending == ".nii" else "")).startswith("Nibabel") and axes != 3:
        raise SourceError(f"{name}: {axes} axes, but nnU-Net reads 3 with NibabelIO. Use .nii.gz and SimpleITKIO.")
    return image, image.GetSize()[3] if axes == 4 else 1


def _check_grid(name: str, image: sitk.Image, first_name: str, first: sitk.Image) -> Iterator[Finding]:
    for what in ("Size", "Spacing", "Origin", "Direction"):
        ours, theirs = getattr(image, f"Get{what}")(), getattr(first, f"Get{what}")()
        # For the spacing nnU-Net's own tolerance; the others do not stop it.
        rtol, atol = (1e-5, 1e-8) if what == "Spacing" else (0, 1e-4)
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=rtol, atol=atol):
            grade = problem if what in ("Size", "Spacing") else remark
            yield grade(f"{name}: {what.lower()} {ours} differs from {first_name}, {theirs}.")


def _check_sequence(name: str, image: sitk.Image) -> Iterator[Finding]:
    spacing = image.GetSpacing()
    if len(spacing) != 3:
        yield problem(f"{name}: {len(spacing)} axes; a sequence has x, y and t.")
    elif spacing[2] <= max(spacing[:2]):
        yield problem(
            f"{name}: spacing {spacing}; nnU-Net takes the axis of the largest for that of slices, which "
            "must be t. Use more pixels (--size)."
        )


def _check_label(name: str, label: sitk.Image, labels: Mapping) -> Iterator[Finding]:
    present = set(np.unique(sitk.GetArrayViewFromImage(label)).tolist())
    if strange := sorted(present - allowed_values(labels)):
        hint = " 255 stands for 1? Write the labels' own values." if strange == [255] else ""
        yield problem(f"{name}: label values {some(strange)} are not in dataset.json.{hint}")
    if present == {0}:
        yield remark(f"{name}: background only.")
    if "ignore" in labels and present == set(label_values(labels["ignore"]) or ()):
        yield problem(f"{name}: nothing but the ignore label; there is nothing to learn or to score.")
    if label.GetPixelID() not in (sitk.sitkUInt8, sitk.sitkVectorUInt8):
        yield remark(f"{name}: {label.GetPixelIDTypeAsString()}; 8-bit unsigned integer is enough and smaller.")
