"""Clips wait in a row and are measured one after another; a clip is deleted once it is measured, or given up.

receiving -> waiting -> working -> done, or failed with a text. A job that is cancelled is forgotten at once, and its
files go; a worker that is busy with it stops at its next frame.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_echo.cine.result import CineResult
from nnunet_echo.cine.serve.folder import remove
from nnunet_echo.cine.serve.wanted import Wanted

# As `study.measure_study` with its model: (paths, *, views, spacing, fps, region, smooth, progress) -> CineResult.
Measure = Callable[..., CineResult]
REPORT, ARCHIVE = "report.html", "result.zip"
MOST_WAITING = 4  # jobs that are neither at work nor finished
MOST_KEPT = 8  # finished ones; the oldest goes first
_PATIENCE_S = 120.0  # for a clip that was announced
_ROOM_BYTES = 256_000_000  # on the disk, besides the clips
_PACKED = (".gz", ".mp4", ".webp", ".dcm")
_logger = logging.getLogger(__name__)


class Busy(Exception):
    """As many jobs wait as may."""


class NoRoom(Exception):
    """The disk has no room for the clips."""


class Cancelled(Exception):
    """Nobody wants the result any more."""


@dataclass(eq=False)
class Job:
    """One study: one or two clips, their folder, and how far they are. `refused` says that a number was refused."""

    wanted: Wanted
    folder: Path
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "receiving"
    done: int = 0
    total: int = 0
    text: str = ""
    identifier: str = ""
    refused: bool = False
    began: float = field(default_factory=time.monotonic)
    under_way: set[int] = field(default_factory=set)  # clips that are coming
    arrived: set[int] = field(default_factory=set)

    def clip(self, place: int) -> Path:
        """Where the clip of this number, from 0, goes."""
        return self.folder / self.wanted.names()[place]

    def clips(self) -> list[Path]:
        """Where all go."""
        return [self.clip(place) for place in range(len(self.wanted.sizes))]


class Jobs:
    """The row of jobs and the thread that works it off; their files lie below `folder`. End it with `stop`."""

    def __init__(self, measure: Measure, folder: Path, *, most_waiting: int = MOST_WAITING, most_kept: int = MOST_KEPT):
        self._measure, self._folder = measure, folder
        self._most_waiting, self._most_kept = most_waiting, most_kept
        self._changed = threading.Condition()
        self._saving = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._row: list[Job] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="nnunet-echo-serve", daemon=True)
        self._thread.start()

    def announce(self, wanted: Wanted) -> Job:
        """A job whose clips are to come. Raises `Busy` and `NoRoom`."""
        with self._changed:
            self._forget_late()
            waiting = sum(job.state in ("receiving", "waiting") for job in self._jobs.values())
            if self._stopped or waiting >= self._most_waiting:
                raise Busy
            if shutil.disk_usage(self._folder).free < sum(wanted.sizes) + _ROOM_BYTES:
                raise NoRoom
            name = secrets.token_hex(8)
            job = Job(wanted, self._folder / name, name)
            job.folder.mkdir(mode=0o700)
            self._jobs[name] = job
            return job

    def find(self, name: str) -> Job | None:
        """The job of this name, unless it is forgotten."""
        with self._changed:
            return self._jobs.get(name)

    def begin_clip(self, job: Job, place: int) -> bool:
        """Whether the clip of this number may come now: it is wanted, and neither here nor on its way."""
        with self._changed:
            if job.state != "receiving" or place >= len(job.wanted.sizes) or place in job.under_way | job.arrived:
                return False
            job.under_way.add(place)
            return True

    def end_clip(self, job: Job, place: int, complete: bool) -> bool:
        """A clip is here; when all are, the job waits for its turn. One that came in part ends its job."""
        with self._changed:
            job.under_way.discard(place)
            if not complete or job.state != "receiving":
                self._forget(job)
                return False
            job.arrived.add(place)
            if len(job.arrived) == len(job.wanted.sizes):
                job.state = "waiting"
                self._row.append(job)
                self._changed.notify_all()
            return True

    def describe(self, job: Job) -> dict[str, Any]:
        """How far a job is, for the page."""
        with self._changed:
            busy = any(other.state == "working" for other in self._jobs.values())
            return {
                "state": job.state,
                "ahead": self._row.index(job) + busy if job in self._row else 0,
                "done": job.done,
                "total": job.total,
                "text": job.text,
                "identifier": job.identifier,
                "refused": job.refused,
            }

    def cancel(self, job: Job) -> None:
        """Forget a job, whatever its state, and delete its files."""
        with self._changed:
            self._forget(job)

    def stop(self, patience_s: float = 5.0) -> None:
        """Take no more, forget all, and wait for the worker, or until it can make no new folder any more."""
        with self._changed:
            self._stopped = True
            for job in list(self._jobs.values()):
                self._forget(job)
            self._changed.notify_all()
        self._thread.join(patience_s)
        # A worker in a long step: it either sees below this lock that all is over, or is past making its folder, and
        # fails at the next file, since the folder is gone.
        if self._saving.acquire(timeout=patience_s):
            self._saving.release()

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.name, None)
        if job in self._row:
            self._row.remove(job)
        job.state = "cancelled"
        remove(job.folder)

    def _forget_late(self) -> None:
        for job in list(self._jobs.values()):
            if job.state == "receiving" and not job.under_way and time.monotonic() - job.began > _PATIENCE_S:
                self._forget(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._row or self._stopped)
                if self._stopped:
                    return
                job = self._row.pop(0)
                job.state = "working"
            text = self._measured(job)
            with self._changed:
                for path in job.clips():
                    remove(path)
                if job.state == "cancelled":
                    remove(job.folder)
                    continue
                job.state, job.text = ("failed", text) if text else ("done", "")
                finished = [other for other in self._jobs.values() if other.state in ("done", "failed")]
                for old in finished[: max(0, len(finished) - self._most_kept)]:
                    self._forget(old)

    def _measured(self, job: Job) -> str:
        """Measure and save; "" or why it failed."""
        wanted = job.wanted
        try:
            result = self._measure(
                job.clips(),
                views=wanted.views,
                spacing=wanted.spacing,
                fps=wanted.fps,
                region=wanted.region,
                smooth=wanted.smooth,
                progress=lambda done, total: self._progress(job, done, total),
            )
            with self._saving:
                self._progress(job, job.total, job.total)
                saved = result.save(job.folder / "result")
                pack(saved, job.folder / ARCHIVE, f"cine_{result.identifier}")
                (saved / REPORT).rename(job.folder / REPORT)
                remove(saved)
            job.identifier, job.refused = result.identifier, bool(result.exit_code)
        except Cancelled:
            return "cancelled"
        except OSError as error:  # its text has paths
            return f"A file could not be read or written ({error.strerror or type(error).__name__})."
        except ValueError as error:
            return str(error).replace(f"{job.folder}{os.sep}", "")
        except Exception as error:  # anything else is a mistake of the program; its text may hold anything
            _logger.warning("a clip could not be measured: %s", type(error).__name__)
            return f"The program failed ({type(error).__name__}). nnunet-echo cine --traceback shows where."
        return ""

    def _progress(self, job: Job, done: int, total: int) -> None:
        with self._changed:
            if job.state == "cancelled" or self._stopped:
                raise Cancelled
            job.done, job.total = done, total


def pack(folder: Path, archive: Path, name: str) -> None:
    """Write the files of a folder into the new zip `archive`, below `name`, without times."""
    with zipfile.ZipFile(archive, "x") as file:
        for path in sorted(folder.iterdir()):
            about = zipfile.ZipInfo(f"{name}/{path.name}")  # of 1980
            about.external_attr = 0o644 << 16
            about.compress_type = zipfile.ZIP_STORED if path.suffix in _PACKED else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, file.open(about, "w") as target:
                shutil.copyfileobj(source, target)
