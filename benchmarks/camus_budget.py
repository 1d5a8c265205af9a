"""What does every trainer learn from CAMUS in a budget that two CPU cores can carry?

One run per trainer with nnU-Net's own commands on fold 0 of a CAMUS folder: images at 1 mm, patch 160 x 192, batch 8,
16 to 256 features, 12 epochs of 50 iterations, no mirroring; the stock trainer beside them. Prints one table, in
Markdown, of the validation cases of fold 0. A budget this short ranks nothing: it shows what does not learn.

    python benchmarks/camus_budget.py CAMUS_FOLDER WORK_FOLDER [--trainers NAME ...] [--device cpu]

Trainers that are done in WORK_FOLDER are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from statistics import median

from nnunet_echo.networks import NETWORKS
from nnunet_echo.nnunet.commands import run_command
from nnunet_echo.nnunet.plans import add_configuration

DATASET, NAME, CONFIGURATION = "751", "Dataset751_CAMUS", "2d_1mm"
BUDGET = "12epochs_50iterations"
STOCK = "nnUNetTrainerNoMirroring"
SMALL = {  # of benchmarks/stock: SAM's image encoder is too large for two CPU cores
    f"nnUNetTrainer{name}": f"nnUNetTrainerSmall{name}" for name in ("SAMUS", "SAMUSTRALIA")
}
TRAINERS = [  # the images are 2D
    SMALL.get(name, name) for row in NETWORKS.values() if 2 in row.dims for name in row.trainers
]
STRUCTURES = {"LV": "1", "MYO": "2", "LA": "3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a CAMUS download")
    parser.add_argument("work", type=Path, help="folder for everything that is written")
    parser.add_argument("--trainers", nargs="+", default=[STOCK, *TRAINERS])
    parser.add_argument("--views", nargs="+", default=["4CH"])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    work = args.work.resolve()
    (work / "logs").mkdir(parents=True, exist_ok=True)
    folders = {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    folders["nnUNet_extTrainer"] = str(Path(__file__).resolve().parent / "stock")
    environment = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", **os.environ, **folders}

    def nnunet(log: str, *command: str) -> None:
        print(f"$ {' '.join(command)}", flush=True)
        run_command(command, environment, work / "logs" / f"{log}.log", print)

    raw, preprocessed = work / "nnUNet_raw" / NAME, work / "nnUNet_preprocessed" / NAME
    if not (preprocessed / f"nnUNetPlans_{CONFIGURATION}").exists():
        nnunet("convert", "nnunet-echo", "convert", "camus", str(args.source.resolve()), "--views", *args.views)
        nnunet(
            "plan",
            "nnUNetv2_plan_and_preprocess",
            "-d",
            DATASET,
            "-c",
            "2d",
            "-np",
            "2",
            "-npfp",
            "2",
            "--verify_dataset_integrity",
        )
        add_configuration(preprocessed / "nnUNetPlans.json", CONFIGURATION, (1, 1), (160, 192), 8, (16, 256))
        nnunet("preprocess", "nnUNetv2_preprocess", "-d", DATASET, "-c", CONFIGURATION, "-np", "2")
    validation = work / "validation_images"
    validation.mkdir(exist_ok=True)
    for case in json.loads((preprocessed / "splits_final.json").read_text())[0]["val"]:
        link = validation / f"{case}_0000.nii.gz"
        if not link.exists():
            link.symlink_to(raw / "imagesTr" / link.name)

    rows = []
    for trainer in args.trainers:
        name = f"{trainer}_{BUDGET}"
        results = work / "nnUNet_results" / NAME / f"{name}__nnUNetPlans__{CONFIGURATION}" / "fold_0"
        predictions = work / "predictions" / name
        if not (results / "validation" / "summary.json").exists():
            nnunet(
                f"train_{trainer}", "nnUNetv2_train", DATASET, CONFIGURATION, "0", "-tr", name, "-device", args.device
            )
        if not (predictions / "summary.json").exists():
            nnunet(
                f"predict_{trainer}",
                "nnUNetv2_predict",
                "-i",
                str(validation),
                "-o",
                str(predictions),
                "-d",
                DATASET,
                "-c",
                CONFIGURATION,
                "-f",
                "0",
                "-tr",
                name,
                "-device",
                args.device,
                "-npp",
                "1",
                "-nps",
                "1",
            )
            nnunet(
                f"evaluate_{trainer}",
                "nnUNetv2_evaluate_folder",
                str(raw / "labelsTr"),
                str(predictions),
                "--chill",
                "-np",
                "1",
                "-djfile",
                str(raw / "dataset.json"),
                "-pfile",
                str(preprocessed / "nnUNetPlans.json"),
            )
        rows.append(_row(trainer, results, predictions))
        (work / "results.md").write_text(_table(rows))
    print(_table(rows))


def _row(trainer: str, results: Path, predictions: Path) -> list[str]:
    dice = json.loads((predictions / "summary.json").read_text())["mean"]
    log = max(results.glob("training_log_*.txt")).read_text()
    seconds = [float(value) for value in re.findall(r"Epoch time: ([\d.]+) s", log)]
    memory = [float(value) for value in re.findall(r"Peak memory ([\d.]+) GiB", log)]
    scores = [f"{dice[label]['Dice']:.3f}" for label in STRUCTURES.values()]
    return [trainer, *scores, str(len(seconds)), f"{median(seconds):.0f}", f"{max(memory):.1f}"]


def _table(rows: list[list[str]]) -> str:
    header = ["trainer", *STRUCTURES, "epochs", "median epoch, s", "peak memory, GiB"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
