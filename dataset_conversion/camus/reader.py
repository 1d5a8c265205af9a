"""The reader of CAMUS: which cases and splits a download gives, by what options."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_echo.data.cases import Case
from nnunet_echo.data.findings import Note
from nnunet_echo.data.images import read_pair
from nnunet_echo.data.reader import Reading, SequenceReader
from nnunet_echo.data.splits import SPLITS_OF_ALL, Split, five_folds, listed_folds, unmatched

from ..creatis import Patient, overlooked_patients
from .cine import read_cine
from .dataset_json import CINES_JSON, DATASET_JSON, IGNORE, SPARSE_JSON
from .review import review
from .source import (
    HALF_SEQUENCE,
    PATIENT_FOLDER,
    PHASES,
    RELEASE_FILE,
    SUBSETS,
    check_disjoint,
    find_lists,
    find_patients,
)

VIEWS, LABELS = ("2CH", "4CH"), ("all", "ed_es")


@dataclass(frozen=True, kw_only=True)
class Camus(SequenceReader):
    """CAMUS; see the module's docstring."""

    mode: str = "frames"
    split: str = "5fold"
    views: Sequence[str] = VIEWS
    labels: str = "all"

    name = "camus"
    summary = "CAMUS, both releases: 2D frames at ED and ES, or the cines between them"
    source_help = "the unpacked download: a folder with patientXXXX folders somewhere below it"
    dataset_ids = {"CAMUS": 751, "CAMUS_Full": 753, "CAMUS_Semi": 754}
    modes = {"frames": "each ED and ES frame a 2D case", HALF_SEQUENCE: "each view from ED to ES a 3D case"}
    splits = {
        "5fold": "five folds stratified by EF and image quality, official test patients apart",
        "official": "the list in the download, one fold",
        "10fold": "the challenge's",
        **SPLITS_OF_ALL,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.views or set(self.views) - set(VIEWS):
            raise ValueError(f"views={self.views}: expected some of {', '.join(VIEWS)}.")
        if self.labels not in LABELS or (self.labels != "all" and self.mode != HALF_SEQUENCE):
            raise ValueError(
                f"labels={self.labels!r}, mode={self.mode!r}: expected one of {', '.join(LABELS)}; all but the first "
                f"is for mode {HALF_SEQUENCE}."
            )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--labels",
            choices=LABELS,
            default="all",
            help="of sequences: all (default), or ed_es, with the ignore label in the frames between",
        )
        parser.add_argument("--views", nargs="+", choices=VIEWS, default=VIEWS, help="default: both")

    def dataset_json(self) -> dict[str, Any]:
        if self.mode != HALF_SEQUENCE:
            return DATASET_JSON
        return CINES_JSON if self.labels == "all" else SPARSE_JSON

    def read(self, source: Path) -> Reading:
        patients = find_patients(source, self.views, (HALF_SEQUENCE,) if self.mode == HALF_SEQUENCE else PHASES)
        if not any(patient.files for patient in patients.values()):
            sequences = self.mode == HALF_SEQUENCE
            hint = " The release of 2019 has no masks of its cines. Get the current one (NIfTI)." if sequences else ""
            raise FileNotFoundError(
                f"no patientXXXX_VIEW_{HALF_SEQUENCE if sequences else 'ED or _ES'} file of "
                f"{' or '.join(self.views)} below {source}.{hint}"
            )
        labelled = {f"CAMUS_{name}" for name, patient in patients.items() if not patient.unlabelled and patient.files}
        refused, warnings = overlooked_patients(
            source, PATIENT_FOLDER, RELEASE_FILE, "patient0001/patient0001_4CH_ED.nii.gz"
        )
        reading = Reading(refused=refused, warnings=warnings, review=review)
        reading.split = self.drawn_or_given_split(labelled) or self._split_of_camus(source, patients, labelled)
        lacking = self._lacking(patients.values(), reading)
        for patient in patients.values():
            test = patient.unlabelled or f"CAMUS_{patient.name}" in reading.split.test
            self._list_cases(source, patient, test, lacking, reading)
        return reading

    def _list_cases(
        self, source: Path, patient: Patient, test: bool, lacking: set[tuple[str, str]], reading: Reading
    ) -> None:
        """Add the patient's cases, and what it lacks, unless all lack it."""

        def warn(kind: str, text: str) -> None:
            reading.warn(kind, patient.name, f"{patient.folder}: {text}")

        reading.refused += patient.refused
        reading.warnings += patient.warnings
        ef = patient.ef_percent()
        if not patient.files:
            warn("patient without images", f"no image or mask of {' or '.join(self.views)}.")
            return
        if ef is None:
            warn("EF unknown", "no Info_*.cfg gives an EF; left empty.")
        for view in dict.fromkeys(self.views):
            if not any(key[0] == view for key in patient.files):
                if ("view", view) not in lacking:
                    warn("view missing", f"no image or mask of view {view}.")
                continue
            if view not in patient.info and ("cfg", view) not in lacking:
                warn("cfg missing", f"no Info_{view}.cfg; quality left empty.")
            for part in (HALF_SEQUENCE,) if self.mode == HALF_SEQUENCE else PHASES:
                image, mask = (patient.files.get((view, part, kind)) for kind in ("image", "mask"))
                case_id = f"CAMUS_{patient.name}_{view}" + (f"_{part}" if part in PHASES else "")
                if image is None and mask is None:
                    warn("phase missing", f"no {part} image or mask of view {view}.")
                elif image is None:
                    reading.refuse("image missing", case_id, f"{mask} is there, but not its image.")
                elif mask is None and not test:
                    reading.refuse("mask missing", case_id, f"{image} is there, but not its mask (.._gt).")
                else:
                    if mask is None and not patient.unlabelled:
                        reading.warn("mask missing", case_id, f"{image}: a test case without mask.")
                    table = {
                        "view": view,
                        **({"phase": part} if part in PHASES else {}),
                        "ef_percent": "" if ef is None else f"{ef:g}",
                        "quality": patient.quality(view),
                    }
                    read = partial(read_pair, source, image, mask)
                    if part == HALF_SEQUENCE:
                        read = partial(
                            read_cine,
                            source,
                            image,
                            mask,
                            patient.info.get(view, {}),
                            self.clip,
                            self.size,
                            IGNORE if self.labels == "ed_es" else None,
                        )
                    reading.cases.append(Case(case_id, f"CAMUS_{patient.name}", image, read, test, table))

    def _lacking(self, patients: Collection[Patient], reading: Reading) -> set[tuple[str, str]]:
        """("view" | "cfg", name of the view) that no patient has, which becomes one warning instead of each's."""
        lacking = set()
        for view in dict.fromkeys(self.views):
            people = [patient for patient in patients if any(key[0] == view for key in patient.files)]
            if not people:
                lacking.add(("view", view))
                reading.warn(
                    "view missing",
                    view,
                    f"--views {' '.join(sorted({*self.views} - {view}))} leaves it out: "
                    f"none of {len(patients)} patients has an image or mask of it.",
                )
            elif len(people) > 1 and not any(view in patient.info for patient in people):
                lacking.add(("cfg", view))
                reading.warn(
                    "cfg missing", view, f"none of {len(people)} patients has an Info_{view}.cfg; quality left empty."
                )
        return lacking

    def _split_of_camus(self, source: Path, patients: Mapping[str, Patient], labelled: set[str]) -> Split:
        rounds = [f"subGroup{number}" for number in range(1, 11)] if self.split == "10fold" else ["subgroup"]
        names = [[f"{stem}_{subset}.txt" for subset in SUBSETS] for stem in rounds]
        found = find_lists(source, [name for triple in names for name in triple])
        if not found and self.split != "5fold":
            raise FileNotFoundError(
                f"--split {self.split} needs {names[0][0]} and the other lists, which are not below "
                f"{source}. Put the lists there or use --split 5fold."
            )
        for triple in names if found else []:
            check_disjoint({name: found[name] for name in triple})
        lists = {name: {f"CAMUS_{patient}" for patient in found[name]} for name in found}
        test = labelled & lists.get("subgroup_testing.txt", set())  # of ten folds each has its own
        warnings = []
        if lists:
            role = "joined the folds" if self.split == "5fold" else "is in imagesTr, but in no fold"
            warnings = unmatched(set().union(*lists.values()), labelled, role)
        elif not any(patient.unlabelled for patient in patients.values()):
            warnings = [Note("no split list", "split", "no subgroup_testing.txt found; no case is kept for testing.")]
        if self.split == "5fold":
            strata = {f"CAMUS_{name}": patient.stratum() for name, patient in patients.items()}
            split = five_folds(labelled, strata, seed=self.seed, test=test)
        else:
            split = Split(
                partial(listed_folds, lists=[(lists[triple[0]], lists[triple[1]]) for triple in names]), frozenset(test)
            )
        return replace(split, warnings=(*split.warnings, *warnings))
