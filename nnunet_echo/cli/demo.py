"""`nnunet-echo demo`: phantom hearts through nnU-Net's own commands, from raw data to a report, in one folder."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_echo.cli.options import add_device
from nnunet_echo.crossval.checks import LENGTH, check_device, check_trainers
from nnunet_echo.dataset_conversion.camus.phantom import write_camus
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.nnunet.commands import run_command
from nnunet_echo.nnunet.logs import read_json
from nnunet_echo.phantom.cine import draw_beats

if TYPE_CHECKING:
    from nnunet_echo.phantom.heart import Heart

DATASET = "751"
CONFIGURATION = "2d_demo"
SEED = 0
SPACING_MM = 2.0  # of phantom and plan: coarse, so that two CPU cores are enough
PATCH = (80, 96)  # rows, columns: most of an image
TRAINER = "nnUNetTrainerLKMUNet"
BEATS, FPS = 3, 25.0  # of the loop that is measured in the end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument(
        "-o",
        "--output",
        "--out",
        dest="out",
        type=Path,
        default=Path("nnunet-echo-demo"),
        metavar="FOLDER",
        help="where everything goes (default: ./nnunet-echo-demo); a demo that is there is used again",
    )
    parser.add_argument(
        "--trainer",
        "-tr",
        default=TRAINER,
        metavar="NAME",
        help=f"one of the trainers, without _<N>epochs (default: {TRAINER})",
    )
    parser.add_argument("--patients", type=int, default=20, help="phantom patients, at least 10 (default: 20)")
    parser.add_argument("--epochs", type=int, default=8, help="short epochs (default: 8)")
    parser.add_argument("--iterations", type=int, default=40, help="training iterations in each of them (default: 40)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Run all steps; 0 when the pictures are written. Raises RuntimeError when a step fails, with its last lines."""
    if args.patients < 10:
        raise ValueError(f"--patients {args.patients}: the demo needs at least 10 for five folds and a test set.")
    for name in ("epochs", "iterations"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)}: the demo trains at least one.")
    if length := LENGTH.search(args.trainer):
        raise ValueError(
            f"--trainer {args.trainer}: the demo's length is set by --epochs and --iterations. Leave out {length[0]}."
        )
    device = args.device or _default_device()
    trainer = f"{args.trainer}_{args.epochs}epochs_{args.iterations}iterations"
    check_device(device)
    check_trainers([trainer])
    out = args.out.resolve()
    options = {"patients": args.patients, "seed": SEED, "spacing_mm": SPACING_MM}
    _claim(out, options)
    folders = {name: str(out / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", **os.environ, **folders}
    dataset = f"Dataset{DATASET}_CAMUS"
    raw, preprocessed = out / "nnUNet_raw" / dataset, out / "nnUNet_preprocessed" / dataset
    predictions = out / "predictions" / trainer
    (out / "logs").mkdir(exist_ok=True)

    def step(title: str, *command: str) -> None:
        print(f"\n{title}\n  $ {' '.join(command)}", flush=True)
        run_command(command, environment, out / "logs" / f"{title.split()[0].lower()}.log", partial(print, flush=True))

    began = time.monotonic()
    print(f"Phantom: {args.patients} patients in {out / 'phantom'}", flush=True)
    write_camus(out / "phantom", args.patients, SEED, spacing_mm=SPACING_MM, half_sequence=False, progress=True)
    step("Conversion to nnU-Net's raw format", "nnunet-echo", "convert", "camus", str(out / "phantom"), "-d", DATASET)
    step(
        "Fingerprint of the data",
        "nnUNetv2_extract_fingerprint",
        "-d",
        DATASET,
        "-np",
        "2",
        "--verify_dataset_integrity",
    )
    step("Planning by nnU-Net", "nnUNetv2_plan_experiment", "-d", DATASET)
    from nnunet_echo.nnunet.plans import add_configuration  # imports torch, which takes seconds: after the first news

    add_configuration(preprocessed / "nnUNetPlans.json", CONFIGURATION, (SPACING_MM,) * 2, PATCH, 4, (16, 128))
    step("Preprocessing", "nnUNetv2_preprocess", "-d", DATASET, "-c", CONFIGURATION, "-np", "2")
    step(
        f"Training of {trainer} on {device}",
        "nnUNetv2_train",
        DATASET,
        CONFIGURATION,
        "0",
        "-tr",
        trainer,
        "-device",
        device,
    )
    step(
        f"Prediction of the held-out patients on {device}",
        "nnUNetv2_predict",
        "-i",
        str(raw / "imagesTs"),
        "-o",
        str(predictions),
        "-d",
        DATASET,
        "-c",
        CONFIGURATION,
        "-f",
        "0",
        "-tr",
        trainer,
        "-device",
        device,
        "-npp",
        "1",
        "-nps",
        "1",
    )
    step(
        "Scores",
        "nnUNetv2_evaluate_folder",
        str(raw / "labelsTs"),
        str(predictions),
        "-djfile",
        str(raw / "dataset.json"),
        "-pfile",
        str(preprocessed / "nnUNetPlans.json"),
        "-np",
        "1",
    )
    labels = json.loads((raw / "dataset.json").read_text())["labels"]
    scores = json.loads((predictions / "summary.json").read_text())["mean"]
    pictures = _draw(raw, predictions, out / "pictures" / trainer)
    print(f"\nDice on {len(pictures)} images of held-out patients, {trainer}:")
    for name, label in labels.items():
        if label:
            print(f"  {name:<4} {scores[str(label)]['Dice']:.3f}")
    print(f"Pictures (reference dashed, prediction solid): {pictures[0].parent}")
    model = out / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__{CONFIGURATION}"
    _measure_loop(out / "cine", camus_heart(SEED, args.patients), model, device, trainer)
    print("Phantom hearts and a training this short: it shows that everything works, not how good a network is.")
    print(f"Done in {(time.monotonic() - began) / 60:.1f} minutes.")
    return 0


def _claim(out: Path, options: dict) -> None:
    """Make `out` the folder of a demo with these options. ValueError when it is something else."""
    marker = out / "demo.json"
    if marker.is_file():
        if read_json(marker) != options:
            raise ValueError(f"{out} holds a demo with other options ({marker}). Delete it or choose another --out.")
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not a demo of ours. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(options))


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _measure_loop(out: Path, heart: Heart, model: Path, device: str, name: str) -> None:
    """Measure a loop of a held-out patient's heart, write its report to `out`/`name`, and say what EF was found."""
    from nnunet_echo.cine.model import CineModel
    from nnunet_echo.cine.study import measure_study
    from nnunet_echo.phantom.dicom import write_dicom_cine

    print(f"\nA loop of a held-out heart, {BEATS} beats, from frames to ejection fraction", flush=True)
    out.mkdir(exist_ok=True)
    shutil.rmtree(out / name, ignore_errors=True)  # of this demo's last run, as the predictions
    loop = out / "loop.dcm"
    frames = draw_beats(heart, "4CH", BEATS, fps=FPS, spacing_mm=SPACING_MM)
    write_dicom_cine(loop, frames, spacing_mm=(SPACING_MM,) * 2, frame_time_ms=1000 / FPS, patient={})
    result = measure_study(CineModel.load(model, (0,), device), [loop], views=["4CH"])
    result.save(out / name, ("masks", "report"))
    ef = result.numbers["ef_percent"]
    found = f"{ef:.0f} %" if math.isfinite(ef) else f"not shown: {result.refusal_of('ef_percent').text}"
    print(f"  EF measured in {len(frames)} frames: {found}")
    print(f"  EF of the phantom: {heart.ef_percent:.0f} %")
    print(f"Report: {out / name / 'report.html'}")


def _draw(raw: Path, predictions: Path, out: Path) -> list[Path]:
    """One PNG for each test image: outlines of reference and prediction, and their Dice."""
    import SimpleITK as sitk

    from nnunet_echo.drawing.pictures import comparison_figure
    from nnunet_echo.evaluation.pairs import read_dataset

    out.mkdir(parents=True, exist_ok=True)
    structures = read_dataset(raw / "dataset.json").structures
    pictures = []
    for path in sorted((raw / "labelsTs").glob("*.nii.gz")):
        case = path.name.removesuffix(".nii.gz")
        files = (raw / "imagesTs" / f"{case}_0000.nii.gz", path, predictions / path.name)
        images = [sitk.ReadImage(str(file)) for file in files]
        across, down = images[1].GetSpacing()
        image, reference, prediction = map(sitk.GetArrayFromImage, images)
        figure = comparison_figure(image, reference, prediction, structures, spacing=(down, across), title=case)
        pictures.append(out / f"{case}.png")
        figure.savefig(pictures[-1], dpi=110)
    return pictures
