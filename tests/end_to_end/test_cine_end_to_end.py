"""`nnunet-echo cine` from files to results with a network that has learned what a heart looks like.

All are slow: the network is trained here, on phantom hearts.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from beating import a_heart
from cine_models import pixels
from clip_files import real_file, write_avi, write_folder, write_gif, write_mp4, write_volume
from conftest import shared
from numpy import ndarray
from PIL import Image
from trained_phantom import BPM, FPS, SPACING_MM, beating_loop

from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.clips.sector import find_sector
from nnunet_echo.cli.main import main
from nnunet_echo.phantom.dicom import PATIENT, write_dicom_cine

pytestmark = pytest.mark.slow
pytest_plugins = ("trained_phantom",)

SPACING = (SPACING_MM, SPACING_MM)
SIDES = ("--spacing", str(SPACING_MM), str(SPACING_MM), "--fps", str(FPS))


def cine(model: Path, out: Path, *clips: Path, options: tuple[str, ...] = ()) -> tuple[int, dict]:
    status = main(["cine", "-i", *map(str, clips), "-o", str(out), "-m", str(model), "-f", "0", *options])
    return status, json.loads((out / "result.json").read_text()) if (out / "result.json").exists() else {}


def column(path: Path, name: str) -> ndarray:
    with path.open(newline="") as file:
        return np.array([float(row[name] or "nan") for row in csv.DictReader(file)])


def write_dicom(path: Path, syntax: str = "explicit", frames: ndarray | None = None) -> Path:
    frames = beating_loop()[0] if frames is None else frames
    write_dicom_cine(path, frames, spacing_mm=SPACING, frame_time_ms=1000 / FPS, syntax=syntax)
    return path


@pytest.fixture(scope="module")
def plain(phantom_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks and the table of the uncompressed DICOM loop."""
    folder = tmp_path_factory.mktemp("plain")
    status, _ = cine(phantom_model, folder / "out", write_dicom(folder / "loop.dcm"), options=("--save", "masks"))
    assert status == 0
    return folder / "out"


def test_a_phantom_loop(phantom_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Beats, rate, volumes; and no word of the patient anywhere."""
    loop, out = write_dicom(tmp_path / "Zzyzx_Quillon.dcm"), tmp_path / "out"
    status, result = cine(phantom_model, out, loop, options=("--view", "4CH"))
    assert status == 0 and result["refusals"] == []
    masks, truth = pixels(out / "masks.nii.gz"), beating_loop()[1]
    for value in (1, 2, 3):
        a, b = masks == value, truth == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85
    numbers = result["numbers"]
    assert numbers["heart_rate"] == pytest.approx(BPM, abs=3)
    assert numbers["ef_percent"] == pytest.approx(a_heart(5).ef_percent, abs=15)
    assert 0 < numbers["esv_ml"] < numbers["edv_ml"] < 150
    es = column(out / "beats.csv", "es_s")
    assert abs(np.diff(es) - 60 / BPM).max() <= 1.5 / FPS
    printed = capfd.readouterr()
    told = [printed.out.encode().replace(str(out).encode(), b""), printed.err.encode()]
    told += [path.read_bytes() for path in out.iterdir()]
    words = [*PATIENT.values(), *re.split(r"[\^ ]", PATIENT["PatientName"]), loop.name]
    assert not [word for word in words for text in told if word.encode() in text]


@pytest.mark.parametrize("kind", ["rle", "jpeg-ls", "jpeg 2000", "implicit", "deflated"])
def test_lossless_dicom_gives_the_same_masks(kind: str, phantom_model: Path, plain: Path, tmp_path: Path) -> None:
    if kind == "jpeg-ls":
        pytest.importorskip("gdcm")
    loop = write_dicom(tmp_path / "loop.dcm", kind)
    cine(phantom_model, tmp_path / "out", loop, options=("--save", "masks"))
    assert (tmp_path / "out" / "masks.nii.gz").read_bytes() == (plain / "masks.nii.gz").read_bytes()


@pytest.mark.parametrize("kind", ["loop.nii.gz", "loop.mhd", "loop.gif", "pictures"])
def test_other_files_give_the_same_masks(kind: str, phantom_model: Path, plain: Path, tmp_path: Path) -> None:
    frames, path = beating_loop()[0], tmp_path / kind
    if kind == "pictures":
        write_folder(path, frames)
    elif kind == "loop.gif":
        write_gif(path, frames)
    else:
        write_volume(path, frames, SPACING)
    cine(phantom_model, tmp_path / "out", path, options=("--save", "masks", *SIDES))
    assert (tmp_path / "out" / "masks.nii.gz").read_bytes() != b""
    assert (pixels(tmp_path / "out" / "masks.nii.gz") == pixels(plain / "masks.nii.gz")).all()


@pytest.mark.parametrize("kind", ["loop.mp4", "loop.avi", "jpeg.dcm"])
def test_lossy_files_give_nearly_the_same_curve(kind: str, phantom_model: Path, plain: Path, tmp_path: Path) -> None:
    """Within 1 % in the mean over the frames. One frame's outline may move by a pixel where the network hesitates."""
    frames, path = beating_loop()[0], tmp_path / kind
    if kind == "loop.mp4":
        pytest.importorskip("av")
        write_mp4(path, frames, fps=FPS)
    elif kind == "loop.avi":
        write_avi(path, frames, FPS)
    else:
        write_dicom(path, "jpeg")
    cine(phantom_model, tmp_path / "out", path, options=("--save", "masks", *SIDES))
    areas = [column(folder / "frames.csv", "lv_area_mm2") for folder in (tmp_path / "out", plain)]
    assert np.mean(abs(areas[0] - areas[1]) / areas[1]) <= 0.01
    assert np.mean(areas[0]) == pytest.approx(np.mean(areas[1]), rel=0.01)


def test_no_scale_gives_an_ef_and_no_volume(phantom_model: Path, tmp_path: Path) -> None:
    write_gif(tmp_path / "loop.gif", beating_loop()[0], duration_ms=40)
    status, result = cine(phantom_model, tmp_path / "out", tmp_path / "loop.gif", options=("--save", "masks"))
    assert status == 1
    assert result["numbers"]["ef_percent"] > 10 and result["numbers"]["edv_ml"] is None
    assert [refusal["name"] for refusal in result["refusals"]] == ["scale_missing"]


def test_smoothing_stands_beside(phantom_model: Path, tmp_path: Path) -> None:
    loop = write_dicom(tmp_path / "loop.dcm")
    status, result = cine(phantom_model, tmp_path / "out", loop, options=("--smooth", "--save", "masks"))
    numbers = result["numbers"]
    assert status == 0 and numbers["ef_percent"] == pytest.approx(numbers["ef_percent_unsmoothed"], abs=2)
    smooth, plain = (column(tmp_path / "out" / "frames.csv", f"lv_area_mm2{end}") for end in ("", "_unsmoothed"))
    assert np.std(np.diff(smooth, 2)) < np.std(np.diff(plain, 2))


def test_two_views_of_one_heart(phantom_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    loops = [write_dicom(tmp_path / f"{view}.dcm", frames=beating_loop(view, seed=8)[0]) for view in ("4CH", "2CH")]
    _, result = cine(phantom_model, tmp_path / "out", *loops, options=("--view", "4CH", "2CH"))
    assert [clip["view"] for clip in result["clips"]] == ["4CH", "2CH"]
    assert {"masks_4CH.nii.gz", "masks_2CH.nii.gz", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    biplane = result["numbers"]["ef_percent_biplane"]
    refused = {number: refusal["name"] for refusal in result["refusals"] for number in refusal["numbers"]}
    assert (biplane is None) == refused.get("ef_percent_biplane", "").startswith("biplane_")
    assert biplane is None or biplane == pytest.approx(a_heart(8).ef_percent, abs=15)


def test_a_real_loop(phantom_model: Path, tmp_path: Path) -> None:
    """Apical four-chamber, 120 frames. What is asked is that it goes through, and that the screen's text is gone."""
    clip = real_file("color3d_jpeg_baseline.dcm")
    out = tmp_path / "out"
    status, result = cine(phantom_model, out, clip, options=("--view", "4CH"))
    assert status in (0, 1)
    assert result["clips"][0]["frames"] == 120 and result["clips"][0]["time_source"] == "FrameTime"
    assert result["clips"][0]["spacing_mm"] == pytest.approx([0.5105, 0.5105], abs=1e-3)
    reasons = {number: refusal["text"] for refusal in result["refusals"] for number in refusal["numbers"]}
    for number, value in result["numbers"].items():
        assert (value is None) == bool(reasons.get(number))
    masks = pixels(out / "masks.nii.gz")
    assert masks.shape == (120, 480, 640) and len(np.unique(masks)) > 1
    read = read_clip(clip)
    sector, frame = find_sector(read), next(read.frames())
    assert (frame[~sector] > 100).sum() > 500  # there is text
    assert (out / "report.html").stat().st_size < 5e6
    film = out / "overlay.mp4"
    if film.exists():
        import av

        with av.open(str(film)) as container:
            shown = next(container.decode(video=0)).to_ndarray(format="gray")
            assert not [value for value in container.metadata.values() if "SonoSite" in value]
        beside = np.asarray(Image.fromarray(~sector).resize(shown.shape[::-1], Image.Resampling.NEAREST))
        assert (shown[beside] > 100).mean() < 0.01 < (frame[~sector] > 100).mean()  # but outlines that touch the rim


def test_a_loop_whose_scale_cannot_be_trusted(phantom_model: Path, tmp_path: Path) -> None:
    status, result = cine(phantom_model, tmp_path / "out", real_file("examples_ybr_color.dcm"))
    assert status == 1 and result["clips"][0]["spacing_mm"] is None
    assert "scale_outside_image" in {flag["name"] for flag in result["flags"]}
    assert result["numbers"]["edv_ml"] is None and result["numbers"]["esv_ml"] is None


def test_single_frames_of_patients(phantom_model: Path, tmp_path: Path) -> None:
    """Masks, no EF, and the reason."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for patient in sorted(shared("data", "camus_4ch", "database_nifti").iterdir())[:3]:
        file = next(patient.glob("*_4CH_ED.nii.gz"))
        (clips / file.name).symlink_to(file)
    status, _ = cine(phantom_model, tmp_path / "out", clips, options=("--save", "masks"))
    assert status == 1
    for number, file in enumerate(sorted(clips.iterdir()), 1):
        out = tmp_path / "out" / f"clip_{number:03d}"
        result = json.loads((out / "result.json").read_text())
        assert {refusal["name"] for refusal in result["refusals"]} == {"one_frame"}
        assert set(result["numbers"].values()) == {None}
        image = sitk.ReadImage(str(file))
        assert pixels(out / "masks.nii.gz").shape == (1, *image.GetSize()[::-1])
        assert sitk.ReadImage(str(out / "masks.nii.gz")).GetSpacing()[:2] == pytest.approx(image.GetSpacing(), rel=1e-5)


def test_every_command_of_the_page(phantom_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of docs/how-to/cine.md, each in what those before it left."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "cine.md").read_text()
    commands = re.findall(r"^    nnunet-echo (.*)$", page, re.MULTILINE)
    assert len(commands) == 8
    monkeypatch.chdir(tmp_path)
    frames = beating_loop()[0]
    for name in ("loop.dcm", "a4c.dcm"):
        write_dicom(Path(name), frames=frames[:40])
    write_dicom(Path("a2c.dcm"), frames=beating_loop("2CH", seed=8)[0][:40])
    write_mp4(Path("loop.mp4"), frames[:40], fps=FPS)
    Path("clips").mkdir()
    write_dicom(Path("clips", "one.dcm"), frames=frames[:6])
    Path("clips", "notes.txt").write_text("no clip")
    for command in commands:
        words = [{"MODEL": str(phantom_model)}.get(word, word) for word in command.split()]
        assert main(words) in (0, 1), command
        assert Path(words[words.index("-o") + 1]).exists()
    assert {"sr.dcm", "seg.dcm"} <= {path.name for path in Path("dicom").iterdir()}
    assert json.loads(Path("from_file", "result.json").read_text())["numbers"] == pytest.approx(
        json.loads(Path("result", "result.json").read_text())["numbers"], rel=1e-2
    )
