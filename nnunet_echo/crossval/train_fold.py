"""Train one fold of one trainer with nnU-Net's own command, safely, whoever calls it. Standard library only.

    python -m nnunet_echo.crossval.train_fold DATASET CONFIGURATION FOLD -tr TRAINER

Call it again until it exits with 0: it continues from the last complete checkpoint. With `--predict FOLDER` the job is
a prediction by all folds named.

    exit status   0 done, now or before; 75 (EX_TEMPFAIL) another process is at it; 128 + n ended by signal n;
                  any other is nnU-Net's, whose last words are in train_fold.log

- One at a time: a lock (POSIX `lockf`, which NFS shares between machines) is held as long as this process lives.
- The command never outlives this process. TERM, INT and HUP are passed on to it, so that it can save, and after GRACE_S
  its process group is killed. Should this process be killed, a guardian, a fork that waits for just that, kills the
  group. Should that be killed too, the next call on that host does it, by the group recorded in train_fold.json, if the
  process of that number began when the recorded one did. This needs no prctl, so macOS will do.
- With `--parent PID`, the end of that process counts as TERM: engines start it so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from nnunet_echo.crossval.jobs import Model, Prediction, Training
from nnunet_echo.nnunet.commands import dismiss_guardian, kill_group, start_guardian
from nnunet_echo.nnunet.pretrained import OPTION
from nnunet_echo.nnunet.results import DEFAULT_PLANS, MARK, dataset_name, exit_status, take_lock

LOCKED = os.EX_TEMPFAIL
GRACE_S = 120.0  # between TERM and KILL: a training step and a checkpoint
POLL_S = 0.5
LOCK_WAIT_S = 1.0  # `nnunet-echo status` asks for a lock, and holds it for some microseconds
PROCESSES = {"nnUNet_n_proc_DA": 12, "nnUNet_def_n_proc": 8}  # nnU-Net's defaults, which ask for a machine of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    program = "python -m nnunet_echo.crossval.train_fold"
    parser = argparse.ArgumentParser(prog=program, description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="as nnU-Net knows it: an id such as 751, or a name such as Dataset751_CAMUS")
    parser.add_argument("configuration", help="of nnU-Net's plan, such as 2d")
    parser.add_argument("folds", nargs="+", metavar="fold", help="one to train; all that --predict averages")
    parser.add_argument("-tr", dest="trainer", default="nnUNetTrainer", help="(default: nnUNetTrainer)")
    parser.add_argument("-p", dest="plans", default=DEFAULT_PLANS, help=f"(default: {DEFAULT_PLANS})")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="(default: cuda)")
    parser.add_argument(OPTION, type=Path, metavar="FILE", help="weights that the fold starts from")
    parser.add_argument("--predict", type=Path, metavar="FOLDER", help="predict its images instead of training")
    parser.add_argument(
        "--wait",
        type=float,
        default=LOCK_WAIT_S,
        metavar="S",
        help=f"seconds to wait where another process is at it (default: {LOCK_WAIT_S:.0f})",
    )
    parser.add_argument(
        "--processors",
        type=int,
        metavar="N",
        help="for this job (default: those of Slurm's task, else of this process)",
    )
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process, which started it, ends")
    args = parser.parse_args(arguments)
    try:
        model = Model(dataset_name(args.dataset), args.configuration, args.trainer, args.plans, args.device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if args.predict is None and len(args.folds) > 1:
        parser.error(f"folds {' '.join(args.folds)}: it trains one")
    if strangers := [fold for fold in args.folds if fold != "all" and not re.fullmatch("[0-9]{1,9}", fold)]:
        parser.error(f"fold {strangers[0]!r}: give its number, or all")
    job: Training | Prediction = Training(model, args.folds[0], args.pretrained_weights)
    if args.predict:
        job = Prediction(model, tuple(args.folds), args.predict)
    return run_alone(job, args.wait, args.parent, args.processors)


def run_alone(job: Training | Prediction, wait_s: float, parent: int | None, processors: int | None) -> int:
    """Run the job's command unless the job is done or another process is at it; returns the exit status above."""
    if job.is_done():
        return 0
    job.base.parent.mkdir(parents=True, exist_ok=True)
    record = Path(f"{job.base}.json")
    with open(f"{job.base}.lock", "a+") as lock, open(f"{job.base}.log", "a", encoding="utf-8") as log:
        if not take_lock(lock, wait_s, log):
            return LOCKED
        if job.is_done():  # by whom we waited for
            return 0
        try:
            kill_recorded(record)
            status = _run(job.command(), _environment(processors), record, log, parent)
            if status == 0:
                job.finish()
                if not job.is_done():
                    raise RuntimeError(f"the command succeeded, but {job} has no results.")
        except (OSError, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}", file=log)
            status = 1
        _mark(log, f"end, status {status}")
    return status


def _run(command: list[str], environment: dict[str, str], record: Path, log: TextIO, parent: int | None) -> int:
    """Run the command in a process group of its own, of which nothing is left afterwards; returns its status."""
    asked_to_stop = False

    def ask_to_stop(_signum: int, _frame: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask_to_stop)
    _mark(log, f"start on {socket.gethostname()}: {' '.join(command)}")
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    lifeline = start_guardian(process.pid)
    record.write_text(
        json.dumps({"host": socket.gethostname(), "group": process.pid, "started": start_time(process.pid)})
    )
    kill_at = None
    while process.poll() is None:
        if kill_at is None and (asked_to_stop or parent not in (None, os.getppid())):
            process.terminate()  # only it: without its workers it could not save
            kill_at = time.monotonic() + GRACE_S
        if kill_at is not None and time.monotonic() > kill_at:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
    kill_group(process.pid)
    dismiss_guardian(lifeline)
    return exit_status(process.wait())


def kill_recorded(record: Path) -> None:
    """Kill the process group in the file, if it is of this host, alive, and no later one of the same number.

    Raises RuntimeError when it is still there after GRACE_S.
    """
    try:
        content = json.loads(record.read_text())
        host, group, started = content["host"], content["group"], content["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    give_up = time.monotonic() + GRACE_S
    while host == socket.gethostname() and started is not None and start_time(group) == started:
        kill_group(group)
        if time.monotonic() > give_up:
            raise RuntimeError(f"process group {group} of an earlier training cannot be killed.")
        time.sleep(0.05)


def start_time(process: int) -> str | None:
    """When a process began, in words that no other of its number has; None when it is gone or this is unknown."""
    proc = Path(f"/proc/{process}/stat")
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = proc.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[18]}"
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True)  # macOS
    return listed.stdout.strip() or None


def _environment(processors: int | None) -> dict[str, str]:
    """Ours, with nnU-Net's numbers of processes, where not set, held to the processors of this job."""
    if processors is None:
        if "SLURM_CPUS_PER_TASK" in os.environ:
            processors = int(os.environ["SLURM_CPUS_PER_TASK"])
        elif hasattr(os, "sched_getaffinity"):  # not on macOS
            processors = len(os.sched_getaffinity(0))
        else:
            processors = os.cpu_count() or 1
    held = {name: str(min(usual, processors)) for name, usual in PROCESSES.items()}
    return {**held, **os.environ, "PYTHONUNBUFFERED": "1"}


def _mark(log: TextIO, text: str) -> None:
    print(f"{MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=log, flush=True)


if __name__ == "__main__":
    sys.exit(main())
