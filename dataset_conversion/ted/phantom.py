"""Synthetic hearts in the layout of TED (Painchaud et al., IEEE TMI 41(10), 2022): complete 4-chamber cycles.

    database/patient001/patient001_4CH_sequence.mhd      (T, H, W), from ED through ES to the next ED
    database/patient001/patient001_4CH_sequence_gt.mhd   its masks, LV and myocardium but no atrium
    database/patient001/patient001_4CH_info.cfg          ED, ES, NbFrame (the second ED), ... EF

TED's patients are patients of CAMUS under other numbers. So are these: patient k is the heart of patient k of
`write_camus_2019`, and the first half of its cine is its sequence there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_echo.phantom.cine import CAMUS_SPACING_MM, check_spacing, draw_cine
from nnunet_echo.phantom.folder import check_numbers, claim, write_text
from nnunet_echo.phantom.heart import BACKGROUND, LA, Heart

from ..creatis import camus_heart, info_lines, write_meta_image


def write_ted(
    out: str | Path, patients: int, seed: int, *, spacing_mm: float = CAMUS_SPACING_MM, progress: bool = False
) -> None:
    """Write `patients` hearts into the folder `out` in the layout of TED.

    `spacing_mm` is the width of a pixel, which is half as high, `progress` draws a bar. Running it again with the same
    arguments writes the same files again. Raises ValueError for values out of range and FileExistsError where `out`
    holds anything else; nothing is ever deleted.
    """
    out = Path(out)
    check_numbers(seed, patients=patients)
    check_spacing(spacing_mm)
    claim(out, "PHANTOM.txt", f"ted: patients {patients}, seed {seed}, spacing {spacing_mm:g} mm")
    for number in tqdm(range(1, patients + 1), desc="drawing hearts", unit="patient", disable=not progress):
        folder = out / "database" / f"patient{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        _write_patient(folder, camus_heart(seed, number), spacing_mm)


def _write_patient(folder: Path, heart: Heart, spacing_mm: float) -> None:
    view, stem = heart.views["4CH"], f"{folder.name}_4CH"
    last = 2 * view.frames - 1
    cine = draw_cine(heart, "4CH", range(1, last + 1), spacing_mm, spacing_mm / 2)
    images, labels = (np.stack(arrays) for arrays in zip(*cine.values(), strict=True))
    write_meta_image(folder / f"{stem}_sequence.mhd", images, spacing_mm)
    write_meta_image(
        folder / f"{stem}_sequence_gt.mhd", np.where(labels == LA, np.uint8(BACKGROUND), labels), spacing_mm
    )
    write_text(
        folder / f"{stem}_info.cfg", [*info_lines(heart, view, 1, view.frames, last), f"EF: {round(heart.ef_percent)}"]
    )
