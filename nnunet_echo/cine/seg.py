"""DICOM segmentation (SEG) of an ultrasound loop, written on pydicom: viewers lay it over the loop, frame by frame.

Every structure has all frames of the loop, empty ones too: where those were left out, viewers have shown masks on the
wrong frames. Frame k of structure s refers to frame k of the loop (Referenced Frame Number), and the dimension index
is (segment, temporal position). BINARY, one bit a pixel. Ultrasound has no frame of reference unless its file says so;
none is made up. Sources: DICOM PS3.3, A.51 (Segmentation IOD) and C.8.20 (its modules), PS3.5, 8.1.1 (bits packed from
the lowest). Sections are named from memory of the standard; what is checked is that pydicom and highdicom read it back.

By its nature the file has the patient and the study of its source: it is written only where asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from nnunet_echo import __version__
from nnunet_echo.cine.clips.tags import integer, value
from nnunet_echo.cine.result import NOTICE, Loop
from nnunet_echo.data.errors import printable
from nnunet_echo.data.quiet import quietly

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"  # Segmentation Storage
# Name -> its code in SNOMED CT, meaning. Codes and meanings as in pydicom's dictionary, from the standard's own tables.
_STRUCTURES = {
    "LV": ("LeftVentricle", "#E69F00"),
    "MYO": ("LeftVentricleMyocardium", "#56B4E9"),
    "LA": ("LeftAtrium", "#CC79A7"),
}
# Patient, study and equipment of the clip that a file derived from it has to repeat (PS3.3, C.7.1.1, C.7.2.1).
_MAY_BE_EMPTY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
]
# What says which file the masks are of, and to which study a report belongs.
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_REPEATED = [*_MAY_BE_EMPTY, "StudyInstanceUID", "FrameOfReferenceUID", "PositionReferenceIndicator"]


def write_seg(path: Path, loop: Loop, source: Any) -> None:
    """Write the masks of a loop, whose DICOM file is `source`: a path, or a pydicom `Dataset`.

    Raises ValueError where `source` has another number of frames or pixels than the loop.
    """
    data = read_source(source, loop)
    with quietly(), path.open("xb") as file:
        make_seg(loop, data).save_as(file, enforce_file_format=True)


def read_source(source: Any, loop: Loop) -> Any:
    """The header of the clip's file as `complete` gives it; ValueError for that of another clip."""
    import pydicom

    data = source if isinstance(source, pydicom.Dataset) else open_source(source)
    check_study(data, "source")
    found = integer(data, "NumberOfFrames", 1), integer(data, "Rows"), integer(data, "Columns")
    if found != (loop.clip.count, *loop.clip.shape):
        raise ValueError(
            f"source: it has {found[0]} frames of {found[1]} x {found[2]} pixels, the loop {loop.clip.count} of "
            f"{loop.clip.shape[0]} x {loop.clip.shape[1]}. Give the file that the masks were made from."
        )
    return complete(data)


def complete(source: Any) -> Any:
    """A copy of a header in which what it may lack is there, and empty."""
    data = copy.copy(source)
    for name in _MAY_BE_EMPTY:
        if name not in data:
            setattr(data, name, "")
    if not value(data, "SpecificCharacterSet") and "SpecificCharacterSet" in data:
        del data.SpecificCharacterSet  # which says nothing when it is empty
    return data


def open_source(path: str | Path) -> Any:
    """The header of a DICOM file that SEG and SR can refer to, as a `Dataset`; nothing of it is printed.

    Raises FileNotFoundError, and ValueError for a file that is none, is damaged, or lacks what `check_study` needs.
    """
    import pydicom

    path = Path(path)
    name, remedy = printable(path.name), ", to which SEG and SR refer. Leave them out of --save."
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if not path.is_file():
        raise ValueError(f"{name}: is no DICOM file{remedy}")
    try:
        with quietly():
            data = pydicom.dcmread(path, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError as error:
        raise ValueError(f"{name}: is no DICOM file{remedy}") from error
    except Exception as error:  # pydicom raises whatever comes of damaged bytes, and quotes them
        raise ValueError(f"{name}: its header cannot be read ({type(error).__name__}). Copy the file again.") from error
    check_study(data, name)
    return data


def check_study(data: Any, name: str) -> None:
    """Raise ValueError where the `Dataset` of `name` does not say what it is and to which study it belongs."""
    missing = [keyword for keyword in _NEEDED if not isinstance(uid := value(data, keyword), str) or not uid]
    if missing:
        raise ValueError(
            f"{name}: it has no {', '.join(missing)}, to which SEG and SR refer. Give the scanner's own file, or leave "
            "them out of --save."
        )


def make_seg(loop: Loop, source: Any) -> Any:
    """The SEG as a pydicom `FileDataset` without a file."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.sr.codedict import codes
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    seg, now = Dataset(), datetime.now()
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.SOPClassUID = seg.file_meta.MediaStorageSOPClassUID = UID(SOP_CLASS)
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name in _REPEATED:
        if name in source:
            seg[name] = copy.deepcopy(source[name])

    seg.SpecificCharacterSet = source.get("SpecificCharacterSet", "ISO_IR 192")
    seg.Modality, seg.SeriesInstanceUID, seg.SeriesNumber, seg.InstanceNumber = "SEG", generate_uid(), 1, 1
    seg.SeriesDescription = "nnunet-echo, research use"
    seg.Manufacturer, seg.ManufacturerModelName = "nnunet-echo", "nnunet-echo cine"
    seg.DeviceSerialNumber, seg.SoftwareVersions = "none", __version__
    seg.ContentDate, seg.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    seg.SeriesDate, seg.SeriesTime = seg.ContentDate, seg.ContentTime
    seg.ContentLabel, seg.ContentDescription, seg.ContentCreatorName = "CINE", NOTICE, ""
    seg.ImageType = ["DERIVED", "PRIMARY"]
    seg.SamplesPerPixel, seg.PhotometricInterpretation = 1, "MONOCHROME2"
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = seg.PixelRepresentation = 0
    seg.LossyImageCompression = "00"
    seg.SegmentationType = "BINARY"
    seg.Rows, seg.Columns = loop.clip.shape
    seg.NumberOfFrames = loop.clip.count * len(loop.structures)

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = source.SeriesInstanceUID, [reference]
    seg.ReferencedSeriesSequence = [series]

    seg.SegmentSequence = [_segment(number, name, codes) for number, name in enumerate(loop.structures, 1)]
    seg.DimensionOrganizationSequence, seg.DimensionIndexSequence = _dimensions(generate_uid())
    seg.SharedFunctionalGroupsSequence = [_shared(loop)]
    seg.PerFrameFunctionalGroupsSequence = [
        _frame(number, frame, source, codes)
        for number in range(1, len(loop.structures) + 1)
        for frame in range(1, loop.clip.count + 1)
    ]
    seg.PixelData = _packed(loop)
    return seg


def _segment(number: int, name: str, codes: Any) -> Any:
    from pydicom import Dataset

    keyword, colour = _STRUCTURES[name]
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = number, name, "AUTOMATIC"
    item.SegmentAlgorithmName = "nnU-Net v2, nnunet-echo"
    item.SegmentedPropertyCategoryCodeSequence = [_code(codes.SCT.AnatomicalStructure)]
    item.SegmentedPropertyTypeCodeSequence = [_code(getattr(codes.SCT, keyword))]
    item.RecommendedDisplayCIELabValue = _cielab(colour)
    return item


def _code(code: Any) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _dimensions(uid: str) -> tuple[list[Any], list[Any]]:
    from pydicom import Dataset

    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    indices = []
    for pointer, group, label in (
        (0x0062000B, 0x0062000A, "ReferencedSegmentNumber"),
        (0x00209128, 0x00209111, "TemporalPositionIndex"),
    ):
        item = Dataset()
        item.DimensionOrganizationUID, item.DimensionDescriptionLabel = uid, label
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
        indices.append(item)
    return [organization], indices


def _shared(loop: Loop) -> Any:
    from pydicom import Dataset

    shared = Dataset()
    if loop.clip.spacing_mm:
        measures = Dataset()
        measures.PixelSpacing = [float(f"{side:.8g}") for side in loop.clip.spacing_mm]
        measures.SliceThickness = 1.0  # of a plane, in which nothing depends on it
        shared.PixelMeasuresSequence = [measures]
    return shared


def _frame(number: int, frame: int, source: Any, codes: Any) -> Any:
    from pydicom import Dataset

    content, segment, image, derivation, item = (Dataset() for _ in range(5))
    content.DimensionIndexValues, content.TemporalPositionIndex = [number, frame], frame
    segment.ReferencedSegmentNumber = number
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    image.ReferencedFrameNumber, image.SpatialLocationsPreserved = frame, "YES"
    image.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForSegmentation)]
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [_code(codes.DCM.SegmentationImageDerivation)]
    item.FrameContentSequence, item.SegmentIdentificationSequence = [content], [segment]
    item.DerivationImageSequence = [derivation]
    return item


def _packed(loop: Loop) -> bytes:
    """All frames of the first structure, then of the next; frames follow each other without padding."""
    packed, rest = bytearray(), np.zeros(0, bool)
    for values in loop.structures.values():
        for bits in _bits(loop, values):
            bits = np.concatenate([rest, bits])
            whole = len(bits) // 8 * 8
            packed += np.packbits(bits[:whole], bitorder="little").tobytes()
            rest = bits[whole:]
    packed += np.packbits(rest, bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)


def _bits(loop: Loop, values: tuple[int, ...]) -> Iterator[ndarray]:
    return (np.isin(mask, values).ravel() for mask in loop.masks)


def _cielab(colour: str) -> list[int]:
    """CIELab of a colour #RRGGBB, as unsigned 16-bit numbers (PS3.3, C.10.7.1.1)."""
    from skimage.color import rgb2lab

    rgb = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    l, a, b = rgb2lab(np.array(rgb)[None, None])[0, 0]
    return [round(l / 100 * 65535), round((a + 128) / 255 * 65535), round((b + 128) / 255 * 65535)]
