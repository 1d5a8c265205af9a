"""TED to nnU-Net: `nnunet-echo convert ted SOURCE`.

    database/patient001/patient001_4CH_sequence.mhd, .._4CH_sequence_gt.mhd   a complete cycle, a mask for every frame
    database/patient001/patient001_4CH_info.cfg                               ED, ES, NbFrame, ... EF

A cine becomes one 3D case, `TED_patient001_4CH` (data/cine.py), from one ED through ES to the next: background 0, left
ventricle 1, myocardium 2. There is no left atrium. `--mode frames` makes 2D cases of the ED and the ES that the cfg
names, `TED_patient001_4CH_ED`; a cine whose ventricle is not larger at ED is refused then.

TED's 98 patients are patients of CAMUS under other numbers. NEVER train on the one and test on the other.

Splits (`--split`), by patient: `5fold`, stratified by EF and image quality; there is no official list.
Source: Painchaud et al., IEEE TMI 41(10):2867-2878, 2022, and the files of the release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cases import Case
from nnunet_echo.data.cine import as_cine, make_case, sampled_frames, sequence_json
from nnunet_echo.data.errors import SourceError
from nnunet_echo.data.findings import Note
from nnunet_echo.data.images import Frame, check_grid, read_image, to_uint8
from nnunet_echo.data.reader import Reading, SequenceReader
from nnunet_echo.data.splits import SPLITS_OF_ALL, five_folds
from nnunet_echo.data.tables import whole_number

from ..creatis import Patient, collect_patients, overlooked_patients, read_info

PATIENT_FOLDER = re.compile(r"patient\d{3}")
CINE_FILE = re.compile(r"(?P<patient>patient\d{3})_4CH_(?P<kind>sequence\.mhd|sequence_gt\.mhd|info\.cfg)")
RELEASE_FILE = re.compile(r"patient\d{3}_4CH_(sequence(_gt)?\.(mhd|z?raw)|info\.cfg)")
VIEW, LV = "4CH", 1

DATASET_JSON = {
    "name": "TED",
    "description": "TED: complete cardiac cycles of the apical 4-chamber view; patients of CAMUS under other numbers",
    "reference": "N. Painchaud et al., IEEE TMI 41(10):2867-2878, 2022, doi 10.1109/TMI.2022.3173669",
    "licence": "CC BY-NC-SA 4.0, non-commercial scientific research only",
    "channel_names": {"0": "ultrasound"},  # not a name that nnU-Net treats in a special way: z-score
    "labels": {"background": 0, "LV": LV, "MYO": 2},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
    "case_id_pattern": r"(?P<patient>TED_patient\d{3})_(?P<view>4CH)",
    "sequence": {**sequence_json("mm"), "last": "ED"},
}
FRAMES_JSON = {key: value for key, value in DATASET_JSON.items() if key != "sequence"} | {
    "name": "TEDFrames",
    "case_id_pattern": r"(?P<patient>TED_patient\d{3})_(?P<view>4CH)_(?P<phase>ED|ES)",
}


@dataclass(frozen=True, kw_only=True)
class Ted(SequenceReader):
    """TED; see the module's docstring."""

    mode: str = "sequence"
    split: str = "5fold"

    name = "ted"
    summary = (
        "TED, complete cycles of the 4-chamber view as 3D cases; never to be mixed with CAMUS, whose patients it has"
    )
    source_help = "the unpacked download: a folder with patientXXX folders somewhere below it"
    dataset_ids = {"TED": 761, "TEDFrames": 762}
    modes = {"sequence": "each cine a 3D case, time the slowest axis", "frames": "its ED and ES frame, 2D cases"}
    splits = {"5fold": "five folds stratified by EF and image quality", **SPLITS_OF_ALL}

    def dataset_json(self) -> dict[str, Any]:
        return FRAMES_JSON if self.mode == "frames" else DATASET_JSON

    def read(self, source: Path) -> Reading:
        patients = collect_patients(
            source,
            PATIENT_FOLDER,
            CINE_FILE,
            lambda folder, name: _list_patient(source, folder, name),
            f"no folder patientXXX below {source}; expected the unpacked TED download with database/patient001/...",
        )
        strata = {f"TED_{name}": patient.stratum() for name, patient in patients.items() if len(patient.files) == 2}
        refused, warnings = overlooked_patients(
            source, PATIENT_FOLDER, RELEASE_FILE, "patient001/patient001_4CH_sequence.mhd"
        )
        reading = Reading(refused=refused, warnings=warnings)
        reading.split = self.drawn_or_given_split(strata) or five_folds(strata, strata, seed=self.seed)
        reading.warn(
            "patients of CAMUS",
            "TED",
            "the patients are patients of CAMUS under other numbers: never train on the one and test on the other.",
        )
        for patient in patients.values():
            _list_cases(source, patient, self, reading)
        return reading


def read_cine(root: Path, image: str, label: str, frames: int | None) -> Frame:
    """The cine (x, y, t) and its masks at these paths below `root`; `frames` is how many the cfg says it has."""
    pair = [to_uint8(as_cine(read_image(root / name, name), name), name) for name in (image, label)]
    cine = Frame(pair[0], image, pair[1], label)
    check_grid(cine)
    found = cine.image.GetSize()[2]
    if frames not in (None, found):
        raise SourceError(f"{image}: {found} frames where its cfg has NbFrame {frames}; it is another cine.")
    return cine


def read_sequence(
    root: Path,
    image: str,
    label: str,
    frames: int | None,
    phases: Mapping[str, int | None],
    clip: int | None,
    size: int | None,
) -> Frame:
    """The case of a cine, see `make_case`; `phases` gives ED and ES, counted from 1, where they are known."""
    cine = read_cine(root, image, label, frames)
    found = cine.image.GetSize()[2]
    if outside := {phase: frame for phase, frame in phases.items() if frame is not None and not 1 <= frame <= found}:
        raise SourceError(
            f"{image}: {found} frames, but its cfg has "
            f"{' and '.join(f'{phase} {frame}' for phase, frame in outside.items())}."
        )
    numbers = sampled_frames(1, found, clip)
    case = make_case(cine, [number - 1 for number in numbers], numbers, size=size, unit="mm")
    places = {
        phase.lower(): str(numbers.index(frame) + 1) if frame in numbers else "" for phase, frame in phases.items()
    }
    return replace(case, facts={**case.facts, **places})


def read_phase(root: Path, image: str, label: str, frames: int, phases: Mapping[str, int], phase: str) -> Frame:
    """One frame of the cine; `phases` gives ED and ES, counted from 1."""
    cine = read_cine(root, image, label, frames)
    if not all(1 <= frame <= frames for frame in phases.values()):
        raise SourceError(f"{image}: its cfg has ED {phases['ED']} and ES {phases['ES']} of {frames} frames.")
    assert cine.label is not None
    masks = sitk.GetArrayViewFromImage(cine.label)
    areas = {name: np.count_nonzero(masks[frame - 1] == LV) for name, frame in phases.items()}
    if areas["ED"] <= areas["ES"]:
        raise SourceError(
            f"{label}: the ventricle is not larger in frame {phases['ED']} ({areas['ED']} pixels) than in "
            f"frame {phases['ES']} ({areas['ES']}), which the cfg calls ED and ES."
        )
    number = phases[phase]
    return replace(
        cine,
        image=cine.image[:, :, number - 1],
        image_name=f"{image}, frame {number}",
        label=cine.label[:, :, number - 1],
        label_name=f"{label}, frame {number}",
    )


def _list_patient(source: Path, folder: Path, name: str) -> Patient:
    patient = Patient(name, folder.relative_to(source).as_posix())
    for match in filter(None, map(CINE_FILE.fullmatch, sorted(entry.name for entry in folder.iterdir()))):
        path = (folder.relative_to(source) / match.string).as_posix()
        if folder.name != name != match["patient"]:  # all patients in one folder
            continue
        if match["patient"] != name:
            patient.refused.append(
                Note(
                    "misplaced file",
                    path,
                    f"{path}: named {match['patient']} in the folder of {name}. Rename the file or move it.",
                )
            )
        elif match["kind"] != "info.cfg":
            patient.files[VIEW, "sequence", "mask" if "_gt" in match["kind"] else "image"] = path
        else:
            try:
                patient.info[VIEW] = read_info(source / path)
            except OSError as error:
                patient.warnings.append(Note("cfg unreadable", patient.name, f"{path}: {error.strerror or error}."))
    return patient


def _list_cases(source: Path, patient: Patient, options: Ted, reading: Reading) -> None:
    reading.refused += patient.refused
    reading.warnings += patient.warnings
    case_id, info = f"TED_{patient.name}_{VIEW}", patient.info.get(VIEW, {})
    image, mask = (patient.files.get((VIEW, "sequence", kind)) for kind in ("image", "mask"))
    if not patient.files:
        reading.warn("patient without cine", patient.name, f"{patient.folder}: no cine and no masks.")
        return
    if image is None or mask is None:
        lacking = "cine" if image is None else "masks (.._gt)"
        reading.refuse("file missing", case_id, f"{image or mask} is there, but not its {lacking}.")
        return
    ef = patient.ef_percent()
    frames, ed, es = (whole_number(info.get(key, "")) for key in ("NbFrame", "ED", "ES"))
    unknown = [name for name, value in (("EF", ef), ("NbFrame", frames), ("ED", ed), ("ES", es)) if value is None]
    if unknown and options.mode == "frames" and unknown != ["EF"]:
        reading.refuse(
            "cfg field missing",
            case_id,
            f"{patient.folder}: no usable {', '.join(unknown)} in "
            f"{patient.name}_{VIEW}_info.cfg, so that ED and ES are not known.",
        )
        return
    if unknown:
        reading.warn(
            "cfg field missing",
            patient.name,
            f"{patient.folder}: no usable {', '.join(unknown)} in {patient.name}_{VIEW}_info.cfg; left empty.",
        )
    common = {"ef_percent": "" if ef is None else f"{ef:g}", "quality": patient.quality(VIEW)}
    if options.mode == "frames":
        assert frames is not None and ed is not None and es is not None  # refused above
        for phase, frame in (("ED", ed), ("ES", es)):
            read = partial(read_phase, source, image, mask, frames, {"ED": ed, "ES": es}, phase)
            table = {"view": VIEW, "phase": phase, "frame": str(frame), **common}
            reading.cases.append(Case(f"{case_id}_{phase}", f"TED_{patient.name}", image, read, table=table))
    else:
        read = partial(read_sequence, source, image, mask, frames, {"ED": ed, "ES": es}, options.clip, options.size)
        reading.cases.append(Case(case_id, f"TED_{patient.name}", image, read, table={"view": VIEW, **common}))


READER = Ted
