"""MetaImage headers: what is read is what SimpleITK reads and what the header says; everything else is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.random import Generator

from nnunet_echo.data.images import SourceError, read_image
from nnunet_echo.data.meta_image import read_meta_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
HEADER = """ObjectType = Image
NDims = 2
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 1
Offset = 0 0
CenterOfRotation = 0 0
ElementSpacing = 0.308 0.154
DimSize = 8 6
AnatomicalOrientation = RAI
ElementType = MET_UCHAR
ElementDataFile = a.raw
"""


def write(folder: Path, header: str = HEADER, data: bytes = PIXELS.tobytes()) -> Path:
    """a.mhd, and the file of pixels that its header should name."""
    (folder / "a.raw").write_bytes(data)
    (folder / "a.mhd").write_bytes(header.encode("latin-1"))
    return folder / "a.mhd"


def replaced(old: str, new: str) -> str:
    assert old in HEADER
    return HEADER.replace(old, new)


def test_a_file_is_read_as_it_is_packed_or_not_of_every_type_and_order(tmp_path: Path) -> None:
    assert np.array_equal(sitk.GetArrayFromImage(read_image(write(tmp_path), "a")), PIXELS)
    packed = replaced("CompressedData = False", "CompressedData = True")
    assert np.array_equal(
        sitk.GetArrayFromImage(read_image(write(tmp_path, packed, zlib.compress(PIXELS.tobytes())), "a")), PIXELS
    )
    for kind, name in (("i2", "SHORT"), ("u2", "USHORT"), ("i4", "INT"), ("f4", "FLOAT"), ("f8", "DOUBLE")):
        for order, word in (("<", "False"), (">", "True")):
            header = replaced("MET_UCHAR", f"MET_{name}").replace("MSB = False", f"MSB = {word}")
            path = write(tmp_path, header, PIXELS.astype(order + kind).tobytes())
            assert np.array_equal(sitk.GetArrayFromImage(read_image(path, "a")), PIXELS)
    for ending, compressed in ((".mha", False), (".mha", True), (".mhd", True)):
        image = sitk.GetImageFromArray(PIXELS)
        image.SetSpacing((0.3, 0.2))
        sitk.WriteImage(image, str(tmp_path / f"b{ending}"), compressed)
        read = read_image(tmp_path / f"b{ending}", "b")
        assert np.array_equal(sitk.GetArrayFromImage(read), PIXELS) and read.GetSpacing() == (0.3, 0.2)
    assert read_image(write(tmp_path, HEADER.replace("\n", "\r\n")), "a").GetSize() == (8, 6)


PACKED = zlib.compress(PIXELS.tobytes())
FLIPPED = bytes([*PACKED[:20], PACKED[20] ^ 0x10, *PACKED[21:]])
TRUE = replaced("CompressedData = False", "CompressedData = True")


REFUSED = [
    (TRUE, PIXELS.tobytes(), "damaged compressed pixels"),
    (TRUE, PACKED[: len(PACKED) // 2], "truncated: "),
    (TRUE, PACKED[:-3], "damaged compressed pixels"),
    (TRUE, FLIPPED, "damaged"),
    (TRUE, b"x", "truncated|damaged"),
    (TRUE, b"", "truncated: 0 bytes"),
    (TRUE, PACKED + b"x", "or more after it"),
    (TRUE, zlib.compress(bytes(10**7)), "more than 48 bytes"),
    (TRUE.replace("True\nTr", "true\nTr"), PACKED, "CompressedData = true; True or False"),
    (HEADER, PIXELS.tobytes() + b"x", "more than 48 bytes"),
    (HEADER, PIXELS.tobytes()[1:], "truncated: 47 bytes of pixels where the header promises 48"),
    (replaced("ElementDataFile = a.raw", "ElementDataFile = b.raw\nElementDataFile = a.raw"), b"", "something follows"),
    (HEADER + "ElementDataFile = b.raw\n", b"", "something follows"),
    (HEADER + "CompressedData = True\n", b"", "something follows"),
    (replaced("DimSize = 8 6", "DimSize = 8 6\nDimSize = 6 8"), b"", "DimSize twice"),
    (replaced("DimSize = 8 6", "DimSize = 8 6\ndimsize = 6 8"), b"", "dimsize for DimSize"),
    (replaced("DimSize", "dimSize"), b"", "dimSize for DimSize"),
    (replaced("a.raw", "/etc/passwd"), b"", "not a file of the same folder"),
    (replaced("a.raw", "../a.raw"), b"", "not a file of the same folder"),
    (replaced("a.raw", "b.raw"), b"", "not a file of the same folder"),
    (replaced("a.raw", "a.mhd"), b"", "not a file of the same folder"),
    (replaced("a.raw", "a%d.raw 1 2 1"), b"", "not a file of the same folder"),
    (replaced("a.raw", "LIST\na.raw"), b"", "something follows"),
    (replaced("a.raw", "local"), b"", "not a file of the same folder"),
    (replaced("a.raw", "a.png"), b"", "a.png is missing"),
    (replaced("a.raw", "LOCAL"), b"", "truncated: 0 bytes"),
    (replaced("DimSize", "HeaderSize = -1\nDimSize"), b"", "HeaderSize = -1; only 0"),
    (replaced("DimSize", "HeaderSize = 4\nDimSize"), b"", "HeaderSize = 4; only 0"),
    (replaced("DimSize", "ElementNumberOfChannels = 3\nDimSize"), b"", "ElementNumberOfChannels = 3; only 1"),
    (replaced("DimSize", "ElementByteOrderMSB = True\nDimSize"), b"", "which mean the same"),
    (replaced("DimSize", "ElementSize = 1 1\nDimSize"), b"", "which mean the same"),
    (replaced("DimSize", "Position = 1 1\nDimSize"), b"", "which mean the same"),
    (replaced("DimSize", "DistanceUnits = um\nDimSize"), b"", "DistanceUnits = um; only mm"),
    (replaced("BinaryData = True", "BinaryData = False"), b"", "BinaryData = False; only True"),
    (replaced("MSB = False", "MSB = 0"), b"", "BinaryDataByteOrderMSB = 0; True or False"),
    (replaced("NDims = 2", "NDims = 3"), b"", "NDims 3, DimSize 8 6"),
    (replaced("NDims = 2", "NDims = 9"), b"", "NDims 9"),
    (replaced("8 6", "8 -6"), b"", "DimSize 8 -6"),
    (replaced("8 6", "8 6.5"), b"", "damaged MetaImage header"),
    (replaced("8 6", "800000 600000"), b"", "the header promises 480000000000 bytes"),
    (replaced("0.308 0.154", "0.308"), b"", "ElementSpacing 0.308"),
    (replaced("ElementSpacing = 0.308 0.154\n", ""), b"", "no ElementSpacing"),
    (replaced("0.308 0.154", "nan 0.154"), b"", "'nan 0.154' are not numbers"),
    (replaced("0.308 0.154", "0.308 0"), b"", "spacing 0.308 0; each must be a positive number"),
    (replaced("0.308 0.154", "0.308 -0.154"), b"", "spacing 0.308 -0.154; each must be a positive number"),
    (replaced("0.308 0.154", "0.000308 0.000154"), b"", "spacing 0.000308 x 0.000154 mm"),
    (replaced("MET_UCHAR", "MET_LONG"), b"", "ElementType is 'MET_LONG'"),
    (replaced("TransformMatrix = 1 0 0 1", "TransformMatrix = 1 0 0"), b"", "damaged MetaImage header"),
    (replaced("NDims = 2", "NDims: 2"), b"", "is not KEY = VALUE"),
    ("x" * 100_000, b"", "no ElementDataFile"),
]


@pytest.mark.parametrize(("header", "data", "message"), REFUSED, ids=[refused[2] for refused in REFUSED])
def test_a_header_or_pixels_that_leave_a_doubt_are_refused(
    header: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, header, data or (b"" if header is TRUE else PIXELS.tobytes()))
    (tmp_path / "b.raw").write_bytes(PIXELS[::-1].tobytes())
    with pytest.raises(SourceError, match=message) as error:
        read_image(path, "patient/a.mhd")
    assert "patient/a.mhd" in str(error.value)


VALUES = [
    "",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "1e3",
    "1e-30",
    "nan",
    "inf",
    "0x8",
    "8 6",
    "6 8",
    "8 6 1",
    "48 1",
    "2e308",
    "0.154 0.308",
    "True",
    "False",
    "true",
    "TRUE",
    "T",
    "1 0 0 1",
    "0 1 1 0",
    "0 0 0 0",
    "MET_CHAR",
    "MET_INT",
    "MET_UCHAR",
    "a.raw",
    "b.raw",
    "LOCAL",
    "LIST",
    "1,5 2",
    "8_0 6",
    "+8 +6",
    "08 06",
    "8.0 6.0",
    "Image",
    "??",
    "0.308 0.154 9",
    "LPS",
    "8 6 # comment",
    "0.308mm 0.154mm",
    "3.08e-1 1.54e-1",
    ".308 .154",
    "1 2",
]
KEYS = [
    "HeaderSize",
    "HeaderSizePerSlice",
    "ElementNumberOfChannels",
    "ElementByteOrderMSB",
    "ElementSize",
    "Origin",
    "Position",
    "Rotation",
    "Orientation",
    "ElementMin",
    "ElementMax",
    "ElementToIntensityFunctionSlope",
    "Name",
    "ElementToIntensityFunctionOffset",
    "CompressedDataSize",
    "DistanceUnits",
    "Modality",
    "SequenceID",
    "Comment",
    "ObjectSubType",
    "TransformType",
    "ID",
    "ParentID",
    "Color",
    "AcquisitionDate",
    "ITK_Note",
    "dimsize",
    "Bogus",
]


def mutated(rng: Generator) -> str:
    """The header with one to three changes of a random kind."""
    lines = HEADER.splitlines()
    for _ in range(rng.integers(1, 4)):
        if not lines:
            break
        place, kind = int(rng.integers(len(lines))), int(rng.integers(9))
        key, _, value = lines[place].partition(" = ")
        other = str(rng.choice(VALUES))
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(int(rng.integers(len(lines) + 1)), lines[place])
        elif kind in (2, 3):
            lines[place] = f"{key} = {other}"
        elif kind == 4:
            lines.insert(int(rng.integers(len(lines) + 1)), f"{rng.choice(KEYS)} = {other}")
        elif kind == 5:
            lines.insert(int(rng.integers(len(lines) + 1)), lines.pop(place))
        elif kind == 6:
            separator = rng.choice(["=", ": ", " =  ", " = = ", "\t=\t", " ", " == ", "= \r"])
            lines[place] = f"{key}{separator}{value}"
        elif kind == 7:
            lines[place] = str(
                rng.choice(
                    [
                        key.lower() + " = " + value,
                        " " + lines[place],
                        lines[place] + "  ",
                        "",
                        lines[place] + "\r",
                        lines[place] + "\0",
                        "# " + lines[place],
                        lines[place] + " 7",
                        lines[place] + "\v",
                        "\xef\xbb\xbf" + key,
                    ]
                )
            )
        else:
            at = int(rng.integers(len(lines[place]) + 1))
            lines[place] = lines[place][:at] + chr(rng.integers(256)) + lines[place][at + 1 :]
    return "\n".join(lines) + str(rng.choice(["\n", "", "\r\n", "\n\n"]))


def test_our_reading_of_a_header_and_that_of_simpleitk_never_differ(tmp_path: Path) -> None:
    (tmp_path / "b.raw").write_bytes(PIXELS[::-1].tobytes())
    rng, read = np.random.default_rng(12), 0
    for _ in range(600):
        path = write(tmp_path, mutated(rng))
        try:
            image = read_image(path, "a.mhd", "px")
        except SourceError as error:
            assert "a.mhd" in str(error)
            continue
        ours, theirs = read_meta_image(path, "a.mhd"), sitk.ReadImage(str(path))
        assert np.array_equal(ours.pixels, sitk.GetArrayFromImage(theirs)), path.read_text()
        assert np.array_equal(sitk.GetArrayFromImage(image), ours.pixels), path.read_text()
        assert ours.spacing == pytest.approx(theirs.GetSpacing(), rel=1e-9), path.read_text()
        assert ours.pixels.shape[::-1] == theirs.GetSize() == image.GetSize(), path.read_text()
        # Not by chance the pixels of another file.
        assert ours.pixels.tobytes() == PIXELS.tobytes(), path.read_text()
        read += 1
    assert 50 < read < 550  # both happen
