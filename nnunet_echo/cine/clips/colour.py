"""From the three values of a pixel to grey, whatever a file calls them.

Grey is luma, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). A JPEG stores Y itself, so it is taken and not computed
twice. What the file says of its colours is wrong at times, so it is compared with the pixels: most of an ultrasound
picture is grey, which is R = G = B in RGB, and Cb = Cr = 128 in YCbCr.
Sources: ISO/IEC 10918-1, Annex B (markers) and 10918-6 (APP14); ITU-T T.800, A.6.1 (COD marker of JPEG 2000).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy import ndarray
from PIL import Image

RGB, YBR = "RGB", "YBR"
_NEUTRAL = 3  # grey levels that lossy compression may move


def luma(pixels: ndarray, model: str) -> ndarray:
    """Grey (H, W) uint8 of (H, W, 3) uint8, which are R, G, B or Y, Cb, Cr.

    >>> luma(np.uint8([[[255, 0, 0], [9, 9, 9]]]), RGB).tolist()
    [[76, 9]]
    """
    if model == YBR:
        return np.ascontiguousarray(pixels[..., 0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels), "RGB").convert("L"))


def as_rgb(pixels: ndarray, model: str) -> ndarray:
    """(H, W, 3) uint8 as R, G, B."""
    if model == RGB:
        return pixels
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels), "YCbCr").convert("RGB"))


def model_by_pixels(pixels: ndarray, told: str) -> str:
    """`told`, or the other of RGB and YBR where most of the pixels (H, W, 3) are grey in that one only."""
    values = pixels.reshape(-1, 3).astype(np.int16)
    as_ybr = (np.abs(values[:, 1:] - 128) <= _NEUTRAL).all(axis=1).mean()
    as_rgb_ = (values.max(axis=1) - values.min(axis=1) <= 2 * _NEUTRAL).mean()
    if as_ybr > 0.6 and as_rgb_ < 0.2:
        return YBR
    if as_rgb_ > 0.6 and as_ybr < 0.2:
        return RGB
    return told


def jpeg_model(data: bytes, told: str) -> str:
    """RGB or YBR of a JPEG of three components: by its markers, else by its components, else as `told`."""
    model, jfif = told, False
    for _, marker, body in _segments(data):
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            return YBR if body[11] == 1 else RGB
        if marker == 0xE0 and body[:4] == b"JFIF":
            jfif = True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 15 and body[5] == 3:
            letters, sampling = bytes(body[6:15:3]).upper(), {body[7], body[10], body[13]}
            model = RGB if letters == b"RGB" else YBR if len(sampling) > 1 else told
    return YBR if jfif else model


def with_model(data: bytes, model: str) -> bytes:
    """The JPEG with an APP14 marker that makes every decoder take its components for `model`, and no other marker."""
    changed = bytearray(data)
    for position, marker, body in _segments(data):
        if marker == 0xEE and body[:5] == b"Adobe" or marker == 0xE0 and body[:4] == b"JFIF":
            changed[position + 1] = 0xEF  # APP15, which nobody reads
    marker_14 = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([model == YBR])
    return bytes(changed[:2] + marker_14 + changed[2:])


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(position, marker, what it holds) of the segments of a JPEG in front of its first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield position, data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + length


def jpeg2000_is_transformed(data: bytes) -> bool:
    """Whether a JPEG 2000 code stream holds transformed colours, which decoders give back as RGB."""
    found = data.find(b"\xff\x52")  # COD: length, style, progression, layers, transform
    return found >= 0 and len(data) > found + 8 and data[found + 8] == 1
