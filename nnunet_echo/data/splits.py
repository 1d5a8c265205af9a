"""Splits of a dataset by patient: five folds, lists of patients, 7:1:2, and a list in a file.

The file of `--split-file` is a table (CSV, UTF-8) with the columns `patient` and `subset`; others are ignored:

    patient,subset
    patient0001,train
    patient0002,val
    patient0003,test

A patient is named as in the source or as in cases.csv (CAMUS_patient0001), at most once. Patients of the list that the
source does not have, and patients of the source that the list does not name, are warned of by name; the latter are in
imagesTr and in no fold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunet_echo.data.findings import Note
from nnunet_echo.data.tables import read_table

Fold = dict[str, list[str]]  # "train" and "val": names of patients, or of cases
FoldMaker = Callable[[set[str]], list[Fold]]  # of the training patients that were converted
SPLITS_OF_ALL = {
    "7:1:2": "70, 10 and 20 % of the patients to train, validate and test, drawn by --seed",
    "file": "the lists in --split-file",
}
SUBSETS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The patients kept for testing, how folds are made of the others, and what is odd about the lists.

    >>> split = listed_split(["p1", "p2"], ["p3"], test=["p4"])
    >>> split.test, split.warnings
    (frozenset({'p4'}), ())
    """

    make_folds: FoldMaker
    test: frozenset[str] = frozenset()
    warnings: tuple[Note, ...] = ()


def splits_by_patient(
    patients: Sequence[str], strata: Mapping[str, Sequence[str]], n_splits: int = 5, seed: int = 12345
) -> list[Fold]:
    """Cross-validation folds of patients: every patient is validated once, fold sizes differ by one at most.

    Patients are ordered by stratum (`strata[patient]`, a tuple of strings), shuffled within it by a hash of seed and
    name, and dealt to the folds in turn. So each stratum spreads as evenly as it can however small it is, and the folds
    depend neither on the order of `patients` nor on any library's random numbers. Raises `ValueError` for fewer than
    two folds or fewer patients than folds.

    >>> patients = [f"p{number}" for number in range(10)]
    >>> strata = {patient: ("good" if patient < "p5" else "poor",) for patient in patients}
    >>> folds = splits_by_patient(patients, strata)
    >>> len(folds), [fold["val"] for fold in folds][:2]
    (5, [['p3', 'p9'], ['p2', 'p5']])
    """
    if not 2 <= n_splits <= len(set(patients)):
        raise ValueError(
            f"n_splits is {n_splits} for {len(set(patients))} patients; it must be at least 2 and at most "
            "the number of patients."
        )

    def position(patient: str) -> tuple[tuple[str, ...], str]:
        return tuple(strata[patient]), _lot(seed, patient)

    dealt = sorted(set(patients), key=position)
    folds = [set(dealt[fold::n_splits]) for fold in range(n_splits)]
    return [{"train": sorted(set(dealt) - fold), "val": sorted(fold)} for fold in folds]


def five_folds(
    patients: Collection[str], strata: Mapping[str, Sequence[str]], *, seed: int, test: Collection[str] = ()
) -> Split:
    """Five folds of `patients` but those for testing, or as many folds as there are patients.

    They are those of `splits_by_patient`, whose `strata` and `seed` they take.

    >>> patients = [f"p{number}" for number in range(12)]
    >>> split = five_folds(patients, dict.fromkeys(patients, ()), seed=0, test={"p0", "p1"})
    >>> [len(fold["val"]) for fold in split.make_folds(set(patients) - split.test)]
    [2, 2, 2, 2, 2]
    """
    count = len(set(patients) - set(test))
    fewer = Note("fewer folds", "split", f"{count} patients make {count} folds, not 5.")
    return Split(partial(_stratified_folds, strata=strata, seed=seed), frozenset(test), (fewer,) * (count < 5))


def listed_split(
    training: Collection[str], validation: Collection[str], test: Collection[str] = (), warnings: Sequence[Note] = ()
) -> Split:
    """One fold, of these lists.

    >>> split = listed_split(["p1", "p2"], ["p3"], test=["p4"])
    >>> split.make_folds({"p1", "p2", "p3"}), sorted(split.test)
    ([{'train': ['p1', 'p2'], 'val': ['p3']}], ['p4'])
    """
    return Split(partial(listed_folds, lists=[(set(training), set(validation))]), frozenset(test), tuple(warnings))


def seven_one_two(patients: Collection[str], seed: int) -> Split:
    """70 % of the patients to train, 10 % to validate, 20 % to test, at least one of each; the protocol of MSV-Mamba.

    The patients are shuffled by a hash of seed and name. Published splits of this kind do not say which patients they
    drew, so the shares are theirs, not the patients. Raises `ValueError` for fewer than three patients.
    """
    if len(set(patients)) < 3:
        raise ValueError(f"--split 7:1:2 needs at least 3 patients with masks; there are {len(set(patients))}.")
    shuffled = sorted(set(patients), key=partial(_lot, seed))
    validation, test = (max(1, round(len(shuffled) * share)) for share in (0.1, 0.2))
    return listed_split(shuffled[validation + test :], shuffled[test : validation + test], shuffled[:test])


def split_of_file(path: Path, patients: Collection[str]) -> Split:
    """The split in a file, for the format see the module's docstring.

    `patients` are all that could be trained on, such as CAMUS_patient0001; the file may leave out what is before the
    first underscore. Raises `ValueError` for a file that cannot be read, another subset, a patient named twice.
    """
    known = {name: patient for patient in patients for name in (patient, patient.partition("_")[2])}
    subsets: dict[str, set[str]] = {subset: set() for subset in SUBSETS}
    lines: dict[str, int] = {}
    for line, row in read_table(path, ("patient", "subset"))[1]:
        patient, subset = known.get(row["patient"].strip(), row["patient"].strip()), row["subset"].strip()
        if subset not in SUBSETS:
            raise ValueError(f"{path}, line {line}: subset is {subset!r}; it must be {', '.join(SUBSETS)}.")
        if lines.setdefault(patient, line) != line:
            raise ValueError(
                f"{path}, line {line}: {patient} is in line {lines[patient]} already; a patient belongs "
                "to one subset, once."
            )
        subsets[subset].add(patient)
    training, validation, test = (subsets[subset] for subset in SUBSETS)
    return listed_split(training, validation, test, unmatched(lines, patients, "is in imagesTr, but in no fold"))


def unmatched(listed: Collection[str], patients: Collection[str], role: str) -> list[Note]:
    """Notes of the listed patients that are not there, and of those that no list names, who got this `role`.

    >>> [note.message for note in unmatched(["p1"], ["p1", "p2"], "trains in all folds")]
    ['no split list names it; it trains in all folds.']
    """
    absent, unlisted = sorted({*listed} - {*patients}), sorted({*patients} - {*listed})
    notes = (
        [
            Note(
                "listed patient absent",
                "split",
                f"{len(absent)} patients of the split lists have no image of these "
                f"views in the source: {', '.join(absent)}.",
            )
        ]
        if absent
        else []
    )
    return notes + [Note("patient in no list", name, f"no split list names it; it {role}.") for name in unlisted]


def listed_folds(patients: set[str], lists: Sequence[tuple[set[str], set[str]]]) -> list[Fold]:
    """A fold for each (training, validation) pair of lists, with those of its patients that are there.

    Raises `ValueError` where a fold would have no patient to train on or to validate on.

    >>> listed_folds({"p1", "p2", "p3"}, [({"p1", "p2", "p8"}, {"p3"})])  # p8 is not there
    [{'train': ['p1', 'p2'], 'val': ['p3']}]
    """
    folds = [
        {"train": sorted(patients & training), "val": sorted(patients & validation)} for training, validation in lists
    ]
    if not all(fold["train"] and fold["val"] for fold in folds):
        if len(patients) < 2:
            raise ValueError(
                f"a fold of the split lists has no training or no validation patient here: "
                f"{len(patients)} are left outside the test list, too few for any split. Convert more, or "
                "draw all of them again, the test patients too, with --split 7:1:2 or --split file."
            )
        raise ValueError("a fold of the split lists has no training or no validation patient here. Use --split 5fold.")
    return folds


def _stratified_folds(patients: set[str], strata: Mapping[str, Sequence[str]], seed: int) -> list[Fold]:
    if len(patients) < 2:
        raise ValueError(f"--split 5fold needs at least 2 patients outside the test list; there are {len(patients)}.")
    return splits_by_patient(sorted(patients), strata, n_splits=min(5, len(patients)), seed=seed)


def _lot(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()
