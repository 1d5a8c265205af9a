"""Images and masks of your own to nnU-Net: `nnunet-echo convert images FOLDER --labels LV=1 MYO=2 LA=3`.

    FOLDER/images/p01_4CH_ED.png   FOLDER/masks/p01_4CH_ED.png     or FOLDER/labels, or --images DIR --masks DIR

Each image with a mask of its name becomes a 2D case of one grey channel (source.py has the names, files.py the kinds
of files). Masks hold values or colours, as `--labels` says (nnunet_echo/data/labels.py); where there is one structure,
255 may stand for it.

Patients (`--patients`) keep the images of one person on one side of every split. A regular expression with the group
`patient`, and `view`, `phase` and `frame` where the names have them, is searched in the name of each case:
'(?P<patient>p\\d+)_(?P<view>[24]CH)_(?P<phase>ED|ES)'. Or a table (CSV) with the columns image and patient, and if need
be view, phase, frame, and subset (train, val or test): its cases are called PATIENT_VIEW_PHASE_FRAME_IMAGE, with the
columns that it has. Without either each image is its own patient.

Spacing is what the header says (NIfTI, MetaImage, DICOM) or `--spacing R C`, millimetres from row to row and from
column to column; `--spacing px` for images without a known scale: lengths are in pixels, and there are no volumes.

Splits (`--split`), by patient: `5fold`, in which the test patients of the table are kept for testing, or `table`.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_echo.data.cases import Case, patient_of
from nnunet_echo.data.images import check_spacing
from nnunet_echo.data.labels import Labels, read_labels
from nnunet_echo.data.reader import Reader, Reading
from nnunet_echo.data.splits import SPLITS_OF_ALL, SUBSETS, Split, five_folds, listed_split, unmatched
from nnunet_echo.data.tables import finite

from .files import WITH_SPACING, read_image_and_mask
from .source import Pair, Patients, image_and_mask_folders, pairs, read_patients


@dataclass(frozen=True, kw_only=True)
class ImagesAndMasks(Reader):
    """A folder of images and masks; see the module's docstring."""

    mode: str = "frames"
    split: str = "5fold"
    labels: tuple[str, ...] = ()
    images: str | None = None
    masks: str | None = None
    patients: str | None = None
    spacing: tuple[str, ...] = ()

    name = "images"
    summary = "images and masks of your own: PNG, BMP, TIFF, NIfTI, MetaImage, DICOM"
    source_help = "a folder with a folder of images and one of masks, of the same names"
    dataset_ids = {"Images": 770}
    modes = {"frames": "each image a 2D case"}
    splits = {
        "5fold": "five folds; the table's test patients are kept for testing",
        "table": "train, val and test by the column subset of the table",
        **SPLITS_OF_ALL,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("labels", "spacing"):  # lists of the command line
            object.__setattr__(self, option, tuple(getattr(self, option)))
        self._spacing()
        if self.split == "table" and not any(row.subset for row in self._patients().table.values()):
            raise ValueError("--split table needs --patients TABLE with a column subset: train, val or test.")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--labels",
            nargs="+",
            default=(),
            metavar="NAME=VALUE",
            help="the structures in the masks, such as LV=1 MYO=2 LA=3, or by colour, LV='#ff0000'",
        )
        parser.add_argument("--images", metavar="DIR", help="the folder of images in SOURCE (default: images)")
        parser.add_argument("--masks", metavar="DIR", help="the folder of masks in SOURCE (default: masks or labels)")
        parser.add_argument(
            "--patients",
            metavar="REGEX|TABLE",
            help="how names tell the patient: a regular "
            "expression with a group patient, or a CSV file with columns image and patient",
        )
        parser.add_argument(
            "--spacing",
            nargs="+",
            default=(),
            metavar="MM",
            help="mm from row to row and from column to column, or px; default: the header's",
        )

    def dataset_json(self) -> dict[str, Any]:
        content = {
            "name": "Images",
            "description": "Images and masks of one's own",
            "reference": "none",
            "licence": "that of the source",
            "channel_names": {"0": "ultrasound"},  # not a name that nnU-Net treats in a special way: z-score
            "labels": self._labels().numbered() if self.labels else {"background": 0},
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "case_id_pattern": self._patients().pattern,
        }
        return content | ({"spacing_unit": "px"} if self.spacing == ("px",) else {})

    def recorded_options(self) -> dict[str, Any]:
        """Of a table its rows, not its place: the same rows elsewhere are the same option."""
        table = self._patients().table
        rows = [[image, row.patient, *row.groups.values(), row.subset] for image, row in table.items()]
        return super().recorded_options() | ({"patients": rows} if table else {})

    def read(self, source: Path) -> Reading:
        if not source.is_dir():
            raise FileNotFoundError(f"source folder {source} does not exist or is not a folder.")
        reading, labels, patients, spacing = Reading(), self._labels(), self._patients(), self._spacing()
        folders = image_and_mask_folders(source, self.images, self.masks)
        found = pairs(source, *folders, reading)
        unscaled = [pair.image for pair in found if not pair.image.lower().endswith(WITH_SPACING)]
        if unscaled and spacing is None:
            raise ValueError(
                f"{unscaled[0]}: a file of this kind has no spacing. Give --spacing R C, in mm from row "
                "to row and from column to column, or --spacing px where no scale is known."
            )
        rows = Counter(map(patients.row, found))
        for pair in found:
            if patients.row(pair) and rows[patients.row(pair)] > 1:
                reading.refuse(
                    "row for several images",
                    pair.name,
                    f"{pair.image}: the row {patients.row(pair)} of "
                    "the table fits several images. Name each by its path below SOURCE.",
                )
            else:
                self._list_case(source, pair, labels, patients, spacing, reading)
        if not reading.cases and not reading.refused:
            raise FileNotFoundError(f"{folders[0]}: no images there.")
        if not self.patients:
            reading.warn(
                "no patients",
                "split",
                "each image counts as its own patient: if several are of one person, "
                "folds have that person on both sides, and scores come out too good. Give --patients.",
            )
        if absent := sorted(set(patients.table) - set(rows)):
            reading.warn(
                "listed image absent",
                "--patients",
                f"{len(absent)} image(s) of the table are not in the source, or have no mask, such as {absent[0]}.",
            )
        everybody = {case.patient for case in reading.cases}
        reading.split = self.drawn_or_given_split(everybody) or self._split(everybody, patients)
        return reading

    def _list_case(
        self,
        source: Path,
        pair: Pair,
        labels: Labels,
        patients: Patients,
        spacing: tuple[float, float] | None,
        reading: Reading,
    ) -> None:
        try:
            case_id = patients.case_id(pair)
        except ValueError as error:
            reading.refuse(
                "no patient", pair.name, f"{pair.image}: its patient is not known ({error}). Correct --patients."
            )
            return
        patient = patient_of(case_id, {"case_id_pattern": patients.pattern})
        match = re.fullmatch(patients.pattern, case_id)
        table = {group: match[group] or "" for group in patients.groups} if match else {}
        read = partial(read_image_and_mask, source, pair.image, pair.mask, labels, spacing)
        reading.cases.append(Case(case_id, patient, pair.image, read, table=table))

    def _split(self, everybody: set[str], patients: Patients) -> Split:
        listed = {row.patient: row.subset for row in patients.table.values() if row.subset}
        training, validation, test = (
            {patient for patient in everybody if listed.get(patient) == subset} for subset in SUBSETS
        )
        if self.split == "table":
            notes = unmatched(listed, everybody, "is in imagesTr, but in no fold")
            return listed_split(training, validation, test, notes)
        return five_folds(everybody, dict.fromkeys(everybody, ()), seed=self.seed, test=test)

    def _labels(self) -> Labels:
        return read_labels(self.labels)

    def _patients(self) -> Patients:
        return read_patients(self.patients)

    def _spacing(self) -> tuple[float, float] | None:
        """(row, column), in mm or 1 for px; None for the header's."""
        if self.spacing in ((), ("px",)):
            return (1.0, 1.0) if self.spacing else None
        lengths = tuple(length for length in map(finite, self.spacing) if length is not None)
        if len(self.spacing) != 2 or len(lengths) != 2:
            raise ValueError(
                f"--spacing {' '.join(self.spacing)}: two lengths in mm are needed, from row to row and "
                "from column to column, or px."
            )
        check_spacing(lengths, "--spacing", "mm")
        return lengths


READER = ImagesAndMasks
