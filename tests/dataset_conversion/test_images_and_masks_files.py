"""Images and masks of one's own: every kind of file, spacing, colours, and files that are refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy import ndarray
from own_conversion import convert, load, save, written
from own_images import LABELS, heart
from PIL import Image

pytest_plugins = ("own_conversion",)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a_0000.png", "a.png"),
        ("a.png", "a_mask.png"),
        ("a_image.png", "a-label.png"),
        ("a.jpg", "a_gt.bmp"),
        ("a.tif", "a.tiff"),
        ("a.nii.gz", "a_seg.nii.gz"),
        ("a.mha", "a.png"),
        ("a.png", "a.nii.gz"),
        ("A.PNG", "A.png"),
        ("a_0000.png", "a_0000_mask.png"),
    ],
)
def test_names_are_paired_and_every_kind_is_read(pair: Callable[..., Path], image: str, mask: str) -> None:
    report = convert(pair(image_name=image, mask_name=mask))
    assert not report.refused and report.training_cases == 3
    case = next(path.name for path in (report.folder / "labelsTr").iterdir() if path.name[0] in "aA").split(".")[0]
    pixels, label, spacing = written(report, case)
    assert np.array_equal(label, heart(9)[1]) and spacing == (1, 1)
    assert np.abs(pixels.astype(int) - heart(9)[0]).mean() < (8 if image.endswith("jpg") else 1e-9)


def test_the_headers_spacing_is_taken_or_replaced_with_a_word(tmp_path: Path) -> None:
    for part, content in (("images", heart(9)[0]), ("masks", heart(9)[1])):
        (tmp_path / "own" / part).mkdir(parents=True)
        for name in ("a.nii.gz", "b.mhd"):
            save(tmp_path / "own" / part / name, content)
    report = convert(tmp_path / "own", spacing=())
    assert written(report, "a")[2] == written(report, "b")[2] == (0.5, 0.25)
    shutil.rmtree(report.folder)
    report = convert(tmp_path / "own", spacing=("0.3", "0.4"))
    np.testing.assert_allclose(written(report, "a")[2], (0.4, 0.3), rtol=1e-6)
    assert [note.kind for note in report.warnings].count("spacing replaced") == 2
    metres = sitk.GetImageFromArray(heart(9)[0])
    metres.SetSpacing((0.0003, 0.0003))
    for name in ("a.nii.gz", "c.nii.gz"):
        save(tmp_path / "own" / "images" / name, metres)
        shutil.copy(tmp_path / "own" / "masks" / "a.nii.gz", tmp_path / "own" / "masks" / "c.nii.gz")
    shutil.rmtree(report.folder)
    report = convert(tmp_path / "own", spacing=())
    assert report.unusable and all("pixels of an echo" in note.message for note in report.refused)


RED_GREEN_BLUE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
COLOURS = ("LV=#FF0000", "MYO=#00ff00", "LA=#0000ff")


def palette(mask: ndarray) -> Image.Image:
    image = Image.fromarray(mask, "P")
    image.putpalette(RED_GREEN_BLUE.ravel().tolist())
    return image


def test_masks_by_value_by_index_and_by_colour(pair: Callable[..., Path]) -> None:
    image, mask = heart(9)
    red = RED_GREEN_BLUE[mask]
    opaque = np.dstack([red, np.where(mask, 255, 0).astype(np.uint8)])
    opaque[mask == 0, :3] = 77  # whatever colour lies where nothing is seen
    for content, labels in (
        (palette(mask), LABELS),
        (np.dstack([mask] * 3), LABELS),
        (red, COLOURS),
        (opaque, COLOURS),
        (palette(mask), COLOURS),
        (mask * 85, ("LV=85", "MYO=170", "LA=255")),
    ):
        folder = pair(mask=content)
        if labels is not LABELS:
            for name in ("b.png", "c.png"):
                shutil.copy(folder / "masks" / "a.png", folder / "masks" / name)
        report = convert(folder, labels=labels)
        assert not report.refused, report.refused
        assert np.array_equal(written(report, "a")[1], mask)
        assert load(report.folder / "dataset.json")["labels"] == {"background": 0, "LV": 1, "MYO": 2, "LA": 3}
        shutil.rmtree(report.folder)
    white = np.uint8([255, 0])[(mask == 1).astype(int)]
    folder = pair(mask=white)
    for name in ("b.png", "c.png"):
        shutil.copy(folder / "masks" / "a.png", folder / "masks" / name)
    assert np.array_equal(written(convert(folder, labels=("background=255", "LV=0")), "a")[1], mask == 1)


def test_with_one_structure_255_stands_for_it(pair: Callable[..., Path]) -> None:
    mask = (heart(9)[1] == 1).astype(np.uint8)
    folder = pair(mask=mask * 255)
    for name, factor in (("b.png", 1), ("c.png", 254)):
        save(folder / "masks" / name, mask * np.uint8(factor))
    report = convert(folder, labels=("LV=1",))
    assert np.array_equal(written(report, "a")[1], mask) and np.array_equal(written(report, "b")[1], mask)
    assert ["unknown values 254" in note.message for note in report.refused] == [True]
    shutil.rmtree(report.folder)
    report = convert(folder, labels=("background=5", "LV=1"))  # then 0 is no background
    assert report.unusable and "unknown values 0, 255; --labels has 5, 1" in report.refused[0].message


def test_colours_of_an_image_become_grey_by_bt601(pair: Callable[..., Path]) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    report = convert(pair(image=colours))
    expected = np.rint(colours @ np.array([0.299, 0.587, 0.114]))
    assert np.array_equal(written(report, "a")[0], expected)


def frames_tiff(path: Path) -> None:
    first, *others = [Image.fromarray(heart(9, seed)[0]) for seed in range(3)]
    first.save(path, save_all=True, append_images=others)


def make(content: object) -> Callable[[Path], None]:
    return lambda path: save(path, content)


VOLUME = sitk.GetImageFromArray(np.stack([heart(9, seed)[0] for seed in range(3)]))
REFUSALS = [
    ("images", "a.avi", lambda path: path.write_bytes(b"RIFF"), "a video; images of single frames"),
    ("images", "a.tif", frames_tiff, "3 frames; one 2D image is needed"),
    ("images", "a.nii.gz", make(VOLUME), "one 2D frame was expected, not a sequence or volume"),
    ("images", "a.png", make(heart(9)[0].astype(np.uint16) * 200), "images must have 8 bits"),
    ("images", "a.png", make(b"no picture"), "cannot be read"),
    ("images", "a.png", make(heart(9, shape=(60, 48))[0]), "48 x 64 pixels (columns x rows), but its image"),
    ("images", "a.png", make(heart(9)[1]), "it is a mask, not an image"),
    ("masks", "a.jpg", make(heart(9)[1]), "JPEG changes values"),
    ("masks", "a.png", make(heart(9)[1] * 4), "unknown values 4, 8, 12; --labels has 0, 1, 2, 3"),
    ("masks", "a.png", make(RED_GREEN_BLUE[heart(9)[1]]), "its labels are colours, #000000, #0000ff, #00ff00, #ff0000"),
    ("masks", "a.png", make(heart(9)[1] * 0), "the mask is empty"),
    ("masks", "a_mask.png", make(heart(9)[1]), "could be its mask. Keep one."),
    ("masks", "d.png", make(heart(9)[1]), "masks/d.png: no image in images has its name"),
    ("images", "d.png", make(heart(9)[0]), "images/d.png: no file in masks has its name"),
    ("images", "a_0000.png", make(heart(9)[0]), "masks/a.png is the mask of"),
]


@pytest.mark.parametrize(("part", "name", "write", "message"), REFUSALS)
def test_what_cannot_be_used_is_refused_by_name_and_the_rest_converted(
    pair: Callable[..., Path], part: str, name: str, write: Callable[[Path], None], message: str
) -> None:
    folder = pair()
    if name in ("a.tif", "a.nii.gz", "a.jpg"):
        (folder / part / "a.png").unlink()
    write(folder / part / name)
    report = convert(folder)
    assert report.exit_code == 1 and any(message in note.message for note in report.refused), report.refused
    assert {"b.nii.gz", "c.nii.gz"} <= {path.name for path in (report.folder / "labelsTr").iterdir()}


def test_unknown_colours_are_named(pair: Callable[..., Path]) -> None:
    folder = pair()
    for name in ("a.png", "b.png", "c.png"):
        save(folder / "masks" / name, RED_GREEN_BLUE[heart(9)[1]])
    report = convert(folder, labels=("LV=#ff0000",))
    assert "unknown colours #0000ff, #00ff00; --labels has #000000, #ff0000" in report.refused[0].message
    save(folder / "masks" / "a.nii.gz", heart(9)[1])
    (folder / "masks" / "a.png").unlink()
    report = convert(folder, labels=COLOURS)
    assert "it has no colours" in report.refused[0].message and report.training_cases == 2


@pytest.mark.parametrize(("unit", "length", "known"), [(0, 1.0, False), (0, 0.5, True), (2, 1.0, True)])
def test_a_nifti_of_no_unit_and_pixels_of_1_has_no_spacing(
    pair: Callable[..., Path], unit: int, length: float, known: bool
) -> None:
    folder = pair()
    for name in ("a", "b", "c"):
        image = sitk.GetImageFromArray(heart(9)[0])
        image.SetSpacing((length, length))
        sitk.WriteImage(image, folder / "images" / f"{name}.nii")
        (folder / "images" / f"{name}.png").unlink()
        data = bytearray((folder / "images" / f"{name}.nii").read_bytes())
        data[123] = unit  # xyzt_units
        (folder / "images" / f"{name}.nii").write_bytes(data)
    if known:
        assert convert(folder, spacing=()).exit_code == 0
    else:
        refused = convert(folder, spacing=()).refused
        assert ["gives no spacing" in note.message for note in refused] == [True] * 3
        assert convert(folder, spacing=("0.3", "0.3")).exit_code == 0


def dicom(
    path: Path, *, frames: int = 1, region: bool = True, colours: str = "MONOCHROME2", tags: dict | None = None
) -> None:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.3"
    pixels = np.stack([heart(9)[0]] * frames)
    data.NumberOfFrames, data.SamplesPerPixel, data.PhotometricInterpretation = frames, 1, colours
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = *pixels.shape[1:], 8, 8, 7
    data.PixelRepresentation, data.PixelData = 0, pixels.tobytes()
    if region:
        area = pydicom.Dataset()
        area.RegionSpatialFormat, area.PhysicalUnitsXDirection, area.PhysicalUnitsYDirection = 1, 3, 3
        area.PhysicalDeltaX, area.PhysicalDeltaY = 0.04, 0.05
        data.SequenceOfUltrasoundRegions = [area]
    for keyword, value in (tags or {}).items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)


def test_dicom_of_one_frame(pair: Callable[..., Path]) -> None:
    folder = pair()
    for name in ("a", "b", "c"):
        (folder / "images" / f"{name}.png").unlink()
        dicom(folder / "images" / f"{name}.dcm", frames=1 + (name == "c"), region=True)
    report = convert(folder, spacing=())
    assert np.array_equal(written(report, "a")[0], heart(9)[0])
    np.testing.assert_allclose(written(report, "a")[2], (0.4, 0.5), rtol=1e-6)
    assert ["2 frames; one 2D image is needed" in note.message for note in report.refused] == [True]
    dicom(folder / "images" / "c.dcm", colours="MONOCHROME1")  # 0 is white
    assert np.array_equal(written(convert(folder, spacing=()), "c")[0], 255 - heart(9)[0])
    dicom(folder / "images" / "c.dcm", region=False)
    report = convert(folder, spacing=())
    assert ["its header gives no spacing" in note.message for note in report.refused] == [True]


def test_pydicom_quotes_nothing_of_a_file(
    pair: Callable[..., Path], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """It warns of values that the standard does not allow. This one is a spacing, and can be read."""
    folder = pair()
    with pydicom.config.disable_value_validation():
        for name in ("a", "b", "c"):
            (folder / "images" / f"{name}.png").unlink()
            dicom(folder / "images" / f"{name}.dcm", region=False, tags={"PixelSpacing": [f"0.4{'0' * 20}", "0.5"]})
    recwarn.clear()
    assert written(convert(folder, spacing=()), "a")[2] == pytest.approx((0.5, 0.4))
    assert not recwarn.list and not caplog.text
