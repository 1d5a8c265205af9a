"""The phantom's .mhd layouts: the CAMUS challenge of 2019 and TED."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import array, convert, table, tree

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.phantom import write_camus_2019
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.dataset_conversion.ted.phantom import write_ted
from nnunet_echo.phantom.cine import render
from nnunet_echo.phantom.heart import LV, VIEWS

pytest_plugins = ("camus_download",)

SEED, SPACING_MM = 3, 1.5
TRAINING, TESTING = 2, 1


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "challenge"
    write_camus_2019(out, TRAINING + TESTING, SEED, spacing_mm=SPACING_MM)
    return out


@pytest.fixture(scope="module")
def ted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "TED"
    write_ted(out, 2, SEED, spacing_mm=SPACING_MM)
    return out


def read_cfg(path: Path) -> dict[str, str]:
    return dict(line.split(": ") for line in path.read_text().splitlines())


def names(folder: Path) -> set[str]:
    return {name for name, digest in tree(folder).items() if digest}


def meta(*stems: str) -> set[str]:
    return {f"{stem}.{ending}" for stem in stems for ending in ("mhd", "raw")}


def test_layout_of_the_challenge(challenge: Path) -> None:
    expected = {"PHANTOM.txt"}
    for part, numbers in (("training", range(1, TRAINING + 1)), ("testing", range(1, TESTING + 1))):
        for name in (f"patient{number:04d}" for number in numbers):
            for view in VIEWS:
                stem = f"{part}/{name}/{name}_{view}"
                expected |= {f"{part}/{name}/Info_{view}.cfg", *meta(f"{stem}_ED", f"{stem}_ES", f"{stem}_sequence")}
                expected |= meta(f"{stem}_ED_gt", f"{stem}_ES_gt") if part == "training" else set()
    assert names(challenge) == expected


def test_headers_are_those_of_the_releases(challenge: Path, ted: Path) -> None:
    for path in [*challenge.rglob("*.mhd"), *ted.rglob("*.mhd")]:
        image = sitk.ReadImage(str(path))
        assert image.GetPixelID() == sitk.sitkUInt8 and image.GetSpacing() == (SPACING_MM, SPACING_MM / 2, 1.54)
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1) and image.GetOrigin() == (0, 0, 0)
        assert (image.GetSize()[2] == 1) == ("sequence" not in path.name)


def test_cfg_and_cines_of_the_challenge_tell_of_the_same_heart(challenge: Path) -> None:
    for number in range(1, TRAINING + TESTING + 1):
        heart, test = camus_heart(SEED, number), number > TRAINING
        folder = challenge / ("testing" if test else "training") / f"patient{number - TRAINING * test:04d}"
        for name, view in heart.views.items():
            info = read_cfg(folder / f"Info_{name}.cfg")
            assert list(info) == ["ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "LVedv", "LVesv", "LVef"]
            volumes = [float(info[key]) for key in ("LVedv", "LVesv", "LVef")]
            assert volumes == pytest.approx([heart.edv_ml, heart.esv_ml, heart.ef_percent], abs=0.051)
            cine = array(folder / f"{folder.name}_{name}_sequence.mhd")
            assert len(cine) == int(info["NbFrame"]) == view.frames
            for phase, moment in enumerate(("ED", "ES")):
                image, labels = render(
                    heart, name, phase, frame=int(info[moment]), spacing_mm=SPACING_MM, row_spacing_mm=SPACING_MM / 2
                )
                assert np.array_equal(cine[int(info[moment]) - 1], image)
                assert np.array_equal(array(folder / f"{folder.name}_{name}_{moment}.mhd")[0], image)
                if not test:
                    assert np.array_equal(array(folder / f"{folder.name}_{name}_{moment}_gt.mhd")[0], labels)


def test_the_converter_loses_nothing_of_the_challenge(challenge: Path, raw: Path) -> None:
    report = convert(challenge)
    assert report.exit_code == 0 and not report.refused
    assert (report.training_cases, report.test_cases) == (4 * TRAINING, 4 * TESTING)
    for case, row in table(report.folder).items():
        part, source = "Ts" if "_test" in case else "Tr", challenge / row["source"]
        pairs = [(f"images{part}/{case}_0000.nii.gz", source)]
        if part == "Tr":
            pairs.append((f"labelsTr/{case}.nii.gz", source.with_name(source.name.replace(".mhd", "_gt.mhd"))))
        for name, original in pairs:
            image = sitk.ReadImage(str(report.folder / name))
            assert np.array_equal(sitk.GetArrayFromImage(image), array(original)[0])
            np.testing.assert_allclose(image.GetSpacing(), (SPACING_MM, SPACING_MM / 2), rtol=1e-6)
        info = read_cfg(source.parent / f"Info_{row['view']}.cfg")
        assert (row["ef_percent"], row["quality"]) == (info["LVef"].removesuffix(".0"), info["ImageQuality"])


def test_layout_and_cines_of_ted(ted: Path, challenge: Path) -> None:
    stems = [f"database/patient00{number}/patient00{number}_4CH" for number in (1, 2)]
    assert names(ted) == {
        "PHANTOM.txt",
        *(f"{stem}_info.cfg" for stem in stems),
        *meta(*(f"{stem}_sequence{gt}" for stem in stems for gt in ("", "_gt"))),
    }
    for number, stem in enumerate(stems, 1):
        info = read_cfg(ted / f"{stem}_info.cfg")
        heart = camus_heart(SEED, number)
        assert list(info) == ["ED", "ES", "NbFrame", "Sex", "Age", "ImageQuality", "EF"]
        assert int(info["EF"]) == round(heart.ef_percent)
        cine, masks = array(ted / f"{stem}_sequence.mhd"), array(ted / f"{stem}_sequence_gt.mhd")
        assert cine.shape == masks.shape and len(cine) == int(info["NbFrame"])
        assert all(set(np.unique(mask)) == {0, 1, 2} for mask in masks)
        areas = (masks == LV).sum((1, 2))
        es = int(info["ES"]) - 1
        assert info["ED"] == "1" and areas[0] == areas[-1] == areas.max() and areas.argmin() == es
        assert np.all(np.diff(areas[: es + 1]) < 0) and np.all(np.diff(areas[es:]) > 0)
        half = array(challenge / "training" / f"patient000{number}" / f"patient000{number}_4CH_sequence.mhd")
        assert np.array_equal(cine[: es + 1], half)


@pytest.mark.slow
def test_same_seed_same_bytes(challenge: Path, ted: Path, tmp_path: Path) -> None:
    for folder, write in ((challenge, write_camus_2019), (ted, write_ted)):
        before = tree(folder)
        next(folder.rglob("*.raw")).unlink()
        patients = len({path.parent for path in folder.rglob("*.cfg")})
        write(folder, patients, SEED, spacing_mm=SPACING_MM)
        assert tree(folder) == before
        with pytest.raises(FileExistsError, match="Choose another folder"):
            write(folder, patients + 1, SEED, spacing_mm=SPACING_MM)
        with pytest.raises(ValueError, match="spacing_mm=9: must"):
            write(tmp_path / "new", 1, SEED, spacing_mm=9)
    assert not (tmp_path / "new").exists()


def test_command_line(challenge: Path, ted: Path, tmp_path: Path) -> None:
    options = ["--seed", str(SEED), "--spacing", str(SPACING_MM), "--patients"]
    release = ["--release", "2019", "--no-half-sequence"]
    assert main(["phantom", "camus", str(tmp_path / "c"), *release, *options, "2"]) == 0
    written = tree(tmp_path / "c" / "training" / "patient0001")
    assert len(written) == 2 * (4 * 2 + 1)
    assert written.items() <= tree(challenge / "training" / "patient0001").items()
    assert main(["phantom", "ted", str(tmp_path / "t"), *options, "1"]) == 0
    assert tree(tmp_path / "t" / "database").items() <= tree(ted / "database").items()
