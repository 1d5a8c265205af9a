"""What a download of CAMUS holds, in either release, found by its names alone; no image is opened here.

    NIfTI release      database_nifti/patient0001/patient0001_2CH_ED.nii.gz, .._gt.nii.gz, Info_2CH.cfg
                       database_nifti/patient0001/patient0001_2CH_half_sequence.nii.gz, .._gt.nii.gz
                       database_split/subgroup_{training,validation,testing}.txt
    challenge of 2019  training/patient0001/patient0001_2CH_ED.mhd, .._gt.mhd, Info_2CH.cfg
                       testing/patient0001/... without masks; another person than training/patient0001

People unpack the archive into itself and gunzip the files, so patient folders are searched for, and .nii is accepted.
Without any patient folder, files of these names that lie together in one folder are taken for the patients' in their
names, with patient0001_Info_2CH.cfg, or Info_2CH.cfg where a folder holds one patient alone. What else is named like a
patient or a case is reported.
Source: Leclerc et al., IEEE TMI 38(9):2198-2210, 2019, and the files of the two releases.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_echo.data.findings import Note
from nnunet_echo.data.source_folders import overlooked, shown, walk_folders
from nnunet_echo.data.tables import number_between, whole

PHASES, FILM = ("ED", "ES"), "half_sequence"
PATIENT_FOLDER = re.compile(r"patient\d{4}")
IMAGE_FILE = re.compile(
    r"(?P<patient>patient\d{4})_(?P<view>2CH|4CH)_(?P<part>ED|ES|half_sequence)(?P<mask>_gt)?"
    r"(?P<ending>\.nii\.gz|\.nii|\.mhd)"
)
RELEASE_FILE = re.compile(
    r"patient\d{4}_[24]CH_(ED|ES|half_sequence|sequence)(_gt)?(\.nii\.gz|\.nii|\.mhd|\.z?raw)"
    r"|(patient\d{4}_)?Info_[24]CH\.cfg"
)
CASE_LIKE = re.compile(r"(^|[\W_])pat(ient)?[\W_]*\d|(^|[\W_])[24][\W_]*ch([\W_]|$)", re.IGNORECASE)
DOCUMENT = r"\.(cfg|txt|log|csv|tsv|md|json|xml|ya?ml|pdf|docx?|xlsx?|pptx?|od[pst]|py|ipynb|html?)$"
SUSPICIOUS = re.compile(rf"^(?!.*{DOCUMENT}).*({CASE_LIKE.pattern})|\.(zip|rar|7z|tgz|tar(\.\w+)?)$", re.IGNORECASE)
ENDINGS = (".nii.gz", ".nii", ".mhd")  # the first that is there is read
QUALITIES = ("Poor", "Medium", "Good")
INFO_FIELDS = ("ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "EF")  # in the cfg files of both releases
SUBSETS = ("training", "validation", "testing")


@dataclass
class Patient:
    """One person: `name` is the folder's, or test0001 for testing/patient0001 of the 2019 release.

    `files[view, part, "image" | "mask"]` is a path relative to the source, part one of ED, ES and half_sequence;
    `info[view]` has the fields of Info_<view>.cfg.
    """

    name: str
    folder: str
    unlabelled: bool = False
    files: dict[tuple[str, str, str], str] = field(default_factory=dict)
    info: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)

    def ef_percent(self) -> float | None:
        """The biplane ejection fraction of the patient, from the first cfg that has it."""
        known = [number_between(info.get("EF", ""), 0, 100) for info in self.info.values()]
        return next((ef for ef in known if ef is not None), None)

    def quality(self, view: str) -> str:
        """Good, Medium or Poor, or an empty string where the view's cfg does not say."""
        quality = self.info.get(view, {}).get("ImageQuality", "").capitalize()
        return quality if quality in QUALITIES else ""

    def stratum(self) -> tuple[str, str]:
        """EF in the bins of the official folds, and the worst quality of any view."""
        ef = self.ef_percent()
        group = "EF unknown" if ef is None else "EF <= 45" if ef <= 45 else "EF >= 55" if ef >= 55 else "EF 45..55"
        known = [quality for quality in map(self.quality, self.info) if quality]
        return group, min(known, key=QUALITIES.index, default="quality unknown")


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


def collect_patients(
    source: Path,
    pattern: re.Pattern[str],
    file: re.Pattern[str],
    list_patient: Callable[[Path, str], Patient],
    none_found: str,
) -> dict[str, Patient]:
    """What `list_patient` makes of every folder below `source` that is named by `pattern`, sorted by patient.

    It gets the folder and the patient's name. Where there is no such folder it gets those folders that hold files named
    by `file`, once for each `patient` in these names. Raises `FileNotFoundError`, with the words `none_found` and what
    is there instead, when there are neither, and `ValueError` when two folders claim to be the same patient.
    """
    visited = list(walk_folders(source, lambda name: _may_hold_patients(name, pattern)))
    places = [(folder / name, name) for folder, subfolders in visited for name in filter(pattern.fullmatch, subfolders)]
    if not places:
        places = [
            (folder, name)
            for folder, _ in visited
            for name in sorted({match["patient"] for match in map(file.fullmatch, os.listdir(folder)) if match})
        ]
    found: dict[str, Patient] = {}
    for folder, name in places:
        patient = list_patient(folder, name)
        if patient.name in found:
            raise ValueError(
                f"{name} is in two folders of {source}, {found[patient.name].folder} and "
                f"{patient.folder}; give the folder of one release as the source"
            )
        found[patient.name] = patient
    if not found:
        named, _ = overlooked(source, lambda path: False, SUSPICIOUS, CASE_LIKE, "")
        there = [note.subject for note in named] or sorted(
            shown(Path(name)) for name in os.listdir(source) if not name.startswith(".")
        )
        raise FileNotFoundError(
            f"{none_found}; there is {', '.join(there[:5]) or 'nothing'}{' and more' * (len(there) > 5)}"
        )
    return dict(sorted(found.items()))


def overlooked_patients(
    source: Path, pattern: re.Pattern[str], file: re.Pattern[str], example: str
) -> tuple[list[Note], list[Note]]:
    """What is named like a patient or a case and is not taken by `collect_patients`, refused or as warnings.

    `file` are all names that the release has.
    """

    def known(path: Path) -> bool:
        above = [bool(pattern.fullmatch(part)) for part in path.parts[:-1]]
        if pattern.fullmatch(path.name):
            return not any(above) and (source / path).is_dir()
        flat = not any(above) and not has_folders
        return bool(file.fullmatch(path.name)) and (flat or above[-1:] == [True] and sum(above) == 1)

    has_folders = any(
        pattern.fullmatch(name)
        for _, subfolders in walk_folders(source, lambda name: _may_hold_patients(name, pattern))
        for name in subfolders
    )
    return overlooked(
        source,
        known,
        SUSPICIOUS,
        CASE_LIKE,
        "named like a case or an archive of cases, and not taken: "
        f"names are {example}; rename it, unpack it or move it away",
    )


def find_lists(source: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The patients in each of the split lists `names` (file names), searched below the source and beside it.

    Returns an empty dictionary where none of the files exists. Raises `FileNotFoundError` when only some do, and
    `ValueError` for a line that is no patient, a patient named twice, or copies of the lists that differ.
    """
    beside = [source.parent / folder for folder in ("database_split", "listSubGroups")]
    lists: dict[str, list[str]] = {}
    for top in (source, *(folder for folder in beside if folder.is_dir())):
        for folder, _ in walk_folders(top, _may_hold_patients):
            there = [name for name in names if (folder / name).is_file()]
            if not there:
                continue
            missing = [name for name in names if name not in there]
            if missing:
                raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} beside {there[0]}; restore the list")
            here = {name: _read_list(folder / name) for name in names}
            if lists and here != lists:
                raise ValueError(f"{folder} holds other split lists than another folder of {top}; keep one of them")
            lists = here
    return lists


def read_info(path: Path) -> dict[str, str]:
    """The fields of a cfg file, "Key: value" lines; LVef of the 2019 release is called EF. Raises `OSError`."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise OSError(errno.EINVAL, "missing or not a file", str(path))
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    info = {key.strip(): value.strip() for key, value in pairs}
    if "LVef" in info:
        info.setdefault("EF", info["LVef"])
    return info


def _may_hold_patients(name: str, pattern: re.Pattern[str] = PATIENT_FOLDER) -> bool:
    return not pattern.fullmatch(name) and not name.startswith((".", "__"))


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
                    f"{path}: named {match['patient']} in the folder of {person}; rename the file or move it",
                )
            )
        elif key in patient.files:
            patient.warnings.append(Note("double file", patient.name, f"{patient.files[key]} is read, not {path}"))
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
                    f"{patient.folder}/Info_{view}.cfg: {error.strerror or error}; its fields are left empty",
                )
            )
            continue
        patient.warnings += _review_info(patient, view)
    return patient


def _review_info(patient: Patient, view: str) -> Iterator[Note]:
    info = patient.info[view]

    def note(kind: str, text: str) -> Note:
        return Note(kind, patient.name, f"{patient.folder}/Info_{view}.cfg: {text}")

    missing = [key for key in INFO_FIELDS if not info.get(key)]
    if missing:
        yield note("cfg field missing", f"no {', '.join(missing)}")
    if info.get("ImageQuality") and not patient.quality(view):
        yield note("cfg field unreadable", f"ImageQuality is {info['ImageQuality']!r}, not {' or '.join(QUALITIES)}")
    ef, used = number_between(info.get("EF", ""), 0, 100), patient.ef_percent()
    if info.get("EF") and ef is None:
        yield note("cfg field unreadable", f"EF is {info['EF']!r}, not a number in 0..100")
    for key in ("ED", "ES", "NbFrame"):
        if info.get(key) and not whole(info[key]):
            yield note("cfg field unreadable", f"{key} is {info[key]!r}, not the number of a frame")
    if ef is not None and ef != used:
        yield note("EF differs", f"EF {ef:g} %, but {used:g} % in the other view's cfg, which is used")


def _read_list(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    patients = [line for line in lines if line]
    for number, line in enumerate(lines, 1):
        if line and not PATIENT_FOLDER.fullmatch(line):
            raise ValueError(f"{path}, line {number}: {line!r} is not a patient such as patient0001")
    if len(set(patients)) < len(patients):
        raise ValueError(f"{path} names a patient twice")
    return patients


def check_disjoint(lists: Mapping[str, Sequence[str]]) -> None:
    """Raise `ValueError` when a patient is in two of the lists: it would leak from training to validation or test."""
    owner: dict[str, str] = {}
    for name, patients in lists.items():
        for patient in patients:
            if owner.setdefault(patient, name) != name:
                raise ValueError(f"{patient} is in {owner[patient]} and in {name}; a patient belongs to one list")
