"""Images and masks of one's own: names, patients, folders, tables and options; what files hold is in the neighbour."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_conversion import NAME, convert, load, written
from own_images import LABELS, PATIENTS
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.check import check_dataset

pytest_plugins = ("own_conversion",)


def test_a_folder_of_png_becomes_a_dataset_with_folds_by_patient(own: Path) -> None:
    report = convert(own, patients=PATIENTS, spacing=("0.5", "0.25"))
    assert report.exit_code == 0 and (report.training_cases, report.patients) == (12, 3)
    assert [note.kind for note in report.warnings] == ["fewer folds"]
    image, label, spacing = written(report, "p02_4CH_ES")
    assert np.array_equal(image, np.asarray(Image.open(own / "images" / "p02_4CH_ES.png")))
    assert np.array_equal(label, np.asarray(Image.open(own / "masks" / "p02_4CH_ES.png")))
    np.testing.assert_allclose(spacing, (0.25, 0.5))  # x, y
    dataset = load(report.folder / "dataset.json")
    assert dataset["labels"] == {"background": 0, "LV": 1, "MYO": 2, "LA": 3} and "spacing_unit" not in dataset
    assert patient_of("p02_4CH_ES", dataset) == "p02"
    for fold in load(report.folder / "splits_final.json"):
        assert not {case[:3] for case in fold["train"]} & {case[:3] for case in fold["val"]} and len(fold["val"]) == 4
    with (report.folder / "cases.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["case"], row["view"], row["phase"], row["source"]) == (
        "p01_2CH_ED",
        "2CH",
        "ED",
        "images/p01_2CH_ED.png",
    )
    assert not check_dataset(report.folder, 1)


def test_the_same_again_changes_nothing_and_another_is_asked_for(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", "images", str(own), "--labels", *LABELS, "--spacing", "px", "--workers", "1"]
    assert main([*command, "--patients", PATIENTS]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "raw" / NAME).rglob("*") if path.is_file()}
    assert main([*command, "--patients", PATIENTS]) == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "raw" / NAME).rglob("*") if path.is_file()}
    assert "next: nnUNetv2_plan_and_preprocess -d 770 -c 2d" in capsys.readouterr().out
    assert main([*command, "--patients", r"(?P<patient>\d)_"]) == 2
    assert "patients was" in capsys.readouterr().err
    assert main([*command, "--patients", r"(?P<patient>p\d\d)", "--replace"]) == 0
    assert load(tmp_path / "raw" / NAME / "dataset.json")["spacing_unit"] == "px"


def test_without_patients_a_warning_says_what_that_means(own: Path) -> None:
    report = convert(own)
    assert report.patients == 12 and [note.kind for note in report.warnings] == ["no patients"]
    assert "folds have that person on both sides" in report.warnings[0].message


def test_a_table_tells_patients_views_phases_and_subsets(own: Path, tmp_path: Path) -> None:
    rows = [["image", "patient", "view", "phase", "subset"]]
    for path in sorted((own / "images").iterdir()):
        patient, view, phase = path.stem.split("_")
        rows.append(
            [
                path.name if patient == "p01" else path.stem,
                f"Mrs {patient[1:]}",
                view,
                phase.replace("ES", ""),
                {"p01": "train", "p02": "val", "p03": "test"}[patient],
            ]
        )
    table = tmp_path / "patients.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ["gone", "Mrs 01", "2CH", "", "train"]])
    report = convert(own, patients=str(table))
    assert (report.test_cases, report.folds) == (4, 2)
    assert "such as gone" in next(note.message for note in report.warnings if note.kind == "listed image absent")
    dataset = load(report.folder / "dataset.json")
    match = re.fullmatch(dataset["case_id_pattern"], "Mrs-01_4CH_ED_p01_4CH_ED")
    assert match.groupdict() == {"patient": "Mrs-01", "view": "4CH", "phase": "ED", "image": "p01_4CH_ED"}
    assert (report.folder / "imagesTs" / "Mrs-03_2CH__p03_2CH_ES_0000.nii.gz").is_file()
    assert str(tmp_path) not in (report.folder / "conversion_report.txt").read_text()
    moved = shutil.move(table, tmp_path / "elsewhere.csv")
    assert convert(own, patients=str(moved)).exit_code == 0  # the same options
    shutil.rmtree(report.folder)
    report = convert(own, patients=str(moved), split="table")
    (fold,) = load(report.folder / "splits_final.json")
    assert {case[:6] for case in fold["train"]} == {"Mrs-01"} and {case[:6] for case in fold["val"]} == {"Mrs-02"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,patient\na,\n", "line 2: image is 'a' and patient ''"),
        ("image,patient\na,x\na,y\n", "line 3: a is in the table already"),
        ("image,patient\na,x 1\nb,x-1\n", "line 3: patients 'x 1' and 'x-1' would both be called x-1"),
        ("image,patient,subset\na,x,train\nb,x,val\n", "line 3: x is in subset 'train' above and 'val' here"),
        ("image,patient,subset\na,x,learn\n", "line 2: subset is 'learn'; it must be train, val, test"),
        ("image,patient,frame\na,x,one\n", "line 2: frame is 'one'"),
        ("image,patient\n", "no rows"),
        ("image,person\na,x\n", "patient is not there"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(own: Path, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(reason)):
        convert(own, patients=str(tmp_path / "t.csv"))


def test_images_that_a_table_or_pattern_does_not_know_are_refused(own: Path, tmp_path: Path) -> None:
    report = convert(own, patients=r"(?P<patient>p0[12])")
    assert [note.kind for note in report.refused] == ["no patient"] * 4 and report.training_cases == 8
    (tmp_path / "t.csv").write_text(
        "image,patient\n" + "".join(f"{path.stem},{path.stem[:3]}\n" for path in (own / "images").glob("p0[12]*"))
    )
    shutil.copytree(own / "images", own / "images" / "again")
    shutil.copytree(own / "masks", own / "masks" / "again")
    shutil.rmtree(report.folder)
    with pytest.raises(ValueError, match="needs at least 2 patients"):  # each row fits two images
        convert(own, patients=str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": ()}, "--labels is missing"),
        ({"labels": ("LV",)}, "--labels LV: it must be NAME=VALUE"),
        ({"labels": ("LV=1", "MYO=1")}, "1 is there twice"),
        ({"labels": ("LV=1", "MYO=#00ff00")}, "values and colours side by side"),
        ({"labels": ("LV=0",)}, "that is the background's"),
        ({"labels": ("ignore=4", "LV=1")}, "partly labelled masks are not read"),
        ({"spacing": ()}, "has no spacing. Give --spacing R C"),
        ({"spacing": ("1",)}, "two lengths in mm are needed"),
        ({"spacing": ("1", "one")}, "two lengths in mm are needed"),
        ({"spacing": ("1", "0")}, "must be a positive number"),
        ({"spacing": ("0.0003", "0.0003")}, "pixels of an echo are"),
        ({"patients": "(?P<patient"}, "neither a file nor a regular expression"),
        ({"patients": r"p\d+"}, "needs a group patient"),
        ({"patients": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"images": "../elsewhere"}, "--images ../elsewhere: it must lie inside"),
        ({"split": "table"}, "needs --patients TABLE with a column subset"),
    ],
)
def test_bad_options_are_answered_in_words(own: Path, options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        convert(own, **options)


def test_folders_are_guessed_or_named(own: Path) -> None:
    (own / "masks").rename(own / "Labels")
    assert convert(own).training_cases == 12
    (own / "gt").mkdir()
    with pytest.raises(ValueError, match=r"has Labels and gt\. Choose one with --masks"):
        convert(own)
    (own / "Labels").rename(own / "by hand")
    (own / "gt").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no folder called masks, .* or labelstr, but by hand, images\. Name"):
        convert(own)
    shutil.rmtree(own.parent / "raw")
    assert convert(own, masks="by hand").training_cases == 12
    with pytest.raises(FileNotFoundError, match="--masks nowhere: .* is not there"):
        convert(own, masks="nowhere")


def test_one_folder_may_hold_both_by_suffix_and_have_folders_of_patients(own: Path) -> None:
    for path in sorted((own / "masks").iterdir()):
        patient, rest = path.stem.split("_", 1)
        (own / "both" / patient).mkdir(parents=True, exist_ok=True)
        path.rename(own / "both" / patient / f"{rest}_GT.png")
        (own / "images" / path.name).rename(own / "both" / patient / f"{rest}.png")
    report = convert(own, images="both", masks="both", patients=PATIENTS)
    assert report.exit_code == 0 and report.training_cases == 12
    assert (report.folder / "labelsTr" / "p01_2CH_ED.nii.gz").is_file()


def test_names_become_safe_and_collisions_are_refused(pair: Callable[..., Path]) -> None:
    folder = pair()
    for name in ("a b.png", "a.b.png", "Ünal 3.png", "B.png"):
        for part in ("images", "masks"):
            shutil.copy(folder / part / "a.png", folder / part / name)
    (folder / "images" / "notes.txt").touch()
    report = convert(folder)
    assert {note.kind for note in report.refused} == {"name twice"}
    assert [note.subject for note in report.refused] == ["B", "a-b", "a-b", "b"]  # B and b: one file on a Mac
    assert (report.folder / "labelsTr" / "-nal-3.nii.gz").is_file()
    assert ("not taken", "images/notes.txt") in [(note.kind, note.subject) for note in report.warnings]


def test_masks_may_lie_in_a_folder_among_the_images(own: Path) -> None:
    for path in (own / "images").iterdir():
        path.rename(own / path.name)
    (own / "images").rmdir()
    report = convert(own, images=".")
    assert report.exit_code == 0 and report.training_cases == 12
    assert (report.folder / "labelsTr" / "p01_2CH_ED.nii.gz").is_file()
