"""`check` against nnU-Net itself, on small datasets of every kind that both read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from noise_dataset import CASES, dataset, problems, save
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.data.check import READ, check_dataset

pytest_plugins = ("noise_dataset",)


ENDINGS = [(ending, (20, 24)) for ending in READ if ending != ".nii"]
ENDINGS += [(ending, (4, 20, 24)) for ending in (".nii.gz", ".nii", ".mha", ".nrrd")]


@pytest.mark.parametrize(("ending", "shape"), ENDINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_dataset_of_each_ending_passes_both(
    ending: str, shape: tuple[int, ...], channels: int, nnunet_stops: Callable, tmp_path: Path
) -> None:
    folder = dataset(tmp_path / "Dataset001_X", ending, shape, channels)
    assert not nnunet_stops(folder)
    assert problems(folder) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"background": 0, "whole": [1, 2], "inner": 2}, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "outer": 1, "inner": 2, "ignore": 3}},
        {"labels": {"background": 0, "whole": [1, 2], "inner": 2, "ignore": 3}, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "outer": [1], "inner": [2]}},
        {"labels": {"background": 0, "outer": "1", "inner": 2.0}},
        {"overwrite_image_reader_writer": "SimpleITKIO"},
    ],
)
def test_sound_labels_pass_both(fields: dict, nnunet_stops: Callable, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_X", **fields)
    assert not nnunet_stops(folder)
    assert problems(folder) == []


def test_colours_are_channels(nnunet_stops: Callable, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_X", ".png", channel_names={"0": "R", "1": "G", "2": "B"})
    assert nnunet_stops(folder) and "c0 has 1 channel(s), but channel_names 3" in problems(folder)[0]
    for path in (folder / "imagesTr").iterdir():
        Image.open(path).convert("RGB").save(path)
    assert not nnunet_stops(folder) and problems(folder) == []


def test_eleven_channels_are_numbered_from_0(tmp_path: Path) -> None:
    assert problems(dataset(tmp_path / "Dataset001_X", channels=11)) == []


def at(place: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(folder / place)


def other_checksum(path: Path) -> None:
    """Of the pixels, at which Pillow does not look."""
    data = bytearray(path.read_bytes())
    data[data.index(b"IEND") - 5] ^= 1
    path.write_bytes(data)


def palette(path: Path) -> None:
    image = Image.fromarray(np.asarray(Image.open(path)), "P")
    image.putpalette([0, 0, 0, 250, 0, 0, 0, 250, 0] + [0] * 759)
    image.save(path)


def spaced(path: Path, spacing: tuple[float, float]) -> None:
    image = sitk.ReadImage(str(path))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


REGIONS = {"background": 0, "whole": [1, 2], "inner": 2}
FAULTS: list[tuple[dict, Callable[[Path], object], str]] = [
    ({"labels": {"background": 0, "outer": 1, "inner": 2, "ignore": 5}}, None, "the ignore label is 5; nnU-Net needs"),
    ({"labels": {"background": 0, "outer": 1, "ignore": 2, "inner": 3}}, None, "the ignore label is 2; nnU-Net needs"),
    ({"labels": {"background": 0, "outer": 1, "inner": 2, "ignore": [3]}}, None, "the ignore label is [3]"),
    ({"labels": {"background": 0, "outer": 1, "inner": 2, "ignore": 3.0}}, None, "the ignore label is 3.0"),
    ({"labels": {"background": 0, "outer": 1, "inner": 3}}, None, "must be consecutive"),
    ({"labels": {"background": 1, "outer": 0, "inner": 2}}, None, "needs the label background with value 0"),
    ({"labels": {"background": [0], "outer": 1, "inner": 2}}, None, "needs the label background with value 0"),
    ({"labels": {"outer": 1, "inner": 2}}, None, "needs the label background with value 0"),
    ({"labels": {"background": 0, "outer": "one", "inner": 2}}, None, 'label outer is "one"; a whole number'),
    ({"labels": {"background": 0, "outer": None, "inner": 2}}, None, "label outer is null; a whole number"),
    ({"labels": REGIONS}, None, "for which nnU-Net needs regions_class_order"),
    ({"labels": REGIONS, "regions_class_order": [1]}, None, "regions_class_order has 1 values, but"),
    ({"labels": REGIONS, "regions_class_order": [0, 1, 2]}, None, "regions_class_order has 3 values, but"),
    ({"labels": [0, 1, 2]}, None, "labels is [0, 1, 2]; an object"),
    ({"channel_names": ["us"]}, None, 'channel_names is ["us"]; an object'),
    ({"numTraining": CASES + 1}, None, "imagesTr holds 3 cases, dataset.json says numTraining 4"),
    ({"numTraining": str(CASES)}, None, 'numTraining is "3"; a whole number'),
    ({"file_ending": ".png"}, None, "imagesTr holds 0 cases"),
    ({"file_ending": "nii.gz"}, None, "'nii.gz', which nnU-Net has no reader for"),
    ({"file_ending": ".gz"}, None, "'.gz', which nnU-Net has no reader for"),
    ({"overwrite_image_reader_writer": "NibabelIO"}, None, "2 axes, but nnU-Net reads 3 with NibabelIO"),
    ({"ending": ".nii"}, None, "2 axes, but nnU-Net reads 3 with NibabelIO"),
    ({"channel_names": {"0": "us", "1": "us"}}, None, "c0 has 1 channel(s), but channel_names 2"),
    ({"channels": 2}, at("imagesTr/c1_0001.nii.gz", Path.unlink), "c1 has 1 channel(s), but channel_names 2"),
    ({}, at("labelsTr/c1.nii.gz", Path.unlink), "1 case(s) of imagesTr without a label: c1"),
    ({}, at("imagesTr/c1_0000.nii.gz", lambda path: save(path, np.ones((3, 20, 24), np.uint8))), "have 3 axes"),
    (
        {},
        lambda folder: [
            save(folder / name, np.ones((3, 20, 24), np.uint8))
            for name in ("imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz")
        ],
        "1 case(s) have 3 axes, the others 2: c1. nnU-Net needs",
    ),
    ({}, at("imagesTr/c1_0000.nii.gz", lambda path: path.write_bytes(path.read_bytes()[:60])), "truncated or damaged"),
    (
        {"ending": ".png"},
        at("imagesTr/c1_0000.png", lambda path: path.write_bytes(path.read_bytes()[:200])),
        "imagesTr/c1_0000.png: cannot be read",
    ),
    (
        {"ending": ".nrrd"},
        at("imagesTr/c1_0000.nrrd", lambda path: path.write_bytes(path.read_bytes()[:-30])),
        "imagesTr/c1_0000.nrrd: SimpleITK cannot read it",
    ),
    (
        {"ending": ".mha"},
        at("imagesTr/c1_0000.mha", lambda path: path.write_bytes(path.read_bytes()[:-30])),
        "imagesTr/c1_0000.mha: truncated",
    ),
    (
        {"ending": ".png", "label": lambda mask: (mask > 0) * np.uint8(255)},
        None,
        "labelsTr/c0.png: label values 255 are not in dataset.json. 255 stands for 1?",
    ),
    ({"label": lambda mask: mask * np.uint8(2)}, None, "label values 4 are not in dataset.json"),
    ({"ending": ".png"}, at("labelsTr/c1.png", palette), "labelsTr/c1.png: nnU-Net sees 3 values a pixel"),
    ({"ending": ".png"}, at("imagesTr/c1_0000.png", palette), "c1 has 3 channel(s), but channel_names 1"),
    (
        {"ending": ".png"},
        at("imagesTr/c1_0000.png", lambda path: Image.open(path).convert("LA").save(path)),
        "its pixels are LA",
    ),
    ({}, at("labelsTr/c1.nii.gz", lambda path: save(path, np.ones((20, 25), np.uint8))), "labelsTr/c1.nii.gz: size"),
    ({}, at("labelsTr/c1.nii.gz", lambda path: spaced(path, (0.3, 0.30002))), "labelsTr/c1.nii.gz: spacing"),
]


@pytest.mark.parametrize(("fields", "damage", "message"), FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_where_nnunet_stops_check_says_why(
    fields: dict, damage: Callable[[Path], object] | None, message: str, nnunet_stops: Callable, tmp_path: Path
) -> None:
    folder = dataset(tmp_path / "Dataset001_X", **fields)
    if damage:
        damage(folder)
    assert nnunet_stops(folder)
    assert message in "\n".join(problems(folder))


def blank(*names: str) -> Callable[[Path], object]:
    return lambda folder: [save(folder / "imagesTr" / name, np.zeros((20, 24), np.uint8)) for name in names]


# It would train on nothing, or on something else.
UNSEEN: list[tuple[dict, Callable[[Path], object], str]] = [
    ({}, blank("c1_0000.nii.gz"), "imagesTr: c1: every pixel is 0; the image has no content"),
    ({"channels": 2}, blank("c1_0000.nii.gz", "c1_0001.nii.gz"), "imagesTr: c1: every pixel is 0"),
    ({"ending": ".png"}, blank("c1_0000.png"), "imagesTr: c1: every pixel is 0"),
    (
        {"ending": ".png"},
        at("labelsTr/c1.png", lambda path: Image.open(path).convert("RGB").save(path)),
        "labelsTr/c1.png: nnU-Net sees 3 values a pixel",
    ),
    ({"ending": ".png"}, at("labelsTr/c1.png", other_checksum), "labelsTr/c1.png: truncated or damaged PNG"),
    ({}, at("imagesTr/c1_0000.nii.gz", lambda path: save(path, np.full((20, 24), np.nan, np.float32))), "NaN"),
]


@pytest.mark.parametrize(("fields", "damage", "message"), UNSEEN, ids=[str(number) for number in range(len(UNSEEN))])
def test_what_nnunet_does_not_see_is_a_problem_too(
    fields: dict, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = dataset(tmp_path / "Dataset001_X", **fields)
    damage(folder)
    (found,) = problems(folder)
    assert message in found


def test_a_blank_channel_beside_another_is_none(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_X", channels=2)
    blank("c1_0001.nii.gz")(folder)
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0}, "nothing but the background"),
        ({"background": 0, "outer": 1, "inner": 2, "more": []}, "label more is []"),
        ({"background": 0, "outer": [1, [2]], "inner": 2}, "label outer is [1, [2]]"),
        ({"background": 0, "outer": 1e400, "inner": 2}, "label outer is Infinity"),
        ({"background": 0, "outer": -1, "inner": 1}, "labels [-1, 0, 1] must be consecutive"),
    ],
)
def test_labels_that_mean_nothing_are_named(labels: dict, message: str, tmp_path: Path) -> None:
    assert message in "\n".join(problems(dataset(tmp_path / "Dataset001_X", labels=labels)))


def test_regions_have_values_of_labels(tmp_path: Path) -> None:
    for number, order in enumerate(([1, 7], [1, "2"], [0, 1], "12")):
        folder = dataset(tmp_path / f"Dataset00{number}_X", labels=REGIONS, regions_class_order=order)
        assert "regions_class_order" in "\n".join(problems(folder))


def test_two_names_of_one_value_are_a_remark(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_X", labels={"background": 0, "outer": 1, "inner": 2, "core": 2})
    assert problems(folder) == []
    assert any("several labels have the value 2" in finding.text for finding in check_dataset(folder, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"file_ending": ".tif"},
        {"file_ending": ".gipl"},
        {"file_ending": ".PNG"},
        {"file_ending": ".mhd", "overwrite_image_reader_writer": "SimpleITKIO"},
        {"dataset": {"c0": {"images": ["a.png"], "label": "b.png"}}},
    ],
)
def test_what_check_does_not_read_gets_no_verdict(
    fields: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset(tmp_path / "Dataset001_X", **fields)
    assert main(["check", str(folder), "--workers", "1"]) == 2
    out, error = capsys.readouterr()
    assert "gives no verdict" in error and "eady for" not in out and "stumble" not in out


def test_a_spacing_that_no_echo_has_is_a_problem_and_pixels_have_none(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_X")
    for path in folder.glob("*/*.nii.gz"):
        spaced(path, (0.3e-3, 0.3e-3))
    assert "c0_0000.nii.gz: spacing 0.0003 x 0.0003 mm" in problems(folder)[0]
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "spacing_unit": "px"}))
    assert problems(folder) == []
