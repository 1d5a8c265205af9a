"""What an evaluation costs: metrics of a pair of masks, volumes of a patient, 1,000 cases on two processes.

    python benchmarks/evaluation.py                 # a table, as a ratio to MONAI where it is installed
    python benchmarks/evaluation.py --cases 1000    # also writes and evaluates so many cases

Frames are the phantom's at CAMUS's pixel size, about 560 x 440. Predictions are the references, eroded and shifted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk
from measured import run_measured
from numpy import ndarray
from scipy import ndimage
from timing import seconds_of

from nnunet_echo.dataset_conversion.camus.dataset_json import DATASET_JSON
from nnunet_echo.dataset_conversion.creatis import camus_heart
from nnunet_echo.evaluation.left_ventricle.volume import METHODS, lv_shape, lv_volumes
from nnunet_echo.evaluation.metrics import mask_metrics, structures
from nnunet_echo.phantom.cine import CAMUS_SPACING_MM, render

SPACING = (CAMUS_SPACING_MM, CAMUS_SPACING_MM)
SHAPE = (560, 440)
PATIENTS = 10  # drawn for real; further cases are copies of theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0, help="how many cases to evaluate as a whole (default: none)")
    parser.add_argument("--workers", type=int, default=2, help="processes for --cases (default: 2)")
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement; the median counts (default: 15)")
    args = parser.parse_args()

    reference = fitted(render(camus_heart(0, 1), "4CH", 0.0)[1])
    prediction = perturbed(reference)
    values = structures(DATASET_JSON["labels"])
    pairs = {name: (np.isin(prediction, value), np.isin(reference, value)) for name, value in values.items()}
    print(f"| metrics of a pair of {SHAPE[0]} x {SHAPE[1]} | ms | MONAI's HD, HD95, ASSD, ms | ratio |")
    print("| --- | ---: | ---: | ---: |")
    totals = np.zeros(2)
    for name, pair in pairs.items():
        times = time_of(lambda pair=pair: mask_metrics(*pair, SPACING), args.repeats), monai_ms(pair, args.repeats)
        totals += times
        print(f"| {name} | {times[0]:.2f} | {times[1]:.1f} | {times[1] / times[0]:.0f} |")
    print(f"| all four | {totals[0]:.2f} | {totals[1]:.1f} | {totals[1] / totals[0]:.0f} |")

    frames = {
        (view, phase): fitted(render(camus_heart(0, 1), view, moment)[1])
        for view in ("2CH", "4CH")
        for phase, moment in (("ED", 0.0), ("ES", 1.0))
    }
    print("\n| volumes and EF of a patient, four masks | ms |\n| --- | ---: |")
    for method in METHODS:
        print(f"| {method} | {time_of(lambda method=method: patient(frames, method), args.repeats):.1f} |")
    outline = {key: (labels == 1, None) for key, labels in frames.items()}
    print(f"| ase without myocardium | {time_of(lambda: volumes(outline, 'ase'), args.repeats):.1f} |")
    if args.cases:
        whole(args.cases, args.workers)


def patient(frames: dict[tuple[str, str], ndarray], method: str) -> None:
    volumes({key: (labels == 1, labels == 2) for key, labels in frames.items()}, method)


def volumes(masks: dict[tuple[str, str], tuple[ndarray, ndarray | None]], method: str) -> None:
    lv_volumes(
        {key: lv_shape(lv, SPACING, method=method, myocardium=myocardium) for key, (lv, myocardium) in masks.items()},
        method=method,
    )


def fitted(labels: ndarray) -> ndarray:
    """The labels in a frame of SHAPE, cut or filled up at the bottom and to the right."""
    frame = np.zeros(SHAPE, np.uint8)
    part = labels[: SHAPE[0], : SHAPE[1]]
    frame[: part.shape[0], : part.shape[1]] = part
    return frame


def perturbed(labels: ndarray) -> ndarray:
    small = sum(ndimage.binary_erosion(labels == value, iterations=3) * value for value in (1, 2, 3))
    return np.roll(small, (4, 3), axis=(0, 1)).astype(np.uint8)


def monai_ms(pair: tuple[ndarray, ndarray], repeats: int) -> float:
    if not importlib.util.find_spec("monai"):
        return float("nan")
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    torch.set_num_threads(1)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in pair]
    options = {"include_background": True, "spacing": SPACING}

    def run() -> None:
        compute_hausdorff_distance(*masks, **options)
        compute_hausdorff_distance(*masks, percentile=95, **options)
        compute_average_surface_distance(*masks, symmetric=True, **options)

    return time_of(run, repeats)


def time_of(run: Callable[[], object], repeats: int) -> float:
    """Median milliseconds, after one run that is not counted."""
    return 1000 * median(seconds_of([run], repeats)[0])


def whole(cases: int, workers: int) -> None:
    """Write the cases to a temporary folder, run `nnunet-echo evaluate` on them, print seconds and memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = Path(scratch, "references"), Path(scratch, "predictions")
        for folder in folders:
            folder.mkdir()
        for number in range(cases):
            source, frame = divmod(number, 4)
            view, phase = ("2CH", "4CH")[frame // 2], ("ED", "ES")[frame % 2]
            names = [f"CAMUS_patient{index + 1:04d}_{view}_{phase}.nii.gz" for index in (source, source % PATIENTS)]
            if source < PATIENTS:
                labels = fitted(render(camus_heart(0, source + 1), view, float(phase == "ES"))[1])
                for folder, array in zip(folders, (labels, perturbed(labels)), strict=True):
                    image = sitk.GetImageFromArray(array)
                    image.SetSpacing(SPACING)
                    sitk.WriteImage(image, str(folder / names[0]), useCompression=True)
            else:
                for folder in folders:
                    shutil.copy(folder / names[1], folder / names[0])
        Path(scratch, "dataset.json").write_text(json.dumps(DATASET_JSON))
        command = [sys.executable, "-m", "nnunet_echo.cli.main", "evaluate", str(folders[1]), str(folders[0])]
        cost = run_measured([*command, "-o", str(Path(scratch, "out")), "--workers", str(workers)])
    print(
        f"\n{cases} cases, {workers} processes: {cost.seconds:.1f} s, processor time {cost.processor_seconds:.1f} s, "
        f"peak memory of all processes {cost.peak_mib:.0f} MiB"
    )


if __name__ == "__main__":
    main()
