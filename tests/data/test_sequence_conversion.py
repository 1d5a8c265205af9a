"""Cines as 3D cases on phantom data: pixels, order in time, sparse labels, clips and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_cines import PATIENTS, REVERSED, SPACING_MM, case_arrays, convert, source_arrays
from camus_download import load, table
from echonet_download import FIRST, regular_videos
from echonet_download import convert as convert_echonet
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_echo.data.avi import read_frames
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.cine import TIME_STEP, resize_image, resize_labels, sampled_frames, stray_pixels
from nnunet_echo.dataset_conversion import echonet as echonet_module

pytest_plugins = ("camus_cines",)


def test_every_cine_becomes_a_case_of_its_pixels_in_the_order_of_time(cines: Path) -> None:
    report = convert(cines)
    assert report.folder.name == "Dataset753_CAMUS_Full" and report.exit_code == 0
    rows = table(report.folder)
    assert set(rows) == {f"CAMUS_patient000{n}_{view}" for n in range(1, PATIENTS + 1) for view in ("2CH", "4CH")}
    for case, row in rows.items():
        image, label = case_arrays(report, case, row)
        cine, mask = source_arrays(cines, row)
        assert np.array_equal(image, cine) and np.array_equal(label, mask) and image.dtype == label.dtype == np.uint8
        areas = [(frame == 1).sum() for frame in label]
        assert areas[0] == max(areas) > min(areas) == areas[-1]
        numbers = list(range(1, len(image) + 1))
        assert row["frames"] == " ".join(map(str, numbers[::-1] if REVERSED in case else numbers))
        assert row["spacing_mm"] == "3 3 5" and row["size"] == f"{row['cine_size']} {len(image)}"
    assert [note.kind for note in report.warnings] == ["fewer folds"]
    assert load(report.folder, "dataset.json")["sequence"]["time_step_mm"] == TIME_STEP
    assert check_dataset(report.folder, 1) == []


def test_nnunet_reads_time_as_the_slowest_axis(cines: Path) -> None:
    folder = convert(cines).folder
    pixels, properties = SimpleITKIO().read_images([str(folder / "imagesTr" / "CAMUS_patient0001_4CH_0000.nii.gz")])
    cine, _ = source_arrays(cines, table(folder)["CAMUS_patient0001_4CH"])
    assert np.array_equal(pixels[0], cine)
    np.testing.assert_allclose(properties["spacing"], (TIME_STEP, 3, 3), rtol=1e-6)


def test_a_folder_of_both_views_is_one_patient(cines: Path) -> None:
    report = convert(cines)
    for fold in load(report.folder, "splits_final.json"):
        assert not {case[:17] for case in fold["train"]} & {case[:17] for case in fold["val"]}
        assert len(fold["val"]) == 2


def test_sparse_labels_keep_ed_and_es_alone(cines: Path) -> None:
    full, sparse = convert(cines), convert(cines, labels="ed_es")
    assert sparse.folder.name == "Dataset754_CAMUS_Semi" and sparse.exit_code == 0
    assert load(sparse.folder, "dataset.json")["labels"]["ignore"] == 4
    for case, row in table(sparse.folder).items():
        (image, label), (same, reference) = case_arrays(sparse, case, row), case_arrays(full, case, row)
        assert np.array_equal(image, same) and np.array_equal(label[[0, -1]], reference[[0, -1]])
        assert np.all(label[1:-1] == 4) and len(label) > 2
    assert check_dataset(sparse.folder, 1) == []


def test_clips_of_the_published_size(cines: Path) -> None:
    full, clips = convert(cines), convert(cines, clip=10, size=64, dataset_id=9)
    for case, row in table(clips.folder).items():
        image, label = case_arrays(clips, case, row)
        cine, mask = case_arrays(full, case, row)
        numbers = [int(number) for number in row["frames"].split()]
        assert image.shape == label.shape == (10, 64, 64)
        first, last = (len(cine), 1) if REVERSED in case else (1, len(cine))
        assert (numbers[0], numbers[-1]) == (first, last) and max(np.abs(np.diff(np.diff(numbers)))) <= 1
        taken = [abs(number - first) for number in numbers]
        spacing = sitk.ReadImage(str(next(clips.folder.glob(f"images*/{case}_0000.nii.gz")))).GetSpacing()
        np.testing.assert_allclose(np.array(spacing[:2]) * 64, np.array(cine.shape[:0:-1]) * SPACING_MM, rtol=1e-6)
        for ours, frame, theirs in zip(label, taken, mask[taken], strict=True):
            area = (ours == 1).sum() * spacing[0] * spacing[1]
            assert area == pytest.approx((theirs == 1).sum() * SPACING_MM**2, rel=0.15), frame
            assert set(np.unique(ours)) <= {0, 1, 2, 3}
        assert abs(float(image.mean()) - float(cine[taken].mean())) < 3


def test_sampling_is_even_and_has_both_ends() -> None:
    assert sampled_frames(3, 7, None) == [3, 4, 5, 6, 7] and sampled_frames(7, 3, None) == [7, 6, 5, 4, 3]
    assert sampled_frames(1, 19, 10) == list(range(1, 20, 2)) and sampled_frames(0, 2, 5)[::2] == [0, 1, 2]
    for last in range(2, 60):
        numbers = sampled_frames(1, last, 10)
        assert (numbers[0], numbers[-1], len(numbers)) == (1, last, 10)
        assert np.ptp(np.diff(numbers)) <= 1


def test_resizing_keeps_the_field_of_view() -> None:
    y, x = np.mgrid[:120, :90]
    disk = ((np.hypot(y - 60, x - 30) < 20) * 3).astype(np.uint8)
    for resized in (resize_labels(disk, (40, 40)), resize_labels(disk, (40, 40), nearest=True)):
        assert set(np.unique(resized)) == {0, 3}
        centre = np.argwhere(resized == 3).mean(0)
        np.testing.assert_allclose((centre + 0.5) * (3, 2.25), (60.5, 30.5), atol=0.6)
        assert (resized == 3).sum() * 3 * 2.25 == pytest.approx((disk == 3).sum(), rel=0.05)
    smooth = resize_image(disk * 60, (40, 40))
    assert smooth.max() == 180 and smooth.mean() == pytest.approx((disk * 60).mean(), rel=0.05)
    assert np.array_equal(resize_labels(disk, disk.shape), disk)


def test_stray_pixels_are_counted_by_frame() -> None:
    mask = np.zeros((3, 20, 20), np.uint8)
    mask[:, 5:10, 5:10], mask[1:, 12:15, 12:15] = 1, 2
    mask[1, 10, 10], mask[2, 0, 0], mask[2, 18, 18] = 1, 2, 1  # by a corner; apart; apart
    assert stray_pixels(mask) == [0, 0, 2]


def test_clips_of_echonet_have_the_ignore_label_between_two_masks(echonet: Path) -> None:
    frames, clips = convert_echonet(echonet), convert_echonet(echonet, mode="clip")
    assert clips.folder.name == "Dataset755_EchoNetDynamic_Clips"
    assert len(clips.refused) == len(frames.refused) and load(clips.folder, "dataset.json")["labels"]["ignore"] == 2
    rows = table(clips.folder)
    assert set(rows) == {f"ECHONET_{video.name}" for video in regular_videos()}
    for video in regular_videos():
        case, row = f"ECHONET_{video.name}", rows[f"ECHONET_{video.name}"]
        image, label = case_arrays(clips, case, row)
        ends = [case_arrays(frames, f"{case}_{phase}", row) for phase in ("ED", "ES")]
        for frame, (pixels, mask) in zip((0, -1), ends, strict=True):
            assert np.array_equal(image[frame], pixels) and np.array_equal(label[frame], mask)
        assert np.all(label[1:-1] == 2)
        step = 1 if video.ed < video.es else -1
        numbers = list(range(video.ed, video.es + step, step))
        assert row["frames"] == " ".join(map(str, numbers)) and row["spacing_px"] == "1 1 5"
        cine = read_frames(echonet / "Videos" / f"{video.name}.avi", "", numbers, (112, 112))
        assert np.array_equal(image, cine)
    assert {video.ed < video.es for video in regular_videos()} == {True, False}, "only one order would be tested"


def test_only_the_frames_of_the_clip_are_decoded(echonet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(
        echonet_module,
        "read_frames",
        lambda path, name, taken, *rest: decoded.append([path.stem, *taken]) or read_frames(path, name, taken, *rest),
    )
    report = convert_echonet(echonet, mode="clip", clip=4, size=64)
    taken = {name: frames for name, *frames in decoded}
    assert {len(frames) for frames in taken.values()} == {4} and len(decoded) == len(taken) == len(regular_videos())
    assert (taken[FIRST.name][0], taken[FIRST.name][-1]) == (FIRST.ed, FIRST.es)
    image, _ = case_arrays(report, f"ECHONET_{FIRST.name}", table(report.folder)[f"ECHONET_{FIRST.name}"])
    assert image.shape == (4, 64, 64)
    assert table(report.folder)[f"ECHONET_{FIRST.name}"]["spacing_px"] == "1 1 5"
    assert not [finding for finding in check_dataset(report.folder, 1) if finding.problem]
