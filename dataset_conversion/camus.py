"""CAMUS to nnU-Net: `nnunet-echo convert camus SOURCE` or `python -m nnunet_echo.dataset_conversion.camus SOURCE`.

Each ED or ES frame of a view becomes one 2D case, `CAMUS_patient0001_4CH_ED`, with its pixels and spacing as they are:
background 0, left ventricle 1, myocardium 2 (without the cavity), left atrium 3. camus_source.py tells which releases
are read, raw_dataset.py what is written.

Splits (`--split`), always by patient:
- `5fold` (default): five folds, stratified by EF and image quality, over all patients but the official test patients.
  It is the default because nnU-Net's own pipeline (ensembles, nnUNetv2_find_best_configuration) needs five folds, and
  the official list, fixed before, still keeps its 50 test patients out of them.
- `official`: fold 0 is subgroup_training against subgroup_validation, for comparison with published numbers.
- `10fold`: the ten folds of the challenge, where the download has listSubGroups/. Each has its own test patients, so
  all cases go to imagesTr, and fold N leaves those of subGroup<N+1>_testing out of both of its sides.

- `7:1:2` and `file`, of any dataset: splits.py.

Exit code 0: every case that the source has was converted; what the download lacks (a view, a cfg) is a warning. 1: a
case that exists was refused, for the reason in the report, and the dataset holds the others. 2: nothing was converted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nnunet_echo.dataset_conversion.camus_source import (
    PHASES,
    SUBSETS,
    Patient,
    check_disjoint,
    find_lists,
    find_patients,
)
from nnunet_echo.dataset_conversion.command import main
from nnunet_echo.dataset_conversion.images import read_pair
from nnunet_echo.dataset_conversion.raw_dataset import Case, Written
from nnunet_echo.dataset_conversion.reader import Reader, Reading
from nnunet_echo.dataset_conversion.report import Note
from nnunet_echo.dataset_conversion.splits import SPLITS_OF_ALL, Split, five_folds, listed_folds, unmatched

VIEWS = ("2CH", "4CH")
SUSPECT_EF = ("CAMUS_patient0185", "CAMUS_patient0217")
LV = 1

DATASET_JSON = {
    "name": "CAMUS",
    "description": "Cardiac Acquisitions for Multi-structure Ultrasound Segmentation: apical views at ED and ES",
    "reference": "S. Leclerc et al., IEEE TMI 38(9):2198-2210, 2019, doi 10.1109/TMI.2019.2900516",
    "licence": "CC BY-NC-SA 4.0, non-commercial scientific research only",
    "channel_names": {"0": "ultrasound"},  # not a name that nnU-Net treats in a special way: z-score
    "labels": {"background": 0, "LV": LV, "MYO": 2, "LA": 3},
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
    "case_id_pattern": r"(?P<patient>CAMUS_(?:patient|test)\d{4})_(?P<view>2CH|4CH)_(?P<phase>ED|ES)",
}


@dataclass(frozen=True, kw_only=True)
class Camus(Reader):
    """CAMUS; see the module's docstring."""

    mode: str = "frames"
    split: str = "5fold"
    views: Sequence[str] = VIEWS

    name = "camus"
    summary = "CAMUS, both releases: 2D frames at ED and ES"
    source_help = "the unpacked download: a folder with patientXXXX folders somewhere below it"
    dataset_ids = {"CAMUS": 751}
    modes = {"frames": "each ED and ES frame a 2D case"}
    splits = {
        "5fold": "five folds stratified by EF and image quality, official test patients apart",
        "official": "the list in the download, one fold",
        "10fold": "the challenge's",
        **SPLITS_OF_ALL,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.views or set(self.views) - set(VIEWS):
            raise ValueError(f"views is {self.views}; choose from {VIEWS}")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--views", nargs="+", choices=VIEWS, default=VIEWS, help="default: both")

    def dataset_json(self) -> dict[str, object]:
        return DATASET_JSON

    def read(self, source: Path) -> Reading:
        patients = find_patients(source, self.views)
        labelled = {f"CAMUS_{name}" for name, patient in patients.items() if not patient.unlabelled and patient.files}
        reading = Reading(review=_review)
        reading.split = self.drawn_or_given_split(labelled) or self._split_of_camus(source, patients, labelled)
        for patient in patients.values():
            test = patient.unlabelled or f"CAMUS_{patient.name}" in reading.split.test
            _list_cases(source, patient, self.views, test, reading)
        return reading

    def _split_of_camus(self, source: Path, patients: Mapping[str, Patient], labelled: set[str]) -> Split:
        rounds = [f"subGroup{number}" for number in range(1, 11)] if self.split == "10fold" else ["subgroup"]
        names = [[f"{stem}_{subset}.txt" for subset in SUBSETS] for stem in rounds]
        found = find_lists(source, [name for triple in names for name in triple])
        if not found and self.split != "5fold":
            raise FileNotFoundError(f"--split {self.split} needs {names[0][0]} and its like, which are not below "
                                    f"{source}; put the lists there or use --split 5fold")
        for triple in names if found else []:
            check_disjoint({name: found[name] for name in triple})
        lists = {name: {f"CAMUS_{patient}" for patient in found[name]} for name in found}
        test = labelled & lists.get("subgroup_testing.txt", set())  # of ten folds each has its own
        warnings = []
        if lists:
            role = "joined the folds" if self.split == "5fold" else "is in imagesTr, but in no fold"
            warnings = unmatched(set().union(*lists.values()), labelled, role)
        elif len(labelled) == len(patients):
            warnings = [Note("no split list", "split", "no subgroup_testing.txt found; no case is kept for testing")]
        if self.split == "5fold":
            strata = {f"CAMUS_{name}": patient.stratum() for name, patient in patients.items()}
            split = five_folds(labelled, strata, seed=self.seed, test=test)
        else:
            split = Split(partial(listed_folds, lists=[(lists[triple[0]], lists[triple[1]]) for triple in names]),
                          frozenset(test))
        return replace(split, warnings=(*split.warnings, *warnings))


def _list_cases(source: Path, patient: Patient, views: Sequence[str], test: bool, reading: Reading) -> None:
    """Add the patient's cases, and what it lacks."""

    def warn(kind: str, text: str) -> None:
        reading.warn(kind, patient.name, f"{patient.folder}: {text}")

    reading.refused += patient.refused
    reading.warnings += patient.warnings
    ef = patient.ef_percent()
    if not patient.files:
        warn("patient without images", f"no image or mask of {' or '.join(views)}")
        return
    if ef is None:
        warn("EF unknown", "no Info_*.cfg gives an EF; left empty")
    for view in views:
        if not any(key[0] == view for key in patient.files):
            warn("view missing", f"no image or mask of view {view}")
            continue
        if view not in patient.info:
            warn("cfg missing", f"no Info_{view}.cfg; quality left empty")
        for phase in PHASES:
            image, mask = (patient.files.get((view, phase, kind)) for kind in ("image", "mask"))
            case_id = f"CAMUS_{patient.name}_{view}_{phase}"
            if image is None and mask is None:
                warn("phase missing", f"no {phase} image or mask of view {view}")
            elif image is None:
                reading.refuse("image missing", case_id, f"{mask} is there, but not its image")
            elif mask is None and not test:
                reading.refuse("mask missing", case_id, f"{image} is there, but not its mask (.._gt)")
            else:
                if mask is None and not patient.unlabelled:
                    reading.warn("mask missing", case_id, f"{image}: a test case without mask")
                table = {"view": view, "phase": phase, "ef_percent": "" if ef is None else f"{ef:g}",
                         "quality": patient.quality(view)}
                read = partial(read_pair, source, image, mask)
                reading.cases.append(Case(case_id, f"CAMUS_{patient.name}", image, read, test, table))


def _review(written: Mapping[str, Written]) -> list[Note]:
    """What shows only in the pixels: ED and ES the wrong way round, a spacing that was lost; and the two suspect EF."""
    notes = []
    for case_id, case in written.items():
        systole = written.get(case_id[:-2] + "ES")
        if case_id.endswith("_ED") and case.labelled and systole and systole.labelled:
            ed, es = (item.label_sizes.get(LV, 0) / 100 for item in (case, systole))
            if ed <= es:
                notes.append(Note("ED not larger than ES", case_id, f"LV area {ed:.1f} cm2 at ED, {es:.1f} cm2 at ES: "
                                  "the phases may be exchanged; they stay as the files name them"))
        if case.spacing == (1.0, 1.0):
            notes.append(Note("spacing lost", case_id, "spacing is 1 x 1 mm, the release has 0.308 mm; volumes in mL "
                              "from this copy would be wrong"))
    for patient in SUSPECT_EF:
        if any(case_id.startswith(f"{patient}_2CH") for case_id in written):
            notes.append(Note("suspect EF", patient, "the EF in the release does not fit the masks (the 2CH sequence "
                              "runs from ES to ED); report EF results with and without this patient"))
    return notes


READER = Camus

if __name__ == "__main__":
    sys.exit(main(READER))
