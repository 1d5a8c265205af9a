"""Pixels of every kind as grey: real files of every decoder, colours that a file calls by another name, deep pixels."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from clip_files import coloured, phantom_frames, real_file, write_dicom_cine, write_mp4
from numpy import ndarray
from PIL import Image

from nnunet_echo.cine.clips import ClipError, read_clip
from nnunet_echo.cine.clips.colour import RGB, YBR, jpeg_model, with_model
from nnunet_echo.cine.clips.fragments import encapsulated_frames, read_spans
from nnunet_echo.cine.clips.header import read_header
from nnunet_echo.cine.clips.pixels import FrameDecoder
from nnunet_echo.cine.clips.rle import decode_rle

FRAMES = phantom_frames(3)
READ = {  # and the ultrasound region where there is more than one
    "color3d_jpeg_baseline.dcm": None,
    "examples_ybr_color.dcm": None,
    "examples_palette.dcm": None,
    "OBXXXX1A.dcm": None,
    "OBXXXX1A_2frame.dcm": None,
    "OBXXXX1A_expb_2frame.dcm": None,
    "OBXXXX1A_rle.dcm": None,
    "OBXXXX1A_rle_2frame.dcm": None,
    "JPGLosslessP14SV1_1s_1f_8b.dcm": None,
    "gdcm-US-ALOKA-16.dcm": 1,
    "gdcm-US-ALOKA-16_big.dcm": 1,
    "SC_rgb_rle_2frame.dcm": None,
    "SC_rgb_jpeg_dcmtk.dcm": None,
    "SC_jpeg_no_color_transform.dcm": None,
    "SC_rgb_jpeg_app14_dcmd.dcm": None,
    "SC_ybr_full_422_uncompressed.dcm": None,
    "SC_rgb_jls_lossy_sample.dcm": None,
    "image_dfl.dcm": None,
}


def by_pydicom(path: Path, count: int) -> ndarray:
    """The first frames as pydicom decodes them, and luma by its formula: another way to the same numbers."""
    from pydicom.pixels import apply_color_lut, pixel_array

    dataset = pydicom.dcmread(path)
    pixels = np.stack([pixel_array(dataset, index=index) for index in range(count)])
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = np.stack([apply_color_lut(frame, dataset) for frame in pixels])
        pixels = pixels >> 8 if pixels.max() > 255 else pixels
    return pixels if pixels.ndim == 3 else pixels[..., :3] @ [0.299, 0.587, 0.114]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "region"), READ.items())
def test_real_files_are_read_as_pydicom_reads_them(name: str, region: int | None) -> None:
    path = real_file(name)
    clip = read_clip(path, region=region)
    assert clip.count == int(pydicom.dcmread(path).get("NumberOfFrames", 1))
    few = min(3, clip.count)
    ours = np.stack([frame for frame, _ in zip(clip.frames(), range(few), strict=False)])
    off = np.abs(ours - by_pydicom(path, few))
    assert off.max() < 7 and off.mean() < 0.2  # of a JPEG, Y is what RGB was made of, in which some is lost
    assert len(np.unique(ours)) > 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["US1_UNCR.dcm", "US1_J2KR.dcm", "US1_J2KI.dcm", "examples_rgb_color.dcm"])
def test_power_doppler_is_decoded_and_refused(name: str) -> None:
    path = real_file(name)
    with pytest.raises(ClipError, match="colour Doppler"):
        read_clip(path)
    header, dataset = read_header(path, name), pydicom.dcmread(path)
    decoder = FrameDecoder(header, name)
    data = dataset.PixelData
    if header.layout.syntax.endswith((".90", ".91")):
        with path.open("rb") as file:
            data = read_spans(file, encapsulated_frames(file, name, header.pixels_start, 1)[0], name)
    assert np.abs(decoder.grey(data, 1) - by_pydicom(path, 1)[0]).max() < 1


def test_deep_pixels_without_a_reader_say_so() -> None:
    with pytest.raises(ClipError, match="JPEG of more than 8 bits"):
        read_clip(real_file("JPGExtended.dcm"))
    with pytest.raises(ClipError, match="signed"):
        read_clip(real_file("JPEG2000.dcm"))


def test_a_missing_decoder_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mp4(tmp_path / "a.mp4", FRAMES)
    write_dicom_cine(tmp_path / "video.dcm", FRAMES, syntax="1.2.840.10008.1.2.4.103", encoded=[b"\0\0"])
    write_dicom_cine(tmp_path / "ls.dcm", FRAMES, syntax="jpeg-ls")
    write_dicom_cine(tmp_path / "ht.dcm", FRAMES, syntax="1.2.840.10008.1.2.4.201", encoded=[b"\0\0"] * 3)
    write_dicom_cine(tmp_path / "xl.dcm", FRAMES, syntax="1.2.840.10008.1.2.4.52", encoded=[b"\0\0"] * 3)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    for name, extra in (("a.mp4", "[video]"), ("video.dcm", "[video]"), ("ls.dcm", "[dicom]"), ("ht.dcm", "openjpeg")):
        with pytest.raises(ClipError) as caught:
            read_clip(tmp_path / name)
        assert "not installed" in caught.value.rule and "pip install" in caught.value.remedy, name
        assert extra in caught.value.remedy and "pylibjpeg-libjpeg" not in caught.value.remedy
    with pytest.raises(ClipError, match="not read"):
        read_clip(tmp_path / "xl.dcm")


def jpeg(pixels: ndarray, mode: str = "RGB", strip: bool = True, **options: object) -> bytes:
    """A JPEG; `strip` removes the JFIF marker, so that nothing says what its components are."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "JPEG", quality=98, **options)
    data = buffer.getvalue()
    if strip and data[2:4] == b"\xff\xe0":
        data = data[:2] + data[4 + struct.unpack(">H", data[4:6])[0] :]
    return data


@pytest.mark.parametrize("told", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("stored", ["markers", "no markers", "JFIF"])
def test_photometric_lies_about_a_jpeg(tmp_path: Path, told: str, stored: str) -> None:
    rgb = coloured(FRAMES)
    encoded = [jpeg(frame, strip=stored != "JFIF", subsampling=0) for frame in rgb]
    if stored == "markers":
        encoded = [with_model(data, YBR) for data in encoded]
    tags = {"PhotometricInterpretation": told}
    write_dicom_cine(tmp_path / "a.dcm", rgb, syntax="1.2.840.10008.1.2.4.50", encoded=encoded, tags=tags)
    clip = read_clip(tmp_path / "a.dcm")
    luma = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in rgb])
    assert np.abs(np.stack(list(clip.frames())).astype(int) - luma).max() < 12
    contradicted = told == "RGB" and stored == "no markers"
    assert [finding.name for finding in clip.findings] == ["photometric_contradicted"] * contradicted


@pytest.mark.parametrize("told", ["RGB", "YBR_FULL_422"])
def test_a_jpeg_of_rgb(tmp_path: Path, told: str) -> None:
    rgb = coloured(FRAMES)
    encoded = [with_model(jpeg(frame, keep_rgb=True), RGB) for frame in rgb]
    tags = {"PhotometricInterpretation": told}
    write_dicom_cine(tmp_path / "a.dcm", rgb, syntax="1.2.840.10008.1.2.4.50", encoded=encoded, tags=tags)
    luma = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in rgb])
    assert np.abs(np.stack(list(read_clip(tmp_path / "a.dcm").frames())).astype(int) - luma).max() < 12


def test_the_markers_of_a_jpeg_decide() -> None:
    data = jpeg(coloured(FRAMES)[0], strip=False)
    assert jpeg_model(data, RGB) == YBR
    assert jpeg_model(with_model(data, RGB), YBR) == RGB and jpeg_model(with_model(data, YBR), RGB) == YBR
    bare = jpeg(coloured(FRAMES)[0], subsampling=0)
    assert jpeg_model(bare, RGB) == RGB and jpeg_model(bare, YBR) == YBR
    assert jpeg_model(jpeg(coloured(FRAMES)[0], subsampling=2), RGB) == YBR
    letters = jpeg(coloured(FRAMES)[0], keep_rgb=True)
    start = letters.index(b"\xff\xee") if b"\xff\xee" in letters[:40] else None
    assert jpeg_model(letters, YBR) == RGB, start


def test_uncompressed_ycbcr_that_is_called_rgb(tmp_path: Path) -> None:
    ybr = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in coloured(FRAMES)])
    for told, named in (("RGB", ["photometric_contradicted"]), ("YBR_FULL", [])):
        write_dicom_cine(tmp_path / "a.dcm", ybr, tags={"PhotometricInterpretation": told})
        clip = read_clip(tmp_path / "a.dcm")
        assert np.array_equal(list(clip.frames()), ybr[..., 0])
        assert [finding.name for finding in clip.findings] == named


def test_planar_and_subsampled_pixels(tmp_path: Path) -> None:
    rgb = coloured(FRAMES)
    luma = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in rgb])
    planes = np.moveaxis(rgb, 3, 1).copy().reshape(rgb.shape)
    write_dicom_cine(tmp_path / "planes.dcm", planes, tags={"PlanarConfiguration": 1})
    assert np.array_equal(list(read_clip(tmp_path / "planes.dcm").frames()), luma)
    ybr = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in rgb])
    pairs = np.stack([ybr[:, :, ::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]], axis=-1)
    tags = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": pairs.tobytes()}
    write_dicom_cine(tmp_path / "pairs.dcm", rgb, tags=tags)
    assert np.array_equal(list(read_clip(tmp_path / "pairs.dcm").frames()), ybr[..., 0])


def test_one_value_a_pixel(tmp_path: Path) -> None:
    def frames(name: str) -> ndarray:
        return np.stack(list(read_clip(tmp_path / name).frames()))

    write_dicom_cine(tmp_path / "one.dcm", FRAMES, tags={"PhotometricInterpretation": "MONOCHROME1"})
    assert np.array_equal(frames("one.dcm"), 255 - FRAMES)
    deep = FRAMES.astype(np.uint16)
    window = {"WindowCenter": 1000 + 127.5 + 0.5, "WindowWidth": 256, "RescaleSlope": 2, "RescaleIntercept": -1000}
    write_dicom_cine(tmp_path / "window.dcm", deep // 2 + 1000, tags=window)
    assert np.array_equal(frames("window.dcm"), FRAMES // 2 * 2)
    write_dicom_cine(tmp_path / "full.dcm", deep * 257)
    assert np.array_equal(frames("full.dcm"), FRAMES)
    write_dicom_cine(tmp_path / "12.dcm", deep * 16, tags={"BitsStored": 12, "HighBit": 11})
    assert np.array_equal(frames("12.dcm"), np.rint(FRAMES * 16.0 * 255 / 4095))
    write_dicom_cine(tmp_path / "bright.dcm", FRAMES, tags={"WindowCenter": 60, "WindowWidth": 100})
    clip = read_clip(tmp_path / "bright.dcm")
    assert np.array_equal(list(clip.frames()), FRAMES) and clip.findings[0].name == "window_not_applied"


def test_a_palette(tmp_path: Path) -> None:
    tags: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in (("Red", np.arange(255, -1, -1)), ("Green", np.full(256, 50)), ("Blue", np.full(256, 80))):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = (table * 257).astype("<u2").tobytes()
    write_dicom_cine(tmp_path / "a.dcm", FRAMES, tags=tags)
    rgb = np.stack([255 - FRAMES, np.full_like(FRAMES, 50), np.full_like(FRAMES, 80)], axis=-1)
    luma = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in rgb])
    assert np.array_equal(list(read_clip(tmp_path / "a.dcm").frames()), luma)
    del tags["BluePaletteColorLookupTableData"]
    write_dicom_cine(tmp_path / "b.dcm", FRAMES, tags=tags)
    with pytest.raises(ClipError, match="palette"):
        read_clip(tmp_path / "b.dcm")


def flowing(frames: ndarray, hue: tuple[float, float, float]) -> ndarray:
    """A box in the middle with flow of many shades of one hue."""
    rgb = np.repeat(frames[..., None], 3, axis=3)
    height, width = frames.shape[1:]
    box = np.s_[:, height // 3 : height // 2, width // 3 : width // 2]
    rng = np.random.default_rng(0)
    rgb[box] = (rng.uniform(90, 255, (*rgb[box].shape[:3], 1)) * hue).astype(np.uint8)
    return rgb


@pytest.mark.parametrize("syntax", ["explicit", "jpeg", "jpeg 2000", "rle", "mp4"])
@pytest.mark.parametrize("hue", [(1, 0.2, 0.1), (0.1, 0.2, 1)])
def test_colour_doppler_is_seen(tmp_path: Path, syntax: str, hue: tuple) -> None:
    rgb = flowing(FRAMES, hue)
    if syntax == "mp4":
        write_mp4(path := tmp_path / "a.mp4", rgb)
    else:
        write_dicom_cine(path := tmp_path / "a.dcm", rgb, syntax=syntax)
    with pytest.raises(ClipError, match="colour Doppler"):
        read_clip(path)


def test_colour_that_is_no_flow_is_read(tmp_path: Path) -> None:
    tinted = (FRAMES[..., None] * np.array([1, 0.8, 0.45])).astype(np.uint8)
    write_dicom_cine(tmp_path / "tinted.dcm", tinted)
    assert read_clip(tmp_path / "tinted.dcm").count == 3
    bar = coloured(FRAMES)
    bar[:, :12] = (36, 60, 96)  # a bar of the screen
    write_dicom_cine(tmp_path / "bar.dcm", bar)
    assert read_clip(tmp_path / "bar.dcm").count == 3


def test_rle_is_read_to_the_last_byte() -> None:
    def packed(*segments: bytes, number: int | None = None) -> bytes:
        starts = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
        header = struct.pack("<16I", number or len(segments), *starts, *[0] * (15 - len(starts)))
        return header + b"".join(segments)

    good = bytes([1, 5, 6, 255, 7])
    assert decode_rle(packed(good), (2, 2), 1, 8).tolist() == [[5, 6], [7, 7]]
    assert decode_rle(packed(good + b"\0"), (2, 2), 1, 8).tolist() == [[5, 6], [7, 7]]
    assert decode_rle(packed(b"\x80" + good), (2, 2), 1, 8).tolist() == [[5, 6], [7, 7]]
    low = bytes([3, 1, 2, 3, 4])
    assert decode_rle(packed(good, low), (2, 2), 1, 16).tolist() == [[0x0501, 0x0602], [0x0703, 0x0704]]
    assert decode_rle(packed(good, good, good), (2, 2), 3, 8).shape == (2, 2, 3)
    for damaged in (
        good[:-1],
        good[:-2],
        bytes([1, 5, 6, 254, 7]),
        good + b"\1\2\3",
        good + b"\7",
        bytes([3, 5, 6]),
        b"",
    ):
        with pytest.raises(ValueError, match="segment"):
            decode_rle(packed(damaged), (2, 2), 1, 8)
    for data in (packed(good, number=2), packed(good)[:40], b"", packed(good, good)):
        with pytest.raises(ValueError, match="segments"):
            decode_rle(data, (2, 2), 1, 8)
