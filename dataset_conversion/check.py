"""`nnunet-echo check DATASET`: does a raw dataset hold what nnU-Net and a fair experiment need?

Looks at every file and reports all it finds, in two grades: a problem stops nnU-Net, or lets it train on or validate
with the wrong data; a remark is worth knowing. Works for any raw dataset of NIfTI files; the checks by patient need the
`case_id_pattern` that our converters write.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.dataset_conversion.folders import find_dataset, preprocessed_splits
from nnunet_echo.dataset_conversion.images import SourceError, read_image
from nnunet_echo.dataset_conversion.parallel import map_in_order
from nnunet_echo.dataset_conversion.raw_dataset import REPORT, SCRATCH, patient_of

REQUIRED = ("channel_names", "labels", "numTraining", "file_ending")


@dataclass(frozen=True)
class Finding:
    """One thing that was found; `problem` or else a remark."""

    problem: bool
    text: str


def check_dataset(folder: Path, workers: int | None = None) -> list[Finding]:
    """Everything that is wrong or odd with the raw dataset in `folder`; an empty list when all is well."""
    findings = list(_check_leftovers(folder))
    try:
        dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        missing = [key for key in REQUIRED if key not in dataset_json]
    except FileNotFoundError:
        return [*findings, _problem("dataset.json is missing: the conversion did not finish; run it again")]
    except (OSError, ValueError) as error:
        return [*findings, _problem(f"dataset.json cannot be read ({error}); convert again")]
    if missing:
        return [*findings, _problem(f"dataset.json lacks {', '.join(missing)}, which nnU-Net requires")]

    findings += _check_fields(dataset_json)
    training = _list_cases(folder, "Tr", dataset_json, findings)
    test = _list_cases(folder, "Ts", dataset_json, findings)
    if len(training) != dataset_json["numTraining"]:
        findings.append(_problem(f"imagesTr holds {len(training)} cases, dataset.json says numTraining "
                                 f"{dataset_json['numTraining']}: nnU-Net's planner stops"))
    findings += _check_patients(training, test, dataset_json)
    findings += _check_splits(folder, training, dataset_json)

    jobs = [("Tr", case, channels) for case, channels in training.items()]
    jobs += [("Ts", case, channels) for case, channels in test.items()]
    check = partial(_check_case, folder=folder, dataset_json=dataset_json)
    results = map_in_order(check, jobs, title=folder.name, workers=workers)
    return [*findings, *(finding for result in results for finding in result)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `check`."""
    parser.add_argument("dataset", help="id (751), name (Dataset751_CAMUS) or path of a raw dataset")
    parser.add_argument("--raw", metavar="FOLDER", help="where an id or name is looked up (default: nnUNet_raw)")
    parser.add_argument("--workers", type=int, help="processes (default: one for each processor)")


def run(args: argparse.Namespace) -> int:
    """Print what was found. Exit code 0 without a problem, 1 with one, 2 when there is no such dataset."""
    try:
        folder = find_dataset(args.dataset, args.raw)
        findings = check_dataset(folder, args.workers)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    problems = [finding.text for finding in findings if finding.problem]
    remarks = [finding.text for finding in findings if not finding.problem]
    for title, texts in (("problem", problems), ("remark", remarks)):
        for text in texts:
            print(f"{title}: {text}")
    counts = f"{len(problems)} problem(s), {len(remarks)} remark(s)"
    print(f"{folder.name}: {counts}. {'nnU-Net will stumble; see above.' if problems else 'Ready for nnU-Net.'}")
    return 1 if problems else 0


def _problem(text: str) -> Finding:
    return Finding(True, text)


def _remark(text: str) -> Finding:
    return Finding(False, text)


def _check_leftovers(folder: Path) -> Iterator[Finding]:
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.name == SCRATCH or path.name.endswith((".tmp", ".unfinished")))
    if left:
        yield _problem(f"leftovers of an interrupted conversion: {_some(left)}; run it again")
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield _problem(f"{REPORT} cannot be read ({error}); convert again")
        return
    if not report.get("finished"):
        yield _problem(f"{REPORT} says that the conversion did not finish; run it again")
    if report.get("refused"):
        yield _remark(f"the conversion refused {len(report['refused'])} source case(s); see conversion_report.txt")


def _check_fields(dataset_json: Mapping) -> Iterator[Finding]:
    labels = dataset_json["labels"]
    simple = all(isinstance(value, int) for value in labels.values())
    if labels.get("background") != 0:
        yield _problem("dataset.json: nnU-Net needs the label background with value 0")
    elif simple and sorted(labels.values()) != list(range(len(labels))):
        yield _problem(f"dataset.json: labels {sorted(labels.values())} must be consecutive for nnU-Net: 0, 1, 2, ...")
    if sorted(dataset_json["channel_names"]) != [str(index) for index in range(len(dataset_json["channel_names"]))]:
        yield _problem(f"dataset.json: channel_names {sorted(dataset_json['channel_names'])} must be numbered from 0")
    if "case_id_pattern" not in dataset_json:
        yield _remark("dataset.json has no case_id_pattern: each case counts as its own patient, so a patient on both "
                      "sides of a fold cannot be seen")


def _list_cases(folder: Path, part: str, dataset_json: Mapping, findings: list[Finding]) -> dict[str, list[str]]:
    """Case id -> channel files of imagesTr or imagesTs, and what is wrong with the names there and in the labels."""
    ending, channels = dataset_json["file_ending"], len(dataset_json["channel_names"])
    images, labels = folder / f"images{part}", folder / f"labels{part}"
    cases: dict[str, list[str]] = {}
    if part == "Tr":
        findings += [_problem(f"folder {place.name} is missing") for place in (images, labels) if not place.is_dir()]
    for path in sorted(images.glob("*")):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", path.name)
        if match:
            cases.setdefault(match[1], []).append(path.name)
        elif path.name.endswith(ending):
            findings.append(_problem(f"{images.name}/{path.name}: nnU-Net expects a channel number, NAME_0000{ending}"))
        else:
            findings.append(_remark(f"{images.name}/{path.name}: not an image of this dataset; nnU-Net ignores it"))
    for case, files in cases.items():
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(channels)]
        if files != expected:
            findings.append(_problem(f"{images.name}: {case} has {', '.join(files)}, but needs {', '.join(expected)}"))
    labelled = {path.name[: -len(ending)] for path in labels.glob(f"*{ending}")}
    unlabelled, orphans = sorted(set(cases) - labelled), sorted(labelled - set(cases))
    if unlabelled:
        grade = _problem if part == "Tr" else _remark
        findings.append(grade(f"{len(unlabelled)} case(s) of {images.name} without a label: {_some(unlabelled)}"))
    if orphans:
        findings.append(_problem(f"{len(orphans)} label(s) of {labels.name} without an image: {_some(orphans)}"))
    return cases


def _check_patients(training: Mapping, test: Mapping, dataset_json: Mapping) -> Iterator[Finding]:
    strangers = []
    for case in (*training, *test):
        try:
            patient_of(case, dataset_json)
        except (ValueError, re.error, IndexError):
            strangers.append(case)
    if strangers:
        yield _problem(f"{len(strangers)} case id(s) do not match case_id_pattern, so their patient is unknown: "
                       f"{_some(strangers)}")
        return
    shared = {patient_of(case, dataset_json) for case in training} & {patient_of(case, dataset_json) for case in test}
    if shared:
        yield _problem(f"{len(shared)} patient(s) are in training and in test: {_some(sorted(shared))}")


def _check_splits(folder: Path, training: Mapping, dataset_json: Mapping) -> Iterator[Finding]:
    """Every splits file that nnU-Net would read: the raw dataset's and, after preprocessing, its copy."""
    copy = preprocessed_splits(folder.name)
    splits = yield from _read_splits(folder / "splits_final.json")
    if splits is None:
        yield _problem("without splits_final.json nnU-Net makes folds of single cases: a patient's frames end up on "
                       "both sides")
        return
    yield from _check_folds(splits, set(training), dataset_json)
    if copy is not None and copy.is_file():
        copied = yield from _read_splits(copy)
        if copied is not None and copied != splits:
            yield _problem(f"{copy} differs from the dataset's splits_final.json: training uses the former, and "
                           "planning stops; convert again or copy the file")


def _read_splits(path: Path) -> Iterator[Finding]:
    """The folds in `path`, as the generator's value; None, after a finding, when they cannot be read."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        if splits and all(isinstance(fold["train"], list) and isinstance(fold["val"], list) for fold in splits):
            return splits
        yield _problem(f"{path.name} holds no folds")
    except FileNotFoundError:
        yield _problem(f"{path.name} is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield _problem(f"{path.name} cannot be read ({type(error).__name__}: {error}); convert again")
    return None


def _check_folds(splits: Sequence[Mapping], training: set[str], dataset_json: Mapping) -> Iterator[Finding]:
    def patients(cases: Sequence[str]) -> set[str]:
        known = []
        for case in cases:
            try:
                known.append(patient_of(case, dataset_json))
            except (ValueError, re.error, IndexError):
                continue  # reported with the case ids
        return set(known)

    for number, fold in enumerate(splits):
        both = patients(fold["train"]) & patients(fold["val"])
        absent = sorted({*fold["train"], *fold["val"]} - training)
        if both:
            yield _problem(f"fold {number}: {len(both)} patient(s) in training and validation: {_some(sorted(both))}")
        if absent:
            yield _problem(f"fold {number}: {len(absent)} listed case(s) do not exist: {_some(absent)}")
        if not fold["train"] or not fold["val"]:
            yield _problem(f"fold {number}: no training or no validation case")
    counts = Counter(case for fold in splits for case in fold["val"])
    repeated = sorted(case for case, count in counts.items() if count > 1)
    if repeated:
        yield _problem(f"{len(repeated)} case(s) are validated more than once: {_some(repeated)}")
    never = sorted(training - set(counts))
    if never and len(splits) > 1:
        yield _problem(f"{len(never)} training case(s) are in no fold's validation: {_some(never)}")
    unused = sorted(training - set(counts) - {case for fold in splits for case in fold["train"]})
    if unused and len(splits) == 1:
        yield _remark(f"{len(unused)} training case(s) are in no fold: {_some(unused)}")


def _check_case(job: tuple[str, str, list[str]], folder: Path, dataset_json: Mapping) -> list[Finding]:
    """What is wrong with the pixels of one case."""
    (part, case, channels), ending = job, dataset_json["file_ending"]
    names = [f"images{part}/{name}" for name in channels]
    label_name = f"labels{part}/{case}{ending}"
    if (folder / label_name).is_file():
        names.append(label_name)
    findings, images = [], {}
    for name in names:
        try:
            images[name] = read_image(folder / name, name)
        except SourceError as error:
            findings.append(_problem(str(error)))
    for name, image in images.items():
        findings += _check_grid(name, image, *next(iter(images.items())))
        if "sequence" in dataset_json:
            findings += _check_sequence(name, image)
        if name == label_name:
            findings += _check_label(name, image, dataset_json["labels"])
        elif not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
            findings.append(_problem(f"{name}: NaN or infinite values"))
    return findings


def _check_grid(name: str, image: sitk.Image, first_name: str, first: sitk.Image) -> Iterator[Finding]:
    for what in ("Size", "Spacing", "Origin", "Direction"):
        ours, theirs = getattr(image, f"Get{what}")(), getattr(first, f"Get{what}")()
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=0, atol=1e-4):
            grade = _problem if what in ("Size", "Spacing") else _remark
            yield grade(f"{name}: {what.lower()} {ours} differs from {first_name}, {theirs}")


def _check_sequence(name: str, image: sitk.Image) -> Iterator[Finding]:
    spacing = image.GetSpacing()
    if len(spacing) != 3:
        yield _problem(f"{name}: {len(spacing)} axes; a sequence has x, y and t")
    elif spacing[2] <= max(spacing[:2]):
        yield _problem(f"{name}: spacing {spacing}; nnU-Net takes the axis of the largest for that of slices, which "
                       "must be t: use more pixels (--size)")


def _check_label(name: str, label: sitk.Image, labels: Mapping) -> Iterator[Finding]:
    allowed = {value for entry in labels.values() for value in (entry if isinstance(entry, list) else [entry])}
    present = set(np.unique(sitk.GetArrayViewFromImage(label)).tolist())
    if present - allowed:
        yield _problem(f"{name}: label values {_some(sorted(present - allowed))} are not in dataset.json")
    if present == {0}:
        yield _remark(f"{name}: background only")
    if present == {labels.get("ignore")}:
        yield _problem(f"{name}: nothing but the ignore label; there is nothing to learn or to score")
    if label.GetPixelID() != sitk.sitkUInt8:
        yield _remark(f"{name}: {label.GetPixelIDTypeAsString()}; 8-bit unsigned integer is enough and smaller")


def _some(items: Sequence[object], limit: int = 5) -> str:
    shown = ", ".join(map(str, items[:limit]))
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
