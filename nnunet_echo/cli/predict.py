"""`nnunet-echo predict -i IMAGES -o MASKS -m MODEL`: the masks of nnUNetv2_predict for 2D models, without the waiting.

Options are called as nnU-Net's. MODEL is a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results or a file that
`nnunet-echo export` wrote; -d, -c, -tr, -p name such a folder as nnUNetv2_predict does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_echo.cli.options import add_device
from nnunet_echo.nnunet.results import DEFAULT_PLANS

if TYPE_CHECKING:
    from nnunet_echo.cine.model import CineModel

# Parts of a folder's name that -d is completed by: option -> its name in the arguments, default.
_WITH_DATASET = {"-c": ("configuration", "2d"), "-tr": ("trainer", "nnUNetTrainer"), "-p": ("plans", DEFAULT_PLANS)}
_CHECKPOINT = "checkpoint_final.pth"
INTERRUPTED = "interrupted; the masks that are there are complete, and --continue_prediction goes on from them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    parser.add_argument("-i", "--images", type=Path, required=True, metavar="IMAGES", help="folder of CASE_0000.*")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MASKS", help="folder for the masks")
    add_model(parser)
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--continue_prediction", "--continue-prediction", action="store_true", help="keep the masks that are there"
    )
    there.add_argument("--overwrite", action="store_true", help="replace the masks that are there")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is to run: what all commands that predict have in common."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("-m", "--model", type=Path, metavar="MODEL", help="folder of a trained model, or exported file")
    model.add_argument("-d", dest="dataset", metavar="DATASET", help="id or name, instead of -m, with -c -tr -p")
    for flag, (name, default) in _WITH_DATASET.items():
        parser.add_argument(flag, dest=name, help=f"with -d (default: {default})")
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        type=fold_or_all,
        metavar="K",
        help="0, several for their mean, or all (default: every fold that is trained)",
    )
    parser.add_argument("-chk", dest="checkpoint", help=f"(default: {_CHECKPOINT})")
    parser.add_argument("-step_size", "--step-size", type=float, default=0.5, help="of the tiles (default: 0.5)")
    parser.add_argument("--disable_tta", "--disable-tta", action="store_true", help="no mirrored forms")
    parser.add_argument(
        "--import-trainer", action="store_true", help="run the trainer's file, where its network is not known without"
    )
    parser.add_argument(
        "--workers", "-np", type=int, metavar="N", help="frames at once, one thread each (default: one a processor)"
    )
    add_device(parser, "cpu")


def load_model(args: argparse.Namespace) -> CineModel:
    """The model of the options. Raises as `model_path` and `CineModel.load`."""
    from nnunet_echo.cine.model import CineModel
    from nnunet_echo.crossval.checks import check_device

    path = model_path(args)
    if args.device != "cpu":
        check_device(args.device)
    model = CineModel.load(
        path,
        args.folds,
        args.device,
        args.checkpoint or _CHECKPOINT,
        workers=args.workers,
        mirroring=not args.disable_tta,
        step_size=args.step_size,
        import_trainer=args.import_trainer,
    )
    if model.engine != "torch":
        test = model.self_test()
        print(f"{model.engine}: {test.different} of {test.pixels} labels of the self-test differ from PyTorch's")
    return model


def model_path(args: argparse.Namespace) -> Path:
    """-m, or the folder that -d, -c, -tr and -p name.

    Raises `ValueError`, also for options that would change nothing, and `FileNotFoundError`.
    """
    from nnunet_echo.nnunet.folders import find_dataset
    from nnunet_echo.nnunet.results import check_name, model_folder, results_folder

    if args.model:
        if not args.model.exists():
            raise FileNotFoundError(f"{args.model}: there is no such model. Name a folder of nnUNet_results with -m.")
        for flag, (name, _) in _WITH_DATASET.items():
            if getattr(args, name) is not None:
                raise ValueError(f"{flag} {getattr(args, name)}: -m names the whole model. Leave out one of the two.")
        for flag, given in (("-f", args.folds), ("-chk", args.checkpoint), ("--import-trainer", args.import_trainer)):
            if given and args.model.is_file():
                raise ValueError(
                    f"{flag}: {args.model} is one exported model, with all that it needs. Leave out {flag}."
                )
        return args.model
    named = {name: getattr(args, name) or default for name, default in _WITH_DATASET.values()}
    for what, name in named.items():
        check_name(what, name)
    dataset = find_dataset(args.dataset, results_folder()).name
    folder = model_folder(dataset, named["trainer"], named["plans"], named["configuration"])
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.glob("*__*__*") if path.is_dir())
        raise FileNotFoundError(f"{folder}: there is no such model. There are {', '.join(there) or 'none'}.")
    return folder


def run(args: argparse.Namespace) -> int:
    """Predict, write, and say how many; 0 when done. Errors are raised as `CineModel.load` and `predict_folder`."""
    from tqdm import tqdm

    from nnunet_echo.cine.folder import KEEP, REFUSE, REPLACE, predict_folder

    if args.images.resolve() == args.output.resolve():
        raise ValueError(f"-o {args.output}: holds the images. Choose another folder for the masks.")
    existing = KEEP if args.continue_prediction else REPLACE if args.overwrite else REFUSE
    model = load_model(args)
    with tqdm(unit="image", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        written = predict_folder(model, args.images, args.output, existing=existing, progress=progress)
    print(f"{len(written)} masks: {args.output}")
    return 0


def fold_or_all(text: str) -> int | str:
    """A fold after -f: its number, or all for the one that was trained on all cases."""
    if text == "all":
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number such as 0, or all.")
    return int(text)
