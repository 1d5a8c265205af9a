"""What is no clip, or not all of one: refused with the file, the rule and a remedy, and without a word of a patient."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from clip_files import (
    coloured,
    phantom_frames,
    real_file,
    write_avi,
    write_clip,
    write_dicom_cine,
    write_folder,
    write_gif,
    write_mp4,
    write_volume,
)
from PIL import Image

from nnunet_echo.cine.clips import ClipError, read, read_clip, video
from nnunet_echo.phantom.dicom import PATIENT

FRAMES = phantom_frames(4)


def text(path: Path) -> None:
    path.write_text("patient,age\n")


def cut_dicom(share: float, syntax: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        write_dicom_cine(path, FRAMES, syntax=syntax)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return write


def cut(write: Callable[..., None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        write(path, FRAMES)
        path.write_bytes(path.read_bytes()[:-200])

    return apply


def tagged(**tags: object) -> Callable[[Path], None]:
    return lambda path: write_dicom_cine(path, FRAMES, tags=tags)


def fewer_fragments(path: Path) -> None:
    data = [b"\xff\xd8" + bytes(50)] * 3
    write_dicom_cine(path, FRAMES, syntax="1.2.840.10008.1.2.4.50", encoded=data)


def mixed_folder(path: Path) -> None:
    write_folder(path, FRAMES)
    text(path / "notes.txt")


def two_sizes(path: Path) -> None:
    write_folder(path, FRAMES)
    Image.fromarray(FRAMES[0][:-2]).save(path / "frame_3.png")


def see_through(path: Path) -> None:
    write_folder(path, np.dstack([*[FRAMES[0]] * 3, np.full_like(FRAMES[0], 200)])[None])


def damaged_picture(path: Path) -> None:
    write_folder(path, FRAMES)
    (path / "frame_2.png").write_bytes((path / "frame_2.png").read_bytes()[:-40])


def volume(path: Path) -> None:
    write_volume(path, FRAMES[:, :60, :60])
    sitk.WriteImage(sitk.JoinSeries(*[sitk.ReadImage(str(path))] * 2), str(path))


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("a.dcm", lambda path: path.write_bytes(b""), "empty"),
    "text": ("a.txt", text, "not a clip"),
    "text as DICOM": ("a.dcm", text, "not a clip"),
    "text as video": ("a.mp4", text, "damaged"),
    "text as AVI": ("a.avi", text, "not an AVI|truncated"),
    "text as NIfTI": ("a.nii.gz", text, "NIfTI"),
    "a pipe": ("a.dcm", os.mkfifo, "not a file"),
    "an empty folder": ("folder", Path.mkdir, "nothing"),
    "a folder of several kinds": ("folder", mixed_folder, "the folder holds notes.txt beside"),
    "a folder of several sizes": ("folder", two_sizes, "picture 3"),
    "transparent pictures": ("folder", see_through, "transparent"),
    "a picture cut off": ("folder", damaged_picture, "picture 2"),
    "a DICOM header cut off": ("a.dcm", cut_dicom(0.01, "explicit"), "no pixels|header|pixels"),
    "uncompressed pixels cut off": ("a.dcm", cut_dicom(0.6, "explicit"), "within frame 3 of 4"),
    "JPEG cut off": ("a.dcm", cut_dicom(0.6, "jpeg"), "ends within item 3"),
    "RLE cut off": ("a.dcm", cut_dicom(0.95, "rle"), "ends within item 4"),
    "deflated cut off": ("a.dcm", cut_dicom(0.9, "deflated"), "deflated"),
    "AVI cut off": ("a.avi", cut(write_avi), "truncated"),
    "MP4 cut off": ("a.mp4", cut(write_mp4), "cut off"),
    "GIF cut off": ("a.gif", cut(write_gif), "frame 4|after frame"),
    "NIfTI cut off": ("a.nii.gz", cut(write_volume), "truncated"),
    "fewer fragments than frames": ("a.dcm", fewer_fragments, "3 frames are stored where 4"),
    "more frames announced": ("a.dcm", tagged(NumberOfFrames=5), "announced"),
    "fewer frames announced": ("a.dcm", tagged(NumberOfFrames=3), "announced"),
    "more frames than bytes": ("a.dcm", tagged(NumberOfFrames=2_000_000_000), "2000000000 frames, in"),
    "no frames announced": ("a.dcm", tagged(NumberOfFrames=0), "NumberOfFrames"),
    "no rows": ("a.dcm", tagged(Rows=None), "does not describe"),
    "huge frames": ("a.dcm", tagged(Rows=65535, Columns=65535), "65535 x 65535"),
    "another kind of pixels": ("a.dcm", tagged(PhotometricInterpretation="HSV"), "unknown kind"),
    "signed pixels": ("a.dcm", tagged(PixelRepresentation=1), "signed"),
    "odd bits": ("a.dcm", tagged(HighBit=6), "bits"),
    "no pixels": ("a.dcm", tagged(PixelData=None), "no pixels"),
    "a 3D volume": ("a.dcm", tagged(SOPClassUID="1.2.840.10008.5.1.4.1.1.6.2"), "3D volume"),
    "a volume in time": ("a.nii.gz", volume, "sequence of 2D frames"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(tmp_path: Path, case: str) -> None:
    name, write, said = BAD[case]
    write(tmp_path / name)
    with pytest.raises(ClipError, match=said) as caught:
        read_clip(tmp_path / name)
    error = caught.value
    assert error.file == name and str(tmp_path) not in str(error)
    assert error.rule and error.remedy and "None" not in str(error)
    assert not any(value in str(error) for value in PATIENT.values())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_clip(tmp_path / "a.dcm")


def test_fewer_frames_than_a_reader_announces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.gif", FRAMES)
    announced = replace(read_clip(tmp_path / "a.gif"), count=len(FRAMES) + 1, times_s=None, time_source="none")
    monkeypatch.setattr(read, "_read", lambda *_: announced)
    with pytest.raises(ClipError, match=r"a\.gif: 4 frames can be decoded where 5 are announced"):
        read_clip(tmp_path / "a.gif")


def test_a_frame_that_the_decoder_calls_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    write_clip(tmp_path / "a.mp4", FRAMES)

    class Container:
        """PyAV's, whose second frame is corrupt: FFmpeg hides the damage in it, and says so in this flag alone."""

        def __init__(self, file: object, **options: object) -> None:
            self.own = av.open(file, **options)

        def __enter__(self) -> Container:
            return self

        def __exit__(self, *_: object) -> None:
            self.own.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self.own, name)

        def decode(self, stream: object) -> Iterator[object]:
            for number, frame in enumerate(self.own.decode(stream)):
                yield frame if number != 1 else SimpleNamespace(is_corrupt=True)

    monkeypatch.setattr(video, "_pyav", lambda name: SimpleNamespace(open=Container, error=av.error))
    with pytest.raises(ClipError, match=r"a\.mp4: frame 2 is damaged"):
        read_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["loop.dcm", "a.gif", "a.nii.gz", "a.mhd", "a.avi", "a.mp4", "folder"])
def test_one_frame_is_a_clip_without_times(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, FRAMES[:1])
    clip = read_clip(tmp_path / name)
    assert (clip.count, clip.times_s) == (1, None)
    assert "time_missing" not in {finding.name for finding in clip.findings}
    assert read_clip(tmp_path / name, fps=50).times_s is None


def test_no_string_of_the_patient_is_in_a_clip(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    tags = {"FrameTimeVector": None, "FrameTime": None, "CineRate": None}
    tags = {key: value for key, value in tags.items() if key == "FrameTime"}
    write_dicom_cine(tmp_path / "a.dcm", coloured(FRAMES), region=(0, 400, 0, 400), tags=tags)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert str(dataset.PatientName) == PATIENT["PatientName"]
    clip = read_clip(tmp_path / "a.dcm")
    shown = repr((clip.findings, clip.time_source, clip.spacing_source, clip.region))
    assert len(clip.findings) == 2 and not any(value in shown for value in PATIENT.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keyword", ["FrameTime", "CineRate", "NumberOfFrames", "PixelSpacing", "WindowCenter"])
def test_text_where_a_number_is_needed_is_not_repeated(
    tmp_path: Path, keyword: str, capfd: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, tags={keyword: [7, 7] if keyword == "PixelSpacing" else 7777})
    tag = struct.pack("<HH", *divmod(pydicom.datadict.tag_for_keyword(keyword), 2**16))
    data = (tmp_path / "a.dcm").read_bytes()
    start = data.index(tag) + 8
    length = struct.unpack("<H", data[start - 2 : start])[0]
    (tmp_path / "a.dcm").write_bytes(data[:start] + b"ZQ^Q"[:length].ljust(length) + data[start + length :])
    try:
        said = repr(read_clip(tmp_path / "a.dcm").findings)
    except ClipError as error:
        said = str(error)
    captured = capfd.readouterr()
    assert "ZQ" not in said + captured.out + captured.err + "".join(str(warning.message) for warning in recwarn)


def test_numbers_missing_in_a_folder_are_said(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", phantom_frames(12))
    clip = read_clip(tmp_path / "folder")
    assert "frames_missing" not in {finding.name for finding in clip.findings}
    (tmp_path / "folder" / "frame_5.png").unlink()
    assert "frames_missing" in {finding.name for finding in read_clip(tmp_path / "folder").findings}


@pytest.mark.parametrize("offsets", ["basic", "extended", "none"])
def test_frames_of_several_fragments(tmp_path: Path, offsets: str) -> None:
    from pydicom.encaps import encapsulate, encapsulate_extended

    write_dicom_cine(tmp_path / "a.dcm", FRAMES, syntax="jpeg")
    whole = list(read_clip(tmp_path / "a.dcm").frames())
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    encoded = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=len(FRAMES)))
    if offsets == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            encoded
        )
    else:
        dataset.PixelData = encapsulate(encoded, fragments_per_frame=3, has_bot=offsets == "basic")
    dataset.save_as(tmp_path / "b.dcm")
    assert np.array_equal(list(read_clip(tmp_path / "b.dcm").frames()), whole)


@pytest.mark.parametrize("syntax", ["explicit", "jpeg"])
def test_memory_does_not_grow_with_the_clip(tmp_path: Path, syntax: str) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.dcm"
        write_dicom_cine(path, np.tile(FRAMES, (count // 4, 1, 1)), syntax=syntax)
        tracemalloc.start()
        for _ in read_clip(path).frames():
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(20)  # imports
    few, many = peak(20), peak(400)
    assert many - few < 380 * 3000  # the places and the blocks of the frames, not their 10 kB


def test_the_real_loop_is_read() -> None:
    clip = read_clip(real_file("color3d_jpeg_baseline.dcm"))
    assert (clip.count, clip.shape, clip.time_source) == (120, (480, 640), "FrameTime")
    assert clip.spacing_mm[0] == clip.spacing_mm[1] == pytest.approx(0.510497, abs=1e-6)
    assert clip.times_s[-1] == pytest.approx(119 * 0.033333)
    assert clip.region == (31, 415, 84, 596) and clip.findings == ()


def test_what_stands_between_frames_must_be_items(tmp_path: Path) -> None:
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, syntax="jpeg")
    data = (tmp_path / "a.dcm").read_bytes()
    second = data.index(b"\xfe\xff\x00\xe0", data.index(b"\xff\xd8\xff"))
    (tmp_path / "a.dcm").write_bytes(data[:second] + b"\xfe\xff\x00\xe1" + data[second + 4 :])
    with pytest.raises(ClipError, match="damaged after 1 items"):
        read_clip(tmp_path / "a.dcm")


def test_a_gif_without_its_last_byte_and_a_png_of_another_checksum(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", FRAMES)
    data = (tmp_path / "a.gif").read_bytes()
    for other in (data[:-1], data + b"\0"):
        (tmp_path / "a.gif").write_bytes(other)
        with pytest.raises(ClipError, match="last frame"):
            read_clip(tmp_path / "a.gif")
    write_folder(tmp_path / "folder", FRAMES)
    picture = tmp_path / "folder" / "frame_2.png"
    data = picture.read_bytes()
    start = data.index(b"IDAT")
    end = start + 4 + struct.unpack(">I", data[start - 4 : start])[0]
    picture.write_bytes(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :])
    with pytest.raises(ClipError, match="picture 2"):
        read_clip(tmp_path / "folder")
