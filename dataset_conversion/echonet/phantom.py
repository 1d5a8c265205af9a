"""Synthetic hearts in the layout of EchoNet-Dynamic (Ouyang et al., Nature 580, 2020).

    FileList.csv         one row a video: EF, volumes, size, frame rate, number of frames, split
    VolumeTracings.csv   the left ventricle on two frames: the long axis, then 20 lines across it from the apex down
    Videos/NAME.avi      Motion JPEG, 112 x 112, 4-chamber view, some heart beats

The true outline is known: the lines are the diameters of the phantom's disks. All beats of a video are the same.
`write_echonet` adds the oddities that the release has: rows of another frame size without a tracing, a tracing without
a row, several tracings on one frame, a line too few, lines that cross.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.phantom.folder import check_numbers, claim, write_text
from nnunet_echo.phantom.heart import Heart, Section, sample_heart
from nnunet_echo.phantom.ultrasound import ultrasound

SIZE = 112
LINES = 20
FILE_LIST = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
TRACINGS = "FileName,X1,Y1,X2,Y2,Frame"
ODDITIES = ("two tracings on a frame", "line missing", "lines cross", "other size")
VIDEOS_PER_ODDITY = 300  # about as rare as in the release


@dataclass(frozen=True)
class PhantomVideo:
    """One video. `ed` and `es` are the traced frames, from 0; a beat takes `2 * half_beat` frames."""

    name: str
    heart: Heart
    frames: int
    fps: float
    ed: int
    es: int
    half_beat: int
    split: str

    def section(self, frame: int) -> Section:
        """The heart as this frame shows it."""
        return Section(self.heart, "4CH", (1 - np.cos(np.pi * self.step(frame) / self.half_beat)) / 2)

    def step(self, frame: int) -> int:
        """How many frames this one is away from the nearest end diastole; 0 at ED, `half_beat` at ES."""
        step = (frame - self.ed) % (2 * self.half_beat)
        return min(step, 2 * self.half_beat - step)

    @property
    def pixel_mm(self) -> float:
        """The side of a pixel, which the layout does not tell: the sector's depth fills the height."""
        return self.heart.views["4CH"].depth_mm / SIZE

    def grid(self) -> tuple[ndarray, ndarray]:
        """x (1, SIZE) and y (SIZE, 1) of the pixels in mm."""
        x = (np.arange(SIZE)[None, :] - (SIZE - 1) / 2) * self.pixel_mm
        return x, np.arange(SIZE)[:, None] * self.pixel_mm

    def tracing(self, frame: int) -> ndarray:
        """(1 + LINES, 4) x1 y1 x2 y2 in pixels: the long axis, then the lines across it, each from left to right."""
        section = self.section(frame)
        u = (np.arange(LINES) + 0.5) / LINES * section.length_mm
        half_width = section.lv_half_width(u)
        axis = np.stack(section.to_image(np.array([0, section.length_mm]), np.zeros(2)), axis=-1).reshape(1, 4)
        lines = np.stack([*section.to_image(u, -half_width), *section.to_image(u, half_width)], axis=-1)
        return np.concatenate([axis, lines]) / self.pixel_mm + np.array([(SIZE - 1) / 2, 0] * 2)


def echonet_video(seed: int, number: int) -> PhantomVideo:
    """Video `number` (from 1) of the data set that `write_echonet` writes for this seed, before any oddity."""
    rng = np.random.default_rng([seed, number, 752])  # not the hearts of `write_camus`
    heart = sample_heart(rng)
    identity = int.from_bytes(rng.bytes(8), "big") >> int(rng.choice([0, 4, 8], p=[0.88, 0.1, 0.02]))
    frames = int(np.clip(rng.lognormal(np.log(171), 0.4), 28, 1002))
    half_beat = int(rng.integers(4, 8))
    ed = int(rng.integers(half_beat, frames - half_beat))
    es = ed - half_beat if rng.random() < 0.1 else ed + half_beat
    split = ("TRAIN", "TRAIN", "TRAIN", "VAL", "TRAIN", "TRAIN", "TRAIN", "TEST")[(number - 1) % 8]
    return PhantomVideo(f"0X{identity:X}", heart, frames, heart.views["4CH"].fps, ed, es, half_beat, split)


def write_echonet(
    out: str | Path, videos: int, seed: int, *, oddities: bool = True, workers: int | None = 1, progress: bool = False
) -> None:
    """Write `videos` hearts into the folder `out` in the layout of EchoNet-Dynamic.

    The oddities, each on the last videos, begin with 10 videos. Running it again with the same arguments writes the
    same files again. Raises ValueError for values out of range and FileExistsError where `out` holds anything else;
    nothing is ever deleted. `workers` and `progress` are those of `map_in_order`.
    """
    out = Path(out)
    check_numbers(seed, videos=videos)
    claim(out, "PHANTOM.txt", f"echonet: videos {videos}, seed {seed}, oddities {oddities}")
    (out / "Videos").mkdir(exist_ok=True)
    odd = _odd_videos(videos) if oddities else {}
    write = partial(_write_video, out / "Videos", seed)
    jobs = [(number, odd.get(number, "")) for number in range(1, videos + 1)]
    rows = list(map_in_order(write, jobs, title="drawing hearts", workers=workers, progress=progress))
    tracings = [line for _, lines in rows for line in lines]
    if odd:
        tracings += _tracing_rows(echonet_video(seed, videos + 1), "")  # of a video that is not in FileList.csv
    write_text(out / "FileList.csv", [FILE_LIST, *(row for row, _ in rows)])
    write_text(out / "VolumeTracings.csv", [TRACINGS, *tracings])


def _odd_videos(videos: int) -> dict[int, str]:
    """Number of a video -> its oddity."""
    each = -(-videos // VIDEOS_PER_ODDITY)
    kinds = [kind for kind in ODDITIES for _ in range(each)] if videos >= 10 else []
    return dict(zip(range(videos - len(kinds) + 1, videos + 1), kinds, strict=True))


def _write_video(folder: Path, seed: int, job: tuple[int, str]) -> tuple[str, list[str]]:
    """Write the video of a job, (number, oddity); return its row of FileList.csv and those of VolumeTracings.csv."""
    number, oddity = job
    video = echonet_video(seed, number)
    x, y = video.grid()
    shown = []
    for step in range(video.half_beat + 1):
        pixels = ultrasound(video.section(video.ed + step), x, y, step + 1, video.pixel_mm)
        jpeg = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(jpeg, "JPEG", quality=90)
        shown.append(jpeg.getvalue())
    path = folder / f"{video.name}.avi"
    partial_path = path.with_name(f"partial_{path.name}")
    partial_path.write_bytes(mjpeg_avi([shown[video.step(frame)] for frame in range(video.frames)], video.fps))
    os.replace(partial_path, path)
    return _file_list_row(video, oddity), _tracing_rows(video, oddity)


def _file_list_row(video: PhantomVideo, oddity: str) -> str:
    edv, esv = video.heart.edv_ml, video.heart.esv_ml
    height, width = (768, 1024) if oddity == "other size" else (SIZE, SIZE)
    values = (video.name, 100 * (edv - esv) / edv, esv, edv, height, width, video.fps, video.frames, video.split)
    return ",".join(map(str, values))


def _tracing_rows(video: PhantomVideo, oddity: str) -> list[str]:
    if oddity == "other size":
        return []
    tracings = {frame: video.tracing(frame) for frame in sorted((video.ed, video.es))}
    if oddity == "two tracings on a frame":
        tracings[video.es] = np.concatenate([tracings[video.es], tracings[video.ed]])
    elif oddity == "line missing":
        tracings[video.es] = tracings[video.es][:-1]
    elif oddity == "lines cross":
        tracings[video.ed][10] = tracings[video.ed][10, [2, 3, 0, 1]]
    return [
        f"{video.name}.avi,{x1:.6f},{y1:.6f},{x2:.6f},{y2:.6f},{frame}"
        for frame, lines in tracings.items()
        for x1, y1, x2, y2 in lines
    ]


def mjpeg_avi(jpegs: list[bytes], fps: float) -> bytes:
    """An AVI file of these frames, each a JPEG of SIZE x SIZE, with an index (Microsoft, AVI RIFF File Format)."""
    movie, index = io.BytesIO(), io.BytesIO()
    for jpeg in jpegs:
        index.write(struct.pack("<4s3I", b"00dc", 0x10, 4 + movie.tell(), len(jpeg)))  # 0x10: a key frame
        movie.write(_chunk(b"00dc", jpeg))
    largest = max(map(len, jpegs))
    main = struct.pack("<14I", round(1e6 / fps), 0, 0, 0x10, len(jpegs), 0, 1, largest, SIZE, SIZE, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4s10I4H",
        b"vids",
        b"MJPG",
        0,
        0,
        0,
        1000,
        round(1000 * fps),
        0,
        len(jpegs),
        largest,
        0xFFFFFFFF,
        0,
        0,
        0,
        SIZE,
        SIZE,
    )
    bitmap = struct.pack("<3I2H4s5I", 40, SIZE, SIZE, 1, 24, b"MJPG", 3 * SIZE * SIZE, 0, 0, 0, 0)
    streams = _chunk(b"LIST", b"strl" + _chunk(b"strh", stream) + _chunk(b"strf", bitmap))
    header = _chunk(b"LIST", b"hdrl" + _chunk(b"avih", main) + streams)
    movie_list = _chunk(b"LIST", b"movi" + movie.getvalue())
    return _chunk(b"RIFF", b"AVI " + header + movie_list + _chunk(b"idx1", index.getvalue()))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
