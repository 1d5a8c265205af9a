"""Where the jobs of a sweep run: one after another on this machine, or on all GPUs that Ray has.

An engine is given jobs with `submit`, returns those that ended, each with the exit status of its `train_fold`, from
`wait(seconds)`, and stops what still runs on `close`. What a job is worth is for `sweep` to judge.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_echo.crossval.jobs import Prediction, Training
from nnunet_echo.nnunet.results import exit_status

Job = Training | Prediction
LOST = exit_status(-9)  # status of a job whose worker, or machine, did not live to tell it
RETRIES = 5  # by Ray
RUN_ONE = (sys.executable, "-m", "nnunet_echo.crossval.train_fold")


class OneByOne:
    """Jobs in their order, one at a time, in this process's environment."""

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()
        self._running: tuple[Job, subprocess.Popen] | None = None

    def submit(self, job: Job) -> None:
        self._queue.append(job)

    def wait(self, seconds: float) -> list[tuple[Job, int]]:
        """At most one job, as soon as it ends; [] after `seconds`."""
        if self._running is None and not self._queue:
            time.sleep(seconds)
            return []
        if self._running is None:
            job = self._queue.popleft()
            self._running = job, subprocess.Popen([*RUN_ONE, *job.arguments(), "--parent", str(os.getpid())])
        job, process = self._running
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return []
        self._running = None
        return [(job, exit_status(process.returncode))]

    def close(self) -> None:
        if self._running is not None:
            self._running[1].terminate()
            self._running[1].wait()


class OnRay:
    """Jobs on the GPUs of a Ray cluster: the one at RAY_ADDRESS, or one on this machine that ends with us.

    Each job gets the share `gpus` of a GPU, and of the processors of its machine as much as of the GPUs there. Ray
    itself runs a job again, elsewhere, when its worker or its machine dies. What its core writes to stderr goes to the
    file `stderr`, until `close`.
    """

    def __init__(self, gpus: float, stderr: Path) -> None:
        self._terminal = _send_stderr_to(stderr)
        try:
            self._ray = _connect()
        except Exception as error:
            self._restore_stderr()
            raise RuntimeError(f"Ray does not start ({error}); its own words are in {stderr}.") from error
        self._task = self._ray.remote(num_gpus=gpus, num_cpus=0, max_retries=RETRIES)(_run_on_worker)
        self._gpus = gpus
        self._jobs: dict = {}  # what Ray returns of a job -> the job
        names = ("nnUNet_", "NNUNET_ECHO_")
        self._environment = {name: value for name, value in os.environ.items() if name.startswith(names)}

    def gpus(self) -> float:
        """All that the cluster has now."""
        return self._ray.cluster_resources().get("GPU", 0)

    def submit(self, job: Job) -> None:
        self._jobs[self._task.remote(job.arguments(), self._environment, self._gpus)] = job

    def wait(self, seconds: float) -> list[tuple[Job, int]]:
        """The jobs that ended, as soon as there is one; [] after `seconds`."""
        if not self._jobs:
            time.sleep(seconds)
            return []
        ended, _ = self._ray.wait(list(self._jobs), timeout=seconds)
        return [(self._jobs.pop(reference), self._status(reference)) for reference in ended]

    def close(self) -> None:
        self._ray.shutdown()
        self._restore_stderr()

    def _restore_stderr(self) -> None:
        os.dup2(self._terminal, 2)
        os.close(self._terminal)

    def _status(self, reference: Any) -> int:
        try:
            return self._ray.get(reference)
        except (
            self._ray.exceptions.WorkerCrashedError,
            self._ray.exceptions.NodeDiedError,
            self._ray.exceptions.LocalRayletDiedError,
            self._ray.exceptions.OutOfMemoryError,
        ):
            return LOST


def why_not_ray(device: str) -> str:
    """Why the jobs do not run on Ray; "" if they do. Raises RuntimeError when the user wants it and it is not there."""
    installed = importlib.util.find_spec("ray") is not None
    if os.environ.get("RAY_ADDRESS"):
        if not installed:
            raise RuntimeError(
                "RAY_ADDRESS is set, but ray is not installed. Install it: pip install 'nnunet-echo[ray]'."
            )
        return ""
    if device != "cuda":
        return f"a training on {device} takes the whole machine"
    return "" if installed else "ray is not installed (pip install 'nnunet-echo[ray]')"


def _connect() -> ModuleType:
    """Ray, connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A head on which a user has ever called ray.init() finds that user's token, and refuses who sends none.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address := os.environ.get("RAY_ADDRESS"):
        ray.init(address, **quiet)
    else:
        # The store of objects is in memory that nnU-Net's workers need; Ray takes 30 % of all, and we store nothing.
        # Another user's /tmp/ray cannot be written, and a socket's name in a deep folder is too long.
        ray.init(
            "local",
            include_dashboard=False,
            object_store_memory=10**8,
            _temp_dir=f"/tmp/nnunet-echo-ray-{os.getuid()}",
            **quiet,
        )
    return ray


def _run_on_worker(arguments: list[str], environment: dict[str, str], gpus: float) -> int:
    """Run a job in a worker of Ray, which has set CUDA_VISIBLE_DEVICES; returns the status of `train_fold`."""
    import ray

    me = ray.get_runtime_context().get_node_id()
    machine = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == me)
    processors = max(1, int(machine.get("CPU", 1) * gpus / machine["GPU"]))
    command = [*RUN_ONE, *arguments, "--processors", str(processors), "--parent", str(os.getpid())]
    return exit_status(subprocess.run(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL).returncode)


def _send_stderr_to(file: Path) -> int:
    """Ray's core writes to this process's stderr whatever it is told; returns where that was before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    with file.open("a") as log:
        os.dup2(log.fileno(), 2)
    return before
