"""The EchoNet-Dynamic converter on phantom data: pixels and masks, ED and ES, splits, the release's oddities, bytes."""

from __future__ import annotations

import io
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_download import load, table, tree
from echonet_download import (
    CASES,
    COMMAND,
    DATASET,
    FIRST,
    ODD,
    SEED,
    VIDEOS,
    change_rows,
    convert,
    lines_of,
    regular_videos,
)
from PIL import Image
from skimage.draw import polygon

from nnunet_echo.cli.main import main
from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.check import check_dataset
from nnunet_echo.dataset_conversion.echonet import EchoNetDynamic
from nnunet_echo.dataset_conversion.echonet.phantom import echonet_video
from nnunet_echo.dataset_conversion.echonet.source import Video
from nnunet_echo.evaluation.pairs import read_dataset
from nnunet_echo.phantom.heart import LV

pytest_plugins = ("echonet_download",)


def frame_by_index(path: Path, frame: int) -> np.ndarray:
    """A frame found by the index at the end of the file, which the converter does not read."""
    data = path.read_bytes()
    offset, length = struct.unpack_from("<2I", data, data.rindex(b"idx1") + 16 + 16 * frame)
    start = data.index(b"movi") + offset + 8
    return np.asarray(Image.open(io.BytesIO(data[start : start + length])).convert("L"))


def test_pixels_masks_and_phases_are_the_true_ones(echonet: Path, raw: Path) -> None:
    report = convert(echonet)
    assert report.training_cases + report.test_cases == CASES
    folder, rows = raw / DATASET, table(raw / DATASET)
    assert {video.ed < video.es for video in regular_videos()} == {True, False}, "only one order would be tested"
    for video in regular_videos():
        for phase, frame in (("ED", video.ed), ("ES", video.es)):
            row = rows[f"ECHONET_{video.name}_{phase}"]
            part = "Ts" if video.split == "TEST" else "Tr"
            image, label = (
                sitk.ReadImage(str(folder / name))
                for name in (f"images{part}/{row['case']}_0000.nii.gz", f"labels{part}/{row['case']}.nii.gz")
            )
            assert image.GetSize() == label.GetSize() == (112, 112) and image.GetSpacing() == (1.0, 1.0)
            pixels = frame_by_index(echonet / "Videos" / f"{video.name}.avi", frame)
            assert np.array_equal(sitk.GetArrayFromImage(image), pixels)

            lines = np.rint(lines_of(echonet, frame, video.name)[1:])
            expected = np.zeros((112, 112), np.uint8)
            expected[
                polygon(
                    np.concatenate([lines[:, 1], lines[::-1, 3]]),
                    np.concatenate([lines[:, 0], lines[::-1, 2]]),
                    expected.shape,
                )
            ] = 1
            mask = sitk.GetArrayFromImage(label)
            assert np.array_equal(mask, expected)
            truth = video.section(frame).labels(*video.grid()) == LV
            assert 2 * (truth & (mask == 1)).sum() / (truth.sum() + mask.sum()) > 0.93
            assert (row["frame"], row["subset"]) == (str(frame), video.split)
            assert float(row["ef_percent"]) == pytest.approx(video.heart.ef_percent, abs=1e-3)
    assert [finding.text for finding in check_dataset(folder, 1)] == [
        f"the conversion refused {ODD} source case(s). See conversion_report.txt."
    ]


def test_dataset_json_says_that_lengths_are_in_pixels(echonet: Path, raw: Path) -> None:
    convert(echonet)
    dataset_json = load(raw / DATASET, "dataset.json")
    assert dataset_json["labels"] == {"background": 0, "LV": 1} and dataset_json["spacing_unit"] == "px"
    assert read_dataset(raw / DATASET / "dataset.json").unit == "px"
    rows = table(raw / DATASET)
    assert {row["spacing_px"] for row in rows.values()} == {"1 1"}
    for case, row in rows.items():
        assert patient_of(case, dataset_json) == row["patient"] == case[:-3]


def subsets(*names: str) -> set[str]:
    return {f"ECHONET_{video.name}" for video in regular_videos() if video.split in names}


def test_splits_are_the_official_ones_or_five_folds(echonet: Path, raw: Path) -> None:
    for split, count in (("official", 1), ("5fold", 5)):
        convert(echonet, split=split, replace=True)
        folds = [
            {side: {case[:-3] for case in cases} for side, cases in fold.items()}
            for fold in load(raw / DATASET, "splits_final.json")
        ]
        assert len(folds) == count
        if split == "official":
            assert folds == [{"train": subsets("TRAIN"), "val": subsets("VAL")}]
        assert all(fold["train"] | fold["val"] == subsets("TRAIN", "VAL") for fold in folds)
        assert not any(fold["train"] & fold["val"] for fold in folds)
        assert {path.name[:-7] for path in (raw / DATASET / "labelsTs").iterdir()} == {
            f"{name}_{phase}" for name in subsets("TEST") for phase in ("ED", "ES")
        }
    assert Counter(name for fold in folds for name in fold["val"]) == Counter(subsets("TRAIN", "VAL"))


def test_five_folds_spread_the_ejection_fraction() -> None:
    rng = np.random.default_rng(0)
    efs = enumerate(rng.uniform(0, 100, 90))
    videos = {f"v{number}": Video(f"v{number}", "TRAIN", float(ef), 99, (112, 112)) for number, ef in efs}
    patients = {f"ECHONET_{name}" for name in videos}
    folds = EchoNetDynamic(split="5fold")._split_of_echonet(patients, videos).make_folds(patients)
    for low in range(0, 100, 5):
        members = {f"ECHONET_{v.name}" for v in videos.values() if low <= v.ef_percent < low + 5}
        counts = [len(members & set(fold["val"])) for fold in folds]
        assert max(counts) - min(counts) <= 1


def test_the_oddities_of_the_release_are_left_out_or_kept_and_named(echonet: Path, raw: Path) -> None:
    names = [f"ECHONET_{echonet_video(SEED, number).name}" for number in range(VIDEOS - ODD + 1, VIDEOS + 1)]
    report = convert(echonet)
    reasons = {note.subject: note.message for note in report.refused}
    assert report.exit_code == 1 and set(reasons) == {*names[:3], echonet_video(SEED, VIDEOS + 1).name}
    for name, reason in zip(names, ("42 rows instead of 21", "20 rows instead of 21", "crosses itself"), strict=False):
        assert reason in reasons[name]
    assert [(note.kind, note.subject) for note in report.warnings] == [("other size, not traced", names[3])]
    kept = convert(echonet, keep_irregular=True, replace=True)
    assert kept.training_cases + kept.test_cases == CASES + 6
    assert [note.kind for note in kept.refused] == ["not listed"]
    assert sorted(note.subject for note in kept.warnings if note.kind == "irregular tracing") == sorted(names[:3])


def test_names_order_and_place_of_the_rows_do_not_matter(echonet: Path, raw: Path) -> None:
    convert(echonet)
    before = tree(raw / DATASET)
    path = echonet / "FileList.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\r\n".join([header, *(row.replace(",", ".avi,", 1) for row in reversed(rows))]))
    path = echonet / "VolumeTracings.csv"
    header, *rows = path.read_text().splitlines()
    late = [row for row in rows if row.startswith(FIRST.name) and row.endswith(f",{min(FIRST.ed, FIRST.es)}")]
    assert len(late) == 21
    rows = [row.replace(".avi,", ",", 1) for row in rows if row not in late] + late
    path.write_text("\ufeff" + "\n".join([header, *rows]), encoding="utf-8")
    shutil.move(echonet, echonet.parent / "download" / "EchoNet-Dynamic" / "EchoNet-Dynamic")
    convert(echonet.parent / "download")
    after = tree(raw / DATASET)
    assert {name for name in before if before[name] != after[name]} <= {
        "conversion_report.txt",
        "conversion_report.json",
    }  # they name lines
    assert set(before) == set(after)


def test_a_copy_without_splits_needs_five_folds(echonet: Path) -> None:
    path = echonet / "FileList.csv"
    path.write_text("".join(f"{row.rpartition(',')[0]}\n" for row in path.read_text().splitlines()))
    with pytest.raises(ValueError, match="Use --split 5fold"):
        convert(echonet)
    report = convert(echonet, split="5fold")
    assert (report.training_cases, report.test_cases, report.folds) == (CASES, 0, 5)
    assert "no split" in {note.kind for note in report.warnings}


def test_second_run_other_options_and_workers_change_no_byte(echonet: Path, raw: Path) -> None:
    convert(echonet)
    first = tree(raw)
    convert(echonet, keep_irregular=True, split="5fold", replace=True)
    assert tree(raw) != first
    convert(echonet, workers=2, replace=True)
    assert tree(raw) == first


@pytest.mark.parametrize("written", [1, 6])
def test_killed_and_run_again(echonet: Path, raw: Path, tmp_path: Path, written: int) -> None:
    convert(echonet, raw=tmp_path / "undisturbed")
    folder = raw / DATASET
    process = subprocess.Popen(
        [*COMMAND, str(echonet), "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(list(folder.glob("labels*/*"))) < written:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "dataset.json").exists()
    convert(echonet)
    assert tree(folder) == tree(tmp_path / "undisturbed" / DATASET)


def test_the_command_line_answers_in_words(echonet: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", "echonet", str(echonet), "-d", "9", "--workers", "1"]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert f"{CASES} of {CASES + ODD} source cases converted" in shown and "42 rows instead of 21" in shown
    change_rows("VolumeTracings.csv", lambda rows: [], echonet_video(SEED, VIDEOS + 1).name)(echonet)
    assert main([*arguments, "--keep-irregular", "--split", "5fold", "--replace"]) == 0
    assert (raw / "Dataset009_EchoNetDynamic" / "dataset.json").is_file()
    assert main(["convert", "echonet", str(echonet / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
