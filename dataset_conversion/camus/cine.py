"""The cine of a view from ED to ES as one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cine import as_cine, make_case, sampled_frames, stray_pixels
from nnunet_echo.data.errors import SourceError
from nnunet_echo.data.images import Frame, check_grid, check_labels, read_image, to_uint8
from nnunet_echo.data.tables import whole_number

from .dataset_json import DATASET_JSON, LV


def read_cine(
    root: Path,
    image: str,
    label: str | None,
    info: Mapping[str, str],
    clip: int | None,
    size: int | None,
    ignore: int | None,
) -> Frame:
    """The cine of one view, at paths below `root`, from ED to ES by its cfg; see `make_case`."""
    cine = Frame(to_uint8(as_cine(read_image(root / image, image), image), image), image)
    frames = cine.image.GetSize()[2]
    warnings, areas = [], None
    if label is not None:
        masks = to_uint8(as_cine(read_image(root / label, label), label), label)
        cine = replace(cine, label=masks, label_name=label)
        check_grid(cine)
        mask = sitk.GetArrayViewFromImage(masks)
        check_labels(mask, label, DATASET_JSON["labels"].values())
        areas = np.count_nonzero(mask == LV, axis=(1, 2))
        if any(stray := stray_pixels(mask)):
            warnings.append(
                (
                    "stray pixels",
                    f"{label}: {sum(stray)} pixels lie apart from the largest part of their "
                    f"structure, in {np.count_nonzero(stray)} of {frames} frames; they stay.",
                )
            )
    ed, es, total = (whole_number(info.get(key, "")) for key in ("ED", "ES", "NbFrame"))
    if absurd := {key: info[key] for key in ("ED", "ES", "NbFrame") if info.get(key) and not whole_number(info[key])}:
        raise SourceError(f"{image}: its cfg has {absurd}, which are not numbers of frames.")
    if ed and es and ed != es:
        if max(ed, es) > frames or total not in (None, frames):
            raise SourceError(
                f"{image}: {frames} frames, but its cfg has ED {ed}, ES {es} and NbFrame {total}; it is "
                "cut off or another cine."
            )
    elif areas is not None:
        ed, es = (1, frames) if areas[0] >= areas[-1] else (frames, 1)
        warnings.append(
            (
                "ED and ES by area",
                f"{image}: no cfg says which frames are ED and ES; of the first and the "
                f"last, {ed} is ED, with the larger ventricle.",
            )
        )
    else:
        raise SourceError(f"{image}: neither a cfg nor a mask tells ED from ES.")
    if areas is not None and areas[ed - 1] <= areas[es - 1]:
        warnings.append(
            (
                "ED not larger than ES",
                f"{label}: LV of {areas[ed - 1]} pixels at ED (frame {ed}), "
                f"{areas[es - 1]} at ES (frame {es}): they may be exchanged; they stay as the cfg names them.",
            )
        )
    if {ed, es} != {1, frames}:
        warnings.append(
            (
                "frames left out",
                f"{image}: the cfg has ED {ed} and ES {es} of {frames} frames; those before and after are left out.",
            )
        )
    numbers = sampled_frames(ed, es, clip)
    if len(set(numbers)) < len(numbers):
        warnings.append(("frames twice", f"{image}: {len(set(numbers))} frames from ED to ES for a clip of {clip}."))
    return make_case(
        replace(cine, warnings=tuple(warnings)),
        [number - 1 for number in numbers],
        numbers,
        size=size,
        unit="mm",
        ignore=ignore,
    )
