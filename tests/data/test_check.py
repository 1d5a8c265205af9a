"""`nnunet-echo check`: silent on a good dataset, and for each kind of fault a finding that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunet_echo.cli.main import main
from nnunet_echo.data.check import check_dataset
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.camus.reader import Camus

CASE = "CAMUS_patient0002_4CH_ED"
NAME = "Dataset751_CAMUS"


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, raw = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("raw")
    write_camus(source, 6, 5, spacing_mm=2.0, half_sequence=False)
    return Camus().convert(source, raw=raw, workers=1).folder


@pytest.fixture
def dataset(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that the test may damage, below its own nnUNet_raw."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return shutil.copytree(converted, tmp_path / "raw" / NAME)


def edit(name: str, change: Callable[[dict | list], object]) -> Callable[[Path], None]:
    """A fault in one of the JSON files."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def repaint(name: str, change: Callable[[sitk.Image], sitk.Image]) -> Callable[[Path], None]:
    """A fault in the pixels or header of one image."""

    def apply(folder: Path) -> None:
        sitk.WriteImage(change(sitk.ReadImage(str(folder / name))), str(folder / name), True)

    return apply


def with_spacing(image: sitk.Image, spacing: float) -> sitk.Image:
    image.SetSpacing((spacing, spacing))
    return image


def with_origin(image: sitk.Image) -> sitk.Image:
    image.SetOrigin((3.0, 0.0))
    return image


def move_patient_to_test(folder: Path) -> None:
    for part, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
        (folder / f"{part}Tr" / f"{CASE}{ending}").rename(folder / f"{part}Ts" / f"{CASE}{ending}")


def validate_on_training(splits: list) -> None:
    """One frame of a training patient of fold 0 goes over to its validation."""
    splits[0]["val"].append(splits[0]["train"].pop())


LABEL, IMAGE = f"labelsTr/{CASE}.nii.gz", f"imagesTr/{CASE}_0000.nii.gz"

PROBLEMS = [
    (lambda f: (f / "dataset.json").unlink(), "dataset.json is missing"),
    (lambda f: (f / "dataset.json").write_text("{"), "dataset.json cannot be read"),
    (edit("dataset.json", lambda d: d.pop("labels")), "dataset.json lacks labels"),
    (edit("dataset.json", lambda d: d.update(numTraining=3)), "imagesTr holds 20 cases, dataset.json says"),
    (edit("dataset.json", lambda d: d["labels"].update(LA=5)), "must be consecutive"),
    (edit("dataset.json", lambda d: d["labels"].pop("background")), "nnU-Net needs the label background"),
    (edit("dataset.json", lambda d: d.update(channel_names={"1": "x"})), "must be numbered from 0"),
    (edit("dataset.json", lambda d: d.update(channel_names={"0": "x", "1": "y"})), "_0001.nii.gz"),
    (edit("dataset.json", lambda d: d.update(case_id_pattern="(?P<patient>X)")), "do not match case_id_pattern"),
    (lambda f: shutil.rmtree(f / "labelsTr"), "folder labelsTr is missing"),
    (lambda f: (f / LABEL).unlink(), f"1 case(s) of imagesTr without a label: {CASE}"),
    (lambda f: (f / IMAGE).unlink(), f"1 label(s) of labelsTr without an image: {CASE}"),
    (lambda f: (f / IMAGE).rename(f / "imagesTr" / f"{CASE}.nii.gz"), "nnU-Net expects a channel number"),
    (lambda f: (f / ".unfinished").mkdir(), "leftovers of an interrupted conversion: .unfinished"),
    (lambda f: (f / "imagesTr" / "x.tmp").write_text(""), "leftovers of an interrupted conversion: imagesTr/x.tmp"),
    (edit("conversion_report.json", lambda d: d.update(finished=False)), "says that the conversion did not finish"),
    (lambda f: (f / "conversion_report.json").write_text("{"), "conversion_report.json cannot be read"),
    (move_patient_to_test, "1 patient(s) are in training and in test: CAMUS_patient0002"),
    (lambda f: (f / "splits_final.json").unlink(), "a patient's frames end up on both sides"),
    (lambda f: (f / "splits_final.json").write_text("[]"), "splits_final.json holds no folds"),
    (lambda f: (f / "splits_final.json").write_text('[{"train": []}]'), "splits_final.json cannot be read"),
    (edit("splits_final.json", validate_on_training), "fold 0: 1 patient(s) in training and validation"),
    (edit("splits_final.json", lambda s: s[1]["train"].append("CAMUS_patient0999_4CH_ED")), "do not exist: CAMUS_"),
    (edit("splits_final.json", lambda s: s[1]["val"].clear()), "fold 1: no training or no validation case"),
    (edit("splits_final.json", lambda s: s[1]["val"].clear()), "4 training case(s) are in no fold's validation"),
    (edit("splits_final.json", lambda s: s.append(s[0])), "4 case(s) are validated more than once"),
    (repaint(LABEL, lambda i: sitk.Cast(i * 2, sitk.sitkUInt8)), f"{LABEL}: label values 4, 6 are not in dataset.json"),
    (repaint(LABEL, lambda i: i[1:, :]), f"{LABEL}: size"),
    (repaint(LABEL, lambda i: with_spacing(i, 1.0)), f"{LABEL}: spacing (1.0, 1.0) differs"),
    (lambda f: (f / IMAGE).write_bytes((f / IMAGE).read_bytes()[:300]), f"{IMAGE}: truncated or damaged gzip data"),
]

REMARKS = [
    (edit("dataset.json", lambda d: d.pop("case_id_pattern")), "has no case_id_pattern"),
    (edit("conversion_report.json", lambda d: d.update(refused=[{}])), "refused 1 source case(s)"),
    (lambda f: (f / "imagesTr" / "notes.txt").write_text(""), "notes.txt: not an image of this dataset"),
    (lambda f: next((f / "labelsTs").iterdir()).unlink(), "1 case(s) of imagesTs without a label"),
    (repaint(LABEL, lambda i: i * 0), f"{LABEL}: background only"),
    (repaint(LABEL, lambda i: sitk.Cast(i, sitk.sitkFloat32)), f"{LABEL}: 32-bit float"),
    (repaint(LABEL, with_origin), f"{LABEL}: origin (3.0, 0.0) differs"),
    (edit("splits_final.json", lambda s: (s.__delitem__(slice(1, None)), s[0]["train"].pop())), "are in no fold"),
]


def test_a_good_dataset_has_no_finding(dataset: Path) -> None:
    assert check_dataset(dataset, workers=1) == []
    assert check_dataset(dataset, workers=2) == []


@pytest.mark.parametrize(("damage", "text"), PROBLEMS, ids=[problem[1][:40] for problem in PROBLEMS])
def test_a_problem_is_named(dataset: Path, damage: Callable[[Path], object], text: str) -> None:
    damage(dataset)
    assert any(text in finding.text for finding in check_dataset(dataset, 1) if finding.problem)


@pytest.mark.parametrize(("damage", "text"), REMARKS, ids=[remark[1][:40] for remark in REMARKS])
def test_a_remark_is_not_a_problem(dataset: Path, damage: Callable[[Path], object], text: str) -> None:
    damage(dataset)
    findings = check_dataset(dataset, 1)
    assert any(text in finding.text for finding in findings)
    assert not [finding for finding in findings if finding.problem]


def test_everything_is_reported_at_once(dataset: Path) -> None:
    (dataset / LABEL).write_bytes(b"")
    (dataset / IMAGE.replace("0002", "0003")).write_bytes(b"")
    edit("splits_final.json", validate_on_training)(dataset)
    texts = [finding.text for finding in check_dataset(dataset, 1) if finding.problem]
    for expected in (LABEL, "CAMUS_patient0003_4CH_ED_0000", "fold 0: 1 patient(s)", "validated more than once"):
        assert len([text for text in texts if expected in text]) == 1
    assert len(texts) == 4


def test_preprocessed_splits_that_differ_are_a_problem(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "preprocessed" / NAME / "splits_final.json"
    copy.parent.mkdir(parents=True)
    shutil.copy(dataset / "splits_final.json", copy)
    assert check_dataset(dataset, 1) == []
    copy.write_text(json.dumps(json.loads(copy.read_text())[:4]))
    (finding,) = check_dataset(dataset, 1)
    assert finding.problem and "differs from the dataset's splits_final.json" in finding.text


def check_command(*words: str) -> int:
    return main(["check", *words, "--workers", "1"])


def test_the_command_takes_an_id_a_name_or_a_path(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("751", NAME, str(dataset)):
        assert check_command(word) == 0
        assert f"{NAME}: 0 problem(s), 0 remark(s). Ready for nnU-Net." in capsys.readouterr().out
    (dataset / LABEL).unlink()
    assert check_command("751") == 1
    assert "problem: 1 case(s) of imagesTr without a label" in capsys.readouterr().out


def test_a_dataset_that_is_not_there_is_an_error(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_command("752") == 2
    assert "no dataset 752" in capsys.readouterr().err
    shutil.copytree(dataset, dataset.with_name("Dataset751_Twin"))
    assert check_command("751") == 2
    assert "Dataset751_CAMUS, Dataset751_Twin" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_raw")
    assert check_command("751") == 2
    assert "nnUNet_raw is not set" in capsys.readouterr().err
