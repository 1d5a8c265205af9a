"""`nnunet-echo export MODEL -f 0 -o MODEL.zip`: a trained 2D model as one file, with all that is needed to predict."""

from __future__ import annotations

import argparse
from pathlib import Path

FORMATS = ("pt2", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    from nnunet_echo.cli.predict import fold_or_all

    parser.add_argument("model", type=Path, metavar="MODEL", help="folder TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.zip", help="the file to write")
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        type=fold_or_all,
        metavar="K",
        help="0, several for their mean, or all (default: every fold that is trained)",
    )
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="(default: %(default)s)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="pt2",
        help="pt2 (default): PyTorch's, for every network, needs this package where it runs; onnx: for onnxruntime",
    )
    parser.add_argument(
        "--import-trainer", action="store_true", help="run the trainer's file, where its network is not known without"
    )


def run(args: argparse.Namespace) -> int:
    """Export, test, and say how the labels compare; 0 when done. Errors are raised as `export_model` raises them."""
    from nnunet_echo.cine.export.archive import export_model

    test = export_model(
        args.model, args.output, args.format, args.folds, args.checkpoint, import_trainer=args.import_trainer
    )
    print(f"{args.output}: {test.different} of {test.pixels} labels of the self-test differ from PyTorch's")
    return 0
