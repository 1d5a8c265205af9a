"""`nnunet-echo evaluate PREDICTIONS REFERENCES -o OUT`: score any folder of predicted label maps.

Nothing is written unless every file could be evaluated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from nnunet_echo.cli.options import add_labels, add_output, add_workers
from nnunet_echo.evaluation.evaluate import TABLES, evaluate
from nnunet_echo.evaluation.left_ventricle.volume import METHODS
from nnunet_echo.evaluation.output import check_free
from nnunet_echo.evaluation.sequences import LIMITS, SIDES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    parser.add_argument("predictions", type=Path, help="folder of label maps, as nnUNetv2_predict writes them")
    parser.add_argument("references", type=Path, help="folder of reference label maps of the same names")
    add_output(parser, "folder for the tables")
    parser.add_argument(
        "--dataset-json",
        "-djfile",
        type=Path,
        metavar="FILE",
        help="default: in or beside REFERENCES, else in PREDICTIONS",
    )
    add_labels(parser)
    parser.add_argument(
        "--ef-method",
        choices=METHODS,
        default="ase",
        help="ase (default): rule of disks with each phase's own axis; camus: as the EF in CAMUS",
    )
    parser.add_argument("--ef-rounding", action="store_true", help="whole mL and percent, as the EF in CAMUS")
    parser.add_argument("--subset", action="store_true", help="allow references without a prediction (of one fold)")
    parser.add_argument(
        "--consistency-limits",
        choices=LIMITS,
        default="references",
        help="bounds and thresholds for sequences: from REFERENCES (default), or the published ones",
    )
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, and print the means; 0 when done. Errors are raised as `evaluate` raises them."""
    if args.output.resolve() in (args.predictions.resolve(), args.references.resolve()):
        raise ValueError(
            f"{args.output}: holds the label maps, and nnU-Net may keep its summary.json there. Choose "
            "another folder with -o."
        )
    check_free(args.output, ["summary.json", *(f"{name}.csv" for name in TABLES)], "evaluate", "nnunet_echo")
    evaluation = evaluate(
        args.predictions,
        args.references,
        dataset_json=args.dataset_json,
        labels=args.labels,
        patients=args.patients,
        method=args.ef_method,
        rounding=args.ef_rounding,
        subset=args.subset,
        consistency_limits=args.consistency_limits,
        workers=args.workers,
        progress=True,
    )
    evaluation.write(args.output)
    print(_screen(evaluation.summary))
    print(f"tables: {args.output}")
    return 0


def _screen(summary: Mapping) -> str:
    """The summary in a few lines."""
    unit = summary["unit"]
    lines = [
        f"{summary['cases']} cases of {summary['patients']} patients, means over patients",
        f"{'':10}{'Dice':>8}{f'HD95 {unit}':>10}{f'ASSD {unit}':>10}{'missed':>8}",
    ]
    for structure, groups in summary["structures"].items():
        group = groups["all"]
        lines.append(
            f"{structure:10}{group['dice']['mean']:8.4f}{group[f'hd95_{unit}']['mean']:10.3f}"
            f"{group[f'assd_{unit}']['mean']:10.3f}{group['n_missing']:8d}"
        )
    volumes = summary["ejection_fraction"] or {}
    for planes, values in volumes.items():
        if isinstance(values, dict) and "ef_percent" in values:
            ef = values["ef_percent"]
            lines.append(
                f"EF, {volumes['method']}, {planes}: {ef['n']} patients, bias {ef['bias']:.2f}, sd "
                f"{ef['sd']:.2f}, MAE {ef['mae']:.2f} points, r {ef['pearson_r']:.3f}"
            )
            for side, found in values["recorded_ef"].items():
                if found["n"]:
                    lines.append(
                        f"  {side} against the EF on record: {found['n']} patients, bias {found['bias']:.2f}, "
                        f"sd {found['sd']:.2f}, MAE {found['mae']:.2f} points, r {found['pearson_r']:.3f}"
                    )
    for side in SIDES:
        if flags := volumes.get(f"{side}_flags"):
            lines.append(f"flags, {side}: " + ", ".join(f"{name} {count}" for name, count in flags.items()))
    for side, found in (summary["anatomy"] or {}).items():
        lines.append(f"anatomical errors, {side}: {found['frames_with_errors']} of {found['frames']} frames")
    for side in SIDES if summary["sequences"] else ():
        found = summary["sequences"][side]
        lines.append(
            f"inconsistent in time, {side}: {found['inconsistent_frames']} of {found['frames']} frames, in "
            f"{found['sequences_with_errors']} of {found['sequences']} sequences"
        )
    return "\n".join([*lines, *(f"warning: {text}" for text in summary["warnings"])])
