"""`nnunet-echo measure MASKS -o OUT`: volumes, EF, areas, lengths and anatomy of one set of masks, without references.

cases.csv      one row for each case: the area of each structure, length, base and orientation of the ventricle
patients.csv   one row for each patient: EDV, ESV and EF
anatomy.csv    one row for each case: which anatomical criteria it violates
summary.json   what was measured and how, and means
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_echo.cli.options import add_labels, add_workers
from nnunet_echo.evaluation.left_ventricle.volume import METHODS
from nnunet_echo.evaluation.measure import MARK, TABLES, measure
from nnunet_echo.evaluation.output import check_free


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `measure`."""
    parser.add_argument("masks", type=Path, help="folder of label maps, as nnUNetv2_predict writes them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder for the tables (default: MASKS_measured, beside MASKS)"
    )
    parser.add_argument("--dataset-json", "-djfile", type=Path, metavar="FILE", help="default: in or beside MASKS")
    add_labels(parser)
    parser.add_argument(
        "--ef-method",
        choices=METHODS,
        default="ase",
        help="ase (default): rule of disks with each phase's own axis; camus: as the EF in CAMUS",
    )
    parser.add_argument("--ef-rounding", action="store_true", help="whole mL and percent, as the EF in CAMUS")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write, and print the means; 0 when done. Errors are raised as `measure` raises them."""
    masks = args.masks.absolute()
    out = args.output or masks.with_name(f"{masks.name}_measured")
    if out.resolve() == masks.resolve():
        raise ValueError(
            f"{out}: holds the label maps, and nnU-Net may keep its summary.json there. Choose another folder with -o."
        )
    check_free(out, ["summary.json", *(f"{name}.csv" for name in TABLES)], "measure", MARK)
    measured = measure(
        args.masks,
        dataset_json=args.dataset_json,
        labels=args.labels,
        patients=args.patients,
        method=args.ef_method,
        rounding=args.ef_rounding,
        workers=args.workers,
        progress=True,
    )
    measured.write(out)
    print(f"{_screen(measured.summary)}\ntables: {out}")
    return 0


def _screen(summary: Mapping[str, Any]) -> str:
    """The summary in a few lines."""
    lines = [f"{summary['cases']} cases of {summary['patients']} patients"]
    if summary["patients_with_ef"]:
        lines.append(
            f"EF, {summary['method']}: {summary['patients_with_ef']} patients, mean {summary['ef_percent_mean']:.1f} %"
        )
    else:
        lines.append(
            "no patient has an EF, which needs the structure LV, and ED and ES, or frame numbers, of one view "
            "in the names of the cases"
        )
    if summary["frames_with_anatomical_errors"] is not None:
        lines.append(f"anatomical errors: {summary['frames_with_anatomical_errors']} of {summary['cases']} frames")
    return "\n".join(lines)
