"""`nnunet-echo cine`: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cine_models import dataset_json, pixels, plans, write_model
from cine_results import drawn, drawn_dicom, drawn_result
from clip_files import phantom_frames, write_folder, write_gif, write_volume

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips import ClipError
from nnunet_echo.cine.result import CineResult
from nnunet_echo.cli.main import main
from nnunet_echo.phantom.dicom import PATIENT, write_dicom_cine

SECRET = "Zzyzx_Quillon"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the command measure these results, by name of the clip's file, without a network."""

    def give(**results: CineResult) -> None:
        def measure(model: object, paths: list[Path], **options: object) -> CineResult:
            if Path(paths[0]).stem not in results:
                raise ClipError(Path(paths[0]).name, "it is not a clip that can be read", "Give one")
            return results[Path(paths[0]).stem]

        monkeypatch.setattr("nnunet_echo.cine.study.measure_study", measure)
        monkeypatch.setattr("nnunet_echo.cli.cine.load_model", lambda args: _NoModel())

    return give


class _NoModel:
    def stream(self, clip: object, **options: object) -> None:
        pass


def small_loop(path: Path, frames: int = 3) -> Path:
    write_dicom_cine(path, drawn()[1][:frames], spacing_mm=(2.0, 2.0), frame_time_ms=1000 / 30)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_clip_by_a_network(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    loop = small_loop(tmp_path / f"{SECRET}.dcm")
    out = tmp_path / "out"
    command = ["cine", "-i", str(loop), "-o", str(out), "-m", str(model), "-f", "0", "--view", "4CH", "--save", "masks"]
    assert main([*command, "report"]) == 1
    assert names(out) == ["frames.csv", "masks.nii.gz", "report.html", "result.json"]
    content = json.loads((out / "result.json").read_text())
    assert content["exit_code"] == 1 and content["clips"][0]["view"] == "4CH" and len(content["model"]["hash"]) == 64
    printed = capfd.readouterr()
    assert (
        "4CH: 3 frames, 30 a second (FrameTime), 2 x 2 mm a pixel (ultrasound region); no complete beat" in printed.out
    )
    assert (
        f"refused, {content['refusals'][0]['name']}: {content['refusals'][0]['text']} (Ejection fraction; "
        in printed.out
    )
    assert f"{out}: frames.csv, masks.nii.gz, report.html, result.json\n" in printed.out
    assert printed.out.endswith("Research use, not a medical device.\n")
    for file in out.iterdir():
        assert SECRET.encode() not in file.read_bytes()
    assert not [value for value in PATIENT.values() if value in printed.out + printed.err]


def test_numbers_are_printed_with_units_and_flags(
    measured: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    result = drawn_result()
    measured(loop=result)
    command = ["cine", "-i", str(tmp_path / "loop.dcm"), "-o", str(tmp_path / "out"), "-m", "x", "--save", "masks"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"  Ejection fraction                {result.numbers['ef_percent']:.0f} %" in printed
    assert f"  Left atrium, largest area        {result.numbers['la_area_mm2']:.0f} mm²" in printed
    beats = len(result.loops[0].beats)
    assert printed[0].endswith(f"; {beats} of {beats} complete beats measured")
    assert [line for line in printed if line.startswith("  flag, ")] == [
        f"  flag, {flag.name}: {flag.text}" for flag in result.flags
    ]
    assert names(tmp_path / "out") == ["beats.csv", "frames.csv", "masks.nii.gz", "result.json"]


def test_extremes_are_not_said_to_be_a_beat(
    measured: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    measured(loop=drawn_result(fps=None))
    command = ["cine", "-i", str(tmp_path / "loop.dcm"), "-o", str(tmp_path / "out"), "-m", "x", "--save", "masks"]
    assert main(command) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("; no complete beat, ED and ES are the largest and the smallest frame")


def test_what_is_saved_by_default(measured: Callable[..., None], tmp_path: Path) -> None:
    measured(loop=drawn_result())
    assert main(["cine", "-i", str(tmp_path / "loop.dcm"), "-o", str(tmp_path / "out"), "-m", "x"]) == 0
    assert [name for name in names(tmp_path / "out") if not name.startswith("overlay.")] == [
        "beats.csv",
        "frames.csv",
        "masks.nii.gz",
        "report.html",
        "result.json",
    ]
    assert len(names(tmp_path / "out")) == 6


def test_sr_and_seg_refer_to_the_clip(
    measured: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("highdicom")
    loop = drawn_dicom(tmp_path / "loop.dcm")
    measured(loop=drawn_result())
    command = ["cine", "-i", str(loop), "-m", "x", "--save", "sr", "seg", "-o"]
    assert main([*command, str(tmp_path / "out")]) == 0
    for name in ("sr.dcm", "seg.dcm"):
        assert pydicom.dcmread(tmp_path / "out" / name).StudyInstanceUID == PATIENT["StudyInstanceUID"]
    capsys.readouterr()
    [one] = drawn_result().loops
    still = analyse(one.clip, [np.zeros(one.clip.shape, np.uint8)] * one.clip.count, {"LV": 1}, sector=one.sector)
    measured(loop=still)
    assert main([*command, str(tmp_path / "none")]) == 1
    assert "sr.dcm: left out, since a structured report needs a number" in capsys.readouterr().out
    assert names(tmp_path / "none") == ["frames.csv", "result.json", "seg.dcm"]


def test_a_folder_of_clips(measured: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in (f"{SECRET}10.dcm", f"{SECRET}9.dcm", f"{SECRET}20.dcm", ".hidden"):
        (clips / name).touch()
    measured(**{f"{SECRET}9": drawn_result(), f"{SECRET}20": drawn_result(spacing=None)})
    out = tmp_path / "out"
    assert main(["cine", "-i", str(clips), "-o", str(out), "-m", "x", "--save", "masks"]) == 1
    printed = capsys.readouterr().out
    for number, file in ((1, f"{SECRET}9"), (2, f"{SECRET}10"), (3, f"{SECRET}20")):
        assert f"clip_00{number}  '{file}.dcm'\n" in printed
    assert f"not measured: {SECRET}10.dcm: it is not a clip that can be read. Give one." in printed
    assert f"2 of 3 clips measured: {out / 'summary.csv'}" in printed
    assert names(out) == ["clip_001", "clip_003", "summary.csv"]
    first, second, third = rows(out / "summary.csv")
    assert (first["clip"], first["measured"], first["refusals"]) == ("clip_001", "yes", "")
    assert float(first["ef_percent"]) == pytest.approx(drawn_result().numbers["ef_percent"], rel=1e-5)
    assert int(first["beats"]) == len(drawn_result().loops[0].beats) > 0 and int(first["frames"]) == 96
    assert set(second.values()) == {"clip_002", "no", ""}
    assert third["refusals"] == "no_scale" and third["edv_ml"] == "" and float(third["ef_percent"]) > 0
    assert not [path for path in out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_folder_of_which_all_is_well_and_one_of_nothing(
    measured: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.dcm").touch()
    measured(a=drawn_result())
    assert main(["cine", "-i", str(clips), "-o", str(tmp_path / "out"), "-m", "x", "--save", "masks"]) == 0
    (clips / "b.dcm").touch()  # cannot be read, while nothing of the other is refused
    assert main(["cine", "-i", str(clips), "-o", str(tmp_path / "some"), "-m", "x", "--save", "masks"]) == 1
    measured()
    assert main(["cine", "-i", str(clips), "-o", str(tmp_path / "none"), "-m", "x"]) == 2
    assert "none of its 2 files could be measured" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_is_one_clip_and_what_many(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_folder(tmp_path / "pictures", phantom_frames(2))
    command = ["cine", "-m", str(model), "--save", "masks", "--spacing", "1.5", "1.5", "-i"]
    assert main([*command, str(tmp_path / "pictures"), "-o", str(tmp_path / "one")]) == 1
    assert "Clip: 2 frames, frame rate not known, 1.5 x 1.5 mm a pixel (by the user)" in capsys.readouterr().out
    assert "masks.nii.gz" in names(tmp_path / "one")
    many = tmp_path / "many"
    many.mkdir()
    (tmp_path / "pictures").rename(many / "pictures")
    write_volume(many / "loop.mhd", phantom_frames(2))
    write_gif(many / "loop.gif", phantom_frames(2))
    assert main([*command, str(many), "-o", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == ["clip_001", "clip_002", "clip_003", "summary.csv"]
    first, *others = (pixels(tmp_path / "out" / f"clip_00{n}" / "masks.nii.gz") for n in (1, 2, 3))
    assert all((first == other).all() for other in others) and len(np.unique(first)) > 1
    assert (many / "loop.raw").exists()


def test_what_is_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("nnunet_echo.cli.cine.load_model", lambda args: pytest.fail("loaded"))
    loop, out = small_loop(tmp_path / "loop.dcm"), tmp_path / "out"

    def error_of(*clips: Path, options: tuple[str, ...] = ()) -> str:
        assert main(["cine", "-i", *map(str, clips), "-o", str(out), "-m", "x", *options]) == 2
        return capsys.readouterr().err

    assert "3 clips; a study is one or two" in error_of(loop, loop, loop)
    assert "two clips are two views. Name both" in error_of(loop, tmp_path / "other.dcm", options=("--view", "4CH"))
    assert "loop.dcm: has the same content as" in error_of(loop, loop, options=("--view", "4CH", "2CH"))
    assert "Name one view that all have" in error_of(tmp_path, options=("--view", "4CH", "2CH"))
    assert "no DICOM" not in error_of(tmp_path / "none.dcm", options=("--save", "seg"))
    write_gif(tmp_path / "loop.gif", phantom_frames(2))
    assert "loop.gif: is no DICOM file" in error_of(tmp_path / "loop.gif", options=("--save", "sr"))
    out.mkdir()
    (out / "mine.txt").touch()
    assert "is there already and not empty" in error_of(loop)
    assert names(out) == ["mine.txt"]
    for bad in (
        ("--spacing", "0", "1"),
        ("--spacing", "nan", "1"),
        ("--fps", "-3"),
        ("--fps", "inf"),
        ("--view", "5CH"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["cine", "-i", str(loop), "-o", str(out), "-m", "x", *bad])
        assert left.value.code == 2


def test_models_that_take_no_frames(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Even of a folder, of which clips that fail are left out otherwise."""
    clips = tmp_path / "clips"
    clips.mkdir()
    small_loop(clips / "loop.dcm")
    two = plans(normalization_schemes=["ZScoreNormalization"] * 2, use_mask_for_norm=[False] * 2)
    channels = write_model(tmp_path / "channels", content=two, dataset=dataset_json(channels=2))
    regions = write_model(tmp_path / "regions", dataset=dataset_json(regions=True))
    for model, options, error in (
        (channels, (), "the model takes 2 channels, but frames of a clip are grey"),
        (regions, ("--smooth",), "the model predicts regions that overlap"),
    ):
        assert main(["cine", "-i", str(clips), "-o", str(tmp_path / "out"), "-m", str(model), *options]) == 2
        assert f"nnunet-echo cine: error: {error}" in capsys.readouterr().err.replace("probabilities=True: ", "")
    assert not (tmp_path / "out").exists()


def test_options_reach_the_clip_and_the_smoothing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    loop = small_loop(tmp_path / "loop.dcm")
    options = ["--fps", "50", "--spacing", "1.5", "1.2", "--smooth", "--region", "1", "--save", "masks"]
    assert main(["cine", "-i", str(loop), "-o", str(tmp_path / "out"), "-m", str(model), *options]) == 1
    printed = capsys.readouterr().out
    assert "3 frames, 50 a second (by the user), 1.5 x 1.2 mm a pixel (by the user)" in printed
    assert "flag, smoothed" in printed
    assert main(["cine", "-i", str(loop), "-o", str(tmp_path / "b"), "-m", str(model), "--region", "2"]) == 2
    assert "region" in capsys.readouterr().err
