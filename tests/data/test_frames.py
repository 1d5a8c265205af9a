"""`nnunet-echo frames`: sequences of label maps as single frames, on the cine's grid, and how they are evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import array, table
from camus_download import convert as convert_camus

from nnunet_echo.cli.main import main
from nnunet_echo.data.frames import write_frames
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.evaluation.evaluate import evaluate

pytest_plugins = ("camus_download",)
SPACING_MM = 2.5


@pytest.fixture(scope="session")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("download")
    write_camus(folder, 3, 0, spacing_mm=SPACING_MM)  # patient 2: one cine runs from ES to ED
    return folder


def datasets(download: Path, **options: object) -> tuple[Path, Path]:
    """The 2D dataset, and that of cines."""
    cines = convert_camus(download, mode="half_sequence", **options)
    return convert_camus(download).folder, cines.folder


def test_frames_are_those_of_the_sequence_and_name_ed_and_es(download: Path, raw: Path, tmp_path: Path) -> None:
    _, cines = datasets(download)
    count = write_frames(cines / "labelsTr", cines, tmp_path / "out", workers=1)
    assert count == len(list((tmp_path / "out").glob("*.nii.gz")))
    for path in (cines / "labelsTr").iterdir():
        sequence, case = array(path), path.name[:-7]
        names = [f"{case}_f{number:02d}" for number in range(1, len(sequence) + 1)]
        names[0] += "_ED"
        names[-1] += "_ES"
        for name, frame in zip(names, sequence, strict=True):
            image = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
            assert np.array_equal(sitk.GetArrayFromImage(image), frame)
            np.testing.assert_allclose(image.GetSpacing(), SPACING_MM, rtol=1e-6)
        count -= len(names)
    assert count == 0


def test_evaluation_sees_each_frame_each_sequence_and_the_ejection_fraction(
    download: Path, raw: Path, tmp_path: Path
) -> None:
    _, cines = datasets(download)
    predictions = shutil.copytree(cines / "labelsTr", tmp_path / "predictions")
    path = sorted(predictions.iterdir())[0]
    worse = sitk.ReadImage(str(path))
    worse[:, :, 4] = 0  # the fifth frame is missed
    sitk.WriteImage(worse, str(path))
    for source, name in ((predictions, "p"), (cines / "labelsTr", "r")):
        assert main(["frames", str(source), "-d", "753", "-o", str(tmp_path / name), "--workers", "1"]) == 0
    result = evaluate(tmp_path / "p", tmp_path / "r", workers=1)
    lengths = {case: int(row["size"].split()[2]) for case, row in table(cines).items() if row["split"] == "tr"}
    assert {row["case"][:-4] for row in result.frames if not row["case"].endswith(("_ED", "_ES"))} == set(lengths)
    assert [row["frames"] for row in result.sequences] == list(lengths.values())
    missed = [row["case"] for row in result.cases if row["structure"] == "LV" and row["dice"] == 0]
    assert missed == [f"{path.name[:-7]}_f05"]
    assert [row["prediction_inconsistent_frames"] > 0 for row in result.sequences] == [True, *[False] * 3]
    for row in result.sequences:  # pixels this coarse may give the last two frames the same area
        assert row["reference_ed_frame"] == 1 and row["frames"] - row["reference_es_frame"] <= 1
    assert len(result.patients) == 2
    for row in result.patients:
        assert row["planes"] == "biplane" and row["prediction_ef_percent"] == row["reference_ef_percent"] > 10


@pytest.mark.parametrize("options", [{}, {"labels": "ed_es"}, {"clip": 8, "size": 80, "labels": "ed_es"}])
def test_ed_and_es_can_be_compared_with_the_2d_dataset(
    download: Path, raw: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    flat, cines = datasets(download, **options)
    write_frames(cines / "labelsTr", cines, tmp_path / "out", phases=True, workers=1)
    assert {path.name for path in (tmp_path / "out").glob("*.gz")} == {p.name for p in (flat / "labelsTr").iterdir()}
    result = evaluate(tmp_path / "out", flat / "labelsTr", workers=1)
    low = {
        structure: min(row["dice"] for row in result.cases if row["structure"] == structure)
        for structure in ("LV", "MYO", "LA")
    }
    if "size" in options:  # to 80 x 80 pixels and back
        assert 0.8 < min(low.values()) < 1 and low["LV"] > 0.93
        written = sitk.ReadImage(str(next((tmp_path / "out").glob("*patient0001_4CH_ED*"))))
        reference = sitk.ReadImage(str(next((flat / "labelsTr").glob("*patient0001_4CH_ED*"))))
        np.testing.assert_allclose(written.GetOrigin(), reference.GetOrigin(), atol=1e-5)
    else:
        assert min(low.values()) == 1


def test_ignored_frames_are_left_out_and_the_rest_is_evaluated(download: Path, raw: Path, tmp_path: Path) -> None:
    _, cines = datasets(download, labels="ed_es")
    with pytest.raises(ValueError, match="nnunet-echo frames"):
        evaluate(cines / "labelsTr", cines / "labelsTr", workers=1)
    assert write_frames(cines / "labelsTr", cines, tmp_path / "out", workers=1) == 8
    assert "ignore" not in json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    result = evaluate(tmp_path / "out", tmp_path / "out", workers=1)
    assert {row["phase"] for row in result.cases} == {"ED", "ES"} and len(result.patients) == 2


def scaled(image: sitk.Image, factor: float) -> sitk.Image:
    scaled = sitk.Image(image)
    scaled.SetSpacing([length * factor for length in image.GetSpacing()])
    return scaled


def test_what_is_no_sequence_of_the_dataset_is_refused(download: Path, raw: Path, tmp_path: Path) -> None:
    flat, cines = datasets(download, labels="ed_es")
    maps = shutil.copytree(cines / "labelsTr", tmp_path / "maps")
    path = maps / "CAMUS_patient0001_4CH.nii.gz"
    whole = sitk.ReadImage(str(path))
    for out, source, dataset, error, text in (
        ("a", flat / "labelsTr", cines, ValueError, "is not a sequence of"),
        ("b", flat / "labelsTr", flat, ValueError, "is not a sequence of"),
        ("c", tmp_path, cines, FileNotFoundError, "no \\*.nii.gz file there"),
        (".", maps, cines, FileExistsError, "is not empty"),
    ):
        with pytest.raises(error, match=text):
            write_frames(source, dataset, tmp_path / out, workers=1)
    sitk.WriteImage(whole[:, :, :3], str(path))
    with pytest.raises(ValueError, match="pixels, but cases.csv has"):
        write_frames(maps, cines, tmp_path / "d", workers=1)
    sitk.WriteImage(scaled(whole, 1e-3), str(path))
    with pytest.raises(ValueError, match="4CH.nii.gz: spacing 0.0025 x 0.0025 mm, but pixels of an echo"):
        write_frames(maps, cines, tmp_path / "f", workers=1)
    whole[0, 0, 0] = 4
    sitk.WriteImage(whole, str(path))
    with pytest.raises(ValueError, match="frame 1 is partly ignored"):
        write_frames(maps, cines, tmp_path / "e", workers=1)
