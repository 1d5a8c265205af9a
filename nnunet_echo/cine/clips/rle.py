"""RLE of DICOM: each byte plane of a frame packed by itself, and strictly to the last byte.

Source: DICOM PS3.5, Annex G, Encapsulated RLE compressed images; the packing is that of PackBits (TIFF 6.0, section 9).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy import ndarray


def decode_rle(data: bytes, shape: tuple[int, int], samples: int, bits_allocated: int) -> ndarray:
    """A frame (H, W), or (H, W, samples), of unsigned integers of 8 or 16 bits. Raises `ValueError` for any damage.

    >>> header = struct.pack("<16I", 1, 64, *[0] * 14)
    >>> decode_rle(header + bytes([0, 7, 254, 9]), (2, 2), 1, 8).tolist()
    [[7, 9], [9, 9]]
    """
    number, *offsets = struct.unpack("<16I", data[:64]) if len(data) >= 64 else (0,)
    planes = samples * bits_allocated // 8
    offsets = offsets[:number]
    if number != planes or offsets[0] != 64 or sorted(set(offsets)) != offsets or offsets[-1] >= len(data):
        raise ValueError(f"{number} segments where {planes} are needed")
    pixels = shape[0] * shape[1]
    unpacked: list[ndarray] = [
        np.frombuffer(_unpack(data[begin:end], pixels), np.uint8)
        for begin, end in zip(offsets, [*offsets[1:], len(data)], strict=True)
    ]
    if bits_allocated == 16:  # the high byte comes first
        unpacked = [high.astype(np.uint16) << 8 | low for high, low in zip(unpacked[::2], unpacked[1::2], strict=True)]
    return np.stack(unpacked, axis=-1).reshape(*shape, *([samples] if samples > 1 else []))


def _unpack(packed: bytes, length: int) -> bytes:
    parts, position, done, end = [], 0, 0, len(packed)
    while done < length:
        if position + 1 >= end:
            raise ValueError(f"a segment ends after {done} of {length} bytes")
        control = packed[position]
        if control < 128:
            part = packed[position + 1 : position + 2 + control]
            position += 2 + control
            if position > end:
                raise ValueError("a segment ends within a run")
        elif control > 128:
            part = packed[position + 1 : position + 2] * (257 - control)
            position += 2
        else:
            position += 1
            continue
        parts.append(part)
        done += len(part)
    if done != length or end - position > 1 or packed[position:].strip(b"\0\x80"):
        raise ValueError(f"a segment has {done} bytes where {length} are needed, or more after them")
    return b"".join(parts)
