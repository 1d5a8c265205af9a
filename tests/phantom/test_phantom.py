"""The phantom as a data set: layout of CAMUS, split lists, reproducible bytes, the command."""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_echo.cli import phantom
from nnunet_echo.dataset_conversion.camus import phantom as phantom_camus
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.phantom.heart import LV, VIEWS

SPACING = 1.5
SEED = 3
PATIENTS = 2
SUBGROUPS = ("training", "validation", "testing")
CFG_FIELDS = ["ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "EF", "FrameRate"]


@pytest.fixture(scope="module")
def camus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "CAMUS"
    write_camus(out, PATIENTS, SEED, spacing_mm=SPACING)
    return out


def read_cfg(path: Path) -> dict[str, str]:
    return dict(line.split(": ") for line in path.read_text().splitlines())


def read_array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def tree_hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_is_that_of_camus(camus: Path) -> None:
    expected = {"database_split/information.txt", *(f"database_split/subgroup_{name}.txt" for name in SUBGROUPS)}
    for number in range(1, PATIENTS + 1):
        name = f"patient{number:04d}"
        for view in VIEWS:
            expected.add(f"database_nifti/{name}/Info_{view}.cfg")
            for what in ("ED", "ES", "half_sequence"):
                expected |= {f"database_nifti/{name}/{name}_{view}_{what}{gt}.nii.gz" for gt in ("", "_gt")}
    assert set(tree_hashes(camus)) == expected


def test_images_are_stored_as_in_the_release(camus: Path) -> None:
    for path in sorted(camus.rglob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        dimension = 3 if "half_sequence" in path.name else 2
        assert image.GetPixelID() == sitk.sitkFloat32
        assert image.GetDimension() == dimension
        np.testing.assert_allclose(image.GetSpacing()[:2], SPACING, rtol=1e-6)
        assert image.GetOrigin() == (0.0,) * dimension
        assert image.GetDirection() == tuple(np.eye(dimension).ravel())
        array = sitk.GetArrayFromImage(image)
        assert np.array_equal(array, array.astype(np.uint8))
        if "_gt" in path.name:
            assert all(set(np.unique(frame)) == {0, 1, 2, 3} for frame in array.reshape(-1, *array.shape[-2:]))
        else:
            assert array.max() > 150


def test_info_files_match_hearts_and_cines(camus: Path) -> None:
    for number in range(1, PATIENTS + 1):
        heart = camus_heart(SEED, number)
        folder = camus / "database_nifti" / f"patient{number:04d}"
        for view in VIEWS:
            info = read_cfg(folder / f"Info_{view}.cfg")
            assert list(info) == CFG_FIELDS
            assert int(info["EF"]) == round(heart.ef_percent)
            assert (info["Sex"], int(info["Age"])) == (heart.sex, heart.age)
            assert info["ImageQuality"] == heart.views[view].quality
            assert float(info["FrameRate"]) == heart.views[view].fps
            assert {int(info["ED"]), int(info["ES"])} == {1, int(info["NbFrame"])}
            for gt in ("", "_gt"):
                cine = read_array(folder / f"{folder.name}_{view}_half_sequence{gt}.nii.gz")
                assert len(cine) == int(info["NbFrame"])
                for moment in ("ED", "ES"):
                    still = read_array(folder / f"{folder.name}_{view}_{moment}{gt}.nii.gz")
                    assert np.array_equal(cine[int(info[moment]) - 1], still)


def test_a_cine_may_run_from_es_to_ed(tmp_path: Path) -> None:
    seed = next(seed for seed in range(1000) if camus_heart(seed, 1).views["4CH"].es_first)
    write_camus(tmp_path, 1, seed, spacing_mm=SPACING)
    folder = tmp_path / "database_nifti" / "patient0001"
    info = read_cfg(folder / "Info_4CH.cfg")
    assert (int(info["ED"]), int(info["ES"])) == (int(info["NbFrame"]), 1)
    areas = (read_array(folder / "patient0001_4CH_half_sequence_gt.nii.gz") == LV).sum(axis=(1, 2))
    assert areas[-1] == (read_array(folder / "patient0001_4CH_ED_gt.nii.gz") == LV).sum()
    assert areas[0] == areas.min() < areas.max() == areas[-1]


def test_stills_are_the_same_without_the_cines(camus: Path, tmp_path: Path) -> None:
    write_camus(tmp_path, PATIENTS, SEED, spacing_mm=SPACING, half_sequence=False)
    stills = tree_hashes(tmp_path / "database_nifti")
    with_cines = tree_hashes(camus / "database_nifti")
    assert stills == {path: digest for path, digest in with_cines.items() if "half_sequence" not in path}


def test_same_seed_same_bytes(camus: Path) -> None:
    before = tree_hashes(camus)
    (camus / "database_nifti" / "patient0001" / "patient0001_2CH_ED.nii.gz").unlink()
    time.sleep(1.1)  # a compressed file that carried the time would differ after a second
    write_camus(camus, PATIENTS, SEED, spacing_mm=SPACING)
    assert tree_hashes(camus) == before


def test_a_patient_depends_on_the_seed_and_not_on_how_many_are_drawn(camus: Path, tmp_path: Path) -> None:
    one_of_two = tree_hashes(camus / "database_nifti" / "patient0001")
    write_camus(tmp_path / "same", 1, SEED, spacing_mm=SPACING)
    assert tree_hashes(tmp_path / "same" / "database_nifti" / "patient0001") == one_of_two
    write_camus(tmp_path / "other", 1, SEED + 1, spacing_mm=SPACING)
    other = tree_hashes(tmp_path / "other" / "database_nifti" / "patient0001")
    assert all(one_of_two[path] != digest for path, digest in other.items())


@pytest.mark.parametrize(
    ("patients", "sizes"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (500, (400, 50, 50))]
)
def test_split_lists_are_disjoint_and_complete(
    patients: int, sizes: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom_camus, "_write_patient", lambda *_: None)
    write_camus(tmp_path, patients, SEED)
    lists = [(tmp_path / "database_split" / f"subgroup_{name}.txt").read_text().split() for name in SUBGROUPS]
    assert tuple(map(len, lists)) == sizes
    assert sorted(sum(lists, [])) == sorted(path.name for path in (tmp_path / "database_nifti").iterdir())


@pytest.mark.parametrize(("name", "value"), [("patients", 0), ("seed", -1), ("spacing_mm", 0.0)])
def test_bad_arguments_write_nothing(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: must"):
        write_camus(**{"out": tmp_path / "out", "patients": 1, "seed": 0, name: value})
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(camus: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="Choose another folder"):
        write_camus(tmp_path, 1, SEED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    before = tree_hashes(camus)
    with pytest.raises(FileExistsError, match="Choose another folder"):
        write_camus(camus, PATIENTS + 1, SEED, spacing_mm=SPACING)
    assert tree_hashes(camus) == before


def test_command_line(camus: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    phantom.add_arguments(parser)
    options = ["--patients", "1", "--seed", str(SEED), "--spacing", str(SPACING), "--no-half-sequence"]
    assert phantom.run(parser.parse_args(["camus", str(tmp_path), *options])) == 0
    written = tree_hashes(tmp_path / "database_nifti")
    assert len(written) == 2 * (2 * 2 + 1)
    assert written.items() <= tree_hashes(camus / "database_nifti").items()
    defaults = parser.parse_args(["camus", str(tmp_path)])
    assert (defaults.spacing, defaults.no_half_sequence) == (0.308, False)
