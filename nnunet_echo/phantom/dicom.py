"""A DICOM ultrasound loop of given frames, with a patient planted in it whom no output may name.

Source: DICOM PS3.3, A.7 (US Multi-frame Image IOD), C.8.5.5 (US Region Calibration), C.7.6.5 (Cine).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy import ndarray
from PIL import Image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "rle": "1.2.840.10008.1.2.5",
}
# A person who does not exist. Each value is found nowhere else, so that a search for it proves something.
PATIENT: dict[str, str] = {
    "PatientName": "Zzyzx^Quillon",
    "PatientID": "ZQ-4711-0815",
    "PatientBirthDate": "19370213",
    "PatientComments": "<script>alert('Zzyzx')</script>",
    "AccessionNumber": "ACC90125ZQ",
    "InstitutionName": "Klinik Zwackelbrunn",
    "OperatorsName": "Operatrix^Olga",
    "ReferringPhysicianName": "Refferling^Rolf",
    "StationName": "STATZQ7",
    "DeviceSerialNumber": "SNZQ31337",
    "Manufacturer": "Echowerke Zq",
    "StudyDate": "20190529",
    "StudyTime": "113759",
    "StudyDescription": 'Stress "echo" of <b>Zzyzx</b>',
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.4711081501",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.4711081502",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.4711081503",
}


def write_dicom_cine(
    path: Path,
    frames: ndarray,
    *,
    spacing_mm: tuple[float, float] | None = (0.5, 0.5),
    frame_time_ms: float | None = 20.0,
    time_vector_ms: Sequence[float] | None = None,
    region: tuple[int, int, int, int] | None = None,
    syntax: str = "explicit",
    patient: Mapping[str, str] = PATIENT,
    tags: Mapping[str, Any] | None = None,
    encoded: Sequence[bytes] | None = None,
) -> None:
    """Write frames (T, H, W) uint8 or uint16, or (T, H, W, 3) uint8 RGB, as an ultrasound multi-frame image.

    `spacing_mm` is the height and width of a pixel, told by an ultrasound region (y0, y1, x0, x1: all of the picture);
    None leaves the region out. `frame_time_ms` is FrameTime; `time_vector_ms` (T,) FrameTimeVector, in its stead.
    `syntax` is one of `SYNTAXES`, or a UID together with the `encoded` frames, one fragment each. `tags` are written
    last, and a value of None removes one. JPEG is stored as YCbCr. Raises `ValueError` for another syntax.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    if syntax not in SYNTAXES and encoded is None:
        raise ValueError(f"syntax={syntax!r}: must be one of {', '.join(SYNTAXES)}, or frames are given `encoded`.")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES.get(syntax, syntax))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.3.1")
    dataset.Modality = "US"
    for keyword, value in patient.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    _describe(dataset, frames)
    _set_times(dataset, frame_time_ms, time_vector_ms)
    if spacing_mm is not None:
        y0, y1, x0, x1 = region or (0, frames.shape[1], 0, frames.shape[2])
        dataset.SequenceOfUltrasoundRegions = [region_item((y0, y1, x0, x1), spacing_mm)]
    if encoded is None and syntax == "jpeg":
        encoded = [_pillow(frame, "JPEG", quality=95) for frame in frames]
        if frames.ndim == 4:
            dataset.PhotometricInterpretation = "YBR_FULL_422"
    elif encoded is None and syntax == "jpeg 2000":
        encoded = [_pillow(frame, "JPEG2000", irreversible=False, no_jp2=True, mct=frame.ndim == 3) for frame in frames]
        if frames.ndim == 4:
            dataset.PhotometricInterpretation = "YBR_RCT"
    if encoded is not None:
        dataset.PixelData = encapsulate(list(encoded))
        dataset["PixelData"].is_undefined_length = True
    elif syntax in ("rle", "jpeg-ls"):
        uid = dataset.file_meta.TransferSyntaxUID
        dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES["explicit"])
        dataset.PixelData = frames.tobytes()
        dataset.compress(uid, generate_instance_uid=False)
    else:
        order: Literal[">", "<"] = ">" if syntax == "big endian" else "<"
        data = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
    if frames.dtype == np.uint8 and encoded is None and syntax not in ("implicit", "rle", "jpeg-ls"):
        dataset["PixelData"].VR = "OB"
    for keyword, value in (tags or {}).items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def region_item(
    box: tuple[int, int, int, int],
    spacing_mm: tuple[float, float],
    *,
    spatial_format: int = 1,
    data_type: int = 1,
    units: int = 3,
) -> Dataset:
    """One ultrasound region, of tissue in two dimensions unless told otherwise; `box` is y0, y1, x0, x1 as slices."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, 2
    item.RegionLocationMinY0, item.RegionLocationMaxY1 = box[0], box[1] - 1
    item.RegionLocationMinX0, item.RegionLocationMaxX1 = box[2], box[3] - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaY, item.PhysicalDeltaX = spacing_mm[0] / 10, spacing_mm[1] / 10
    return item


def _describe(dataset: Dataset, frames: ndarray) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if frames.ndim == 4 else "MONOCHROME2"
    if frames.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = frames.dtype.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0


def _set_times(dataset: Dataset, frame_time_ms: float | None, time_vector_ms: Sequence[float] | None) -> None:
    if time_vector_ms is not None:
        dataset.FrameTimeVector = [f"{step:.6g}" for step in time_vector_ms]
        dataset.FrameIncrementPointer = 0x00181065
    elif frame_time_ms is not None:
        dataset.FrameTime = f"{frame_time_ms:.6g}"
        dataset.FrameIncrementPointer = 0x00181063


def _pillow(frame: ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, kind, **options)
    return buffer.getvalue()
