"""SR and SEG, read back; and nobody's name in anything else."""

from __future__ import annotations

import gzip
import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cine_results import LABELS, drawn, drawn_clip, drawn_dicom, drawn_result

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.result import SAVED, CineResult
from nnunet_echo.cine.seg import write_seg
from nnunet_echo.cine.sr import measured_codes, write_sr
from nnunet_echo.cine.study import check_sources
from nnunet_echo.phantom.dicom import PATIENT, write_dicom_cine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Quillon_ward")
    return drawn_dicom(folder / "Zzyzx_loop.dcm")


@pytest.fixture(scope="module")
def result(source: Path) -> CineResult:
    return analyse(read_clip(source), drawn()[0], LABELS, view="4CH", model={"hash": "0123abcd"})


@pytest.fixture(scope="module")
def saved(result: CineResult, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("saved") / "out", SAVED, source=source)


def planted(text: str) -> list[str]:
    """Strings that only the planted patient has."""
    found = [part for value in text.split("^") for part in (value, value.encode("utf-16-le").decode("latin-1"))]
    return [part for part in found if len(part) > 3]


def test_a_planted_patient_is_in_no_output(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = source.read_bytes()
    assert PATIENT["PatientID"].encode() in raw  # it is planted
    with caplog.at_level(logging.DEBUG):
        again = analyse(read_clip(source), drawn()[0], LABELS, view="4CH")
        out = again.save(tmp_path / "out")
        write_webp_too(again, out)
    names = sorted(path.name for path in out.iterdir())
    assert {"beats.csv", "frames.csv", "masks.nii.gz", "report.html", "result.json"} <= set(names)
    texts = {path.name: path.read_bytes() for path in out.iterdir()}
    texts["masks"] = gzip.decompress(texts["masks.nii.gz"])
    texts["log"] = caplog.text.encode()
    texts["output"] = "".join(capfd.readouterr()).encode()
    texts["result"] = (repr(again.summary()) + repr(again.flags) + repr(again.refusals)).encode()
    secrets = {part for value in PATIENT.values() for part in planted(value)}
    secrets |= {"Zzyzx_loop", "Quillon_ward", str(source.parent), str(tmp_path)}
    for name, content in texts.items():
        for secret in secrets:
            assert secret.encode("latin-1", "ignore") not in content, (name, secret)


def write_webp_too(result: CineResult, out: Path) -> None:
    from nnunet_echo.cine.overlay import write_webp

    write_webp(out / "also.webp", result.loops[0])


def test_seg_has_every_frame_of_every_structure_in_its_place(saved: Path, source: Path) -> None:
    seg, loop = pydicom.dcmread(saved / "seg.dcm"), pydicom.dcmread(source)
    masks = np.stack(drawn()[0])
    count = len(masks)
    pixels = seg.pixel_array.reshape(3, count, *masks.shape[1:])
    for place, value in enumerate((1, 2, 3)):
        assert (pixels[place] == (masks == value)).all()
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["LV", "MYO", "LA"]
    for k, item in enumerate(seg.PerFrameFunctionalGroupsSequence):
        segment, frame = k // count + 1, k % count + 1
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedFrameNumber == frame
        assert image.ReferencedSOPInstanceUID == loop.SOPInstanceUID
        assert item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment
        assert list(item.FrameContentSequence[0].DimensionIndexValues) == [segment, frame]
    assert seg.NumberOfFrames == 3 * count and seg.SegmentationType == "BINARY" and seg.Modality == "SEG"
    assert (seg.StudyInstanceUID, seg.PatientID) == (loop.StudyInstanceUID, loop.PatientID)
    assert seg.SeriesInstanceUID != loop.SeriesInstanceUID and seg.SOPInstanceUID != loop.SOPInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == loop.SeriesInstanceUID
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [2, 2]
    assert "FrameOfReferenceUID" not in seg and "not a medical device" in seg.ContentDescription
    pointers = [item.DimensionIndexPointer for item in seg.DimensionIndexSequence]
    assert pointers == [0x0062000B, 0x00209128]


def test_seg_keeps_empty_frames_and_odd_sizes(tmp_path: Path) -> None:
    frames = np.zeros((5, 7, 9), np.uint8)
    frames[2, 3:6, 2:7] = 1
    masks = frames.copy()
    pictures = np.random.default_rng(0).integers(0, 255, frames.shape, np.uint8)
    write_dicom_cine(tmp_path / "loop.dcm", pictures)
    loop = analyse(drawn_clip(pictures, spacing=None), masks, {"LV": 1}).loops[0]
    write_seg(tmp_path / "seg.dcm", loop, pydicom.dcmread(tmp_path / "loop.dcm"))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.pixel_array == masks).all() and len(seg.PerFrameFunctionalGroupsSequence) == 5
    assert "PixelMeasuresSequence" not in seg.SharedFunctionalGroupsSequence[0]


def test_highdicom_reads_the_seg(saved: Path, source: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    seg = highdicom.seg.segread(saved / "seg.dcm")
    uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    frames = seg.get_pixels_by_source_frame(uid, [1, 40], combine_segments=True)
    assert (frames == np.stack(drawn()[0])[[0, 39]]).all()


def test_sr_has_the_numbers_with_units_and_the_loop(saved: Path, source: Path, result: CineResult) -> None:
    highdicom = pytest.importorskip("highdicom")
    report = highdicom.sr.srread(saved / "sr.dcm")
    (group,) = report.content.get_image_measurement_groups()
    found = {item.name.meaning: (float(item.value), item.unit.value) for item in group.get_measurements()}
    assert len(found) == 4
    ef = [value for name, value in found.items() if "jection" in name]
    assert ef == [(pytest.approx(result.numbers["ef_percent"]), "%")]
    assert sorted(value for value, unit in found.values() if unit == "cm3") == [
        pytest.approx(result.numbers["esv_ml"]),
        pytest.approx(result.numbers["edv_ml"]),
    ]
    assert [value for value, unit in found.values() if unit == "/min"] == [pytest.approx(result.numbers["heart_rate"])]
    loop = pydicom.dcmread(source, stop_before_pixels=True)
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == loop.SOPInstanceUID
    assert (report.StudyInstanceUID, report.PatientID) == (loop.StudyInstanceUID, loop.PatientID)
    assert report.VerificationFlag == "UNVERIFIED"


def test_sr_leaves_refused_numbers_out_and_is_not_written_without_any(tmp_path: Path, source: Path) -> None:
    codes = [name.meaning for name, _, _ in measured_codes(drawn_result(spacing=None))]
    assert len(codes) == 2 and not any("olume" in meaning for meaning in codes)
    frames = drawn()[1]
    masks = [np.zeros_like(mask) for mask in drawn()[0]]
    nothing = analyse(read_clip(source), masks, LABELS)
    assert frames.shape[0] == nothing.loops[0].clip.count
    with pytest.raises(ValueError, match="every number was refused"):
        write_sr(tmp_path / "sr.dcm", nothing, source)
    assert list(tmp_path.iterdir()) == []


def test_views_have_codes_of_their_own() -> None:
    names = {}
    for view in ("4CH", "2CH", ""):
        result = drawn_result(view=view or "4CH") if view else analyse_unnamed()
        names[view] = {name.value for name, _, _ in measured_codes(result)}
    assert len(set.union(*names.values())) == 3 * 3 + 1  # the heart rate is that of all


def analyse_unnamed() -> CineResult:
    masks, frames, _ = drawn()
    return analyse(drawn_clip(frames), masks, LABELS)


def test_values_that_the_standard_does_not_allow_are_not_printed(
    tmp_path: Path, result: CineResult, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """pydicom warns of them, and quotes them. They are repeated as they are."""
    pytest.importorskip("highdicom")
    ours = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), "1.2.03.4711")
    with pydicom.config.disable_value_validation():
        tags = {**ours, "PatientName": "Z" * 70, "AccessionNumber": "Z" * 20, "SpecificCharacterSet": ""}
        path = drawn_dicom(tmp_path / "loop.dcm", tags=tags)
    recwarn.clear()
    check_sources(["sr", "seg"], path)
    out = result.save(tmp_path / "out", ["sr", "seg"], source=path)
    assert not recwarn.list and not caplog.text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("sr.dcm", "seg.dcm"):
            written = pydicom.dcmread(out / name)
            assert (written.StudyInstanceUID, str(written.PatientName)) == ("1.2.03.4711", "Z" * 70)


def test_a_name_that_its_character_set_lacks_is_written_without_a_word(
    tmp_path: Path, result: CineResult, recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("highdicom")
    path = drawn_dicom(tmp_path / "loop.dcm", tags={"SpecificCharacterSet": "ISO_IR 13", "PatientName": "ZZZZZZ"})
    data = path.read_bytes()
    assert data.count(b"ZZZZZZ") == 1
    path.write_bytes(data.replace(b"ZZZZZZ", "Müller".encode("latin-1")))
    recwarn.clear()
    result.save(tmp_path / "out", ["sr", "seg"], source=path)
    assert not recwarn.list


def test_the_file_of_another_loop_is_refused(tmp_path: Path, result: CineResult, source: Path) -> None:
    other = pydicom.dcmread(source, stop_before_pixels=True)
    other.NumberOfFrames = 12
    for save in (["seg"], ["sr"]):
        with pytest.raises(ValueError, match="source: it has 12 frames"):
            result.save(tmp_path / "out", save, source=other)
    del other.StudyInstanceUID
    other.NumberOfFrames = result.loops[0].clip.count
    with pytest.raises(ValueError, match="no StudyInstanceUID"):
        result.save(tmp_path / "out", ["seg"], source=other)
    assert list(tmp_path.iterdir()) == []
    assert "PatientSex" not in pydicom.dcmread(source)  # nothing is added to what was given
