"""What an earlier conversion left in the folder, and whether this one would replace any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_echo.data.cases import Case, file_names
from nnunet_echo.data.errors import SourceError
from nnunet_echo.data.findings import Note
from nnunet_echo.data.images import check_pair, read_image
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.data.target import FILE_ENDING, begin, look, preprocessed_masks, set_aside


def begin_conversion(
    folder: Path,
    plan: Sequence[Case],
    labels: Mapping[str, int],
    record: Mapping[str, Any],
    refused: Sequence[Note],
    replace: bool,
    **processes: Any,
) -> tuple[set[str], list[Note]]:
    """Mark the folder as ours and unfinished, unless something in it or in nnU-Net's preprocessed data would be lost.

    Returns the image files that may be there from now on, and notes for the report. Raises
    `FileExistsError`, naming both sources, in that case and without `replace`.
    """
    earlier, masks = look(folder, str(record["converter"])), preprocessed_masks(folder.name)
    planned = {name for case in plan for name in file_names(case)}
    named = tuple(f"{note.subject}_" for note in refused)  # they are in the report already
    gone = {name for name in earlier.there - planned if not f"{Path(name).name.split('.')[0]}_".startswith(named)}
    foreign = (
        {
            path
            for path in masks.glob(f"*{FILE_ENDING}")
            if f"labelsTr/{path.name}" not in planned and not f"{path.name.split('.')[0]}_".startswith(named)
        }
        if masks
        else set()
    )
    if earlier.there or masks:
        compare = partial(_compare, folder=folder, labels=labels, masks=masks)
        different = {path for paths in map_in_order(compare, plan, title="comparing", **processes) for path in paths}
        foreign |= {path for path in different if path.parent == masks}
        different -= foreign
    else:
        different = set()
    changes = earlier.other_options(record)
    changes += (
        [f"{len(gone)} of its files belong to none of the cases of this source, such as {min(gone)}"] if gone else []
    )
    changes += (
        [
            f"{len(different)} of its files differ from what this source gives, such as "
            f"{min(different).relative_to(folder)}"
        ]
        if different
        else []
    )
    if changes and not replace:
        raise FileExistsError(
            f"{folder} holds the conversion of {earlier.record.get('source', 'an unknown source')}, "
            f"which that of {record['source']} would replace: {'; '.join(changes)}. Choose another "
            "dataset id with -d, or give --replace."
        )
    if masks and foreign and not replace:
        raise FileExistsError(
            f"{masks.parent} was preprocessed from other cases than {record['source']} gives: "
            f"{len(foreign)} mask(s) differ, such as {min(foreign)}; nnU-Net would train on them. "
            "Choose another dataset id with -d, or give --replace, which renames that folder."
        )
    begin(folder, record, earlier, planned, replace=bool(changes))
    notes = (
        [
            Note(
                "preprocessed data set aside",
                folder.name,
                f"renamed to {set_aside(masks.parent).name}, since it was "
                f"preprocessed from other cases. Preprocess again ({masks.parent}).",
            )
        ]
        if masks and foreign
        else []
    )
    return planned | earlier.files, notes


def _compare(case: Case, folder: Path, labels: Mapping[str, int], masks: Path | None) -> list[Path]:
    """The files of an earlier conversion, and of nnU-Net's preprocessed data, that the case would not give today.

    A file or a source that cannot be read does not count: the former is written again, the latter refused by name.
    """
    image, mask = (folder / name for name in file_names(case))
    there = [path for path in (image, mask, *([masks / mask.name] if masks and not case.test else [])) if path.exists()]
    try:
        now = check_pair(case.read(), labels)[:2] if there else ()
    except (OSError, RuntimeError, ValueError):
        return []
    return [path for path in there if not _same(path, now[path != image])]


def _same(path: Path, now: sitk.Image | None) -> bool:
    try:
        before = read_image(path, path.name)
    except SourceError:
        return True
    return (
        now is not None
        and before.GetSize() == now.GetSize()
        and np.allclose(before.GetSpacing(), now.GetSpacing(), rtol=1e-5)
        and np.array_equal(sitk.GetArrayViewFromImage(before), sitk.GetArrayViewFromImage(now))
    )
