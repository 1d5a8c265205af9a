"""What CAMUS and TED share, both of the laboratory CREATIS: folders of patients, their cfg files, MetaImage.

TED's patients are patients of CAMUS under other numbers, so the phantoms of both draw the same hearts.
Source: Leclerc et al., IEEE TMI 38(9):2198-2210, 2019; Painchaud et al., IEEE TMI 41(10):2867-2878, 2022; their files.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray

from nnunet_echo.data.errors import printable
from nnunet_echo.data.findings import Note
from nnunet_echo.data.source_folders import overlooked, walk_folders
from nnunet_echo.data.tables import number_between
from nnunet_echo.phantom.heart import Heart, View, sample_heart

CASE_LIKE = re.compile(r"(^|[\W_])pat(ient)?[\W_]*\d|(^|[\W_])[24][\W_]*ch([\W_]|$)", re.IGNORECASE)
DOCUMENT = r"\.(cfg|txt|log|csv|tsv|md|json|xml|ya?ml|pdf|docx?|xlsx?|pptx?|od[pst]|py|ipynb|html?)$"
SUSPICIOUS = re.compile(rf"^(?!.*{DOCUMENT}).*({CASE_LIKE.pattern})|\.(zip|rar|7z|tgz|tar(\.\w+)?)$", re.IGNORECASE)
QUALITIES = ("Poor", "Medium", "Good")
META_SLICE_MM = 1.54  # the third spacing in the .mhd headers, of single frames and sequences alike


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
    visited = list(walk_folders(source, lambda name: holds_patients(name, pattern)))
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
                f"{patient.folder}. Give the folder of one release as the source."
            )
        found[patient.name] = patient
    if not found:
        named, _ = overlooked(source, lambda path: False, SUSPICIOUS, CASE_LIKE, "")
        there = [note.subject for note in named] or sorted(
            printable(name) for name in os.listdir(source) if not name.startswith(".")
        )
        raise FileNotFoundError(
            f"{none_found}; there is {', '.join(there[:5]) or 'nothing'}{' and more' * (len(there) > 5)}."
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
        for _, subfolders in walk_folders(source, lambda name: holds_patients(name, pattern))
        for name in subfolders
    )
    return overlooked(
        source,
        known,
        SUSPICIOUS,
        CASE_LIKE,
        "named like a case or an archive of cases, and not taken: "
        f"names are {example}. Rename it, unpack it or move it away.",
    )


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


def holds_patients(name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a folder of this name may have folders of patients, named by `pattern`, below it."""
    return not pattern.fullmatch(name) and not name.startswith((".", "__"))


def camus_heart(seed: int, patient: int) -> Heart:
    """The heart of patient number `patient` (from 1) in the data sets that this module writes for this seed."""
    return sample_heart(np.random.default_rng([seed, patient]))


def write_meta_image(path: Path, array: ndarray, spacing_mm: float) -> None:
    """Write (T, H, W) uint8, pixels `spacing_mm` wide and half as high, as MetaImage: `path` (.mhd) and its .raw."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing_mm, spacing_mm / 2, META_SLICE_MM))
    sitk.WriteImage(image, str(path))


def info_lines(heart: Heart, view: View, ed: int, es: int, frames: int) -> Iterator[str]:
    """The lines that the cfg files of all releases begin with."""
    yield from (
        f"ED: {ed}",
        f"ES: {es}",
        f"NbFrame: {frames}",
        f"Sex: {heart.sex}",
        f"Age: {heart.age}",
        f"ImageQuality: {view.quality}",
    )
