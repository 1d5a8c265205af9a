"""CAMUS to nnU-Net: `nnunet-echo convert camus SOURCE`.

Each ED or ES frame of a view becomes one 2D case, `CAMUS_patient0001_4CH_ED`, with its pixels and spacing as they are:
background 0, left ventricle 1, myocardium 2 (without the cavity), left atrium 3. source.py tells which releases
are read, raw_dataset.py what is written.

`--mode half_sequence` writes the film of a view from ED to ES as one 3D case, `CAMUS_patient0001_4CH` (data/cine.py):
- `--labels all` (default, CAMUS-Full) keeps the masks of all frames, `--labels ed_es` (CAMUS-Semi) those of ED and ES,
  and every frame between holds the ignore label.
- `--clip 10 --size 256` are the clips of published work: ten frames from ED to ES, evenly spaced, 256 x 256 pixels.
- A few films run from ES to ED: the frame numbers in Info_<view>.cfg tell, and such a film is turned round. Without a
  cfg the end with the larger ventricle is ED, and a warning says so. Frames before ED or after ES are left out.
- Masks stay as they are, also where pixels lie apart from their structure, as tracking leaves some between ED and ES: a
  converter that cleans its references changes every score. How many such pixels a film has is a warning.
- Only the NIfTI release has masks of the films, so the other one has no such cases.

Splits (`--split`), always by patient:
- `5fold` (default): five folds, stratified by EF and image quality, over all patients but the official test patients.
  It is the default because nnU-Net's own pipeline (ensembles, nnUNetv2_find_best_configuration) needs five folds, and
  the official list, fixed before, still keeps its 50 test patients out of them.
- `official`: fold 0 is subgroup_training against subgroup_validation, for comparison with published numbers.
- `10fold`: the ten folds of the challenge, where the download has listSubGroups/. Each has its own test patients, so
  all cases go to imagesTr, and fold N leaves those of subGroup<N+1>_testing out of both of its sides.
- `7:1:2` and `file`, of any dataset: splits.py.

Exit code 0: every case that the source has was converted; what the download lacks (a view, a cfg) is a warning. 1: a
case that exists was refused, for the reason in the report, and the dataset holds the others. 2: nothing was converted,
there is no dataset.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cine import as_film, make_case, sampled_frames, sequence_json, stray_pixels
from nnunet_echo.data.findings import Note
from nnunet_echo.data.images import Frame, SourceError, check_grid, check_labels, read_image, read_pair, to_uint8
from nnunet_echo.data.raw_dataset import Case, Written
from nnunet_echo.data.reader import Reading, SequenceReader
from nnunet_echo.data.splits import SPLITS_OF_ALL, Split, five_folds, listed_folds, unmatched
from nnunet_echo.data.tables import whole

from .source import (
    FILM,
    PATIENT_FOLDER,
    PHASES,
    RELEASE_FILE,
    SUBSETS,
    Patient,
    check_disjoint,
    find_lists,
    find_patients,
    overlooked_patients,
)

VIEWS, LABELS = ("2CH", "4CH"), ("all", "ed_es")
SUSPECT_EF = ("CAMUS_patient0185", "CAMUS_patient0217")
LV, IGNORE = 1, 4

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
FILMS_JSON = {
    **DATASET_JSON,
    "name": "CAMUS_Full",
    "description": "Cardiac Acquisitions for Multi-structure Ultrasound Segmentation: apical views from ED to ES",
    "case_id_pattern": r"(?P<patient>CAMUS_(?:patient|test)\d{4})_(?P<view>2CH|4CH)",
    "sequence": sequence_json("mm"),
}
SPARSE_JSON = {**FILMS_JSON, "name": "CAMUS_Semi", "labels": {**DATASET_JSON["labels"], "ignore": IGNORE}}


@dataclass(frozen=True, kw_only=True)
class Camus(SequenceReader):
    """CAMUS; see the module's docstring."""

    mode: str = "frames"
    split: str = "5fold"
    views: Sequence[str] = VIEWS
    labels: str = "all"

    name = "camus"
    summary = "CAMUS, both releases: 2D frames at ED and ES, or the films between them"
    source_help = "the unpacked download: a folder with patientXXXX folders somewhere below it"
    dataset_ids = {"CAMUS": 751, "CAMUS_Full": 753, "CAMUS_Semi": 754}
    modes = {"frames": "each ED and ES frame a 2D case", FILM: "each view from ED to ES a 3D case"}
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
        if self.labels not in LABELS or (self.labels != "all" and self.mode != FILM):
            raise ValueError(
                f"labels is {self.labels!r} and mode {self.mode!r}; choose from {LABELS}, and all but the "
                f"first is for mode {FILM}"
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

    def dataset_json(self) -> dict[str, object]:
        if self.mode != FILM:
            return DATASET_JSON
        return FILMS_JSON if self.labels == "all" else SPARSE_JSON

    def read(self, source: Path) -> Reading:
        patients = find_patients(source, self.views, (FILM,) if self.mode == FILM else PHASES)
        if not any(patient.files for patient in patients.values()):
            hint = "; the release of 2019 has no masks of its films: get the current one (NIfTI)"
            raise FileNotFoundError(
                f"no patientXXXX_VIEW_{FILM if self.mode == FILM else 'ED or _ES'} file of "
                f"{' or '.join(self.views)} below {source}{hint * (self.mode == FILM)}"
            )
        labelled = {f"CAMUS_{name}" for name, patient in patients.items() if not patient.unlabelled and patient.files}
        refused, warnings = overlooked_patients(
            source, PATIENT_FOLDER, RELEASE_FILE, "patient0001/patient0001_4CH_ED.nii.gz"
        )
        reading = Reading(refused=refused, warnings=warnings, review=_review)
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
            warn("patient without images", f"no image or mask of {' or '.join(self.views)}")
            return
        if ef is None:
            warn("EF unknown", "no Info_*.cfg gives an EF; left empty")
        for view in dict.fromkeys(self.views):
            if not any(key[0] == view for key in patient.files):
                if ("view", view) not in lacking:
                    warn("view missing", f"no image or mask of view {view}")
                continue
            if view not in patient.info and ("cfg", view) not in lacking:
                warn("cfg missing", f"no Info_{view}.cfg; quality left empty")
            for part in (FILM,) if self.mode == FILM else PHASES:
                image, mask = (patient.files.get((view, part, kind)) for kind in ("image", "mask"))
                case_id = f"CAMUS_{patient.name}_{view}" + (f"_{part}" if part in PHASES else "")
                if image is None and mask is None:
                    warn("phase missing", f"no {part} image or mask of view {view}")
                elif image is None:
                    reading.refuse("image missing", case_id, f"{mask} is there, but not its image")
                elif mask is None and not test:
                    reading.refuse("mask missing", case_id, f"{image} is there, but not its mask (.._gt)")
                else:
                    if mask is None and not patient.unlabelled:
                        reading.warn("mask missing", case_id, f"{image}: a test case without mask")
                    table = {
                        "view": view,
                        **({"phase": part} if part in PHASES else {}),
                        "ef_percent": "" if ef is None else f"{ef:g}",
                        "quality": patient.quality(view),
                    }
                    read = partial(read_pair, source, image, mask)
                    if part == FILM:
                        read = partial(
                            read_film,
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
                    f"none of {len(patients)} patients has an image or mask of it",
                )
            elif len(people) > 1 and not any(view in patient.info for patient in people):
                lacking.add(("cfg", view))
                reading.warn(
                    "cfg missing", view, f"none of {len(people)} patients has an Info_{view}.cfg; quality left empty"
                )
        return lacking

    def _split_of_camus(self, source: Path, patients: Mapping[str, Patient], labelled: set[str]) -> Split:
        rounds = [f"subGroup{number}" for number in range(1, 11)] if self.split == "10fold" else ["subgroup"]
        names = [[f"{stem}_{subset}.txt" for subset in SUBSETS] for stem in rounds]
        found = find_lists(source, [name for triple in names for name in triple])
        if not found and self.split != "5fold":
            raise FileNotFoundError(
                f"--split {self.split} needs {names[0][0]} and its like, which are not below "
                f"{source}; put the lists there or use --split 5fold"
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
            warnings = [Note("no split list", "split", "no subgroup_testing.txt found; no case is kept for testing")]
        if self.split == "5fold":
            strata = {f"CAMUS_{name}": patient.stratum() for name, patient in patients.items()}
            split = five_folds(labelled, strata, seed=self.seed, test=test)
        else:
            split = Split(
                partial(listed_folds, lists=[(lists[triple[0]], lists[triple[1]]) for triple in names]), frozenset(test)
            )
        return replace(split, warnings=(*split.warnings, *warnings))


def read_film(
    root: Path,
    image: str,
    label: str | None,
    info: Mapping[str, str],
    clip: int | None,
    size: int | None,
    ignore: int | None,
) -> Frame:
    """The film of one view, at paths below `root`, from ED to ES by its cfg; see `sequences.make_case`."""
    film = Frame(to_uint8(as_film(read_image(root / image, image), image), image), image)
    frames = film.image.GetSize()[2]
    warnings, areas = [], None
    if label is not None:
        film = replace(film, label=to_uint8(as_film(read_image(root / label, label), label), label), label_name=label)
        check_grid(film)
        mask = sitk.GetArrayViewFromImage(film.label)
        check_labels(mask, label, DATASET_JSON["labels"].values())
        areas = np.count_nonzero(mask == LV, axis=(1, 2))
        if any(stray := stray_pixels(mask)):
            warnings.append(
                (
                    "stray pixels",
                    f"{label}: {sum(stray)} pixels lie apart from the largest part of their "
                    f"structure, in {np.count_nonzero(stray)} of {frames} frames; they stay",
                )
            )
    ed, es, total = (whole(info.get(key, "")) for key in ("ED", "ES", "NbFrame"))
    if absurd := {key: info[key] for key in ("ED", "ES", "NbFrame") if info.get(key) and not whole(info[key])}:
        raise SourceError(f"{image}: its cfg has {absurd}, which are no numbers of frames")
    if ed and es and ed != es:
        if max(ed, es) > frames or total not in (None, frames):
            raise SourceError(
                f"{image}: {frames} frames, but its cfg has ED {ed}, ES {es} and NbFrame {total}; it is "
                "cut off or another film"
            )
    elif areas is not None:
        ed, es = (1, frames) if areas[0] >= areas[-1] else (frames, 1)
        warnings.append(
            (
                "ED and ES by area",
                f"{image}: no cfg says which frames are ED and ES; of the first and the "
                f"last, {ed} is ED, with the larger ventricle",
            )
        )
    else:
        raise SourceError(f"{image}: neither a cfg nor a mask tells ED from ES")
    if areas is not None and areas[ed - 1] <= areas[es - 1]:
        warnings.append(
            (
                "ED not larger than ES",
                f"{label}: LV of {areas[ed - 1]} pixels at ED (frame {ed}), "
                f"{areas[es - 1]} at ES (frame {es}): they may be exchanged; they stay as the cfg names them",
            )
        )
    if {ed, es} != {1, frames}:
        warnings.append(
            (
                "frames left out",
                f"{image}: the cfg has ED {ed} and ES {es} of {frames} frames; those before and after are left out",
            )
        )
    numbers = sampled_frames(ed, es, clip)
    if len(set(numbers)) < len(numbers):
        warnings.append(("frames twice", f"{image}: {len(set(numbers))} frames from ED to ES for a clip of {clip}"))
    return make_case(
        replace(film, warnings=tuple(warnings)),
        [number - 1 for number in numbers],
        numbers,
        size=size,
        unit="mm",
        ignore=ignore,
    )


def _review(written: Mapping[str, Written]) -> list[Note]:
    """What shows only in the pixels: ED and ES the wrong way round, a spacing that was lost; and the two suspect EF."""
    notes = []
    # No heart is 250 mm away from its probe. The phantom may be drawn with such pixels, but then as a whole.
    lost = len({case.spacing[:2] for case in written.values()}) > 1
    for case_id, case in written.items():
        systole = written.get(case_id[:-2] + "ES")
        if case_id.endswith("_ED") and case.labelled and systole and systole.labelled:
            ed, es = (item.label_sizes.get(LV, 0) / 100 for item in (case, systole))
            if ed <= es:
                notes.append(
                    Note(
                        "ED not larger than ES",
                        case_id,
                        f"LV area {ed:.1f} cm2 at ED, {es:.1f} cm2 at ES: "
                        "the phases may be exchanged; they stay as the files name them",
                    )
                )
        if case.spacing[:2] == (1.0, 1.0) and (lost or min(case.size[:2]) > 250):
            notes.append(
                Note(
                    "spacing lost",
                    case_id,
                    "spacing is 1 x 1 mm, the release has 0.308 mm; volumes in mL from this copy would be wrong",
                )
            )
    for patient in SUSPECT_EF:
        if any(case_id.startswith(f"{patient}_2CH") for case_id in written):
            notes.append(
                Note(
                    "suspect EF",
                    patient,
                    "the EF in the release does not fit the masks (the 2CH sequence "
                    "runs from ES to ED); report EF results with and without this patient",
                )
            )
    return notes


READER = Camus
