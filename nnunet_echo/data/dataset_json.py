"""What `check` finds in the JSON files of a raw dataset: dataset.json by nnU-Net's rules, the report, the splits.

Nothing that a JSON file can hold is an error here: what is not as expected is a finding.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.errors import some
from nnunet_echo.data.target import REPORT
from nnunet_echo.nnunet.folders import preprocessed_splits

REQUIRED = {"channel_names": dict, "labels": dict, "numTraining": int, "file_ending": str}
SHAPES = {dict: "an object with entries", int: "a whole number", str: "a text"}


@dataclass(frozen=True)
class Finding:
    """One thing that was found; `problem` or else a remark."""

    problem: bool
    text: str


def problem(text: str) -> Finding:
    return Finding(True, text)


def remark(text: str) -> Finding:
    return Finding(False, text)


def read_json(path: Path) -> object:
    """What a JSON file holds. Raises `FileNotFoundError`, or `ValueError` for one that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}).") from error


def read_dataset_json(folder: Path, findings: list[Finding]) -> dict | None:
    """dataset.json, and what is wrong with it; None where the cases cannot be looked at."""
    try:
        content = read_json(folder / "dataset.json")
    except FileNotFoundError:
        findings.append(problem("dataset.json is missing: the conversion did not finish. Run it again."))
        return None
    except ValueError as error:
        findings.append(problem(f"{error} Convert again."))
        return None
    if not isinstance(content, dict):
        findings.append(problem(f"dataset.json holds {_short(content)}; an object is needed."))
        return None
    if missing := [key for key in REQUIRED if key not in content]:
        findings.append(problem(f"dataset.json lacks {', '.join(missing)}, which nnU-Net requires."))
        return None
    wrong = [key for key, shape in REQUIRED.items() if type(content[key]) is not shape or content[key] in ({}, "")]
    findings += [
        problem(f"dataset.json: {key} is {_short(content[key])}; {SHAPES[REQUIRED[key]]} is needed.") for key in wrong
    ]
    if set(wrong) - {"numTraining"}:
        return None
    findings += _check_labels(content)
    findings += _check_channels(content["channel_names"])
    if content.get("case_id_pattern") is None:
        findings.append(
            remark(
                "dataset.json has no case_id_pattern: each case counts as its own patient, so a patient "
                "on both sides of a fold cannot be seen."
            )
        )
    if content.get("spacing_unit", "mm") not in ("mm", "px"):
        findings.append(
            remark(f"dataset.json: spacing_unit is {_short(content['spacing_unit'])}; evaluate takes mm or px.")
        )
    return content


def label_values(entry: object) -> list[int] | None:
    """The values of a label, or of a region, as nnU-Net takes them; None where it cannot."""
    try:
        values = [int(value) for value in _listed(entry)]
    except (TypeError, ValueError, OverflowError):
        return None
    return values or None


def allowed_values(labels: Mapping[str, Any]) -> set[int]:
    """Every value that a label map may hold."""
    return {value for entry in labels.values() for value in label_values(entry) or ()}


def _listed(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def patient_in(case: str, dataset_json: Mapping) -> str | None:
    """The patient of a case; None where the name, or the pattern, does not tell."""
    try:
        return patient_of(case, dataset_json)
    except (ValueError, re.error, IndexError, TypeError, RecursionError):
        return None


def _check_labels(content: Mapping) -> Iterator[Finding]:
    """nnU-Net's rules for labels, regions and the ignore label."""
    labels, order = content["labels"], content.get("regions_class_order")
    read = {name: label_values(entry) for name, entry in labels.items()}
    values_of = {name: values for name, values in read.items() if values is not None}
    if unusable := [name for name in labels if name not in values_of]:
        yield problem(
            f"dataset.json: label {unusable[0]} is {_short(labels[unusable[0]])}; a whole number is needed, "
            "or a list of them for a region."
        )
        return
    if odd := [name for name, entry in labels.items() if any(type(value) is not int for value in _listed(entry))]:
        yield remark(
            f"dataset.json: label {odd[0]} is {_short(labels[odd[0]])}, which nnU-Net takes for "
            f"{some(values_of[odd[0]])}. Write whole numbers."
        )
    if values_of.get("background") != [0] or isinstance(labels["background"], list):
        yield problem("dataset.json: nnU-Net needs the label background with value 0.")
        return
    named = {name: entry for name, entry in values_of.items() if name != "ignore"}
    values = sorted({value for entry in named.values() for value in entry})
    if values != list(range(len(values))):
        yield problem(f"dataset.json: labels {values} must be consecutive for nnU-Net: 0, 1, 2, ...")
    if values == [0]:
        yield problem("dataset.json: labels has nothing but the background; there is nothing to learn.")
    if "ignore" in labels and (type(labels["ignore"]) is not int or labels["ignore"] != max(values) + 1):
        yield problem(
            f"dataset.json: the ignore label is {_short(labels['ignore'])}; nnU-Net needs the highest value, "
            f"here {max(values) + 1}."
        )
    regions = [name for name, entry in named.items() if set(entry) != {0}]
    if not any(isinstance(entry, list) and len(entry) > 1 for entry in labels.values()):
        counts = Counter(entry[0] for entry in named.values())
        if twice := [value for value, count in counts.items() if count > 1]:
            yield remark(f"dataset.json: several labels have the value {some(twice)}; nnU-Net learns one structure.")
    elif not isinstance(order, list):
        yield problem(
            f"dataset.json: labels has regions, for which nnU-Net needs regions_class_order, a list with a "
            f"value for each of {some(regions)}."
        )
    elif len(order) != len(regions):
        yield problem(
            f"dataset.json: regions_class_order has {len(order)} values, but the labels without background "
            f"and ignore are {len(regions)}: {some(regions)}."
        )
    elif strange := [value for value in order if type(value) is not int or value not in values or value == 0]:
        yield problem(f"dataset.json: regions_class_order has {_short(strange[0])}, which is not a label.")


def _check_channels(names: Mapping[str, Any]) -> Iterator[Finding]:
    if set(names) != {str(index) for index in range(len(names))}:
        yield problem(f"dataset.json: channel_names {sorted(names)} must be numbered from 0.")
    if odd := [name for name in names.values() if not isinstance(name, str)]:
        yield problem(f"dataset.json: a channel name is {_short(odd[0])}; nnU-Net needs a text.")


def check_report(folder: Path) -> Iterator[Finding]:
    """What the converter's own report says."""
    try:
        report = read_json(folder / REPORT)
    except FileNotFoundError:
        return
    except ValueError as error:
        yield problem(f"{error} Convert again.")
        return
    if not isinstance(report, dict):
        yield problem(f"{REPORT} cannot be read (it holds {_short(report)}). Convert again.")
        return
    if report.get("finished") is not True:
        yield problem(f"{REPORT} says that the conversion did not finish. Run it again.")
    if refused := report.get("refused"):
        count = len(refused) if isinstance(refused, list) else "some"
        yield remark(f"the conversion refused {count} source case(s). See conversion_report.txt.")


def check_patients(training: Mapping, test: Mapping, dataset_json: Mapping) -> Iterator[Finding]:
    patients = {case: patient_in(case, dataset_json) for case in (*training, *test)}
    if strangers := [case for case, patient in patients.items() if patient is None]:
        yield problem(
            f"{len(strangers)} case id(s) do not match case_id_pattern, so their patient is unknown: {some(strangers)}."
        )
        return
    shared = {str(patients[case]) for case in training} & {str(patients[case]) for case in test}
    if shared:
        yield problem(f"{len(shared)} patient(s) are in training and in test: {some(sorted(shared))}.")


def check_splits(folder: Path, training: Mapping, dataset_json: Mapping) -> Iterator[Finding]:
    """Every splits file that nnU-Net would read: the raw dataset's and, after preprocessing, its copy."""
    copy = preprocessed_splits(folder.name)
    if dataset_json.get("case_id_pattern") is None and not (folder / "splits_final.json").exists():
        yield remark("splits_final.json is missing: nnU-Net makes five folds of single cases.")
        return
    splits = yield from _read_splits(folder / "splits_final.json")
    if splits is None:
        yield problem(
            "without splits_final.json nnU-Net makes folds of single cases: a patient's frames end up on both sides."
        )
        return
    yield from _check_folds(splits, set(training), dataset_json)
    if copy is not None and copy.is_file():
        copied = yield from _read_splits(copy)
        if copied is not None and copied != splits:
            yield problem(
                f"{copy} differs from the dataset's splits_final.json: training uses the former, and "
                "planning stops. Convert again, or copy the file."
            )


def _read_splits(path: Path) -> Generator[Finding, None, list[dict[str, list[str]]] | None]:
    """The folds in `path`, as the generator's value; None, after a finding, when they cannot be read."""
    try:
        splits = read_json(path)
    except FileNotFoundError:
        yield problem(f"{path.name} is missing.")
        return None
    except ValueError as error:
        yield problem(f"{error} Convert again.")
        return None
    if splits == []:
        yield problem(f"{path.name} holds no folds.")
        return None
    if isinstance(splits, list) and all(_is_fold(fold) for fold in splits):
        return splits
    yield problem(
        f"{path.name} cannot be read (folds are objects with the lists train and val of case names). Convert again."
    )
    return None


def _is_fold(fold: object) -> bool:
    return isinstance(fold, dict) and all(
        isinstance(fold.get(side), list) and all(isinstance(case, str) for case in fold[side])
        for side in ("train", "val")
    )


def _check_folds(splits: Sequence[Mapping], training: set[str], dataset_json: Mapping) -> Iterator[Finding]:
    def patients(cases: Sequence[str]) -> set[str]:
        found = (patient_in(case, dataset_json) for case in cases)
        return {patient for patient in found if patient is not None}  # the others are reported with the case ids

    for number, fold in enumerate(splits):
        both = patients(fold["train"]) & patients(fold["val"])
        absent = sorted({*fold["train"], *fold["val"]} - training)
        if both:
            yield problem(f"fold {number}: {len(both)} patient(s) in training and validation: {some(sorted(both))}.")
        if absent:
            yield problem(f"fold {number}: {len(absent)} listed case(s) do not exist: {some(absent)}.")
        if not fold["train"] or not fold["val"]:
            yield problem(f"fold {number}: no training or no validation case.")
    counts = Counter(case for fold in splits for case in fold["val"])
    repeated = sorted(case for case, count in counts.items() if count > 1)
    if repeated:
        yield problem(f"{len(repeated)} case(s) are validated more than once: {some(repeated)}.")
    never = sorted(training - set(counts))
    if never and len(splits) > 1:
        yield problem(f"{len(never)} training case(s) are in no fold's validation: {some(never)}.")
    unused = sorted(training - set(counts) - {case for fold in splits for case in fold["train"]})
    if unused and len(splits) == 1:
        yield remark(f"{len(unused)} training case(s) are in no fold: {some(unused)}.")


def _short(value: object, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
