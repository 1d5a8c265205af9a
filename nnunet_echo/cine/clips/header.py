"""What a DICOM file says of its frames, as plain numbers: every tag that is read stands here, and none names a patient.

Nothing of the header is kept but these, and no message repeats a text of the file.
Source: DICOM PS3.3, C.7.6.3 (Image Pixel), C.7.6.5 and C.7.6.6 (times), C.8.5.5 (regions).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nnunet_echo.cine.clips.clip import ClipError
from nnunet_echo.cine.clips.fragments import COPY
from nnunet_echo.cine.clips.scale import Region
from nnunet_echo.cine.clips.tags import integer, number, numbers, pair, text, value
from nnunet_echo.cine.clips.timing import TimeTags
from nnunet_echo.data.quiet import quietly

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ULTRASOUND = ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1")  # one frame, several
_ENHANCED_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
_EXPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_PIXEL_DATA = 0x7FE00010
_REGION = (
    "RegionSpatialFormat",
    "RegionDataType",
    "RegionLocationMinY0",
    "RegionLocationMaxY1",
    "RegionLocationMinX0",
    "RegionLocationMaxX1",
)
MAX_PIXELS = 2**26  # of a frame, as elsewhere in the package


@dataclass(frozen=True)
class Layout:
    """How the pixels of a frame are stored: its size and the Image Pixel module."""

    syntax: str
    shape: tuple[int, int]
    samples: int
    bits_allocated: int
    bits_stored: int
    photometric: str
    planar: bool
    window: tuple[float, float] | None  # centre and width
    rescale: tuple[float, float]  # slope and intercept


@dataclass(frozen=True)
class Header:
    """A DICOM file without its pixels. `dataset` is for its palette only; it may hold a patient's name."""

    dataset: Dataset
    layout: Layout
    count: int
    times: TimeTags
    regions: tuple[Region, ...]
    pixel_spacing: tuple[float, float] | None
    aspect: float  # of a pixel, width to height
    is_ultrasound: bool
    pixels_vr: str
    pixels_start: int
    pixels_length: int  # fragments.UNDEFINED: compressed
    extended_offsets: tuple[int, ...]

    @property
    def is_big_endian(self) -> bool:
        return self.layout.syntax == _BIG_ENDIAN


def open_dicom(path: Path, name: str) -> BinaryIO:
    """The file; of a deflated one what it holds, in memory, with a header that says so."""
    file = path.open("rb")
    head = file.read(2**16)
    if head[128:132] != b"DICM":
        file.close()
        raise ClipError(name, "it is not a DICOM file", "Give a DICOM file, a video, or a folder of images")
    deflated = _DEFLATED.encode() in head[132:1024]
    file.seek(0)
    if not deflated:
        return file
    with file:
        # The length of the meta information stands in its first element, of 12 bytes.
        start = 144 + struct.unpack_from("<I", head, 140)[0]
        file.seek(start)
        try:
            data = zlib.decompress(file.read(), -zlib.MAX_WBITS)
        except zlib.error as error:
            raise ClipError(name, "its deflated contents are damaged or cut off", COPY) from error
    syntax = _EXPLICIT.encode() + b"\0" * (len(_EXPLICIT) % 2)
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return io.BytesIO(bytes(128) + b"DICM" + meta + data)


def read_header(path: Path, name: str) -> Header:
    """Read everything but the pixels. Raises `ClipError` for a file that is no DICOM image, or no picture of a clip."""
    with open_dicom(path, name) as file:
        dataset, position = _read_dataset(file, name)
    syntax, kind = text(dataset.file_meta, "TransferSyntaxUID"), text(dataset, "SOPClassUID")
    if not syntax:
        raise ClipError(name, "it does not say how its pixels are stored (TransferSyntaxUID)", COPY)
    if kind == _ENHANCED_VOLUME:
        raise ClipError(name, "it is a 3D volume (Enhanced US Volume)", "Export the loop of a 2D view")
    vr, pixels_start, length = position
    count = integer(dataset, "NumberOfFrames", 1)
    if count is None or count < 1:
        raise ClipError(name, "NumberOfFrames is no number above 0", COPY)
    if count > (size := path.stat().st_size):  # before anything is made for so many
        raise ClipError(name, f"it says that it has {count} frames, in {size} bytes", COPY)
    return Header(
        dataset=dataset,
        layout=_layout(dataset, syntax, name),
        count=count,
        times=_times(dataset),
        regions=_regions(dataset),
        pixel_spacing=pair(dataset, "PixelSpacing"),
        aspect=_aspect(dataset),
        is_ultrasound=kind in ULTRASOUND,
        pixels_vr=vr,
        pixels_start=pixels_start,
        pixels_length=length,
        extended_offsets=_extended_offsets(dataset, name),
    )


def _read_dataset(file: BinaryIO, name: str) -> tuple[Dataset, tuple[str, int, int]]:
    """The header, and of the pixels the VR, where they begin, and their length."""
    from pydicom import dcmread
    from pydicom.uid import UID

    try:
        with quietly():
            dataset = dcmread(file, stop_before_pixels=True)
            return dataset, _pixel_element(file, UID(text(dataset.file_meta, "TransferSyntaxUID")), name)
    except ClipError:
        raise
    except Exception as error:  # pydicom raises whatever comes of damaged bytes, and quotes them
        raise ClipError(name, f"its header cannot be read ({type(error).__name__})", COPY) from error


def _pixel_element(file: BinaryIO, syntax: Any, name: str) -> tuple[str, int, int]:
    order = ">" if syntax == _BIG_ENDIAN else "<"
    head = file.read(8)
    if len(head) < 8:
        raise ClipError(name, "it holds no pixels, or ends before them", "Give an image; if it is one, copy it again")
    group, element = struct.unpack(order + "HH", head[:4])
    if syntax.is_implicit_VR:
        vr, length = "OW", struct.unpack(order + "I", head[4:])[0]
    else:
        vr = head[4:6].decode("latin-1")
        length = struct.unpack(order + "I", file.read(4).ljust(4, b"\0"))[0]
    if group << 16 | element != _PIXEL_DATA or vr not in ("OB", "OW"):
        raise ClipError(name, "its pixels are not those of a picture", "Give an image of whole numbers")
    return vr, file.tell(), length


def _layout(dataset: Dataset, syntax: str, name: str) -> Layout:
    numbers = [integer(dataset, keyword) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    numbers.append(integer(dataset, "BitsStored", numbers[-1]))
    described = [number for number in numbers if number is not None]
    if len(described) < len(numbers):
        raise ClipError(name, "its header does not describe its pixels", COPY)
    rows, columns, samples, allocated, stored = described
    photometric = text(dataset, "PhotometricInterpretation")
    if not (0 < rows * columns <= MAX_PIXELS):
        raise ClipError(name, f"its frames have {rows} x {columns} pixels", "Give frames of an echo")
    kinds = {
        1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
        3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420", "YBR_PARTIAL_422"),
    }
    if photometric not in kinds.get(samples, ()):
        raise ClipError(name, f"its pixels have {samples} values of an unknown kind (PhotometricInterpretation)", COPY)
    high = integer(dataset, "HighBit", stored - 1)
    if (
        allocated not in (8, 16)
        or not 1 <= stored <= allocated
        or samples == 3
        and allocated != 8
        or high != stored - 1
    ):
        raise ClipError(name, f"its pixels have {stored} of {allocated} bits", "Export it with 8 bits a value")
    if integer(dataset, "PixelRepresentation", 0) != 0:
        raise ClipError(name, "its pixels are signed, which those of an echo are not", "Export it with unsigned pixels")
    return Layout(
        syntax=syntax,
        shape=(rows, columns),
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        photometric=photometric,
        planar=samples == 3 and integer(dataset, "PlanarConfiguration", 0) == 1,
        window=_window(dataset),
        rescale=(number(dataset, "RescaleSlope") or 1.0, number(dataset, "RescaleIntercept") or 0.0),
    )


def _window(dataset: Dataset) -> tuple[float, float] | None:
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    return (centre, width) if centre is not None and width is not None and width >= 1 else None


def _aspect(dataset: Dataset) -> float:
    """From PixelAspectRatio (0028,0034), which is height, then width; 1 where there is none that can be."""
    height, width = pair(dataset, "PixelAspectRatio") or (1, 1)
    return width / height if 0 < height < math.inf and 0 < width < math.inf else 1.0


def _times(dataset: Dataset) -> TimeTags:
    pointer = value(dataset, "FrameIncrementPointer")
    if pointer is not None:
        pointer = [int(tag) for tag in (pointer if not isinstance(pointer, int) else [pointer])]
    return TimeTags(
        vector_ms=numbers(dataset, "FrameTimeVector"),
        frame_ms=number(dataset, "FrameTime"),
        cine_rate=number(dataset, "CineRate"),
        display_rate=number(dataset, "RecommendedDisplayFrameRate"),
        pointer=pointer,
    )


def _regions(dataset: Dataset) -> tuple[Region, ...]:
    """Those regions that are described completely."""
    found = []
    for item in value(dataset, "SequenceOfUltrasoundRegions") or ():
        values = [integer(item, keyword) for keyword in _REGION]
        units = [integer(item, f"PhysicalUnits{axis}Direction", 0) or 0 for axis in "YX"]
        delta = [number(item, f"PhysicalDelta{axis}") or 0.0 for axis in "YX"]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            spatial_format, data_type, y0, y1, x0, x1 = known
            found.append(Region(spatial_format, data_type, y0, y1, x0, x1, (units[0], units[1]), (delta[0], delta[1])))
    return tuple(found)


def _extended_offsets(dataset: Dataset, name: str) -> tuple[int, ...]:
    table = value(dataset, "ExtendedOffsetTable")
    if not table:
        return ()
    if len(table) % 8:
        raise ClipError(name, f"its extended offset table has {len(table)} bytes, no multiple of 8", COPY)
    return struct.unpack(f"<{len(table) // 8}Q", table)
