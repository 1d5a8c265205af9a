"""Synthetic hearts in the layouts of CAMUS: the NIfTI release and that of the challenge of 2019.

`write_camus`        database_nifti/patient0001/...nii.gz, two views, ED, ES and the half sequence, all with masks
`write_camus_2019`   training/patient0001/...mhd and testing/patient0001, which is another person and has no masks;
                     pixels half as high as wide, no masks of the sequence, volumes in Info_*.cfg

Both draw the same hearts. Source: Leclerc et al., IEEE TMI 38(9), 2019, and the files of the two releases.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy import ndarray
from tqdm import tqdm

from nnunet_echo.phantom.cine import CAMUS_SPACING_MM, Cine, check_spacing, draw_cine
from nnunet_echo.phantom.folder import check_numbers, claim, write_text
from nnunet_echo.phantom.heart import Heart

from ..creatis import camus_heart, info_lines, write_meta_image


def write_camus(
    out: str | Path,
    patients: int,
    seed: int,
    *,
    spacing_mm: float = CAMUS_SPACING_MM,
    half_sequence: bool = True,
    progress: bool = False,
) -> None:
    """Write `patients` hearts into the folder `out` in the layout of the NIfTI release of CAMUS.

    `spacing_mm` makes the pixels coarser (smaller files, the same hearts); `half_sequence=False` leaves the cines out,
    `progress` draws a bar. Running it again with the same arguments writes the same files again. Raises ValueError for
    values out of range and FileExistsError where `out` holds anything else; nothing is ever deleted.
    """
    out = Path(out)
    check_numbers(seed, patients=patients)
    check_spacing(spacing_mm)
    recipe = f"camus: patients {patients}, seed {seed}, spacing {spacing_mm:g} mm, half sequences {half_sequence}"
    claim(out, "database_split/information.txt", recipe)
    names = [f"patient{number:04d}" for number in range(1, patients + 1)]
    for number, name in enumerate(tqdm(names, desc="drawing hearts", unit="patient", disable=not progress), start=1):
        folder = out / "database_nifti" / name
        folder.mkdir(parents=True, exist_ok=True)
        _write_patient(folder, camus_heart(seed, number), spacing_mm, half_sequence)
    for subgroup, members in _split(names).items():
        write_text(out / "database_split" / f"subgroup_{subgroup}.txt", members)


def write_camus_2019(
    out: str | Path,
    patients: int,
    seed: int,
    *,
    spacing_mm: float = CAMUS_SPACING_MM,
    half_sequence: bool = True,
    progress: bool = False,
) -> None:
    """Write the hearts of `write_camus` into the folder `out` in the layout of the challenge of 2019.

    The last tenth of them are the patients of testing/, numbered from 1 again. `spacing_mm` is the width of a pixel,
    which is half as high. For the rest as `write_camus`.
    """
    out = Path(out)
    check_numbers(seed, patients=patients)
    check_spacing(spacing_mm)
    recipe = f"camus 2019: patients {patients}, seed {seed}, spacing {spacing_mm:g} mm, half sequences {half_sequence}"
    claim(out, "PHANTOM.txt", recipe)
    training = patients - (max(1, round(patients / 10)) if patients >= 2 else 0)
    for number in tqdm(range(1, patients + 1), desc="drawing hearts", unit="patient", disable=not progress):
        test = number > training
        folder = out / ("testing" if test else "training") / f"patient{number - training * test:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        _write_patient_2019(folder, camus_heart(seed, number), spacing_mm, half_sequence, masks=not test)


def _half_sequence(
    heart: Heart, name: str, whole: bool, spacing_mm: float, row_spacing_mm: float
) -> tuple[int, int, Cine]:
    """ED, ES and the cine between them, or only these two frames."""
    view = heart.views[name]
    ed, es = (view.frames, 1) if view.es_first else (1, view.frames)
    wanted = range(1, view.frames + 1) if whole else (ed, es)
    return ed, es, draw_cine(heart, name, wanted, spacing_mm, row_spacing_mm, view.es_first)


def _write_patient(folder: Path, heart: Heart, spacing_mm: float, half_sequence: bool) -> None:
    for name, view in heart.views.items():
        stem = f"{folder.name}_{name}"
        ed, es, cine = _half_sequence(heart, name, half_sequence, spacing_mm, spacing_mm)
        for suffix, index in (("", 0), ("_gt", 1)):
            _write_nifti(folder / f"{stem}_ED{suffix}.nii.gz", cine[ed][index], spacing_mm)
            _write_nifti(folder / f"{stem}_ES{suffix}.nii.gz", cine[es][index], spacing_mm)
            if half_sequence:
                frames = np.stack([pair[index] for pair in cine.values()])
                _write_nifti(folder / f"{stem}_half_sequence{suffix}.nii.gz", frames, spacing_mm)
        write_text(
            folder / f"Info_{name}.cfg",
            [*info_lines(heart, view, ed, es, view.frames), f"EF: {round(heart.ef_percent)}", f"FrameRate: {view.fps}"],
        )


def _write_patient_2019(folder: Path, heart: Heart, spacing_mm: float, half_sequence: bool, masks: bool) -> None:
    for name, view in heart.views.items():
        stem = f"{folder.name}_{name}"
        ed, es, cine = _half_sequence(heart, name, half_sequence, spacing_mm, spacing_mm / 2)
        for moment, frame in (("ED", ed), ("ES", es)):
            image, labels = cine[frame]
            write_meta_image(folder / f"{stem}_{moment}.mhd", image[None], spacing_mm)
            if masks:
                write_meta_image(folder / f"{stem}_{moment}_gt.mhd", labels[None], spacing_mm)
        if half_sequence:
            write_meta_image(
                folder / f"{stem}_sequence.mhd", np.stack([image for image, _ in cine.values()]), spacing_mm
            )
        volumes = f"LVedv: {heart.edv_ml:.1f}", f"LVesv: {heart.esv_ml:.1f}", f"LVef: {heart.ef_percent:.1f}"
        write_text(folder / f"Info_{name}.cfg", [*info_lines(heart, view, ed, es, view.frames), *volumes])


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
