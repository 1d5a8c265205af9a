"""The bytes of one DICOM frame as grey (H, W) uint8.

Pillow reads JPEG of 8 bits, straight to luma, and JPEG 2000; RLE and uncompressed frames are read here; lossless JPEG,
JPEG-LS and HTJ2K by pydicom with the decoders that are installed. One value a pixel goes through one
table, made of the palette, or of the stored window where there are more than 8 bits; MONOCHROME1 is turned over.
Values of 8 bits stay as they are stored, since networks learn from pictures exported so.
Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.2.1.2.1 (window); PS3.6, Table A-1 (syntaxes).
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.cine.clips.clip import ClipError, Finding
from nnunet_echo.cine.clips.colour import (
    RGB,
    YBR,
    as_rgb,
    jpeg2000_is_transformed,
    jpeg_model,
    luma,
    model_by_pixels,
    with_model,
)
from nnunet_echo.cine.clips.fragments import COPY
from nnunet_echo.cine.clips.header import Header
from nnunet_echo.cine.clips.rle import decode_rle
from nnunet_echo.data.quiet import quietly

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
RLE = "1.2.840.10008.1.2.5"
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# What pydicom decodes, and what to install for it. Not pylibjpeg-libjpeg, which is under the GPL.
_GDCM = "pip install 'nnunet-echo[dicom]'"
BY_PYDICOM = {
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", _GDCM),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", _GDCM),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", _GDCM),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", _GDCM),
    "1.2.840.10008.1.2.4.201": ("high-throughput JPEG 2000", "pip install pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("high-throughput JPEG 2000", "pip install pylibjpeg pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("high-throughput JPEG 2000", "pip install pylibjpeg pylibjpeg-openjpeg"),
}


class FrameDecoder:
    """Decodes the frames of one file; `findings` are what is known once the first one is decoded."""

    def __init__(self, header: Header, name: str) -> None:
        layout = header.layout
        self.layout, self._name, self._header = layout, name, header
        self._told = RGB if layout.photometric == "RGB" else YBR
        self._model: str | None = None  # of colours, once a frame has been seen
        self._by_pillow = layout.syntax in JPEG and layout.bits_stored == 8 or layout.syntax in JPEG_2000
        if layout.syntax not in (*NATIVE, RLE) and not self._by_pillow:
            self._decoder = _pydicom_decoder(layout.syntax, name)
        self._palette = _palette(header, name) if layout.photometric == "PALETTE COLOR" else None
        self._table = _table(header, self._palette) if layout.samples == 1 else None

    @property
    def frame_bytes(self) -> int:
        """Of an uncompressed frame."""
        layout = self.layout
        pixels = layout.shape[0] * layout.shape[1]
        if self.is_subsampled:
            return pixels * 2
        return pixels * layout.samples * layout.bits_allocated // 8

    @property
    def is_subsampled(self) -> bool:
        """Whether an uncompressed frame holds Y, Y, Cb, Cr for two pixels, as YBR_FULL_422 says; some are complete."""
        layout = self.layout
        full = layout.shape[0] * layout.shape[1] * 3 * self._header.count
        return layout.photometric == "YBR_FULL_422" and self._header.pixels_length not in (full, full + full % 2)

    def grey(self, data: bytes, number: int) -> ndarray:
        """Frame `number`, from 1, as (H, W) uint8. Raises `ClipError` where it is damaged."""
        if self.layout.samples == 3 and self._model is None:
            self.settle(data, number)
        try:
            if self.layout.samples == 3 and self.layout.syntax in JPEG and self._by_pillow:
                return self._pillow(with_model(data, str(self._model)), "JPEG", "L")
            values = self._values(data)
            if self.layout.samples == 3:
                return luma(values, str(self._model))
            return values if self._table is None else self._table[values & (len(self._table) - 1)]
        except ClipError:
            raise
        except Exception as error:  # decoders raise whatever comes of damaged bytes
            kind = type(error).__name__
            raise ClipError(self._name, f"frame {number} of {self._header.count} is damaged ({kind})", COPY) from error

    def rgb(self, data: bytes, number: int) -> ndarray:
        """Frame `number` as (H, W, 3) uint8, for a look at its colours; it must have some."""
        self.grey(data, number)  # with its errors
        values = self._values(data)
        if self._palette is not None:
            return self._palette[values & (len(self._palette) - 1)]
        return as_rgb(values, str(self._model))

    def settle(self, data: bytes, number: int) -> list[Finding]:
        """Decide by one frame what its three values are; what the file says of them may be wrong."""
        try:
            told = self._told
            if self.layout.syntax in JPEG_2000 and jpeg2000_is_transformed(data):
                told = RGB
            elif self._by_pillow and self.layout.syntax in JPEG:
                told = jpeg_model(data, told)
            values = self._values(data)
        except Exception as error:
            kind = type(error).__name__
            raise ClipError(self._name, f"frame {number} of {self._header.count} is damaged ({kind})", COPY) from error
        self._model = model_by_pixels(values, told)
        if self._model != told:
            text = f"The file calls its colours {told}, its pixels are {self._model}, and are taken for that."
            return [Finding("photometric_contradicted", text)]
        return []

    def _values(self, data: bytes) -> ndarray:
        """(H, W) or (H, W, 3) as stored, colours not transformed."""
        layout = self.layout
        if layout.syntax in NATIVE:
            return self._native(data)
        if layout.syntax == RLE:
            return decode_rle(data, layout.shape, layout.samples, layout.bits_allocated)
        if self._by_pillow and layout.syntax in JPEG:
            return self._pillow(with_model(data, RGB) if layout.samples == 3 else data, "JPEG", None)
        if self._by_pillow:
            return self._pillow(data, "JPEG2000", None)
        return self._by_pydicom(data)

    def _pillow(self, data: bytes, kind: str, mode: str | None) -> ndarray:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if (image.height, image.width) != self.layout.shape:
                raise ValueError(f"{image.height} x {image.width} pixels")
            if mode == "L":
                image.draft("L", None)
                return np.asarray(image if image.mode == "L" else image.convert("L"))
            values = np.asarray(image)
        if values.shape[2:] != ((3,) if self.layout.samples == 3 else ()):
            raise ValueError(f"{values.shape[2:]} values a pixel")
        return values

    def _native(self, data: bytes) -> ndarray:
        layout = self.layout
        wide = layout.bits_allocated == 16
        values = np.frombuffer(data, (">u2" if self._header.is_big_endian else "<u2") if wide else np.uint8)
        if self._header.is_big_endian and not wide and self._header.pixels_vr == "OW":
            if len(values) % 2:
                raise ClipError(self._name, "frames of an odd size in big endian words", "Export it as little endian")
            values = values.reshape(-1, 2)[:, ::-1].ravel()  # words of two pixels
        if layout.samples == 1:
            return values.reshape(layout.shape)
        if self.is_subsampled:
            values = values.reshape(layout.shape[0], -1, 4)
            pixels = np.repeat(values[..., [0, 2, 3]], 2, axis=1)
            pixels[:, 1::2, 0] = values[..., 1]
            return pixels
        if layout.planar:
            return np.moveaxis(values.reshape(3, *layout.shape), 0, -1)
        return values.reshape(*layout.shape, 3)

    def _by_pydicom(self, data: bytes) -> ndarray:
        layout = self.layout
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        with quietly():
            values, _ = self._decoder.as_array(
                item,
                index=0,
                raw=True,
                rows=layout.shape[0],
                columns=layout.shape[1],
                number_of_frames=1,
                samples_per_pixel=layout.samples,
                photometric_interpretation=layout.photometric,
                bits_allocated=layout.bits_allocated,
                bits_stored=layout.bits_stored,
                pixel_representation=0,
                planar_configuration=0,
                pixel_keyword="PixelData",
                transfer_syntax_uid=self._decoder.UID,
            )
        return values


def _pydicom_decoder(syntax: str, name: str) -> Any:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    if syntax in JPEG:
        raise ClipError(name, "its pixels are JPEG of more than 8 bits, which is not read", "Export it with 8 bits")
    if syntax not in BY_PYDICOM:
        raise ClipError(name, "its pixels are compressed in a way that is not read", "Export it as JPEG, or as a video")
    kind, remedy = BY_PYDICOM[syntax]
    decoder = get_decoder(UID(syntax))
    if not decoder.is_available:
        raise ClipError(name, f"its pixels are {kind}, whose decoder is not installed", f"Run: {remedy}")
    return decoder


def _palette(header: Header, name: str) -> ndarray:
    """The colour of each value that a pixel can have, (2 ** bits, 3) uint8."""
    from pydicom.pixels.processing import apply_color_lut

    kind = np.uint16 if header.layout.bits_allocated == 16 else np.uint8
    try:
        with quietly():
            colours = apply_color_lut(np.arange(2**header.layout.bits_stored).astype(kind), header.dataset)[:, :3]
    except Exception as error:  # pydicom raises whatever comes of damaged tags
        raise ClipError(name, f"its palette cannot be read ({type(error).__name__})", COPY) from error
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _table(header: Header, palette: ndarray | None) -> ndarray | None:
    """The grey of each value that a pixel can have, (2 ** bits,) uint8; None where that is the value itself."""
    layout = header.layout
    if palette is not None:
        return luma(palette[None], RGB)[0]
    values = np.arange(2**layout.bits_stored)
    if layout.bits_stored > 8 and layout.window is not None:
        (slope, intercept), (centre, width) = layout.rescale, layout.window
        grey = ((values * slope + intercept - (centre - 0.5)) / max(width - 1, 1) + 0.5) * 255
    else:
        grey = values * 255 / (2**layout.bits_stored - 1)
    grey = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    if layout.photometric == "MONOCHROME1":
        return 255 - grey
    return None if layout.bits_stored == layout.bits_allocated == 8 else grey
