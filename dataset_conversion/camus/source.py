"""What a download of CAMUS holds, in either release, found by file names only; no image is opened here.

    NIfTI release      database_nifti/patient0001/patient0001_2CH_ED.nii.gz, .._gt.nii.gz, Info_2CH.cfg
                       database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz, .._gt.nii.gz
                       database_split/subgroup_{training,validation,testing}.txt
    challenge of 2019  training/patient0001/patient0001_2CH_ED.mhd, .._gt.mhd, Info_2CH.cfg
                       testing/patient0001/... without masks; another person than training/patient0001

People unpack the archive into itself and gunzip the files, so patient folders are searched for, and .nii is accepted.
Without any patient folder, files of these names that lie together in one folder are taken for the patients' in their
names, with patient0001_Info_2CH.cfg, or Info_2CH.cfg where a folder holds only one patient. What else is named like a
patient or a case is reported.
Source: Leclerc et al., IEEE TMI 38(9):2198-2210, 2019, and the files of the two releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nnunet_echo.data.findings import Note
from nnunet_echo.data.source_folders import walk_folders
from nnunet_echo.data.tables import number_between, whole_number

from ..creatis import QUALITIES, Patient, collect_patients, holds_patients, read_info

PHASES, HALF_SEQUENCE = ("ED", "ES"), "half_sequence"
PATIENT_FOLDER = re.compile(r"patient\d{4}")
IMAGE_FILE = re.compile(
    r"(?P<patient>patient\d{4})_(?P<view>2CH|4CH)_(?P<part>ED|ES|half_sequence)(?P<mask>_gt)?"
    r"(?P<ending>\.nii\.gz|\.nii|\.mhd)"
)
RELEASE_FILE = re.compile(
    r"patient\d{4}_[24]CH_(ED|ES|half_sequence|sequence)(_gt)?(\.nii\.gz|\.nii|\.mhd|\.z?raw)"
    r"|(patient\d{4}_)?Info_[24]CH\.cfg"
)
ENDINGS = (".nii.gz", ".nii", ".mhd")  # the first that is there is read
INFO_FIELDS = ("ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "EF")  # in the cfg files of both releases
SUBSETS = ("training", "validation", "testing")


def find_patients(source: Path, views: Sequence[str], parts: Sequence[str]) -> dict[str, Patient]:
    """All patients below `source`, by name, with their files of `views` and `parts` and the cfg of every view.

    Raises as `collect_patients`.
    """
    return collect_patients(
        source,
        PATIENT_FOLDER,
        IMAGE_FILE,
        lambda folder, name: _list_patient(source, folder, name, views, parts),
        f"no folder patientXXXX below {source}; expected the unpacked CAMUS download with "
        "database_nifti/patient0001/... or training/patient0001/...",
    )


def find_lists(source: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The patients in each of the split lists `names` (file names), searched below the source and beside it.

    Returns an empty dictionary where none of the files exists. Raises `FileNotFoundError` when only some do, and
    `ValueError` for a line that does not name a patient, a patient named twice, or copies of the lists that differ.
    """
    beside = [source.parent / folder for folder in ("database_split", "listSubGroups")]
    lists: dict[str, list[str]] = {}
    for top in (source, *(folder for folder in beside if folder.is_dir())):
        for folder, _ in walk_folders(top, lambda name: holds_patients(name, PATIENT_FOLDER)):
            there = [name for name in names if (folder / name).is_file()]
            if not there:
                continue
            missing = [name for name in names if name not in there]
            if missing:
                raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} beside {there[0]}. Restore the list.")
            here = {name: _read_list(folder / name) for name in names}
            if lists and here != lists:
                raise ValueError(f"{folder} holds other split lists than another folder of {top}. Keep one of them.")
            lists = here
    return lists


def _list_patient(source: Path, folder: Path, person: str, views: Sequence[str], parts: Sequence[str]) -> Patient:
    names = sorted(entry.name for entry in folder.iterdir())
    if folder.name != person and {match["patient"] for match in map(IMAGE_FILE.fullmatch, names) if match} != {person}:
        names = [name for name in names if name.startswith(person)]  # of all the patients in this folder
    matches = filter(None, map(IMAGE_FILE.fullmatch, names))
    found = [match for match in matches if match["view"] in views and match["part"] in parts]
    relative = folder.relative_to(source)
    # Only the 2019 release has a folder of test patients, and only its ids collide.
    nearest = [part for part in (source.name, *relative.parts) if part in ("training", "testing")][-1:]
    test = nearest == ["testing"] and all(match["ending"] == ".mhd" for match in found)
    name = person.replace("patient", "test") if test else person
    patient = Patient(name, relative.as_posix(), unlabelled=test)

    for match in sorted(found, key=lambda match: ENDINGS.index(match["ending"])):
        path = (relative / match.string).as_posix()
        key = match["view"], match["part"], "mask" if match["mask"] else "image"
        if match["patient"] != person:
            patient.refused.append(
                Note(
                    "misplaced file",
                    path,
                    f"{path}: named {match['patient']} in the folder of {person}. Rename the file or move it.",
                )
            )
        elif key in patient.files:
            patient.warnings.append(Note("double file", patient.name, f"{patient.files[key]} is read, not {path}."))
        else:
            patient.files[key] = path

    for view, cfg in ((view, f"{stem}Info_{view}.cfg") for view in ("2CH", "4CH") for stem in (f"{person}_", "")):
        if cfg not in names:
            continue
        try:
            patient.info[view] = read_info(folder / cfg)
        except OSError as error:
            patient.info[view] = {}
            patient.warnings.append(
                Note(
                    "cfg unreadable",
                    patient.name,
                    f"{patient.folder}/Info_{view}.cfg: {error.strerror or error}; its fields are left empty.",
                )
            )
            continue
        patient.warnings += _review_info(patient, view)
    return patient


def _review_info(patient: Patient, view: str) -> Iterator[Note]:
    info = patient.info[view]

    def note(kind: str, text: str) -> Note:
        return Note(kind, patient.name, f"{patient.folder}/Info_{view}.cfg: {text}.")

    missing = [key for key in INFO_FIELDS if not info.get(key)]
    if missing:
        yield note("cfg field missing", f"no {', '.join(missing)}")
    if info.get("ImageQuality") and not patient.quality(view):
        yield note("cfg field unreadable", f"ImageQuality is {info['ImageQuality']!r}, not {' or '.join(QUALITIES)}")
    ef, used = number_between(info.get("EF", ""), 0, 100), patient.ef_percent()
    if info.get("EF") and ef is None:
        yield note("cfg field unreadable", f"EF is {info['EF']!r}, not a number in 0..100")
    for key in ("ED", "ES", "NbFrame"):
        if info.get(key) and not whole_number(info[key]):
            yield note("cfg field unreadable", f"{key} is {info[key]!r}, not the number of a frame")
    if ef is not None and ef != used:
        yield note("EF differs", f"EF {ef:g} %, but {used:g} % in the other view's cfg, which is used")


def _read_list(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    patients = [line for line in lines if line]
    for number, line in enumerate(lines, 1):
        if line and not PATIENT_FOLDER.fullmatch(line):
            raise ValueError(f"{path}, line {number}: {line!r} is not a patient such as patient0001.")
    if len(set(patients)) < len(patients):
        raise ValueError(f"{path} names a patient twice.")
    return patients


def check_disjoint(lists: Mapping[str, Sequence[str]]) -> None:
    """Raise `ValueError` when a patient is in two of the lists: it would leak from training to validation or test."""
    owner: dict[str, str] = {}
    for name, patients in lists.items():
        for patient in patients:
            if owner.setdefault(patient, name) != name:
                raise ValueError(f"{patient} is in {owner[patient]} and in {name}; a patient belongs to one list.")
