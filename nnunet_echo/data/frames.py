"""Sequences of label maps as single frames, as `evaluate` reads them.

The label maps are predictions for the sequences of a dataset, or its own labelsTr or labelsTs; the files are 2D:

    CAMUS_patient0001_4CH_f01_ED.nii.gz  .._f02.nii.gz  ...  .._f18_ES.nii.gz  dataset.json  cases.csv

numbered from 1 in the order of the sequence. Where the dataset was resized, frames have the size and spacing of the
cine again: each label is interpolated linearly, and the largest wins. Frames that hold nothing but the ignore label are
left out, and dataset.json has no such label, so that only what has a reference is scored.

With `phases`, only ED and ES are written, with the names of the same download's 2D cases, `CAMUS_patient0001_4CH_ED`:
they can be compared with 2D predictions, against one folder of references, and are all that sparse labels leave to
evaluate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cases import case_table
from nnunet_echo.data.cine import resize_labels
from nnunet_echo.data.images import read_image, to_uint8, write_image
from nnunet_echo.data.parallel import map_in_order

FRAME_PATTERN = r"_f(?P<frame>\d+)(?:_(?P<phase>ED|ES))?"
PHASE_PATTERN = r"_(?P<phase>ED|ES)"


def write_frames(
    maps: Path, dataset: Path, out: Path, *, phases: bool = False, workers: int | None = 1, progress: bool = False
) -> int:
    r"""Write every sequence in the folder `maps` to `out` as frames; returns how many.

    `dataset` is the raw dataset that the sequences belong to, `phases` stands for ED and ES only,
    `workers` and `progress` are those of `map_in_order`. Raises `ValueError`
    for a map that is none of its sequences, is of another size, or is partly ignored within a frame;
    `FileNotFoundError` where there is no map; `FileExistsError` where `out` is not empty.

    >>> dataset = Path("Dataset799_Hearts")
    >>> (dataset / "labelsTr").mkdir(parents=True)
    >>> sequence = sitk.GetImageFromArray(np.ones((3, 64, 48), np.uint8))  # (T, H, W)
    >>> sitk.WriteImage(sequence, str(dataset / "labelsTr" / "p1.nii.gz"))
    >>> _ = (dataset / "cases.csv").write_text("case,ed,es,size\np1,1,3,48 64 3\n")
    >>> content = {"labels": {"background": 0, "LV": 1}, "file_ending": ".nii.gz"}
    >>> content["case_id_pattern"] = r"(?P<patient>p\d)"
    >>> _ = (dataset / "dataset.json").write_text(json.dumps(content))
    >>> write_frames(dataset / "labelsTr", dataset, Path("frames"))
    3
    >>> sorted(path.name for path in Path("frames").glob("*.nii.gz"))
    ['p1_f01_ED.nii.gz', 'p1_f02.nii.gz', 'p1_f03_ES.nii.gz']
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: is not empty. Give a new folder with -o.")
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    rows = {case: row for case, row in case_table(dataset).items() if {"ed", "es"} <= row.keys()}
    ending = content["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in maps.glob(f"*{ending}"))
    if not cases:
        raise FileNotFoundError(f"{maps}: no *{ending} file there.")
    strangers = [case for case in cases if case not in rows]
    if strangers:
        raise ValueError(
            f"{maps / strangers[0]}{ending}: is not a sequence of {dataset}, whose cases.csv names them; "
            f"{len(strangers)} such file(s)."
        )
    out.mkdir(parents=True, exist_ok=True)
    write = partial(_write_sequence, maps=maps, out=out, content=content, phases=phases)
    count = sum(map_in_order(write, [rows[case] for case in cases], title="frames", workers=workers, progress=progress))
    labels = {name: value for name, value in content["labels"].items() if name != "ignore"}
    pattern = content["case_id_pattern"] + (PHASE_PATTERN if phases else FRAME_PATTERN)
    content = {**content, "labels": labels, "case_id_pattern": pattern, "numTraining": count}
    content.pop("sequence", None)
    (out / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(dataset / "cases.csv", out / "cases.csv")  # for the EF of the patients
    return count


def frame_names(row: Mapping[str, str], phases: bool) -> dict[str, int]:
    """The names of a sequence's frames -> their numbers from 1, by the sequence's row in cases.csv."""
    named = {int(row[phase]): f"_{phase.upper()}" for phase in ("ed", "es") if row[phase]}
    if phases:
        return {row["case"] + phase: number for number, phase in sorted(named.items())}
    count = int(row["size"].split()[2])
    return {f"{row['case']}_f{number:02d}{named.get(number, '')}": number for number in range(1, count + 1)}


def _write_sequence(row: Mapping[str, str], maps: Path, out: Path, content: Mapping, phases: bool) -> int:
    """Write the frames of the case in this row of cases.csv, in a worker; returns how many."""
    path, ignore = maps / f"{row['case']}{content['file_ending']}", content["labels"].get("ignore")
    sequence = to_uint8(read_image(path, str(path), content.get("spacing_unit", "mm")), str(path))
    size = tuple(int(length) for length in row["size"].split())
    if sequence.GetSize() != size:
        raise ValueError(f"{path}: {sequence.GetSize()} pixels, but cases.csv has {size}. Predict on its images.")
    count = 0
    for name, number in frame_names(row, phases).items():
        frame = sequence[:, :, number - 1]
        ignored = sitk.GetArrayViewFromImage(frame) == ignore
        if ignored.all():
            continue
        if ignored.any():
            raise ValueError(f"{path}: frame {number} is partly ignored; only complete frames can be left out.")
        write_image(_as_in_cine(frame, row), out / f"{name}.nii.gz", out)
        count += 1
    return count


def _as_in_cine(frame: sitk.Image, row: Mapping[str, str]) -> sitk.Image:
    """The frame on the grid that the cine had before it was resized."""
    if "cine_size" not in row:
        return frame
    width, height = (int(length) for length in row["cine_size"].split())
    if frame.GetSize() == (width, height):
        return frame
    spacing = row.get("cine_spacing_mm") or row["cine_spacing_px"]
    cine = sitk.GetImageFromArray(resize_labels(sitk.GetArrayFromImage(frame), (height, width)))
    cine.SetDirection(frame.GetDirection())
    shrinkage = np.array(frame.GetSize()) / (width, height)
    cine.SetOrigin(frame.TransformContinuousIndexToPhysicalPoint(((shrinkage - 1) / 2).tolist()))
    cine.SetSpacing([float(length) for length in spacing.split()])
    return cine
