"""The inputs of an evaluation: what dataset.json says, which files belong together, and two masks on one grid.

Of dataset.json are read, beside nnU-Net's `labels` and `file_ending`:
- `case_id_pattern`, a regular expression with the groups `patient` and, as far as the names have them, `view`, `phase`
  and `frame`, the number of a frame in a sequence; without it each case is its own patient;
- `spacing_unit`, "mm" (the default for files with a spacing) or "px": the images have no known scale, their files hold
  the spacing 1, distances are in pixels and volumes undefined. Always "px" for PNG, which holds no spacing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.cases import case_table, patient_of
from nnunet_echo.data.errors import times
from nnunet_echo.data.images import read_frame
from nnunet_echo.data.labels import read_labels
from nnunet_echo.data.natural_image import read_natural_image
from nnunet_echo.data.patients import patient_pattern
from nnunet_echo.evaluation.left_ventricle.volume import BIPLANE_VIEWS, PHASES
from nnunet_echo.evaluation.metrics import structures

UNITS = ("mm", "px")
ENDINGS = (".nii.gz", ".nii", ".png")


@dataclass(frozen=True)
class Dataset:
    """What dataset.json says: structure -> label values, every allowed value, the unit of distances."""

    structures: Mapping[str, tuple[int, ...]]
    allowed: frozenset[int]
    file_ending: str
    unit: str
    case_id_pattern: str | None


@dataclass(frozen=True)
class CaseId:
    """What the name of a case, which is one frame, says; "" where it does not and, for `frame`, None.

    ED, ES, 2CH and 4CH are in capitals, however the name has them.
    """

    name: str
    patient: str
    view: str
    phase: str
    frame: int | None = None


def find_dataset_json(*folders: Path) -> Path:
    """dataset.json in the last folder (of references), beside it, or where nnU-Net puts a copy: in the others."""
    places = [folders[-1], folders[-1].parent, *folders[:-1]]
    for folder in places:
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    raise FileNotFoundError(
        f"no dataset.json in {', '.join(map(str, places))}. Name it with --dataset-json (it needs "
        '"labels", such as {"background": 0, "LV": 1}, and "file_ending"), or name the structures: '
        "--labels LV=1 MYO=2 LA=3."
    )


def read_dataset(path: Path) -> Dataset:
    """Read a dataset.json. Raises `ValueError`, naming it, where it cannot be used, `OSError` where it is not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels, ending = content["labels"], content["file_ending"]
        found = structures(labels)
        pattern = content.get("case_id_pattern")
        groups = re.compile(pattern or "(?P<patient>.*)").groupindex
    except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise ValueError(f"{path}: not a usable dataset.json ({type(error).__name__}: {error}).") from error
    if "patient" not in groups:
        raise ValueError(f"{path}: case_id_pattern is {pattern!r}; it needs a group (?P<patient>...).")
    if ending not in ENDINGS:
        raise ValueError(f"{path}: file_ending is {ending!r}; {', '.join(ENDINGS)} can be evaluated.")
    if "ignore" in labels:
        raise ValueError(
            f"{path}: has an ignore label; partly labelled references cannot be evaluated. Of sequences, "
            "nnunet-echo frames writes the frames that have a reference."
        )
    has_spacing = ending != ".png"
    unit = content.get("spacing_unit", "mm" if has_spacing else "px")
    if unit not in UNITS or (unit == "mm" and not has_spacing):
        raise ValueError(
            f"{path}: spacing_unit is {unit!r}; {ending} files can have "
            f"{' or '.join(UNITS if has_spacing else UNITS[1:])}."
        )
    allowed = frozenset({0}.union(*found.values()))
    return Dataset(found, allowed, ending, unit, pattern)


def labelled_folder(folder: Path, labels: Sequence[str], patients: str | None = None) -> Dataset:
    """What a dataset.json would say of the label maps in `folder`: structures such as LV=1, names as in `patients`.

    Files are of one kind; those with a spacing have it in mm. `patients` is a regular expression with the group
    patient, and, as far as the names have them, view, phase and frame. Raises `ValueError` for what cannot be used, and
    `FileNotFoundError` for a folder without label maps.
    """
    read = read_labels(labels)
    if read.colours:
        raise ValueError(f"--labels {' '.join(labels)}: label maps hold values. Give them, such as LV=1.")
    if read.background:
        raise ValueError(f"--labels background={read.background}: the background of label maps is 0.")
    found = {ending: sorted(path.name for path in folder.glob(f"*{ending}")) for ending in ENDINGS}
    kinds = [ending for ending, names in found.items() if names]
    if not kinds:
        raise FileNotFoundError(f"{folder}: no label maps ({', '.join(ENDINGS)}) there.")
    if len(kinds) > 1:
        raise ValueError(
            f"{folder}: holds {' and '.join(kinds)} files. "
            "Keep one kind there, or give a dataset.json with file_ending."
        )
    pattern = None if patients is None else patient_pattern(patients)
    return Dataset(
        structures(read.values),
        frozenset({0, *read.values.values()}),
        kinds[0],
        "px" if kinds[0] == ".png" else "mm",
        pattern,
    )


def given_dataset(
    folder: Path, dataset_json: str | Path | None, labels: Sequence[str], patients: str | None, *others: Path
) -> tuple[Dataset, Path | None]:
    """The dataset of the label maps in `folder`, and its dataset.json; None where `labels` say it all.

    Without either, dataset.json is looked for in and beside the folder, and in the `others`. Raises as those that read
    it, and `ValueError` for both, or for `patients` without `labels`.
    """
    if not labels:
        if patients is not None:
            raise ValueError(
                f"--patients {patients!r} goes with --labels; with a dataset.json its case_id_pattern "
                "tells the patients."
            )
        path = Path(dataset_json) if dataset_json else find_dataset_json(*others, folder)
        return read_dataset(path), path
    there = (
        [Path(dataset_json)]
        if dataset_json
        else [
            place / "dataset.json" for place in (folder, folder.parent, *others) if (place / "dataset.json").is_file()
        ]
    )
    if there:
        raise ValueError(
            f"--labels {' '.join(labels)}: {there[0]} says already what the labels are. Leave --labels "
            "out, or move that file elsewhere."
        )
    return labelled_folder(folder, labels, patients), None


def recorded_ef(dataset_json: Path) -> dict[str, float]:
    """Patient -> the EF in percent that the dataset came with, as its conversion noted it in cases.csv."""
    try:
        table = case_table(dataset_json.parent).values()
        return {row["patient"]: float(row["ef_percent"]) for row in table if row.get("ef_percent")}
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{dataset_json.with_name('cases.csv')}: not the table of a conversion "
            f"({str(error).rstrip('.')}). Move it elsewhere."
        ) from error


def pair_cases(
    predictions: Path, references: Path, dataset: Dataset, *, subset: bool = False
) -> tuple[list[CaseId], int]:
    """The cases that are in both folders, and how many references have no prediction.

    Raises `ValueError` for a prediction without reference, for a reference without prediction (unless `subset`), for
    names that do not match the pattern, for two cases of one patient, view, phase and frame number, for two that are ED
    (ES) of one patient and view, and for a sequence whose frame numbers are not evenly spaced; `FileNotFoundError` for
    a folder without files of the dataset's ending.
    """
    names = {}
    for folder in (predictions, references):
        names[folder] = {path.name.removesuffix(dataset.file_ending) for path in folder.glob(f"*{dataset.file_ending}")}
        if not names[folder]:
            raise FileNotFoundError(f"{folder}: no *{dataset.file_ending} file there.")
    strangers = sorted(names[predictions] - names[references])
    if strangers:
        raise ValueError(
            f"{predictions / strangers[0]}{dataset.file_ending}: has no reference of its name in "
            f"{references}; {len(strangers)} such prediction(s)."
        )
    missing = sorted(names[references] - names[predictions])
    if missing and not subset:
        raise ValueError(
            f"{references / missing[0]}{dataset.file_ending}: has no prediction in {predictions}; "
            f"{len(missing)} such reference(s). --subset evaluates the others, as for one fold."
        )
    cases = [_case_id(name, dataset) for name in sorted(names[predictions])]
    seen: dict[tuple[object, ...], str] = {}
    sequences: dict[tuple[str, str], list[int]] = {}
    for case in cases:
        key = case.patient, case.view, case.phase, case.frame
        # Volumes need one ED and one ES; other frames may share all but their number, or all where names tell no more.
        alike = [key] * (key[2:] != ("", None)) + [key[:3]] * (case.phase in PHASES and "LV" in dataset.structures)
        for same in alike:
            if same in seen:
                raise ValueError(
                    f"{case.name} and {seen[same]} are both {' '.join(str(part) for part in same if part)}"
                    "; one frame of each is needed. Give case_id_pattern the groups that tell them apart, "
                    "or call only one of them ED or ES."
                )
            seen[same] = case.name
        if case.frame is not None:
            sequences.setdefault(key[:2], []).append(case.frame)
    for sequence, frames in sequences.items():
        if len(set(np.diff(sorted(frames)))) > 1:
            raise ValueError(
                f"{' '.join(filter(None, sequence))}: frames {sorted(frames)} are not evenly spaced, so that "
                "neighbours cannot be compared. Complete them, or leave the group frame out of "
                "case_id_pattern."
            )
    return cases, len(missing)


def read_pair(prediction: Path, reference: Path, dataset: Dataset) -> tuple[ndarray, ndarray, tuple[float, float]]:
    """Two label maps (H, W), uint8, and the reference's spacing (row, column) in the dataset's unit.

    Raises `ValueError`, naming the file, where one cannot be read, holds a label that the dataset does not have, or
    does not lie on the other's grid.
    """
    ours, theirs = _read(prediction, dataset.unit), _read(reference, dataset.unit)
    for what, found, expected, tolerance in (
        ("size", ours.GetSize(), theirs.GetSize(), 0.0),
        ("spacing", ours.GetSpacing(), theirs.GetSpacing(), 1e-4),
        ("direction", ours.GetDirection(), theirs.GetDirection(), 1e-3),
    ):
        if not np.allclose(found, expected, rtol=0, atol=tolerance):
            raise ValueError(
                f"{prediction}: {what} {times(found)}, but the reference {reference} has "
                f"{times(expected)}. Predict on the original images or bring the prediction back to them."
            )
    width, height = theirs.GetSpacing()
    if dataset.unit == "px" and not np.allclose((width, height), 1, rtol=0, atol=1e-4):
        raise ValueError(
            f'{reference}: spacing {width:g} x {height:g}, but dataset.json says spacing_unit "px", which '
            "needs 1 x 1. If the spacing is in mm, remove spacing_unit."
        )
    return _labels(ours, prediction, dataset), _labels(theirs, reference, dataset), (height, width)


def _case_id(name: str, dataset: Dataset) -> CaseId:
    patient = patient_of(name, {"case_id_pattern": dataset.case_id_pattern})
    match = re.fullmatch(dataset.case_id_pattern, name) if dataset.case_id_pattern else None
    groups = match.groupdict("") if match else {}
    frame = groups.get("frame") or None
    if frame is not None and not frame.isdecimal():
        raise ValueError(
            f"{name}: its frame is {frame!r} by case_id_pattern {dataset.case_id_pattern!r}; the group "
            "frame must hold a number."
        )
    view, phase = (
        _capital(groups.get(group, ""), known) for group, known in (("view", BIPLANE_VIEWS), ("phase", PHASES))
    )
    return CaseId(name, patient, view, phase, frame and int(frame))


def _capital(text: str, known: Sequence[str]) -> str:
    return text.upper() if text.upper() in known else text


def _read(path: Path, unit: str) -> sitk.Image:
    if path.suffix != ".png":
        return read_frame(path, str(path), unit)
    pixels, _ = read_natural_image(path, str(path))  # of a palette the indices, which are the labels
    if pixels.ndim != 2:
        raise ValueError(
            f"{path}: {pixels.shape[2]} values a pixel; one label is needed: grey values, or the indices of a palette."
        )
    return sitk.GetImageFromArray(pixels)


def _labels(image: sitk.Image, path: Path, dataset: Dataset) -> ndarray:
    values = sitk.GetArrayViewFromImage(image)
    labels = values.astype(np.uint8)
    if (labels != values).any() or set(np.unique(labels).tolist()) - dataset.allowed:
        unknown = sorted(set(np.unique(values).tolist()) - dataset.allowed)
        raise ValueError(
            f"{path}: unknown labels {', '.join(f'{value:g}' for value in unknown[:8])}; dataset.json has "
            f"{sorted(dataset.allowed)}."
        )
    return labels
