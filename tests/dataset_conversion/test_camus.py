"""The CAMUS converter on clean phantom data: both releases, the three splits, the real patients."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import CASES, PATIENTS, SPACING_MM, array, convert, load, table, tree, write_challenge_release
from conftest import shared
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.check import check_dataset
from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON

pytest_plugins = ("camus_download",)


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
        for name, file in (
            (f"images{part}/{case_id}_0000.nii.gz", original),
            (f"labels{part}/{case_id}.nii.gz", Path(str(original).replace(".nii.gz", "_gt.nii.gz"))),
        ):
            image = sitk.ReadImage(str(folder / name))
            assert image.GetPixelID() == sitk.sitkUInt8 and image.GetDimension() == 2
            assert np.array_equal(sitk.GetArrayFromImage(image), array(file))
            np.testing.assert_allclose(image.GetSpacing(), SPACING_MM, rtol=1e-6)
        assert row["size"] == " ".join(map(str, image.GetSize())) and row["spacing_mm"] == "1.5 1.5"
        info = (original.parent / f"Info_{row['view']}.cfg").read_text()
        assert f"EF: {row['ef_percent']}\n" in info and f"ImageQuality: {row['quality']}\n" in info
    assert {case for case, row in rows.items() if row["split"] == "ts"} == {
        f"CAMUS_patient0007_{view}_{phase}" for view in ("2CH", "4CH") for phase in ("ED", "ES")
    }


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
    lists = {
        subset: (source / "database_split" / f"subgroup_{subset}.txt").read_text().split()
        for subset in ("training", "validation", "testing")
    }
    for side, subset in (("train", "training"), ("val", "validation")):
        assert fold[side] == [f"CAMUS_{name}_4CH_{phase}" for name in sorted(lists[subset]) for phase in ("ED", "ES")]
    assert {row["patient"] for row in table(raw / "Dataset751_CAMUS").values() if row["split"] == "ts"} == {
        f"CAMUS_{name}" for name in lists["testing"]
    }


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


def test_challenge_release_keeps_both_persons_called_patient0001(pristine: Path, raw: Path, tmp_path: Path) -> None:
    write_challenge_release(pristine, tmp_path / "challenge")
    report = convert(tmp_path / "challenge")
    folder = raw / "Dataset751_CAMUS"
    assert report.exit_code == 0 and (report.training_cases, report.test_cases) == (20, 8)
    rows, dataset_json = table(folder), load(folder, "dataset.json")
    assert {patient_of(case, dataset_json) for case, row in rows.items() if row["split"] == "ts"} == {
        "CAMUS_test0001",
        "CAMUS_test0002",
    }
    assert not list((folder / "labelsTs").iterdir()) and len(list((folder / "labelsTr").iterdir())) == 20
    assert rows["CAMUS_patient0001_4CH_ED"]["spacing_mm"] == "0.308 0.154"
    assert rows["CAMUS_patient0001_4CH_ED"]["ef_percent"] != ""
    assert not [finding for finding in check_dataset(folder, 1) if finding.problem]

    pixels, properties = SimpleITKIO().read_images([str(folder / "imagesTs" / "CAMUS_test0001_2CH_ES_0000.nii.gz")])
    original = array(pristine / "database_nifti" / "patient0006" / "patient0006_2CH_ES.nii.gz")
    assert np.array_equal(pixels[0, 0], original)
    np.testing.assert_allclose(properties["spacing"][1:], (0.154, 0.308), rtol=1e-6)
    assert properties["spacing"][0] > 100  # nnU-Net's sign of a 2D image


def test_without_lists_all_patients_are_split_and_a_note_says_so(source: Path) -> None:
    shutil.rmtree(source / "database_split")
    report = convert(source)
    assert report.exit_code == 0 and (report.training_cases, report.test_cases) == (CASES, 0)
    assert [note.kind for note in report.warnings] == ["no split list"]


def test_patient_of() -> None:
    assert patient_of("CAMUS_test0001_2CH_ES", DATASET_JSON) == "CAMUS_test0001"
    assert patient_of("anything", {}) == "anything"
    with pytest.raises(ValueError, match="does not match"):
        patient_of("CAMUS_patient0001_2CH_ED_x", DATASET_JSON)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; import nnunet_echo.dataset_conversion.camus, nnunet_echo.data.check; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_the_real_patients_all_convert(raw: Path) -> None:
    data = shared("data", "camus_4ch")
    report = convert(data, workers=2)
    assert report.exit_code == 0 and (report.training_cases, report.test_cases, report.patients) == (200, 0, 100)
    assert Counter(note.kind for note in report.warnings) == {
        "view missing": 1,
        "cfg missing": 1,
        "listed patient absent": 1,
    }
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
    assert not convert(data, workers=2, views=["4CH"], split="official", replace=True).refused
    assert [len(load(folder, "splits_final.json")[0][side]) for side in ("train", "val")] == [160, 40]
