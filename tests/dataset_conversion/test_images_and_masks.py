"""Images and masks of one's own: every kind of file, names and patients, colours, spacing, and refusals by name."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy import ndarray
from own_images import LABELS, PATIENTS, heart, write_own_images
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.data.cases import patient_of
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.findings import Report
from nnunet_echo.dataset_conversion.images_and_masks import ImagesAndMasks

NAME = "Dataset770_Images"
PX = ("px",)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return write_own_images(tmp_path / "own", patients=3)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Path]:
    """A folder with two images, whose first image or mask the test gives; the second is plain."""

    def make(image: object = None, mask: object = None, image_name: str = "a.png", mask_name: str = "a.png") -> Path:
        folder = tmp_path / "pair"
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for part, given, name, plain in (
            ("images", image, image_name, heart(9)[0]),
            ("masks", mask, mask_name, heart(9)[1]),
        ):
            save(folder / part / name, plain if given is None else given)
            save(folder / part / "b.png", plain)
            save(folder / part / "c.png", plain)
        return folder

    return make


def save(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, sitk.Image):
        sitk.WriteImage(content, str(path))
    elif isinstance(content, Image.Image):
        content.save(path)
    elif path.suffix in (".gz", ".nii", ".mhd", ".mha"):
        image = sitk.GetImageFromArray(content)
        image.SetSpacing((0.5, 0.25))
        sitk.WriteImage(image, str(path))
    else:
        Image.fromarray(content).save(path)


def convert(source: Path, **options: object) -> Report:
    options = {"labels": LABELS, "spacing": PX, **options}
    return ImagesAndMasks(**options).convert(source, raw=source.parent / "raw", workers=1)


def written(report: Report, case: str) -> tuple[ndarray, ndarray, tuple[float, ...]]:
    image, label = (
        sitk.ReadImage(str(report.folder / name))
        for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
    )
    assert image.GetSpacing() == label.GetSpacing()
    return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label), image.GetSpacing()


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_folder_of_png_becomes_a_dataset_with_folds_by_patient(own: Path) -> None:
    report = convert(own, patients=PATIENTS, spacing=("0.5", "0.25"))
    assert report.exit_code == 0 and (report.training_cases, report.patients) == (12, 3)
    assert [note.kind for note in report.warnings] == ["fewer folds"]
    image, label, spacing = written(report, "p02_4CH_ES")
    assert np.array_equal(image, np.asarray(Image.open(own / "images" / "p02_4CH_ES.png")))
    assert np.array_equal(label, np.asarray(Image.open(own / "masks" / "p02_4CH_ES.png")))
    np.testing.assert_allclose(spacing, (0.25, 0.5))  # x, y
    dataset = load(report.folder / "dataset.json")
    assert dataset["labels"] == {"background": 0, "LV": 1, "MYO": 2, "LA": 3} and "spacing_unit" not in dataset
    assert patient_of("p02_4CH_ES", dataset) == "p02"
    for fold in load(report.folder / "splits_final.json"):
        assert not {case[:3] for case in fold["train"]} & {case[:3] for case in fold["val"]} and len(fold["val"]) == 4
    with (report.folder / "cases.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["case"], row["view"], row["phase"], row["source"]) == (
        "p01_2CH_ED",
        "2CH",
        "ED",
        "images/p01_2CH_ED.png",
    )
    assert not check_dataset(report.folder, 1)


def test_the_same_again_changes_nothing_and_another_is_asked_for(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", "images", str(own), "--labels", *LABELS, "--spacing", "px", "--workers", "1"]
    assert main([*command, "--patients", PATIENTS]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "raw" / NAME).rglob("*") if path.is_file()}
    assert main([*command, "--patients", PATIENTS]) == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "raw" / NAME).rglob("*") if path.is_file()}
    assert "next: nnUNetv2_plan_and_preprocess -d 770 -c 2d" in capsys.readouterr().out
    assert main([*command, "--patients", r"(?P<patient>\d)_"]) == 2
    assert "patients was" in capsys.readouterr().err
    assert main([*command, "--patients", r"(?P<patient>p\d\d)", "--replace"]) == 0
    assert load(tmp_path / "raw" / NAME / "dataset.json")["spacing_unit"] == "px"


def test_without_patients_a_warning_says_what_that_means(own: Path) -> None:
    report = convert(own)
    assert report.patients == 12 and [note.kind for note in report.warnings] == ["no patients"]
    assert "folds have that person on both sides" in report.warnings[0].message


def test_a_table_tells_patients_views_phases_and_subsets(own: Path, tmp_path: Path) -> None:
    rows = [["image", "patient", "view", "phase", "subset"]]
    for path in sorted((own / "images").iterdir()):
        patient, view, phase = path.stem.split("_")
        rows.append(
            [
                path.name if patient == "p01" else path.stem,
                f"Mrs {patient[1:]}",
                view,
                phase.replace("ES", ""),
                {"p01": "train", "p02": "val", "p03": "test"}[patient],
            ]
        )
    table = tmp_path / "patients.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ["gone", "Mrs 01", "2CH", "", "train"]])
    report = convert(own, patients=str(table))
    assert (report.test_cases, report.folds) == (4, 2)
    assert "such as gone" in next(note.message for note in report.warnings if note.kind == "listed image absent")
    dataset = load(report.folder / "dataset.json")
    match = re.fullmatch(dataset["case_id_pattern"], "Mrs-01_4CH_ED_p01_4CH_ED")
    assert match.groupdict() == {"patient": "Mrs-01", "view": "4CH", "phase": "ED", "image": "p01_4CH_ED"}
    assert (report.folder / "imagesTs" / "Mrs-03_2CH__p03_2CH_ES_0000.nii.gz").is_file()
    assert str(tmp_path) not in (report.folder / "conversion_report.txt").read_text()
    moved = shutil.move(table, tmp_path / "elsewhere.csv")
    assert convert(own, patients=str(moved)).exit_code == 0  # the same options
    shutil.rmtree(report.folder)
    report = convert(own, patients=str(moved), split="table")
    (fold,) = load(report.folder / "splits_final.json")
    assert {case[:6] for case in fold["train"]} == {"Mrs-01"} and {case[:6] for case in fold["val"]} == {"Mrs-02"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,patient\na,\n", "line 2: image is 'a' and patient ''"),
        ("image,patient\na,x\na,y\n", "line 3: a is in the table already"),
        ("image,patient\na,x 1\nb,x-1\n", "line 3: patients 'x 1' and 'x-1' would both be called x-1"),
        ("image,patient,subset\na,x,train\nb,x,val\n", "line 3: x is in subset 'train' above and 'val' here"),
        ("image,patient,subset\na,x,learn\n", "line 2: subset is 'learn'; it must be train, val, test"),
        ("image,patient,frame\na,x,one\n", "line 2: frame is 'one'"),
        ("image,patient\n", "no rows"),
        ("image,person\na,x\n", "patient is not there"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(own: Path, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(reason)):
        convert(own, patients=str(tmp_path / "t.csv"))


def test_images_that_a_table_or_pattern_does_not_know_are_refused(own: Path, tmp_path: Path) -> None:
    report = convert(own, patients=r"(?P<patient>p0[12])")
    assert [note.kind for note in report.refused] == ["no patient"] * 4 and report.training_cases == 8
    (tmp_path / "t.csv").write_text(
        "image,patient\n" + "".join(f"{path.stem},{path.stem[:3]}\n" for path in (own / "images").glob("p0[12]*"))
    )
    shutil.copytree(own / "images", own / "images" / "again")
    shutil.copytree(own / "masks", own / "masks" / "again")
    shutil.rmtree(report.folder)
    with pytest.raises(ValueError, match="needs at least 2 patients"):  # each row fits two images
        convert(own, patients=str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": ()}, "--labels is missing"),
        ({"labels": ("LV",)}, "--labels LV: it must be NAME=VALUE"),
        ({"labels": ("LV=1", "MYO=1")}, "1 is there twice"),
        ({"labels": ("LV=1", "MYO=#00ff00")}, "values and colours side by side"),
        ({"labels": ("LV=0",)}, "that is the background's"),
        ({"labels": ("ignore=4", "LV=1")}, "partly labelled masks are not read"),
        ({"spacing": ()}, "has no spacing; give --spacing R C"),
        ({"spacing": ("1",)}, "two lengths in mm are needed"),
        ({"spacing": ("1", "one")}, "two lengths in mm are needed"),
        ({"spacing": ("1", "0")}, "must be a positive number"),
        ({"spacing": ("0.0003", "0.0003")}, "pixels of an echo are"),
        ({"patients": "(?P<patient"}, "neither a file nor a regular expression"),
        ({"patients": r"p\d+"}, "needs a group patient"),
        ({"patients": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"images": "../elsewhere"}, "--images ../elsewhere: it must lie inside"),
        ({"split": "table"}, "needs --patients TABLE with a column subset"),
    ],
)
def test_bad_options_are_answered_in_words(own: Path, options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        convert(own, **options)


def test_folders_are_guessed_or_named(own: Path) -> None:
    (own / "masks").rename(own / "Labels")
    assert convert(own).training_cases == 12
    (own / "gt").mkdir()
    with pytest.raises(ValueError, match="has Labels and gt; choose one with --masks"):
        convert(own)
    (own / "Labels").rename(own / "by hand")
    (own / "gt").rmdir()
    with pytest.raises(FileNotFoundError, match="no folder called masks, .* or labelstr, but by hand, images; name it"):
        convert(own)
    shutil.rmtree(own.parent / "raw")
    assert convert(own, masks="by hand").training_cases == 12
    with pytest.raises(FileNotFoundError, match="--masks nowhere: .* is not there"):
        convert(own, masks="nowhere")


def test_one_folder_may_hold_both_by_suffix_and_have_folders_of_patients(own: Path) -> None:
    for path in sorted((own / "masks").iterdir()):
        patient, rest = path.stem.split("_", 1)
        (own / "both" / patient).mkdir(parents=True, exist_ok=True)
        path.rename(own / "both" / patient / f"{rest}_GT.png")
        (own / "images" / path.name).rename(own / "both" / patient / f"{rest}.png")
    report = convert(own, images="both", masks="both", patients=PATIENTS)
    assert report.exit_code == 0 and report.training_cases == 12
    assert (report.folder / "labelsTr" / "p01_2CH_ED.nii.gz").is_file()


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
    ("masks", "a_mask.png", make(heart(9)[1]), "could be its mask; keep one"),
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


def test_names_become_safe_and_collisions_are_refused(pair: Callable[..., Path]) -> None:
    folder = pair()
    for name in ("a b.png", "a.b.png", "Ünal 3.png", "B.png"):
        for part in ("images", "masks"):
            shutil.copy(folder / part / "a.png", folder / part / name)
    (folder / "images" / "notes.txt").touch()
    report = convert(folder)
    assert {note.kind for note in report.refused} == {"name twice"}
    assert [note.subject for note in report.refused] == ["B", "a-b", "a-b", "b"]  # B and b: one file on a Mac
    assert (report.folder / "labelsTr" / "-nal-3.nii.gz").is_file()
    assert ("not taken", "images/notes.txt") in [(note.kind, note.subject) for note in report.warnings]


def dicom(path: Path, *, frames: int = 1, region: bool = True, colours: str = "MONOCHROME2") -> None:
    pydicom = pytest.importorskip("pydicom")
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


def test_without_pydicom_the_refusal_says_so(pair: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pair()
    (folder / "images" / "a.png").rename(folder / "images" / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install pydicom" in convert(folder).refused[0].message


def test_masks_may_lie_in_a_folder_among_the_images(own: Path) -> None:
    for path in (own / "images").iterdir():
        path.rename(own / path.name)
    (own / "images").rmdir()
    report = convert(own, images=".")
    assert report.exit_code == 0 and report.training_cases == 12
    assert (report.folder / "labelsTr" / "p01_2CH_ED.nii.gz").is_file()
