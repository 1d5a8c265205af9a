"""Synthetic hearts in the layout of CAMUS, to try everything on without a patient's data.

`sample_heart` draws a heart at random, `render` its ultrasound image and labels at any moment between end diastole (ED)
and end systole (ES), `write_camus` a whole data set in the layout of the NIfTI release of CAMUS (Leclerc et al., IEEE
TMI 38(9), 2019), `phantom_echonet.write_echonet` one in that of EchoNet-Dynamic. Volumes and ejection fraction (EF) are
known exactly: see `nnunet_echo.phantom_heart`. A seed gives the same bytes each time, and patient k of a seed is the
same however many patients are drawn.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from tqdm import tqdm

from nnunet_echo.phantom_echonet import write_echonet
from nnunet_echo.phantom_folder import check_numbers, claim, write_text
from nnunet_echo.phantom_heart import VIEWS, Heart, Section, View, sample_heart
from nnunet_echo.phantom_ultrasound import ultrasound

__all__ = ["Heart", "View", "add_arguments", "camus_heart", "render", "run", "sample_heart", "write_camus"]

CAMUS_SPACING_MM = 0.308


def render(
    heart: Heart, view: str, phase: float, *, frame: int = 1, spacing_mm: float = CAMUS_SPACING_MM
) -> tuple[ndarray, ndarray]:
    """Image and labels of one view ("2CH" or "4CH") at a phase from 0 (ED) to 1 (ES): both (H, W) uint8, apex on top.

    `frame`, from 1, chooses the speckle; `spacing_mm` the side of a pixel. A coarser grid shows the same heart.
    Labels: 0 background, 1 LV cavity, 2 myocardium, 3 left atrium. Raises ValueError for values out of range.
    """
    _check_spacing(spacing_mm)
    if frame < 1:
        raise ValueError(f"frame={frame}: frames count from 1.")
    section = Section(heart, view, phase)
    depth, half_angle = section.view.depth_mm, np.deg2rad(section.view.half_angle_deg)
    height, width = round(depth / spacing_mm), round(2 * depth * np.sin(half_angle) / spacing_mm)
    x = (np.arange(width)[None, :] - (width - 1) / 2) * spacing_mm
    y = np.arange(height)[:, None] * spacing_mm
    return ultrasound(section, x, y, frame, spacing_mm), section.labels(x, y)


def camus_heart(seed: int, patient: int) -> Heart:
    """The heart of patient number `patient` (from 1) in the data set that `write_camus` writes for this seed."""
    return sample_heart(np.random.default_rng([seed, patient]))


def write_camus(
    out: str | Path,
    patients: int,
    seed: int,
    *,
    spacing_mm: float = CAMUS_SPACING_MM,
    half_sequence: bool = True,
) -> None:
    """Write `patients` hearts into the folder `out` in the layout of the NIfTI release of CAMUS.

    `spacing_mm` makes the pixels coarser (smaller files, the same hearts); `half_sequence=False` leaves the films out.
    Running it again with the same arguments writes the same files again. Raises ValueError for values out of range and
    FileExistsError where `out` holds anything else; nothing is ever deleted.
    """
    out = Path(out)
    check_numbers(seed, patients=patients)
    _check_spacing(spacing_mm)
    recipe = f"camus: patients {patients}, seed {seed}, spacing {spacing_mm:g} mm, half sequences {half_sequence}"
    claim(out, "database_split/information.txt", recipe)
    names = [f"patient{number:04d}" for number in range(1, patients + 1)]
    for number, name in enumerate(tqdm(names, desc="drawing hearts", unit="patient"), start=1):
        folder = out / "database_nifti" / name
        folder.mkdir(parents=True, exist_ok=True)
        _write_patient(folder, camus_heart(seed, number), spacing_mm, half_sequence)
    for subgroup, members in _split(names).items():
        write_text(out / "database_split" / f"subgroup_{subgroup}.txt", members)


def _check_spacing(spacing_mm: float) -> None:
    if not 0.05 <= spacing_mm <= 3:
        raise ValueError(f"spacing_mm={spacing_mm}: must lie between 0.05 and 3; CAMUS has {CAMUS_SPACING_MM}.")


def _write_patient(folder: Path, heart: Heart, spacing_mm: float, half_sequence: bool) -> None:
    for name in VIEWS:
        view = heart.views[name]
        ed, es = (view.frames, 1) if view.es_first else (1, view.frames)
        stem = f"{folder.name}_{name}"
        wanted = range(1, view.frames + 1) if half_sequence else sorted((ed, es))
        film = dict(_film(heart, name, wanted, spacing_mm))
        for suffix, index in (("", 0), ("_gt", 1)):
            _write_nifti(folder / f"{stem}_ED{suffix}.nii.gz", film[ed][index], spacing_mm)
            _write_nifti(folder / f"{stem}_ES{suffix}.nii.gz", film[es][index], spacing_mm)
            if half_sequence:
                frames = np.stack([film[frame][index] for frame in wanted])
                _write_nifti(folder / f"{stem}_half_sequence{suffix}.nii.gz", frames, spacing_mm)
        write_text(
            folder / f"Info_{name}.cfg",
            [
                f"ED: {ed}",
                f"ES: {es}",
                f"NbFrame: {view.frames}",
                f"Sex: {heart.sex}",
                f"Age: {heart.age}",
                f"ImageQuality: {view.quality}",
                f"EF: {round(heart.ef_percent)}",
                f"FrameRate: {view.fps}",
            ],
        )


def _film(
    heart: Heart, name: str, frames: range | list[int], spacing_mm: float
) -> Iterator[tuple[int, tuple[ndarray, ndarray]]]:
    """(frame, (image, labels)) of these frames of the half sequence, which count from 1."""
    view = heart.views[name]
    for frame in frames:
        phase = (1 - np.cos(np.pi * (frame - 1) / (view.frames - 1))) / 2  # contraction starts and ends gently
        yield frame, render(heart, name, 1 - phase if view.es_first else phase, frame=frame, spacing_mm=spacing_mm)


def _split(names: list[str]) -> dict[str, list[str]]:
    """80, 10 and 10 % of the patients, as in CAMUS, at least one of each from three patients on.

    By number: every heart is drawn for itself, so any order is as random as another.
    """
    held_out = max(1, round(len(names) / 10)) if len(names) >= 3 else 0
    first, second = len(names) - 2 * held_out, len(names) - held_out
    return {"training": names[:first], "validation": names[first:second], "testing": names[second:]}


def _write_nifti(path: Path, array: ndarray, spacing_mm: float) -> None:
    """Write (H, W) or (T, H, W) as float32 NIfTI, as the release stores both images and labels."""
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing((spacing_mm, spacing_mm, 1.0)[: array.ndim])  # the release's step between frames is not documented
    partial = path.with_name(f"partial_{path.name}")
    sitk.WriteImage(image, str(partial), useCompression=True)
    os.replace(partial, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command `nnunet-echo phantom` its subcommands and their options."""
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    camus = layouts.add_parser("camus", help="two views per patient, in the layout of the NIfTI release of CAMUS")
    camus.add_argument("--patients", type=int, default=10, metavar="N", help="how many patients (default: 10)")
    camus.add_argument(
        "--spacing",
        type=float,
        default=CAMUS_SPACING_MM,
        metavar="MM",
        help=f"side of a pixel in mm (default: {CAMUS_SPACING_MM}, as in CAMUS; 1.0 makes small files quickly)",
    )
    camus.add_argument("--no-half-sequence", action="store_true", help="leave out the frames between ED and ES")
    echonet = layouts.add_parser("echonet", help="one 4-chamber video per patient, in the layout of EchoNet-Dynamic")
    echonet.add_argument("--videos", type=int, default=20, metavar="N", help="how many videos (default: 20)")
    echonet.add_argument("--no-oddities", action="store_true", help="leave out the oddities that the release has")
    echonet.add_argument("--workers", type=int, help="processes (default: one for each processor)")
    for layout in (camus, echonet):
        layout.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder, or one of the same run")
        layout.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same hearts (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Do what `add_arguments` parsed; 0 when done. Errors are raised as the functions that write raise them."""
    if args.layout == "echonet":
        write_echonet(args.out, args.videos, args.seed, oddities=not args.no_oddities, workers=args.workers)
    else:
        half_sequence = not args.no_half_sequence
        write_camus(args.out, args.patients, args.seed, spacing_mm=args.spacing, half_sequence=half_sequence)
    return 0
