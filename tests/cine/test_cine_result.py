"""Files of a result: whole or not there, numbers with reasons, nobody's name."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cine_results import LABELS, drawn, drawn_clip, drawn_result
from scipy import ndimage

import nnunet_echo
from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.batch import summary_rows
from nnunet_echo.cine.result import NOTICE


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_result().save(tmp_path_factory.mktemp("cine") / "out", save=["masks"])


def test_json_has_every_number_and_how_it_was_made(saved: Path) -> None:
    result, content = drawn_result(), json.loads((saved / "result.json").read_text())
    assert content["notice"] == NOTICE == "Research use, not a medical device."
    assert content["numbers"] == {name: pytest.approx(value) for name, value in result.numbers.items()}
    assert content["versions"]["nnunet-echo"] == nnunet_echo.__version__
    assert {"nnunetv2", "torch"} <= set(content["versions"])
    assert content["exit_code"] == 0 and content["refusals"] == []
    assert content["clips"][0]["time_source"] == "by the user" and content["clips"][0]["spacing_mm"] == [2.0, 2.0]
    assert content["clips"][0]["frames_per_second"] == pytest.approx(30)


def test_tables_have_a_row_for_each_beat_and_frame(saved: Path) -> None:
    masks, _, _ = drawn()
    result = drawn_result()
    beats, frames = rows(saved / "beats.csv"), rows(saved / "frames.csv")
    assert [int(row["es_frame"]) - 1 for row in beats] == [beat.beat.es for beat in result.loops[0].beats]
    assert float(beats[0]["ef_percent"]) == pytest.approx(result.loops[0].beats[0].ef_percent, abs=1e-3)
    assert float(beats[0]["ed_s"]) == pytest.approx((int(beats[0]["ed_frame"]) - 1) / 30, abs=1e-5)
    assert [int(row["frame"]) for row in frames] == list(range(1, len(masks) + 1))
    for k in (0, 40):
        assert float(frames[k]["lv_area_mm2"]) == 4 * np.count_nonzero(masks[k] == 1)
    assert {"time_s", "lv_volume_ml", "lv_length_mm", "la_area_mm2", "wall_thickness_mm", "entropy"} <= set(frames[0])


def test_masks_are_those_of_the_model(saved: Path) -> None:
    image = sitk.ReadImage(str(saved / "masks.nii.gz"))
    assert (sitk.GetArrayFromImage(image) == np.stack(drawn()[0])).all()
    assert image.GetSpacing() == pytest.approx((2, 2, 1 / 30))
    assert sorted(path.name for path in saved.iterdir()) == ["beats.csv", "frames.csv", "masks.nii.gz", "result.json"]


def test_refused_numbers_are_null_with_their_reason(tmp_path: Path) -> None:
    result = drawn_result(spacing=None)
    content = json.loads((result.save(tmp_path / "out", save=[]) / "result.json").read_text())
    assert content["exit_code"] == 1
    refused = {number for refusal in content["refusals"] for number in refusal["numbers"]}
    assert refused == {name for name, value in content["numbers"].items() if value is None} >= {"edv_ml", "esv_ml"}
    assert all(refusal["text"] for refusal in content["refusals"])
    assert "lv_area_px2" in rows(tmp_path / "out" / "frames.csv")[0]
    assert "mm" not in (tmp_path / "out" / "frames.csv").read_text().splitlines()[0]
    assert {row["edv_ml"] for row in rows(tmp_path / "out" / "beats.csv")} == {""}


def test_a_clip_without_beats_has_no_table_of_them(tmp_path: Path) -> None:
    masks, frames, _ = drawn()
    out = analyse(drawn_clip(frames[:5]), masks[:5], LABELS).save(tmp_path / "out", save=[])
    assert sorted(path.name for path in out.iterdir()) == ["frames.csv", "result.json"]


@pytest.mark.parametrize("fps", [None, 12])
def test_extremes_are_no_beat(fps: float | None, tmp_path: Path) -> None:
    """The frames of ED and ES are told, without a number, and nothing counts them as one."""
    result = drawn_result(fps=fps)
    out = result.save(tmp_path / "out", save=["report"])
    [row] = rows(out / "beats.csv")
    areas = result.loops[0].curve.values["lv_area"]
    assert (int(row["ed_frame"]), int(row["es_frame"])) == (1 + areas.argmax(), 1 + areas.argmin())
    assert (row["beat"], row["next_ed_frame"], row["ed_es_by"]) == ("", "", "extremes")
    [clip] = json.loads((out / "result.json").read_text())["clips"]
    assert (clip["beats"], clip["beats_refused"], clip["ed_es_by"]) == (0, 0, "extremes")
    [line] = summary_rows([("clip_001", result)])
    assert line["beats"] == 0 and line["ef_percent"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "4CH: no complete beat; ED and ES are the largest and the smallest frame." in page
    assert "From the largest and the smallest frame, since no beat is complete; volumes by" in page
    drawn_result().save(tmp_path / "beats", save=["report"])
    assert "Median of the beats that passed; volumes by" in (tmp_path / "beats" / "report.html").read_text("utf-8")


def test_beats_say_that_they_are(saved: Path) -> None:
    table = rows(saved / "beats.csv")
    assert [row["beat"] for row in table] == ["1", "2", "3"][: len(table)]
    assert {row["ed_es_by"] for row in table} == {"beats"}


def test_two_views_have_masks_of_their_own(tmp_path: Path) -> None:
    masks, frames, _ = drawn()
    others, pictures, _ = drawn("2CH")
    second = drawn_clip(pictures, spacing=None)
    result = analyse(drawn_clip(frames), masks, {"LV": 1}, view="4CH", second=(second, others, "2CH"))
    out = result.save(tmp_path / "out", save=["masks"])
    assert {"masks_4CH.nii.gz", "masks_2CH.nii.gz"} <= {path.name for path in out.iterdir()}
    table = rows(out / "frames.csv")
    assert len(table) == len(masks) + len(others)
    assert table[0]["lv_area_px2"] == "" != table[-1]["lv_area_px2"] and table[-1]["lv_area_mm2"] == ""


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    drawn_result().save(tmp_path / "out", save=[])  # into an empty folder
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(FileExistsError, match="out: is there already .* Choose another folder"):
        drawn_result().save(tmp_path / "out", save=[])
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        drawn_result().save(tmp_path / "file", save=[])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("nnunet_echo.cine.result.write_nifti", fail)
    with pytest.raises(OSError, match="disk full"):
        drawn_result().save(tmp_path / "out", save=["masks"])
    assert list(tmp_path.iterdir()) == []


def test_kill_in_the_middle_leaves_no_half_result(tmp_path: Path) -> None:
    script = """
import sys, time
sys.path.insert(0, sys.argv[1])
from cine_results import drawn_result
import nnunet_echo.cine.result as result
def slow(*_):
    print("writing", flush=True)
    time.sleep(60)
result.write_nifti = slow
drawn_result().save(sys.argv[2], save=["masks"])
"""
    support = Path(__file__).resolve().parents[1] / "support"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(support), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert drawn_result().save(tmp_path / "out", save=[]).is_dir()


def test_bad_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save='pdf': must be among"):
        drawn_result().save(tmp_path / "out", save=["pdf"])
    for name in ("sr", "seg"):
        with pytest.raises(ValueError, match="source=None: "):
            drawn_result().save(tmp_path / "out", save=[name])
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_readable_as_others_are(tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    out = drawn_result().save(tmp_path / "out", save=[])
    assert out.stat().st_mode == (tmp_path / "like").stat().st_mode


def test_identifiers_are_drawn_at_random() -> None:
    assert replace(drawn_result(), identifier="a").identifier == "a"
    masks, frames, _ = drawn()
    made = {analyse(drawn_clip(frames[:3]), masks[:3], LABELS).identifier for _ in range(3)}
    assert len(made) == 3 and all(len(name) == 12 for name in made)


def test_gzip_names_no_file_and_no_date(saved: Path) -> None:
    header = (saved / "masks.nii.gz").read_bytes()[:10]
    assert header[3] == 0 and header[4:8] == b"\0" * 4 and time.time() > 0


def test_smoothed_masks_stand_beside_the_others(tmp_path: Path) -> None:
    masks, frames, _ = drawn()
    smaller = [ndimage.binary_erosion(mask == 1) for mask in masks]
    result = analyse(drawn_clip(frames), masks, {"LV": 1}, view="4CH", smooth=smaller)
    plain = drawn_result()
    assert result.numbers["ef_percent_unsmoothed"] == pytest.approx(plain.numbers["ef_percent"], abs=1)
    assert 0 < result.numbers["edv_ml"] < 0.95 * plain.numbers["edv_ml"]
    assert "smoothed" in {flag.name for flag in result.flags}
    table = rows(result.save(tmp_path / "out", save=[]) / "frames.csv")
    assert float(table[0]["lv_area_mm2_unsmoothed"]) == 4 * np.count_nonzero(masks[0] == 1)
    assert "smoothed" not in {flag.name for flag in plain.flags} and "ef_percent_unsmoothed" not in plain.numbers
