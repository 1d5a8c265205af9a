"""The CAMUS converter on phantom data: both releases, each kind of damage, interruption, identical bytes, splits."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import shared
from nnunet_echo.dataset_conversion import camus, raw_dataset
from nnunet_echo.dataset_conversion.camus import DATASET_JSON, convert_camus
from nnunet_echo.dataset_conversion.check import check_dataset
from nnunet_echo.dataset_conversion.raw_dataset import patient_of, splits_by_patient
from nnunet_echo.dataset_conversion.report import Report
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_echo.phantom import write_camus

PATIENTS, SPACING_MM = 7, 1.5
CASES = PATIENTS * 4
COMMAND = (sys.executable, "-m", "nnunet_echo.dataset_conversion.camus")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven phantom patients, both views; the last is the test patient of the split list."""
    folder = tmp_path_factory.mktemp("pristine")
    write_camus(folder, PATIENTS, 3, spacing_mm=SPACING_MM, half_sequence=False)
    return folder


@pytest.fixture
def source(pristine: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return shutil.copytree(pristine, tmp_path / "source")


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's folders for this test; only nnUNet_raw exists from the start."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below `folder`, with the hash of its bytes."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in sorted(folder.rglob("*"))}


def convert(source: Path, **options: object) -> Report:
    return convert_camus(source, **{"workers": 1, **options})


def load(folder: Path, name: str) -> list | dict:
    return json.loads((folder / name).read_text())


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], spacing: float | None = None) -> None:
    """Change the pixels (rows, columns), and the spacing, of an image file in place."""
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.SetSpacing([spacing or SPACING_MM] * changed.GetDimension())
    sitk.WriteImage(changed, str(path), True)


# ---- what a clean download becomes


def test_every_case_keeps_its_pixels_and_spacing(source: Path, raw: Path) -> None:
    report = convert(source)
    folder = raw / "Dataset751_CAMUS"
    assert report.exit_code == 0 and not report.refused and not report.warnings
    assert (report.training_cases, report.test_cases, report.patients) == (CASES - 4, 4, PATIENTS)
    rows = table(folder)
    assert len(rows) == CASES
    for case_id, row in rows.items():
        part = "Ts" if row["split"] == "ts" else "Tr"
        original = source / row["source"]
        for name, file in ((f"images{part}/{case_id}_0000.nii.gz", original),
                           (f"labels{part}/{case_id}.nii.gz", Path(str(original).replace(".nii.gz", "_gt.nii.gz")))):
            image = sitk.ReadImage(str(folder / name))
            assert image.GetPixelID() == sitk.sitkUInt8 and image.GetDimension() == 2
            assert np.array_equal(sitk.GetArrayFromImage(image), array(file))
            np.testing.assert_allclose(image.GetSpacing(), SPACING_MM, rtol=1e-6)
        assert row["size"] == " ".join(map(str, image.GetSize())) and row["spacing_mm"] == "1.5 1.5"
        info = (original.parent / f"Info_{row['view']}.cfg").read_text()
        assert f"EF: {row['ef_percent']}\n" in info and f"ImageQuality: {row['quality']}\n" in info
    assert {case for case, row in rows.items() if row["split"] == "ts"} == {
        f"CAMUS_patient0007_{view}_{phase}" for view in ("2CH", "4CH") for phase in ("ED", "ES")}


def test_dataset_json_is_what_nnunet_and_the_trainers_read(source: Path, raw: Path) -> None:
    convert(source)
    dataset_json = load(raw / "Dataset751_CAMUS", "dataset.json")
    assert dataset_json["labels"] == {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
    assert dataset_json["numTraining"] == CASES - 4
    assert dataset_json["overwrite_image_reader_writer"] == "SimpleITKIO"
    assert dataset_json["file_ending"] == ".nii.gz" and dataset_json["channel_names"] == {"0": "ultrasound"}
    for case_id in table(raw / "Dataset751_CAMUS"):
        assert patient_of(case_id, dataset_json) == case_id[: len("CAMUS_patient0001")]


def test_five_folds_by_patient_reach_a_preprocessed_folder_that_exists(source: Path, raw: Path, tmp_path: Path) -> None:
    stale = tmp_path / "preprocessed" / "Dataset751_CAMUS" / "splits_final.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("[]")
    convert(source)
    splits = load(raw / "Dataset751_CAMUS", "splits_final.json")
    assert json.loads(stale.read_text()) == splits and stale.with_name("splits_final.json.old").read_text() == "[]"
    training = {path.name[:-12] for path in (raw / "Dataset751_CAMUS" / "imagesTr").iterdir()}
    assert len(splits) == 5
    assert Counter(case for fold in splits for case in fold["val"]) == Counter(training)
    for fold in splits:
        assert set(fold["train"]) | set(fold["val"]) == training
        assert not {case[:17] for case in fold["train"]} & {case[:17] for case in fold["val"]}


def test_official_split_is_the_list(source: Path, raw: Path) -> None:
    assert convert(source, split="official", views=["4CH"]).exit_code == 0
    (fold,) = load(raw / "Dataset751_CAMUS", "splits_final.json")
    lists = {subset: (source / "database_split" / f"subgroup_{subset}.txt").read_text().split()
             for subset in ("training", "validation", "testing")}
    for side, subset in (("train", "training"), ("val", "validation")):
        assert fold[side] == [f"CAMUS_{name}_4CH_{phase}" for name in sorted(lists[subset]) for phase in ("ED", "ES")]
    assert {row["patient"] for row in table(raw / "Dataset751_CAMUS").values() if row["split"] == "ts"} == {
        f"CAMUS_{name}" for name in lists["testing"]}


def write_ten_folds(source: Path) -> list[list[str]]:
    """Ten folds of seven patients in the layout of the challenge; returns the validation patients of each."""
    names, validation = [f"patient{number:04d}" for number in range(1, PATIENTS + 1)], []
    (source / "listSubGroups").mkdir()
    for number in range(10):
        held_out = names[number % PATIENTS], names[(number + 1) % PATIENTS]
        rest = [name for name in names if name not in held_out]
        for subset, members in (("validation", held_out[:1]), ("testing", held_out[1:]), ("training", rest)):
            (source / "listSubGroups" / f"subGroup{number + 1}_{subset}.txt").write_text("\n".join(members) + "\n")
        validation.append(list(held_out[:1]))
    return validation


def test_ten_folds_hold_their_test_patients_out(source: Path, raw: Path) -> None:
    validation = write_ten_folds(source)
    assert convert(source, split="10fold").training_cases == CASES
    splits = load(raw / "Dataset751_CAMUS", "splits_final.json")
    assert [sorted({case[6:17] for case in fold["val"]}) for fold in splits] == validation
    for number, fold in enumerate(splits):
        testing = (source / "listSubGroups" / f"subGroup{number + 1}_testing.txt").read_text().strip()
        assert not any(testing in case for case in fold["train"] + fold["val"])
        assert len(fold["train"]) == CASES - 8


# ---- other shapes of the source


def test_nested_gunzipped_and_linked_sources_give_the_same_bytes(source: Path, raw: Path, tmp_path: Path) -> None:
    convert(source, dataset_id=1)
    nested = tmp_path / "download" / "CAMUS_public" / "CAMUS_public"
    shutil.copytree(source, nested)
    (nested / "again").symlink_to(nested)
    for path in list((nested / "database_nifti").rglob("*_4CH_*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    convert(tmp_path / "download", dataset_id=2)
    convert(source / "database_nifti", dataset_id=3)  # the split lists lie beside the source
    first, second, third = (tree(raw / f"Dataset00{number}_CAMUS") for number in (1, 2, 3))
    images = {name for name in first if name.endswith(".nii.gz")}
    assert len(images) == 2 * CASES
    for other in (second, third):
        assert {name: other[name] for name in images} == {name: first[name] for name in images}
        assert other["splits_final.json"] == first["splits_final.json"]


def write_challenge_release(pristine: Path, out: Path) -> None:
    """Patients 1..5 as training/patient0001.., 6 and 7 as testing/patient0001.. without masks; one slice a file."""
    for number in range(1, PATIENTS + 1):
        old = f"patient{number:04d}"
        part, new = ("training", old) if number <= 5 else ("testing", f"patient{number - 5:04d}")
        (out / part / new).mkdir(parents=True)
        for path in (pristine / "database_nifti" / old).iterdir():
            if path.suffix == ".cfg":
                text = path.read_text().replace("EF:", "LVef:").replace("FrameRate", "#")
                (out / part / new / path.name).write_text(text)
            elif part == "training" or "_gt" not in path.name:
                image = sitk.Cast(sitk.JoinSeries(sitk.ReadImage(str(path))), sitk.sitkUInt8)
                image.SetSpacing((0.308, 0.154, 1.54))
                sitk.WriteImage(image, str(out / part / new / path.name.replace(old, new).replace(".nii.gz", ".mhd")))


def test_challenge_release_keeps_both_persons_called_patient0001(pristine: Path, raw: Path, tmp_path: Path) -> None:
    write_challenge_release(pristine, tmp_path / "challenge")
    report = convert(tmp_path / "challenge")
    folder = raw / "Dataset751_CAMUS"
    assert report.exit_code == 0 and (report.training_cases, report.test_cases) == (20, 8)
    rows, dataset_json = table(folder), load(folder, "dataset.json")
    assert {patient_of(case, dataset_json) for case, row in rows.items() if row["split"] == "ts"} == {
        "CAMUS_test0001", "CAMUS_test0002"}
    assert not list((folder / "labelsTs").iterdir()) and len(list((folder / "labelsTr").iterdir())) == 20
    assert rows["CAMUS_patient0001_4CH_ED"]["spacing_mm"] == "0.308 0.154"
    assert rows["CAMUS_patient0001_4CH_ED"]["ef_percent"] != ""
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]

    pixels, properties = SimpleITKIO().read_images([str(folder / "imagesTs" / "CAMUS_test0001_2CH_ES_0000.nii.gz")])
    original = array(pristine / "database_nifti" / "patient0006" / "patient0006_2CH_ES.nii.gz")
    assert np.array_equal(pixels[0, 0], original)
    np.testing.assert_allclose(properties["spacing"][1:], (0.154, 0.308), rtol=1e-6)
    assert properties["spacing"][0] > 100  # nnU-Net's sign of a 2D image


def test_a_truncated_raw_file_is_refused(pristine: Path, tmp_path: Path) -> None:
    write_challenge_release(pristine, tmp_path / "challenge")
    patient = tmp_path / "challenge" / "training" / "patient0002"
    os.truncate(patient / "patient0002_2CH_ED.raw", 500)
    (patient / "patient0002_2CH_ES.raw").unlink()
    header = patient / "patient0002_4CH_ED.mhd"
    header.write_text(re.sub("ElementDataFile = .*", "ElementDataFile = ../../../secret.raw", header.read_text()))
    messages = {note.subject: note.message for note in convert(tmp_path / "challenge").refused}
    assert len(messages) == 3
    assert "truncated: 500 bytes" in messages["CAMUS_patient0002_2CH_ED"]
    assert "patient0002_2CH_ES.raw is missing" in messages["CAMUS_patient0002_2CH_ES"]
    assert "not a file of the same folder" in messages["CAMUS_patient0002_4CH_ED"]


def test_without_lists_all_patients_are_split_and_a_note_says_so(source: Path) -> None:
    shutil.rmtree(source / "database_split")
    report = convert(source)
    assert report.exit_code == 0 and (report.training_cases, report.test_cases) == (CASES, 0)
    assert [note.kind for note in report.warnings] == ["no split list"]


# ---- damage

IMAGE, MASK = "patient0002_4CH_ED.nii.gz", "patient0002_4CH_ED_gt.nii.gz"


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


def gunzip_and_cut(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    path.with_suffix("").write_bytes(data[: len(data) // 2])
    path.unlink()


def stretch_header(path: Path) -> None:
    """One more column in the header than there are pixels for."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[42] += 1
    path.write_bytes(gzip.compress(bytes(data)))


REFUSALS = [
    (IMAGE, lambda p: os.truncate(p, p.stat().st_size // 2), "truncated or damaged gzip data"),
    (IMAGE, lambda p: os.truncate(p, p.stat().st_size - 4), "truncated or damaged gzip data"),
    (IMAGE, flip_byte, "truncated or damaged gzip data"),
    (IMAGE, gunzip_and_cut, "truncated: "),
    (IMAGE, stretch_header, "truncated: "),
    (IMAGE, lambda p: p.write_bytes(b""), "not a NIfTI-1 file (0 bytes)"),
    (MASK, lambda p: p.write_text("<html>404</html>"), "not a NIfTI-1 file"),
    (IMAGE, lambda p: (p.unlink(), p.mkdir()), "cannot be read (Is a directory)"),
    (IMAGE, lambda p: p.unlink(), "is there, but not its image"),
    (MASK, lambda p: p.unlink(), "is there, but not its mask"),
    (MASK, lambda p: rewrite(p, lambda a: a[:-1]), "must lie on one grid"),
    (MASK, lambda p: rewrite(p, lambda a: a, spacing=1.0), "spacing 1 x 1, but the image"),
    (MASK, lambda p: rewrite(p, lambda a: a * 0), "the mask is empty"),
    (MASK, lambda p: rewrite(p, lambda a: np.where(a == 2, 7, a)), "unknown labels [7]; allowed are [0, 1, 2, 3]"),
    (MASK, lambda p: rewrite(p, lambda a: a * 0.5), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a / 255), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a * 2), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: a - 1), "are not all whole numbers in 0..255"),
    (IMAGE, lambda p: rewrite(p, lambda a: np.where(a > 100, np.nan, a)), "NaN or infinite"),
    (IMAGE, lambda p: rewrite(p, lambda a: a * 0 + 9), "every pixel is 9"),
    (IMAGE, lambda p: shutil.copy(p.parent / MASK, p), "it is a mask, not an image"),
    (IMAGE, lambda p: rewrite(p, lambda a: np.stack([a, a])), "not a sequence or volume"),
    (IMAGE, lambda p: p.write_bytes((p.parent / MASK).read_bytes()[:40]), "truncated or damaged gzip data"),
]


@pytest.mark.parametrize(("name", "damage", "message"), REFUSALS, ids=[refusal[2][:24] for refusal in REFUSALS])
def test_a_damaged_case_is_refused_by_name_and_the_rest_converted(
        source: Path, raw: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    damage(source / "database_nifti" / "patient0002" / name)
    report = convert(source)
    (note,) = report.refused
    assert note.subject == "CAMUS_patient0002_4CH_ED" and message in note.message
    assert "database_nifti/patient0002/patient0002_4CH_ED" in note.message
    assert report.exit_code == 1 and report.training_cases + report.test_cases == CASES - 1
    folder = raw / "Dataset751_CAMUS"
    assert note.message in (folder / "conversion_report.txt").read_text() and note.message in report.summary()
    assert not list(folder.rglob("CAMUS_patient0002_4CH_ED*"))
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]


def cut_line(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text("".join(line for line in path.open() if not line.startswith(key)))


def add_line(line: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(f"{path.read_text()}{line}\n")


def swap_phases(path: Path) -> None:
    for suffix in ("", "_gt"):
        ed, es = (path.parent / f"patient0002_4CH_{phase}{suffix}.nii.gz" for phase in ("ED", "ES"))
        ed_bytes, es_bytes = ed.read_bytes(), es.read_bytes()
        ed.write_bytes(es_bytes)
        es.write_bytes(ed_bytes)


def lose_spacing(path: Path) -> None:
    for name in (IMAGE, MASK):
        rewrite(path.parent / name, lambda a: a, spacing=1.0)


def move_origin(path: Path) -> None:
    mask = sitk.ReadImage(str(path))
    mask.SetOrigin((5, 0))
    sitk.WriteImage(mask, str(path), True)


def remove(pattern: str) -> Callable[[Path], object]:
    return lambda path: [file.unlink() for file in path.parent.glob(pattern)]


WARNINGS = [
    (IMAGE, remove("*_2CH_*"), "view missing", "no image or mask of view 2CH", 2),
    (IMAGE, remove("*_4CH_ES*"), "phase missing", "no ES image or mask of view 4CH", 1),
    (IMAGE, remove("*"), "patient without images", "no image or mask of 2CH or 4CH", 4),
    (IMAGE, remove("Info_4CH.cfg"), "cfg missing", "no Info_4CH.cfg", 0),
    (IMAGE, remove("*.cfg"), "EF unknown", "no Info_*.cfg gives an EF", 0),
    ("Info_4CH.cfg", lambda p: (p.unlink(), p.mkdir()), "cfg unreadable", "Info_4CH.cfg: Is a directory", 0),
    ("Info_4CH.cfg", cut_line("EF"), "cfg field missing", "Info_4CH.cfg: no EF", 0),
    ("Info_4CH.cfg", cut_line("ImageQuality"), "cfg field missing", "Info_4CH.cfg: no ImageQuality", 0),
    ("Info_4CH.cfg", lambda p: p.write_bytes(b""), "cfg field missing", "no ED, ES, NbFrame, Sex, Age, Image", 0),
    ("Info_4CH.cfg", add_line("EF: high"), "cfg field unreadable", "EF is 'high', not a number in 0..100", 0),
    ("Info_4CH.cfg", add_line("EF: 99"), "EF differs", "EF 99 %, but", 0),
    ("Info_4CH.cfg", add_line("ImageQuality: Best"), "cfg field unreadable", "ImageQuality is 'Best'", 0),
    (IMAGE, swap_phases, "ED not larger than ES", "the phases may be exchanged", 0),
    (IMAGE, lose_spacing, "spacing lost", "spacing is 1 x 1 mm", 0),
    (MASK, move_origin, "origin differs", "origin 5 x 0 mm, image 0 x 0 mm", 0),
    (MASK, lambda p: rewrite(p, lambda a: np.where(a == 3, 0, a)), "structure missing", "the mask has no LA", 0),
    (IMAGE, lambda p: p.with_suffix("").write_bytes(gzip.decompress(p.read_bytes())), "double file", "is read, not", 0),
]


@pytest.mark.parametrize(("name", "damage", "kind", "message", "lost"), WARNINGS,
                         ids=[warning[2] for warning in WARNINGS])
def test_what_the_download_lacks_is_a_warning(source: Path, raw: Path, name: str, damage: Callable[[Path], object],
                                              kind: str, message: str, lost: int) -> None:
    damage(source / "database_nifti" / "patient0002" / name)
    report = convert(source)
    (note,) = [note for note in report.warnings if note.kind == kind]
    assert "patient0002" in note.subject and message in note.message
    assert report.exit_code == 0 and report.training_cases + report.test_cases == CASES - lost
    folder = raw / "Dataset751_CAMUS"
    assert kind in report.summary() and note.message in (folder / "conversion_report.txt").read_text()
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]


def test_a_file_of_another_patient_is_not_taken_for_this_one(source: Path) -> None:
    folder = source / "database_nifti"
    for name in (IMAGE, MASK):
        shutil.copy(folder / "patient0002" / name, folder / "patient0001" / name)
    report = convert(source)
    assert [note.kind for note in report.refused] == ["misplaced file"] * 2
    assert "named patient0002 in the folder of patient0001" in report.refused[0].message
    assert report.training_cases + report.test_cases == CASES


def test_a_patient_lost_as_a_whole_does_not_empty_a_fold(source: Path, raw: Path) -> None:
    shutil.rmtree(source / "database_nifti" / "patient0001")
    for path in (source / "database_nifti" / "patient0002").glob("*_gt.nii.gz"):
        path.write_bytes(b"")
    report = convert(source)
    assert len(report.refused) == 4 and not report.unusable and report.folds == 4
    assert all(fold["train"] and fold["val"] for fold in load(raw / "Dataset751_CAMUS", "splits_final.json"))


def test_fewer_than_five_patients_make_fewer_folds(source: Path) -> None:
    for number in (1, 2, 3):
        shutil.rmtree(source / "database_nifti" / f"patient000{number}")
    report = convert(source)
    assert report.exit_code == 0 and report.folds == 3
    assert "3 patients make 3 folds, not 5" in [note.message for note in report.warnings]
    for number in (4, 5):
        shutil.rmtree(source / "database_nifti" / f"patient000{number}")
    with pytest.raises(ValueError, match="needs at least 2 patients outside the test list; there are 1"):
        convert(source)


def test_the_two_patients_with_a_suspect_ef_are_named(source: Path) -> None:
    folder = source / "database_nifti"
    (folder / "patient0003").rename(folder / "patient0185")
    for path in (folder / "patient0185").iterdir():
        path.rename(path.with_name(path.name.replace("patient0003", "patient0185")))
    assert [note.subject for note in convert(source).warnings if note.kind == "suspect EF"] == ["CAMUS_patient0185"]
    assert not [note for note in convert(source, views=["4CH"]).warnings if note.kind == "suspect EF"]


def test_nothing_usable_leaves_a_report_and_no_dataset(source: Path, raw: Path) -> None:
    for path in (source / "database_nifti").rglob("*_gt.nii.gz"):
        path.write_bytes(b"")
    report = convert(source)
    assert report.exit_code == 1 and len(report.refused) == CASES and "NOT USABLE" in report.summary()
    assert not (raw / "Dataset751_CAMUS" / "dataset.json").exists()


# ---- arguments and targets


def damage_list(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda source, raw: (source / "database_split" / name).write_text(text)


@pytest.mark.parametrize(("prepare", "options", "message"), [
    (lambda source, raw: shutil.rmtree(source), {}, "does not exist"),
    (lambda source, raw: shutil.rmtree(source / "database_nifti"), {}, "no folder patientXXXX below"),
    (lambda source, raw: shutil.copytree(source, source / "copy"), {}, "patient0001 is in two folders"),
    (lambda source, raw: (source / "database_split" / "subgroup_testing.txt").unlink(), {}, "lacks subgroup_testing"),
    (lambda source, raw: shutil.rmtree(source / "database_split"), {"split": "official"}, "use --split 5fold"),
    (lambda source, raw: None, {"split": "10fold"}, "needs subGroup1_training.txt"),
    (damage_list("subgroup_training.txt", "patient0001\n../patient2\n"), {}, "line 2: '../patient2' is not a patient"),
    (damage_list("subgroup_training.txt", "patient0001\npatient0007\n"), {}, "a patient belongs to one list"),
    (damage_list("subgroup_training.txt", "patient0001\npatient0001\n"), {}, "names a patient twice"),
    (damage_list("subgroup_validation.txt", ""), {"split": "official"}, "no training or no validation patient"),
    (lambda source, raw: None, {"dataset_id": 1000}, "nnU-Net takes 1 to 999"),
    (lambda source, raw: None, {"views": ("3CH",)}, "choose from"),
    (lambda source, raw: None, {"split": "random"}, "choose from"),
    (lambda source, raw: None, {"workers": 0}, "it must be at least 1"),
    (lambda source, raw: (raw / "Dataset751_Other").mkdir(), {}, "dataset id 751 is taken by"),
    (lambda source, raw: (raw / "Dataset751_CAMUS").write_text(""), {}, "cannot create"),
])
def test_what_cannot_start_says_why_and_touches_nothing(source: Path, raw: Path, prepare: Callable, options: dict,
                                                        message: str) -> None:
    prepare(source, raw)
    before = tree(raw)
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        convert(source, **options)
    assert tree(raw) == before


def test_a_folder_that_is_not_ours_is_left_alone(source: Path, raw: Path) -> None:
    folder = raw / "Dataset751_CAMUS"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    before = tree(raw)
    with pytest.raises(FileExistsError, match="this converter did not write it"):
        convert(source)
    assert tree(raw) == before


def test_a_stranger_among_our_cases_stops_the_conversion(source: Path, raw: Path) -> None:
    convert(source)
    stranger = raw / "Dataset751_CAMUS" / "imagesTr" / "mine_0000.nii.gz"
    stranger.write_text("precious")
    before = tree(raw)
    with pytest.raises(FileExistsError, match="mine_0000"):
        convert(source, views=["2CH"])
    assert tree(raw) == before


def test_the_command_line_answers_in_words(source: Path, raw: Path) -> None:
    done = subprocess.run([*COMMAND, str(source), "-d", "9", "--views", "4CH", "--workers", "1"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and f"{CASES // 2} of {CASES // 2} source cases converted" in done.stdout
    assert (raw / "Dataset009_CAMUS" / "dataset.json").is_file()
    failed = subprocess.run([*COMMAND, str(source / "nowhere")], capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.startswith("error: ") and "nowhere" in failed.stderr
    (source / "database_nifti" / "patient0002" / IMAGE).write_bytes(b"")
    refused = subprocess.run([*COMMAND, str(source), "--workers", "1"], capture_output=True, text=True)
    assert refused.returncode == 1 and "not a NIfTI-1 file" in refused.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_is_an_error_and_not_a_dataset(source: Path, raw: Path) -> None:
    limit = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
             "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)); "
             "from nnunet_echo.dataset_conversion import camus; sys.exit(camus.main())")
    done = subprocess.run([sys.executable, "-c", limit, str(source), "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "cannot write" in done.stderr and "is the disk full" in done.stderr
    assert "Traceback" not in done.stderr and not (raw / "Dataset751_CAMUS" / "dataset.json").exists()
    convert(source)
    assert not [finding for finding in check_dataset(raw / "Dataset751_CAMUS", 1) if finding.problem]


# ---- the same bytes, whatever happened before


def test_second_run_and_number_of_workers_change_no_byte(source: Path, raw: Path) -> None:
    convert(source)
    first = tree(raw)
    convert(source)
    assert tree(raw) == first
    convert(source, workers=2)
    assert tree(raw) == first


def test_other_options_leave_no_stale_case(source: Path, raw: Path, tmp_path: Path) -> None:
    convert(source, views=["2CH"], split="official", raw=tmp_path / "fresh")
    convert(source)
    convert(source, views=["2CH"], split="official")
    assert tree(raw) == tree(tmp_path / "fresh")


def test_a_case_damaged_since_the_last_run_does_not_stay(source: Path, raw: Path) -> None:
    convert(source)
    (source / "database_nifti" / "patient0002" / MASK).write_bytes(b"")
    assert convert(source).exit_code == 1
    folder = raw / "Dataset751_CAMUS"
    assert not list(folder.rglob("CAMUS_patient0002_4CH_ED*"))
    assert "CAMUS_patient0002_4CH_ED" not in (folder / "splits_final.json").read_text()
    assert "CAMUS_patient0002_4CH_ES" in (folder / "splits_final.json").read_text()


@pytest.mark.parametrize("writes", [0, 1, 7, 30, 2 * CASES - 1])
def test_stopped_between_any_two_files_and_run_again(source: Path, raw: Path, tmp_path: Path, writes: int,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    convert(source, raw=tmp_path / "undisturbed")
    convert(source, views=["2CH"])  # so that there is an earlier dataset to be taken for a whole one
    real, count = raw_dataset.write_image, 0

    def stop(*arguments: object) -> None:
        nonlocal count
        if count == writes:
            raise KeyboardInterrupt
        count += 1
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(raw_dataset, "write_image", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source)
    folder = raw / "Dataset751_CAMUS"
    assert not (folder / "dataset.json").exists()
    for image in folder.glob("images*/*"):
        assert array(image).max() > 0
    convert(source)
    assert tree(folder) == tree(tmp_path / "undisturbed" / "Dataset751_CAMUS")


def alive(process: str) -> bool:
    """Whether this process runs; a dead one that nobody has waited for has no command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists child processes by /proc")
def test_killed_with_two_workers_and_run_again(source: Path, raw: Path, tmp_path: Path) -> None:
    convert(source, raw=tmp_path / "undisturbed")
    folder = raw / "Dataset751_CAMUS"
    command = [*COMMAND, str(source), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("labels*/*")):
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "dataset.json").exists()
    deadline = time.monotonic() + 30
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "the workers go on without their parent"
        time.sleep(0.05)
    convert(source, workers=2)
    assert tree(folder) == tree(tmp_path / "undisturbed" / "Dataset751_CAMUS")


# ---- splits and ids


def test_splits_by_patient_hold_for_any_patients_and_strata() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, folds = int(rng.integers(5, 80)), int(rng.integers(2, 6))
        patients = [f"p{number}" for number in rng.permutation(1000)[:count]]
        strata = {patient: (str(rng.integers(4)), str(rng.integers(3))) for patient in patients}
        splits = splits_by_patient(patients, strata, folds, seed=int(rng.integers(100)))
        assert Counter(patient for fold in splits for patient in fold["val"]) == Counter(patients)
        for fold in splits:
            assert set(fold["train"]) == set(patients) - set(fold["val"])
        sizes = [len(fold["val"]) for fold in splits]
        assert max(sizes) - min(sizes) <= 1
        for stratum in set(strata.values()):
            spread = [sum(strata[patient] == stratum for patient in fold["val"]) for fold in splits]
            assert max(spread) - min(spread) <= 1


def test_splits_by_patient_depend_on_the_seed_and_not_on_the_order() -> None:
    patients = [f"p{number}" for number in range(40)]
    strata = dict.fromkeys(patients, ("all",))
    assert splits_by_patient(patients, strata) == splits_by_patient(patients[::-1], strata)
    assert splits_by_patient(patients, strata, seed=1) != splits_by_patient(patients, strata, seed=2)
    with pytest.raises(ValueError, match="n_splits is 5 for 3 patients"):
        splits_by_patient(patients[:3], strata)


def test_patient_of() -> None:
    assert patient_of("CAMUS_test0001_2CH_ES", DATASET_JSON) == "CAMUS_test0001"
    assert patient_of("anything", {}) == "anything"
    with pytest.raises(ValueError, match="does not match"):
        patient_of("CAMUS_patient0001_2CH_ED_x", DATASET_JSON)


def test_torch_is_not_imported() -> None:
    code = ("import sys; import nnunet_echo.dataset_conversion.camus, nnunet_echo.dataset_conversion.check; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert camus.main.__module__ == "nnunet_echo.dataset_conversion.camus"


# ---- real data


def test_the_real_patients_all_convert(raw: Path) -> None:
    data = shared("data", "camus_4ch")
    report = convert(data, workers=2)
    assert report.exit_code == 0 and (report.training_cases, report.test_cases, report.patients) == (200, 0, 100)
    assert Counter(note.kind for note in report.warnings) == {
        "view missing": 100, "cfg missing": 100, "listed patient absent": 1}
    folder = raw / "Dataset751_CAMUS"
    splits, rows = load(folder, "splits_final.json"), table(folder)
    assert [len(fold["val"]) for fold in splits] == [40] * 5
    assert all(not {case[:17] for case in fold["train"]} & {case[:17] for case in fold["val"]} for fold in splits)
    low = [sum(float(rows[case]["ef_percent"]) <= 45 for case in fold["val"]) for fold in splits]
    assert max(low) - min(low) <= 2 and min(low) > 0  # two cases a patient
    assert {row["spacing_mm"] for row in rows.values()} == {"0.308 0.308"}
    row = rows["CAMUS_patient0001_4CH_ED"]
    assert row["size"] == "549 389" and row["ef_percent"] == "54" and row["quality"] == ""
    written = array(folder / "imagesTr" / "CAMUS_patient0001_4CH_ED_0000.nii.gz")
    assert np.array_equal(written, array(data / row["source"]))
    assert check_dataset(folder, 2) == []
    assert not convert(data, workers=2, views=["4CH"], split="official").refused
    assert [len(load(folder, "splits_final.json")[0][side]) for side in ("train", "val")] == [160, 40]
