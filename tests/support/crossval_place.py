"""Real nnU-Net trainings of seconds, on phantom hearts, by trainers that keep a log of events. It asserts nothing.

Each event is a line of JSON: when, which process, trainer, fold, what ("start", "conflict", "epoch", "validation",
"done") and which epoch. "conflict" is a start while another process that trained the fold is alive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from crossval_fake import wait_for

from nnunet_echo.dataset_conversion.camus.phantom import write_camus

DATASET, CONFIGURATION, EPOCHS = "Dataset751_CAMUS", "2d_tiny", 8
OURS = f"nnUNetTrainerWitness_{EPOCHS}epochs_2iterations"
STOCK, BROKEN = "nnUNetTrainerWitnessStock", "nnUNetTrainerBroken"
SOURCES = {
    "witness": """
import json, os, time
from nnunet_echo.crossval.train_fold import start_time

LOG = os.environ["nnUNet_WITNESS"]

class Witness:
    def note(self, event):
        entry = dict(time=time.time(), process=os.getpid(), began=start_time(os.getpid()), trainer=type(self).__name__,
                     fold=self.fold, event=event, epoch=self.current_epoch, gpu=os.environ.get("CUDA_VISIBLE_DEVICES"))
        with open(LOG, "a") as file:
            file.write(json.dumps(entry) + "\\n")

    def on_train_start(self):
        open(LOG, "a").close()
        for earlier in map(json.loads, open(LOG)):
            same = (earlier["trainer"], earlier["fold"]) == (type(self).__name__, self.fold)
            if same and earlier["process"] != os.getpid() and start_time(earlier["process"]) == earlier["began"]:
                self.note("conflict")
        self.note("start")
        self.logger.local_logger.plot_progress_png = lambda folder: None  # takes longer than an epoch
        super().on_train_start()

    def on_epoch_end(self):
        self.note("epoch")
        super().on_epoch_end()
        time.sleep(0.5)  # long enough to be killed in

    def perform_actual_validation(self, save_probabilities=False):
        self.note("validation")
        super().perform_actual_validation(save_probabilities)
        self.note("done")
""",
    "nnUNetTrainerWitness": """
from nnunet_echo.training.trainer import EchoTrainer, other_lengths
from witness import Witness

class nnUNetTrainerWitness(Witness, EchoTrainer):
    network_path = "nnunet_echo.networks.u_mamba:NoMamba"
    seconds_between_epoch_saves = 0

__getattr__ = other_lengths(nnUNetTrainerWitness)
""",
    "nnUNetTrainerWitnessStock": f"""
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from witness import Witness

class nnUNetTrainerWitnessStock(Witness, nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = {EPOCHS}, 2, 1
        self.save_every = 1
""",
    "nnUNetTrainerBroken": """
from nnunet_echo.training.trainer import EchoTrainer

class nnUNetTrainerBroken(EchoTrainer):
    def on_train_start(self):
        raise RuntimeError("this trainer is broken on purpose")
""",
    # nnU-Net takes every processor for -device cpu; threads of so small a network only wait for each other. And it
    # spawns the processes that write the validation: each imports nnU-Net anew, which takes longer than the training.
    "sitecustomize": """
import multiprocessing
multiprocessing.cpu_count = lambda: 1
get_context = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
""",
}
PLAN = """
import sys
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as commands
sys.argv[1:] = ["-d", "751", "-np", "1"]
commands.extract_fingerprint_entry()
sys.argv[1:] = ["-d", "751"]
commands.plan_experiment_entry()
from nnunet_echo.nnunet.plans import add_configuration
add_configuration({plans!r}, {configuration!r}, (3.0, 3.0), (32, 48), 2, (4, 8))
"""


@dataclass(frozen=True)
class Place:
    """nnU-Net's three folders, planned and not preprocessed, and how to run commands there."""

    folder: Path
    environment: dict[str, str]

    @property
    def model(self) -> Path:
        return self.folder / "results" / DATASET

    def fold(self, trainer: str, fold: int) -> Path:
        return self.model / f"{trainer}__nnUNetPlans__{CONFIGURATION}" / f"fold_{fold}"

    def events(self, **which: object) -> list[dict]:
        file = self.folder / "events"
        events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [event for event in events if all(event[name] == value for name, value in which.items())]

    def wait_for_epoch(self, driver: subprocess.Popen | None = None, since: int = 0) -> dict:
        """The first end, after the first `since` events, of an epoch with a saved one before and more to come."""

        def found() -> list[dict]:
            if driver is not None and driver.poll() is not None:
                raise RuntimeError(f"crossval ended with {driver.returncode}: {driver.stdout.read()}")
            return [
                event
                for event in self.events()[since:]
                if event["event"] == "epoch" and 0 < event["epoch"] < EPOCHS - 2
            ]

        wait_for(found, 600)
        return found()[0]


def make_place(folder: Path, patients: int = 10) -> Place:
    """Phantom patients, one view, converted and planned with a small configuration."""
    names = ("raw", "preprocessed", "results")
    code = folder / "code"
    code.mkdir()
    for name in names:
        (folder / name).mkdir()
    for name, source in SOURCES.items():
        (code / f"{name}.py").write_text(source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet_", "RAY_", "SLURM_"))}
    environment = {
        **kept,
        **{f"nnUNet_{name}": str(folder / name) for name in names},
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_extTrainer": str(code),
        "nnUNet_WITNESS": str(folder / "events"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(code),
    }
    write_camus(folder / "camus", patients, seed=0, spacing_mm=3.0, half_sequence=False)
    place = Place(folder, environment)
    convert = ["-m", "nnunet_echo.cli.main", "convert", "camus", str(folder / "camus"), "--views", "4CH"]
    plans = str(folder / "preprocessed" / DATASET / "nnUNetPlans.json")
    for command in (convert, ["-c", PLAN.format(plans=plans, configuration=CONFIGURATION)]):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
    return place
