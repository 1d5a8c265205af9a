"""`nnunet-echo plan -d DATASET --spacing MM`: a configuration small enough to train without a GPU, and what it takes.

It joins the dataset's plans, derived from one that nnU-Net planned; see nnunet_echo/nnunet/plans.py. The time of an
epoch and the memory are measured: some training steps of the trainer's network, on noise, on this machine's CPU.
"""

from __future__ import annotations

import argparse
import io
import math
from contextlib import redirect_stdout
from pathlib import Path

from nnunet_echo.cli.options import add_dataset, add_plans
from nnunet_echo.crossval.checks import check_trainers
from nnunet_echo.data.errors import times
from nnunet_echo.nnunet.cases import preprocessed_folder
from nnunet_echo.nnunet.logs import read_json
from nnunet_echo.nnunet.plans import (
    add_configuration,
    fitting_patch,
    median_image_mm,
    plan_configuration,
    read_configurations,
)
from nnunet_echo.nnunet.results import DEFAULT_PLANS, check_name, dataset_name, duration

TRAINER = "nnUNetTrainerLKMUNet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    add_dataset(parser)
    parser.add_argument(
        "--spacing",
        type=float,
        nargs="+",
        required=True,
        metavar="MM",
        help="width of a pixel to resample to, in mm (or pixels, where the dataset has no scale); one "
        "number, or one for each axis of the plan: rows, columns",
    )
    parser.add_argument(
        "--patch",
        type=int,
        nargs="+",
        metavar="N",
        help="rows and columns (default: the median image at that spacing, rounded up)",
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images in a batch (default: 8)")
    parser.add_argument(
        "--features",
        type=int,
        nargs=2,
        default=(16, 256),
        metavar=("FIRST", "MOST"),
        help="channels of the first stage, doubled from stage to stage up to MOST (default: 16 256)",
    )
    parser.add_argument("-c", "--configuration", default="2d", help="which one it is derived from (default: 2d)")
    add_plans(parser)
    parser.add_argument("--name", help="what it is called (default: such as 2d_1mm)")
    parser.add_argument("--trainer", "-tr", default=TRAINER, help=f"whose network is measured (default: {TRAINER})")
    parser.add_argument(
        "--steps", type=int, default=3, metavar="N", help="training steps that are measured; 0: none (default: 3)"
    )


def run(args: argparse.Namespace) -> int:
    """Add the configuration, measure, and print what comes next; 0 when done."""
    for option, values in (
        ("--spacing", args.spacing),
        ("--patch", args.patch or [1]),
        ("--batch", [args.batch]),
        ("--features", args.features),
        ("--steps", [args.steps + 1]),
    ):
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise ValueError(f"{option} {' '.join(f'{value:g}' for value in values)}: numbers above 0 are needed.")
    if args.features[0] > args.features[1]:
        raise ValueError(f"--features {args.features[0]} {args.features[1]}: the first stage has no more than MOST.")
    dataset = dataset_name(args.dataset)
    number, folder = int(dataset[7:10]), preprocessed_folder() / dataset
    file = folder / f"{args.plans}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there. Let nnU-Net plan first (nnUNetv2_extract_fingerprint -d "
            f"{number} && nnUNetv2_plan_experiment -d {number})."
        )
    configurations = read_configurations(file)
    base = plan_configuration(file, configurations, args.configuration)
    dataset_json = read_json(folder / "dataset.json") or {}
    spacing = _for_all_axes(args.spacing, base["spacing"])
    size = median_image_mm(configurations, args.configuration)
    if not args.patch and size is None:
        raise ValueError(f"{file}: {args.configuration} has no median_image_size_in_voxels. Give --patch.")
    patch = tuple(args.patch or fitting_patch([n / mm for n, mm in zip(size or (), spacing, strict=True)], spacing))
    if len(patch) != len(spacing):
        raise ValueError(f"--patch {' '.join(map(str, patch))}: {args.configuration} has {len(spacing)} axes.")
    unit = dataset_json.get("spacing_unit", "mm")
    name = args.name or f"{args.configuration}_{'x'.join(f'{n:g}' for n in dict.fromkeys(spacing))}{unit}"
    check_name("configuration", name)
    if args.steps:
        check_trainers([args.trainer])
    add_configuration(file, name, spacing, patch, args.batch, tuple(args.features), args.configuration)
    print(
        f"{dataset}: configuration {name} of {args.plans}: patch {times(patch)} of {times(spacing)} {unit}, batch "
        f"{args.batch}, {args.features[0]} to {args.features[1]} features"
    )
    if args.steps:
        print(_estimate(file, folder, name, args))
    print(
        f"next:\n  nnUNetv2_preprocess -d {number} -c {name}{_plans(args, '-plans_name')} -np 2\n"
        f"  nnUNet_n_proc_DA=1 nnUNetv2_train {number} {name} 0 -tr {args.trainer}{_plans(args, '-p')} -device cpu"
    )
    return 0


def _for_all_axes(given: list[float], planned: list[float]) -> tuple[float, ...]:
    if len(given) == 1 and len(planned) == 2:
        return (given[0],) * 2
    if len(given) != len(planned):
        raise ValueError(
            f"--spacing {' '.join(f'{n:g}' for n in given)}: the configuration has {len(planned)} axes. "
            "Give a number for each."
        )
    return tuple(given)


def _estimate(file: Path, folder: Path, name: str, args: argparse.Namespace) -> str:
    import torch

    from nnunet_echo.analysis.estimate import estimate_epoch
    from nnunet_echo.training.memory import peak_memory_gib

    with redirect_stdout(io.StringIO()):  # nnU-Net prints each place where it looks for the trainer
        estimate = estimate_epoch(read_json(file), read_json(folder / "dataset.json"), args.trainer, name, args.steps)
    return (
        f"estimate for {args.trainer} on this CPU with {estimate.threads} thread(s): {duration(estimate.epoch_s)} "
        f"an epoch ({estimate.iterations} training steps of {estimate.training_s:.2f} s, {estimate.validations} of "
        f"validation), {peak_memory_gib(torch.device('cpu')):.1f} GiB of memory\n"
        f"  from {args.steps} training steps on noise; loading and augmenting images comes on top, and a processor "
        "that has other work takes longer"
    )


def _plans(args: argparse.Namespace, option: str) -> str:
    return "" if args.plans == DEFAULT_PLANS else f" {option} {args.plans}"
