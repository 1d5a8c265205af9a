"""Reading single frames of Motion JPEG videos, and judging tracings, without a data set around them."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon

from nnunet_echo.data.avi import read_frames
from nnunet_echo.data.images import SourceError
from nnunet_echo.dataset_conversion.echonet.phantom import echonet_video, mjpeg_avi
from nnunet_echo.dataset_conversion.echonet.tracing import tracing_mask, why_irregular

SHAPE = (112, 112)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def numbered(count: int) -> list[bytes]:
    """Frames that can be told apart: frame k has the grey value 2 k."""
    return [jpeg(np.full((*SHAPE, 3), 2 * number, np.uint8)) for number in range(count)]


def test_every_frame_is_the_one_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    path.write_bytes(mjpeg_avi(numbered(60), 50.0))
    for frame in np.random.default_rng(0).permutation(60):
        (pixels,) = read_frames(path, "v", [int(frame)], SHAPE, 60)
        assert pixels.shape == SHAPE and np.all(pixels == 2 * frame)
    cine = read_frames(path, "v", [59, 0, 30], SHAPE)
    assert cine[:, 5, 5].tolist() == [118, 0, 60] and cine.dtype == np.uint8


def test_colour_becomes_grey_by_the_usual_weights(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    colour = np.broadcast_to(np.array([200, 100, 50], np.uint8), (*SHAPE, 3))
    path.write_bytes(mjpeg_avi([jpeg(np.ascontiguousarray(colour))], 50.0))
    (pixels,) = read_frames(path, "v", [0], SHAPE)
    assert np.all(np.abs(pixels.astype(int) - round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1)


def test_lists_padding_and_other_streams_between_the_frames(tmp_path: Path) -> None:
    """What OpenCV and FFmpeg write besides frames: JUNK, INFO and odml lists, sound, frames in lists of their own."""
    data = mjpeg_avi(numbered(3), 50.0)
    movie = data.index(b"LIST", 12 + 8 + int.from_bytes(data[16:20], "little"))
    extra = b"LIST\x0e\0\0\0INFOISFT\x02\0\0\0ab" + b"JUNK\x05\0\0\0abcde\0"
    sound = b"01wb\x03\0\0\0abc\0"
    body = data[movie + 12 : data.rindex(b"idx1")]
    content = b"movi" + sound + body + sound
    data = data[:movie] + extra + b"LIST" + len(content).to_bytes(4, "little") + content
    path = tmp_path / "v.avi"
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert read_frames(path, "v", [0, 1, 2], SHAPE, 3)[:, 9, 9].tolist() == [0, 2, 4]


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    noise = jpeg(np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8))
    path.write_bytes(mjpeg_avi([noise] * 900, 50.0))
    assert path.stat().st_size > 8e6
    tracemalloc.start()
    read_frames(path, "v", [450], SHAPE, 900)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e5


@pytest.mark.parametrize(
    ("shape", "frames", "expected", "message"),
    [
        (SHAPE, [3], None, "frame 3 is traced, but it has frames 0 to 2"),
        (SHAPE, [-1], None, "frame -1 is traced"),
        (SHAPE, [0], 4, "3 frames where 4 are listed"),
        ((112, 96), [0], 3, "frame 0 has 112 x 112 pixels, not 112 x 96"),
    ],
)
def test_what_the_video_does_not_have(
    tmp_path: Path, shape: tuple[int, int], frames: list[int], expected: int | None, message: str
) -> None:
    path = tmp_path / "v.avi"
    path.write_bytes(mjpeg_avi(numbered(3), 50.0))
    with pytest.raises(SourceError, match=message):
        read_frames(path, "v", frames, shape, expected)


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    data, path = mjpeg_avi(numbered(3), 50.0), tmp_path / "v.avi"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(SourceError, match="truncated"):
            read_frames(path, "v", [0], SHAPE)


def test_any_changed_byte_gives_a_frame_or_a_reason(tmp_path: Path) -> None:
    """Never another exception; and never another frame's picture: the grey values lie far enough apart."""
    data, path = mjpeg_avi(numbered(3), 50.0), tmp_path / "v.avi"
    rng, refused = np.random.default_rng(1), 0
    header = data.index(b"movi") + 4
    for position in [*range(header), *rng.integers(header, len(data), 300)]:
        damaged = bytearray(data)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            pixels = read_frames(path, "v", [1], SHAPE, 3)
        except SourceError as error:
            refused += "v: " in str(error) or "v is" in str(error)
        else:
            assert pixels.shape == (1, *SHAPE)
    assert refused > 20


VIDEO = echonet_video(3, 1)
TRACING = VIDEO.tracing(VIDEO.ed)


def moved(*order: int) -> np.ndarray:
    return TRACING[list(order)]


def test_a_regular_tracing_is_regular_in_every_direction() -> None:
    assert why_irregular(TRACING) == ""
    assert why_irregular(TRACING[:, [2, 3, 0, 1]]) == ""  # right to left, the axis upwards
    assert why_irregular(TRACING[[0, *range(20, 0, -1)]]) == ""  # from the mitral plane up


@pytest.mark.parametrize(
    ("tracing", "reason"),
    [
        (TRACING[:20], "20 rows instead of 21"),
        (np.concatenate([TRACING, TRACING[:1]]), "22 rows instead of 21"),
        (moved(*range(1, 21), 0), "its first row is not the long axis"),
        (moved(1, 0, *range(2, 21)), "its first row is not the long axis"),
        (moved(0, 1, 3, 2, *range(4, 21)), "not in order along the long axis"),
        (moved(0, 1, 1, *range(3, 21)), "not in order along the long axis"),
        (np.where(np.arange(21)[:, None] == 7, TRACING[:, [2, 3, 0, 1]], TRACING), "its outline crosses itself"),
        (
            np.where(np.arange(21)[:, None] == 7, TRACING[:, [0, 1, 0, 1]], TRACING),
            "its first row is not the long axis",
        ),
        (np.zeros((21, 4)), "its first row is not the long axis"),
    ],
)
def test_an_irregular_tracing_is_told(tracing: np.ndarray, reason: str) -> None:
    assert reason in why_irregular(tracing)


def test_the_mask_is_the_polygon_of_the_rounded_points_and_stays_in_the_frame() -> None:
    for shift in (0.0, 60.0, -70.0):
        lines = TRACING + shift
        x = np.concatenate([lines[1:, 0], np.flip(lines[1:, 2])])
        y = np.concatenate([lines[1:, 1], np.flip(lines[1:, 3])])
        expected = np.zeros(SHAPE, np.uint8)
        expected[polygon(np.rint(y), np.rint(x), SHAPE)] = 1
        assert np.array_equal(tracing_mask(lines, SHAPE), expected)
    assert not tracing_mask(TRACING + 500, SHAPE).any()
