"""What the files of a phantom download hold of a case, read as plainly as can be and without the converters' code.

Each function gets the source and the name of a case and returns image and mask, the mask None where there is no file.
It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import csv
import io
import re
import struct
from pathlib import Path

import numpy as np
from camus_download import array
from numpy import ndarray
from PIL import Image
from skimage.draw import polygon

Pair = tuple[ndarray, ndarray | None]


def cfg(path: Path, *keys: str) -> list[int]:
    text = path.read_text()
    return [int(re.search(rf"^{key}: *(\d+)", text, re.MULTILINE)[1]) for key in keys]


def from_to(first: int, last: int) -> list[int]:
    return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))


def by_camus(source: Path, case: str) -> Pair:
    name, stem = re.fullmatch(r"CAMUS_((?:patient|test)\d{4})_(.*)", case).groups()
    folder = source / "testing" if name.startswith("test") else source / "training"
    if not folder.exists():
        folder = source / "database_nifti"
    folder /= name.replace("test", "patient")
    ending = ".nii.gz" if folder.parent.name == "database_nifti" else ".mhd"
    cine = "" if stem[-2:] in ("ED", "ES") else "_half_sequence"
    paths = [folder / f"{folder.name}_{stem}{cine}{gt}{ending}" for gt in ("", "_gt")]
    image, mask = (np.squeeze(array(path)) if path.exists() else None for path in paths)
    if cine:
        ed, es = cfg(folder / f"Info_{stem}.cfg", "ED", "ES")
        taken = np.array(from_to(ed, es)) - 1
        image, mask = image[taken], mask[taken]
    return image, mask


def by_sparse_camus(source: Path, case: str) -> Pair:
    image, mask = by_camus(source, case)
    mask[1:-1] = 4
    return image, mask


def by_ted(source: Path, case: str) -> Pair:
    name, phase = re.fullmatch(r"TED_(patient\d{3})_4CH_?(.*)", case).groups()
    folder = source / "database" / name
    image, mask = (array(folder / f"{name}_4CH_sequence{gt}.mhd") for gt in ("", "_gt"))
    if phase:
        (number,) = cfg(folder / f"{name}_4CH_info.cfg", phase)
        image, mask = image[number - 1], mask[number - 1]
    return image, mask


def by_echonet(source: Path, case: str) -> Pair:
    name, phase = re.fullmatch(r"ECHONET_([^_]*)_?(.*)", case).groups()
    rows: dict[int, list[list[float]]] = {}
    with (source / "VolumeTracings.csv").open(newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            if row["FileName"].strip() == f"{name}.avi":
                line = [float(row[key]) for key in ("X1", "Y1", "X2", "Y2")]
                rows.setdefault(int(float(row["Frame"])), []).append(line)
    masks = {frame: mask_of(np.array(lines)) for frame, lines in rows.items()}
    es, ed = sorted(masks, key=lambda frame: masks[frame].sum())
    if phase:
        frame = ed if phase == "ED" else es
        return video_frame(source / "Videos" / f"{name}.avi", frame), masks[frame]
    cine = np.stack([video_frame(source / "Videos" / f"{name}.avi", frame) for frame in from_to(ed, es)])
    mask = np.full_like(cine, 2)
    mask[0], mask[-1] = masks[ed], masks[es]
    return cine, mask


def mask_of(tracing: ndarray) -> ndarray:
    """(112, 112), 1 in the polygon of all lines but the first, which is the long axis."""
    lines, mask = np.rint(tracing[1:]), np.zeros((112, 112), np.uint8)
    rows, columns = (np.concatenate([lines[:, first], lines[::-1, second]]) for first, second in ((1, 3), (0, 2)))
    mask[polygon(rows, columns, mask.shape)] = 1
    return mask


def video_frame(path: Path, frame: int) -> ndarray:
    data = path.read_bytes()
    position = data.index(b"movi") + 4
    for _ in range(frame):
        position += 8 + -(-struct.unpack_from("<I", data, position + 4)[0] // 2) * 2
    jpeg = data[position + 8 :][: struct.unpack_from("<I", data, position + 4)[0]]
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
