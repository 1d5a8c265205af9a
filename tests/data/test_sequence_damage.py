"""Cines that are odd or cannot be used: said or refused by name, and what `check` finds in their cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from camus_cines import CINE, MASK, PATIENTS, SPACING_MM, Damage, array_frames, case_arrays, convert
from camus_download import array, rewrite, table
from camus_download import convert as convert_camus

from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.findings import Report

pytest_plugins = ("camus_cines",)


def rename_field(path: Path, old: str, new: str) -> None:
    info = path.with_name("Info_4CH.cfg")
    assert f"{old}\n" in info.read_text()
    info.write_text(info.read_text().replace(f"{old}\n", f"{new}\n"))


def reverse_numbers(path: Path) -> None:
    info = path.with_name("Info_4CH.cfg")
    info.write_text(info.read_text().replace("ED:", "XX:").replace("ES:", "ED:").replace("XX:", "ES:"))


def cut(frames: int) -> Damage:
    return lambda path: [rewrite(path.with_name(name), lambda cine: cine[:frames], SPACING_MM) for name in (CINE, MASK)]


def paint(change: Callable[[np.ndarray], object]) -> Damage:
    def apply(path: Path) -> None:
        def changed(mask: np.ndarray) -> np.ndarray:
            change(mask)
            return mask

        rewrite(path.with_name(MASK), changed, SPACING_MM)

    return apply


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (reverse_numbers, "ED not larger than ES", "they stay as the cfg names them"),
        (lambda path: rename_field(path, "ED: 1", "ED: 3"), "frames left out", "the cfg has ED 3 and ES "),
        (
            lambda path: path.with_name("Info_4CH.cfg").unlink(),
            "ED and ES by area",
            "1 is ED, with the larger ventricle",
        ),
        (
            paint(lambda mask: mask[3, :2, :2].fill(3)),
            "stray pixels",
            "4 pixels lie apart from the largest part of their structure, in 1 of",
        ),
        (
            paint(lambda mask: np.place(mask[2:4], mask[2:4] == 3, 0)),
            "structure missing",
            "frame 3 of the case: the mask has no LA; 2 such frame(s)",
        ),
    ],
)
def test_what_is_odd_about_a_cine_is_said(cines: Path, damage: Damage, kind: str, text: str) -> None:
    damage(cines / "database_nifti" / "patient0001" / CINE)
    report = convert(cines)
    (note,) = [note for note in report.warnings if note.kind == kind]
    assert note.subject == "CAMUS_patient0001_4CH" and text in note.message and report.exit_code == 0


def test_without_a_cfg_a_cine_that_runs_backwards_is_turned_by_its_areas(cines: Path) -> None:
    path = cines / "database_nifti" / "patient0001" / "Info_4CH.cfg"
    path.unlink()
    for name in (CINE, MASK):
        rewrite(path.with_name(name), lambda cine: cine[::-1], SPACING_MM)
    report = convert(cines)
    image, label = case_arrays(report, "CAMUS_patient0001_4CH", {"split": "tr"})
    assert np.array_equal(image, array(path.with_name(CINE))[::-1])
    assert (label[0] == 1).sum() > (label[-1] == 1).sum()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (cut(5), "5 frames, but its cfg has ED 1"),
        (cut(1), "a sequence of 2D frames was expected"),
        (lambda path: rewrite(path, lambda cine: cine[0], SPACING_MM), "a sequence of 2D frames was expected"),
        (lambda path: rewrite(path, lambda cine: cine[:-1], SPACING_MM), "mask and image must lie on one grid"),
        (lambda path: rewrite(path, lambda cine: cine / 3, SPACING_MM), "not all whole numbers in 0..255"),
        (paint(lambda mask: mask[4].fill(0)), "frame 5 of the case: the mask is empty"),
        (paint(lambda mask: mask[4, :2].fill(4)), "unknown labels 4; allowed are [0, 1, 2, 3]"),
        (
            lambda path: rewrite(
                path, lambda cine: np.where(np.arange(len(cine))[:, None, None] == 3, 7, cine), SPACING_MM
            ),
            "frame 4 of the case: every pixel is 7",
        ),
        (lambda path: path.with_name(MASK).unlink(), "is there, but not its mask"),
    ],
)
def test_a_cine_that_cannot_be_used_is_refused_by_name(cines: Path, damage: Damage, text: str) -> None:
    damage(cines / "database_nifti" / "patient0001" / CINE)
    report = convert(cines, labels="ed_es" if "unknown" in text else "all")
    (note,) = report.refused
    assert note.subject == "CAMUS_patient0001_4CH" and text in note.message and CINE[:-7] in note.message
    assert report.exit_code == 1 and len(table(report.folder)) == 2 * PATIENTS - 1


def test_the_release_without_masks_of_cines_is_named(cines: Path) -> None:
    for path in cines.rglob("*half_sequence*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="The release of 2019 has no masks of its cines"):
        convert(cines)


def test_a_cine_with_time_as_its_fourth_axis(cines: Path) -> None:
    for name in (CINE, MASK):
        path = cines / "database_nifti" / "patient0001" / name
        cine = sitk.JoinSeries([sitk.JoinSeries([frame]) for frame in array_frames(path)])
        cine.SetSpacing((SPACING_MM, SPACING_MM, 1.0, 1.0))
        assert cine.GetDimension() == 4
        sitk.WriteImage(cine, str(path), True)
    report = convert(cines)
    image, _ = case_arrays(report, "CAMUS_patient0001_4CH", {"split": "tr"})
    assert report.exit_code == 0 and image.ndim == 3


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "frames", "clip": 10},
        {"mode": "frames", "size": 64},
        {"mode": "frames", "labels": "ed_es"},
        {"clip": 1},
        {"size": 63},
        {"labels": "none"},
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mode"):
        convert_camus(tmp_path, **{"mode": "half_sequence", **options})


def change_label(report: Report, change: Callable[[sitk.Image], sitk.Image]) -> str:
    """Change the label of one case; returns its name as `check` gives it."""
    name = "labelsTr/CAMUS_patient0001_4CH.nii.gz"
    sitk.WriteImage(change(sitk.ReadImage(str(report.folder / name))), str(report.folder / name), True)
    return name


def with_step(image: sitk.Image, step: float) -> sitk.Image:
    image.SetSpacing([*image.GetSpacing()[:2], step])
    return image


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda image: image * 0 + 4, "nothing but the ignore label"),
        (lambda image: with_step(image, 1.54), "nnU-Net takes the axis of the largest for that of slices"),
        (lambda image: image[:, :, 0], "2 axes; a sequence has x, y and t"),
        (lambda image: image + 1, "label values 5 are not in dataset.json"),
    ],
)
def test_check_names_what_is_wrong_with_a_sequence(
    cines: Path, change: Callable[[sitk.Image], sitk.Image], text: str
) -> None:
    report = convert(cines, labels="ed_es")
    name = change_label(report, change)
    problems = [finding.text for finding in check_dataset(report.folder, 1) if finding.problem]
    assert [problem for problem in problems if problem.startswith(name) and text in problem]
