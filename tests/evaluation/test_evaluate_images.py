"""Units, spacings, palettes and names of the images that `evaluate` reads."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from camus_download import tree
from evaluated_phantom import COLUMNS, TRAINING, compare, echonet, hearts, rows
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON

pytest_plugins = ("camus_download", "evaluated_phantom")


@pytest.mark.parametrize(("ending", "fields"), [(".nii.gz", {"spacing_unit": "px"}), (".png", {})])
def test_images_without_a_scale_are_measured_in_pixels(ending: str, fields: dict, tmp_path: Path) -> None:
    references = echonet(tmp_path / "references", ending, **fields)
    evaluation = compare(shutil.copytree(references, tmp_path / "predictions"), references)
    assert [name for name in evaluation.cases[0] if "mm" in name] == []
    assert list(evaluation.cases[0]) == [re.sub("(_|[12])mm$", r"\1px", name) for name in COLUMNS]
    for row, width in zip(evaluation.patients, (14, 18), strict=True):
        assert math.isnan(row["reference_edv_ml"])
        assert math.isnan(row["prediction_esv_ml"])
        assert row["reference_ef_percent"] == pytest.approx(100 * (1 - (width / 20) ** 2), abs=2)
        assert (row["planes"], row["reference_flags"]) == ("single-plane", "")
    assert evaluation.summary["unit"] == "px"
    assert evaluation.summary["ejection_fraction"]["single-plane"]["edv_ml"]["n"] == 0
    with pytest.raises(ValueError, match="rounding=True: .*give no mL"):
        compare(references, references, rounding=True)


def test_a_spacing_of_1_mm_is_doubted(tmp_path: Path) -> None:
    folder = echonet(tmp_path / "videos", ".nii.gz")
    evaluation = compare(folder, folder)
    assert "hd95_mm" in evaluation.cases[0]
    assert "4 reference(s) have a spacing of 1 x 1 mm" in evaluation.summary["warnings"][0]
    with pytest.raises(ValueError, match="spacing_unit is 'mm'; .png files can have px"):
        compare(folder, echonet(tmp_path / "png", ".png", spacing_unit="mm"))


def test_palette_images_are_read_by_their_indices(tmp_path: Path) -> None:
    references = echonet(tmp_path / "references", ".png")
    predictions = shutil.copytree(references, tmp_path / "predictions")
    for path in (predictions / "ECHONET_0X1A_ED.png", references / "ECHONET_0X2B_ED.png"):
        image = Image.fromarray(np.asarray(Image.open(path)), "P")
        image.putpalette([9, 9, 9, 255, 0, 0] + [0] * 762)
        image.save(path)
    assert compare(predictions, references).cases == compare(references, references).cases
    image.paste(2, (0, 0, 5, 5))
    image.save(predictions / "ECHONET_0X1A_ED.png")
    with pytest.raises(ValueError, match="0X1A_ED.png: unknown labels 2"):
        compare(predictions, references)
    damaged = bytearray((references / "ECHONET_0X1A_ED.png").read_bytes())
    damaged[damaged.index(b"IEND") - 5] ^= 1  # the checksum of the pixels
    (predictions / "ECHONET_0X1A_ED.png").write_bytes(damaged)
    with pytest.raises(ValueError, match="0X1A_ED.png: truncated or damaged PNG"):
        compare(predictions, references)


def test_without_a_pattern_each_case_is_a_patient(references: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({key: value for key, value in DATASET_JSON.items() if key != "case_id_pattern"}))
    evaluation = compare(references, references, dataset_json=path)
    assert evaluation.summary["patients"] == TRAINING * 4
    assert evaluation.summary["ejection_fraction"]["patients_without_both_phases"] == TRAINING * 4
    assert {row["view"] for row in evaluation.cases} == {""}


@pytest.mark.parametrize("spacing", [(0.6, 1.2), (1.2, 0.6)])
def test_rows_and_columns_have_their_own_spacing(spacing: tuple[float, float], tmp_path: Path) -> None:
    """From the file to the tables: volumes of known hearts, and shifts in mm down and across."""
    names = {"a_2CH_ED": 48, "a_4CH_ED": 44, "a_2CH_ES": 36, "a_4CH_ES": 33}
    references = hearts(tmp_path / "references", names, spacing)
    volumes = [2 / 3 * math.pi * 80 * a * b / 4 / 1000 for a, b in ((48, 44), (36, 33))]  # of half an ellipsoid
    for axis in (0, 1):
        found = compare(hearts(tmp_path / "predictions", names, spacing, (5, 0) if axis == 0 else (0, 5)), references)
        (patient,) = found.patients
        for side in ("prediction", "reference"):
            assert [patient[f"{side}_edv_ml"], patient[f"{side}_esv_ml"]] == pytest.approx(volumes, rel=0.02)
            assert patient[f"{side}_ef_percent"] == pytest.approx(100 * (1 - 36 * 33 / 48 / 44), abs=1)
        distances = [row["hd_mm"] for row in found.cases if row["structure"] == "LV"]
        assert distances == pytest.approx([5 * spacing[axis]] * 4)
    camus = compare(references, references, method="camus").patients[0]
    assert camus["reference_edv_ml"] == pytest.approx(volumes[0], rel=0.1)


@pytest.mark.parametrize(
    "names",
    [
        ("2CH_ED", "2CH_ES", "4CH_ED", "4CH_ES"),
        ("2ch_ed", "2ch_es", "4ch_ed", "4ch_es"),
        ("2Ch_Ed", "2CH_es", "4ch_eD", "4cH_ES"),
    ],
)
def test_views_and_phases_in_small_letters(names: tuple[str, ...], tmp_path: Path) -> None:
    widths = zip(names, (46, 36, 44, 34), strict=True)
    folder = hearts(tmp_path / "names", {f"a_{name}": width for name, width in widths})
    result = compare(folder, folder)
    (patient,) = result.patients
    assert (patient["planes"], patient["reference_flags"]) == ("biplane", "")
    assert patient["reference_ef_percent"] == pytest.approx(100 * (1 - 36 * 34 / 46 / 44), abs=1)
    assert {(row["view"], row["phase"]) for row in result.cases} == {
        ("2CH", "ED"),
        ("2CH", "ES"),
        ("4CH", "ED"),
        ("4CH", "ES"),
    }
    assert set(result.summary["structures"]["LV"]) == {"all", "ED", "ES"}
    assert result.summary["warnings"] == []


def test_no_ef_is_said_with_the_phases_that_names_have(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = hearts(tmp_path / "names", {"a_4CH_dia": 46, "a_4CH_sys": 36})
    assert main(["evaluate", str(folder), str(folder), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "warning: no patient has an EF, which needs the phases ED and ES of one view" in printed
    assert "give: dia, sys" in printed
    assert "flags, reference: missing_2CH 1, missing_4CH_ED 1, missing_4CH_ES 1" in printed
    (patient,) = rows(tmp_path / "out" / "patients.csv")
    assert patient["reference_flags"] == "missing_2CH missing_4CH_ED missing_4CH_ES"


def test_camus_on_a_coarse_grid_is_flagged(tmp_path: Path) -> None:
    """The 8 pixels of the method are most of an LV of 112 x 112 pixels: EF falls below that of `ase`."""
    folder = echonet(tmp_path / "videos", ".png")
    ase, camus = (compare(folder, folder, method=method) for method in ("ase", "camus"))
    assert ase.patients[0]["reference_ef_percent"] - camus.patients[0]["reference_ef_percent"] > 2
    assert {row["reference_flags"] for row in camus.patients} == {"coarse_ED coarse_ES"}
    assert {row["reference_flags"] for row in ase.patients} == {""}
    assert camus.summary["ejection_fraction"]["prediction_flags"] == {"coarse_ED": 2, "coarse_ES": 2}
    assert "EF by camus is not to be trusted in 2 of 2 patients" in camus.summary["warnings"][0]
    assert ase.summary["warnings"] == []


def test_a_rerun_leaves_no_table_of_the_run_before(tmp_path: Path) -> None:
    """Nor does it replace what another program, or the user, wrote."""
    cine = hearts(tmp_path / "cine", {f"a_4CH_f{time}_x": 40 + time for time in range(4)})
    pair = hearts(tmp_path / "pair", {"b_4CH_ED": 46, "b_4CH_ES": 36})
    out = tmp_path / "out"

    def run(folder: Path, out: Path = out) -> int:
        return main(["evaluate", str(folder), str(folder), "-o", str(out), "--workers", "1"])

    assert run(cine) == 0
    assert {"frames.csv", "sequences.csv"} <= set(tree(out))
    (out / "notes.txt").write_text("mine")
    assert run(pair) == 0
    assert sorted(tree(out)) == ["anatomy.csv", "cases.csv", "notes.txt", "patients.csv", "summary.json"]
    assert {row["patient"] for row in rows(out / "cases.csv")} == {"b"}
    assert run(pair, tmp_path / "new") == 0
    assert {name: text for name, text in tree(out).items() if name != "notes.txt"} == tree(tmp_path / "new")
