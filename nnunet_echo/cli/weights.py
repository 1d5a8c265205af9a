"""`nnunet-echo weights CHECKPOINT -d DATASET -tr TRAINER -o FILE`: released weights as nnU-Net starts a training with.

nnU-Net's ``-pretrained_weights`` wants every tensor of the very network. The file has those that the checkpoint fills,
and the others as they are initialised; which kinds of checkpoint there are says nnunet_echo/networks/pretrained.py.
"""

from __future__ import annotations

import argparse
import io
import os
from contextlib import redirect_stdout
from pathlib import Path

from nnunet_echo.cli.options import add_configuration, add_dataset, add_plans
from nnunet_echo.crossval.checks import check_trainers
from nnunet_echo.nnunet.cases import preprocessed_folder
from nnunet_echo.nnunet.logs import read_json
from nnunet_echo.nnunet.plans import plan_configuration, read_configurations
from nnunet_echo.nnunet.results import DEFAULT_PLANS, dataset_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `weights`."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the released file, such as a .pth")
    add_dataset(parser)
    parser.add_argument("--trainer", "-tr", required=True, metavar="NAME", help="whose network the weights are for")
    add_configuration(parser)
    add_plans(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="what nnU-Net's -pretrained_weights gets"
    )


def run(args: argparse.Namespace) -> int:
    """Build the network, fill it, write and say what was filled; 0 when done."""
    if args.output.exists():
        raise ValueError(f"--output {args.output}: there is such a file. Give another name, or remove it first.")
    if not args.checkpoint.is_file():
        raise FileNotFoundError(f"{args.checkpoint} is not there: expected a file of released weights.")
    dataset = dataset_name(args.dataset)
    folder = preprocessed_folder() / dataset
    file = folder / f"{args.plans}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there. Let nnU-Net plan first (nnUNetv2_plan_and_preprocess -d {int(dataset[7:10])})."
        )
    plan_configuration(file, read_configurations(file), args.configuration)
    check_trainers([args.trainer])

    import torch

    from nnunet_echo.analysis.costs import build_network
    from nnunet_echo.networks.pretrained import load_pretrained

    with redirect_stdout(io.StringIO()):  # nnU-Net tells each place where it looks for the trainer
        network, _ = build_network(
            read_json(file), read_json(folder / "dataset.json"), args.trainer, args.configuration
        )
    report = load_pretrained(network, args.checkpoint)
    print(f"{report}.\nSHA-256 of {args.checkpoint.name}: {report.sha256}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.output.with_name(f"{args.output.name}.tmp")
    source = {"file": args.checkpoint.name, "sha256": report.sha256, "layout": report.layout}
    try:
        torch.save({"network_weights": network.state_dict(), "pretrained": source}, temporary)
        os.replace(temporary, args.output)
    finally:
        temporary.unlink(missing_ok=True)
    plans = "" if args.plans == DEFAULT_PLANS else f" -p {args.plans}"
    print(
        f"next:\n  nnUNetv2_train {int(dataset[7:10])} {args.configuration} 0 -tr {args.trainer}{plans} "
        f"-pretrained_weights {args.output}"
    )
    return 0
