"""Converters of echocardiography datasets to nnU-Net's raw format, one folder for each. No torch is needed here."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnunet_echo.data.findings import Report
from nnunet_echo.data.reader import Reader


def readers() -> dict[str, type[Reader]]:
    """The datasets, each by its name.

    >>> list(readers())
    ['camus', 'echonet', 'images', 'ted']
    """
    modules = [importlib.import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)]
    return {module.READER.name: module.READER for module in modules if hasattr(module, "READER")}


def convert(
    dataset: str,
    source: str | Path,
    *,
    dataset_id: int | None = None,
    raw: str | Path | None = None,
    workers: int | None = 1,
    progress: bool = False,
    replace: bool = False,
    **options: Any,
) -> Report:
    """Convert the download `source` of a `dataset`, such as "camus", to nnU-Net's DatasetXXX_NAME below `raw`.

    As `nnunet-echo convert`, whose other options are keywords here: `mode`, `split`, `seed`, `split_file`, and those of
    the dataset, such as `views` of CAMUS. The default of `raw` is nnUNet_raw, that of `dataset_id` the dataset's own.
    `workers` are processes (None: one for each processor; a script that asks for more than one needs the usual
    `if __name__ == "__main__":`), `progress` draws a bar, `replace` lets a conversion of another source, or with other
    options, be replaced. Lengths are in mm, or in pixels where the download has no spacing.

    Returns a `Report`: `folder`, `training_cases`, `test_cases`, `patients`, `folds`, and what was `refused` and warned
    of, each with its reason; `unusable` says why there is no dataset, if so. Raises `ValueError` for an unknown dataset
    or option, and as `Reader.convert`.

    >>> import nnunet_echo
    >>> report = nnunet_echo.convert("camus", "CAMUS_public", raw="nnUNet_raw", views=("4CH",))
    >>> report.folder.name, report.training_cases, report.refused
    ('Dataset751_CAMUS', 10, ())
    """
    known = readers()
    if dataset not in known:
        raise ValueError(f"dataset={dataset!r}: there is no such dataset. Choose from {', '.join(known)}.")
    names = [field.name for field in fields(known[dataset])]
    if unknown := sorted(options.keys() - names):
        raise ValueError(
            f"{unknown[0]}={options[unknown[0]]!r}: {dataset} has no such option. Choose from {', '.join(names)}."
        )
    return known[dataset](**options).convert(
        source, dataset_id=dataset_id, raw=raw, workers=workers, progress=progress, replace=replace
    )
