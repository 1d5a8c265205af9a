"""Where each frame lies in a DICOM file, found without reading one.

Uncompressed frames follow one another. Compressed ones are items (FFFE,E000) in which a frame may take several: then
the offset table tells where a frame begins, or the codec's own start of image does. What does not come out even, to the
byte, is damage.
Source: DICOM PS3.5, A.4, Transfer syntaxes for encapsulation of encoded pixel data.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import BinaryIO

from nnunet_echo.cine.clips.clip import ClipError

Span = tuple[int, int]  # where bytes begin in the file, and how many they are

COPY = "Copy the file again"
UNDEFINED = 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")  # of a JPEG or JPEG-LS image, of a JPEG 2000 code stream


def native_frames(name: str, start: int, length: int, size: int, count: int, frame_bytes: int) -> list[Span]:
    """The `count` frames of uncompressed pixel data, `length` bytes from byte `start` of a file of `size` bytes."""
    needed = count * frame_bytes
    if length not in (needed, needed + needed % 2):
        raise ClipError(
            name, f"{length} bytes of pixels are announced where {count} frames of {frame_bytes} are described", COPY
        )
    if start + needed > size:
        complete = max(0, size - start) // frame_bytes
        raise ClipError(name, f"it ends within frame {complete + 1} of {count}", COPY)
    return [(start + index * frame_bytes, frame_bytes) for index in range(count)]


def encapsulated_frames(
    file: BinaryIO, name: str, start: int, count: int, *, offsets: Sequence[int] = (), stream: bool = False
) -> list[list[Span]]:
    """The items of each of `count` frames, from byte `start` on; of a video `stream`, all items as one.

    `offsets` are those of an extended offset table.
    """
    table, items = _items(file, name, start)
    if stream:
        return [items]
    if len(items) < count:
        raise ClipError(name, f"{len(items)} frames are stored where {count} are announced", COPY)
    if not offsets and table[1]:
        if table[1] % 4:
            raise ClipError(name, f"its offset table has {table[1]} bytes, no multiple of 4", COPY)
        offsets = struct.unpack(f"<{table[1] // 4}I", _read(file, *table, name))
    if offsets:
        first = items[0][0] - 8
        begins = [position - 8 - first for position, _ in items]
        if len(offsets) != count or offsets[0] != 0 or list(offsets) != sorted(set(offsets) & set(begins)):
            raise ClipError(name, f"its offset table does not fit its {len(items)} items and {count} frames", COPY)
        starts = [begins.index(offset) for offset in offsets]
    elif len(items) == count:
        starts = list(range(count))
    elif count == 1:
        starts = [0]
    else:
        starts = [
            index for index, (position, length) in enumerate(items) if _starts_image(_read(file, position, 4, name))
        ]
    if len(starts) != count or starts[0] != 0:
        raise ClipError(name, f"{len(starts)} frames are stored where {count} are announced", COPY)
    return [items[begin:end] for begin, end in zip(starts, [*starts[1:], len(items)], strict=True)]


def read_spans(file: BinaryIO, spans: Sequence[Span], name: str) -> bytes:
    """These bytes of the file, joined."""
    return b"".join(_read(file, position, length, name) for position, length in spans)


class SpanFile(io.RawIOBase):
    """Spans of a file as one file that can be read and searched, so that a film within DICOM need not be in memory."""

    def __init__(self, file: BinaryIO, spans: Sequence[Span]) -> None:
        self._file, self._spans, self._position = file, spans, 0
        self._size = sum(length for _, length in spans)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), self._size)
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position if size is None or size < 0 else size
        parts, passed = [], 0
        for begin, length in self._spans:
            within = self._position - passed
            passed += length
            if left > 0 and 0 <= within < length:
                self._file.seek(begin + within)
                part = self._file.read(min(left, length - within))
                self._position += len(part)
                left -= len(part)
                parts.append(part)
        return b"".join(parts)


def _starts_image(data: bytes) -> bool:
    return any(data.startswith(start) for start in _STARTS)


def _items(file: BinaryIO, name: str, position: int) -> tuple[Span, list[Span]]:
    """The basic offset table, which may be empty, and the items after it, up to the delimiter that must follow."""
    spans: list[Span] = []
    size = file.seek(0, io.SEEK_END)
    while True:
        if position + 8 > size:
            raise ClipError(name, f"it ends after {max(0, len(spans) - 1)} compressed frames or parts of them", COPY)
        head = _read(file, position, 8, name)
        tag, length = head[:4], struct.unpack("<I", head[4:])[0]
        if tag == _END and length == 0:
            break
        if tag != _ITEM or length % 2:
            raise ClipError(name, f"its compressed pixels are damaged after {max(0, len(spans) - 1)} items", COPY)
        if position + 8 + length > size:
            raise ClipError(name, f"it ends within item {len(spans)} of its compressed frames", COPY)
        spans.append((position + 8, length))
        position += 8 + length
    if not spans:
        raise ClipError(name, "its compressed pixels have no offset table", COPY)
    return spans[0], spans[1:]


def _read(file: BinaryIO, position: int, length: int, name: str) -> bytes:
    file.seek(position)
    data = file.read(length)
    if len(data) < length:
        raise ClipError(name, f"it ends at byte {position + len(data)}", COPY)
    return data
