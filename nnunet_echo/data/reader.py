"""The interface of all datasets: a `Reader` lists the cases of a download, and everything else is written once.

A new dataset is one new folder of dataset_conversion; its `name` is the word in `nnunet-echo convert NAME SOURCE`:

    @dataclass(frozen=True, kw_only=True)
    class Hearts(Reader):                       # the fields are the options of the conversion
        mode: str = "frames"                    # one of `modes`; here and for `split`, the default
        split: str = "5fold"                    # one of `splits`
        sure: bool = False                      # an option of its own

        name = "hearts"                         # as typed
        summary = "Hearts of Everybody, 2D frames"
        source_help = "a folder with hearts.csv"
        dataset_ids = {"Hearts": 799}           # what `dataset_json` may call it, and the default id of each
        modes = {"frames": "each frame a 2D case"}    # a mode of another name gives sequences
        splits = {"5fold": "five folds", **SPLITS_OF_ALL}

        @classmethod
        def add_arguments(cls, parser):         # named like the fields
            parser.add_argument("--sure", action="store_true")

        def dataset_json(self): ...             # all but numTraining; its name chooses the folder's
        def read(self, source): ...             # -> Reading

    READER = Hearts

`read` opens tables and lists folders, never an image: a `Case` carries the function that reads its image, in a worker
process, and that raises `SourceError` for a file that cannot become a case. What the download lacks is a warning of the
`Reading`, what is there and cannot be used is refused: nothing is left out in silence. Case ids match the
`case_id_pattern` of dataset.json, whose group `patient` keeps a patient's cases on one side of every split.
Cines are cases too: `SequenceReader` has their options, cine.py makes a case of one, time its slowest axis.
The command finds the folders with a `READER` itself; tests/data/test_readers.py says what it expects of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nnunet_echo import __version__
from nnunet_echo.data.cases import Case, Written
from nnunet_echo.data.errors import is_utf8, printable
from nnunet_echo.data.findings import Note, Report
from nnunet_echo.data.raw_dataset import write_dataset
from nnunet_echo.data.splits import Split, seven_one_two, split_of_file
from nnunet_echo.nnunet.folders import new_dataset_folder, raw_folder


@dataclass
class Reading:
    """What a reader found: the cases, their split, and what is odd or unusable.

    `split` may move cases to the test cases. `review` may add warnings once all cases are written; it gets what became
    of each.

    >>> reading = Reading()
    >>> reading.warn("cfg field missing", "p1", "p1: no EF; left empty")
    >>> len(reading.cases), len(reading.refused), reading.warnings[0].subject
    (0, 0, 'p1')
    """

    split: Split = field(init=False)
    cases: list[Case] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)
    review: Callable[[Mapping[str, Written]], list[Note]] = lambda written: []

    def refuse(self, kind: str, subject: str, message: str) -> None:
        self.refused.append(Note(kind, subject, message))

    def warn(self, kind: str, subject: str, message: str) -> None:
        self.warnings.append(Note(kind, subject, message))

    def refuse_strange_names(self) -> None:
        """Refuse the cases whose path is not UTF-8, which SimpleITK cannot open, and make all notes printable."""
        strange = [case for case in self.cases if not is_utf8(case.source)]
        self.cases = [case for case in self.cases if case not in strange]
        for case in strange:
            self.refuse("name not UTF-8", case.case_id, f"{case.source}: is not UTF-8. Rename the folder or file.")
        for notes in (self.refused, self.warnings):
            notes[:] = [Note(note.kind, printable(note.subject), printable(note.message)) for note in notes]


@dataclass(frozen=True, kw_only=True)
class Reader(ABC):
    """A dataset and the options of its conversion; see the module's docstring. Raises `ValueError` for a bad option.

    >>> from nnunet_echo.dataset_conversion import readers
    >>> reader = readers()["camus"](views=("4CH",))  # a `Reader`, whose options are its fields
    >>> reader.mode, reader.split, reader.dataset_id()
    ('frames', '5fold', 751)
    >>> readers()["camus"](split="6fold")
    Traceback (most recent call last):
        ...
    ValueError: split='6fold': expected one of 5fold, official, 10fold, 7:1:2, file.
    """

    mode: str
    split: str
    seed: int = 12345  # of splits that are drawn
    split_file: str | None = None

    name: ClassVar[str]
    summary: ClassVar[str]
    source_help: ClassVar[str]
    dataset_ids: ClassVar[Mapping[str, int]]
    modes: ClassVar[Mapping[str, str]]  # what each means, as for the splits
    splits: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        for option, choices in (("mode", self.modes), ("split", self.splits)):
            if getattr(self, option) not in choices:
                raise ValueError(f"{option}={getattr(self, option)!r}: expected one of {', '.join(choices)}.")
        if (self.split == "file") != (self.split_file is not None):
            raise ValueError(
                f"split={self.split!r}, split_file={self.split_file!r}: --split file and --split-file FILE go together."
            )

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this dataset has, each named like its field."""

    @abstractmethod
    def dataset_json(self) -> dict[str, Any]:
        """dataset.json but for numTraining; its `name` is one of `dataset_ids`."""

    @abstractmethod
    def read(self, source: Path) -> Reading:
        """List the cases below `source`.

        Raises `FileNotFoundError` for a missing source or list, `ValueError` for one that contradicts itself.
        """

    def drawn_or_given_split(self, patients: Collection[str]) -> Split | None:
        """The split, one of `SPLITS_OF_ALL`, of all `patients` with masks; None for one of the dataset's own."""
        if self.split == "7:1:2":
            return seven_one_two(patients, self.seed)
        return None if self.split_file is None else split_of_file(Path(self.split_file), patients)

    def convert(
        self,
        source: str | Path,
        *,
        dataset_id: int | None = None,
        raw: str | Path | None = None,
        workers: int | None = 1,
        progress: bool = False,
        replace: bool = False,
    ) -> Report:
        """Convert the download `source` to DatasetXXX_NAME below `raw` (default nnUNet_raw).

        `replace` lets it take the place of a conversion of another source or with other options. Raises, besides what
        `read` raises, `ValueError` for a folder whose name is not UTF-8, `OSError` for a target that is not ours, in
        use or not to be written, and `RuntimeError` when a worker dies. `workers` and `progress` are those of
        `map_in_order`.
        """
        target = raw_folder(raw)
        for place in (Path(source), target):
            if not is_utf8(place):
                raise ValueError(f"{printable(place)}: the name is not UTF-8. Rename the folder.")
        dataset_json = self.dataset_json()
        folder = new_dataset_folder(
            target, self.dataset_id() if dataset_id is None else dataset_id, dataset_json["name"]
        )
        reading = self.read(Path(source))
        reading.refuse_strange_names()
        cases = [
            dataclasses.replace(case, test=case.test or case.patient in reading.split.test) for case in reading.cases
        ]
        lists = self.split_file and hashlib.sha256(Path(self.split_file).read_bytes()).hexdigest()
        converter = f"nnunet_echo.dataset_conversion.{self.name} {__version__}"
        return write_dataset(
            folder,
            cases,
            {**dataset_json, "converted_by": converter},
            converter=converter,
            source=Path(source),
            options=self.recorded_options(),
            split_file_sha256=lists,
            make_folds=reading.split.make_folds,
            refused=reading.refused,
            warnings=[*reading.split.warnings, *reading.warnings],
            review=reading.review,
            workers=workers,
            progress=progress,
            replace=replace,
        )

    def recorded_options(self) -> dict[str, Any]:
        """What the report says of the options, and what makes a conversion another one: no places of this machine."""
        return asdict(self) | {"split_file": self.split_file and Path(self.split_file).name}

    def dataset_id(self) -> int:
        """The default id."""
        return self.dataset_ids[self.dataset_json()["name"]]


@dataclass(frozen=True, kw_only=True)
class SequenceReader(Reader):
    """A dataset with sequences, of which `make_case` (cine.py) makes cases: how many frames of each, of which size.

    >>> from nnunet_echo.dataset_conversion import readers
    >>> reader = readers()["ted"](clip=16, size=112)  # a `SequenceReader`
    >>> reader.mode, reader.clip, reader.size
    ('sequence', 16, 112)
    """

    clip: int | None = None  # all frames without
    size: int | None = None  # default: the cine's own

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least in (("clip", 2), ("size", 64)):
            value = getattr(self, option)
            if value is not None and (self.mode == "frames" or value < least):
                raise ValueError(
                    f"{option} is {value} and mode {self.mode!r}; it must be at least {least} and is for sequences."
                )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--clip",
            type=int,
            metavar="N",
            help="of each sequence N frames, evenly spaced, the first and the last included",
        )
        parser.add_argument("--size", type=int, metavar="N", help="resize the frames of sequences to N x N pixels")
