"""The local page's server about a drawn heart, and requests of any kind to it.

The test modules load it as a plugin, for its fixtures. It asserts nothing: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cine_results import LABELS, drawn

from nnunet_echo.cine.analyse import analyse
from nnunet_echo.cine.clips import read_clip
from nnunet_echo.cine.result import CineResult
from nnunet_echo.cine.serve.server import PageServer, serving

LIMIT = 3_000_000


def measure_drawn(
    paths: list[Path],
    *,
    views: tuple[str, ...] = (),
    spacing: Any = None,
    fps: Any = None,
    region: int | None = None,
    smooth: bool = False,
    progress: Callable[[int, int], None],
    wait_s: float = 0.0,
) -> CineResult:
    """As `measure_study`, with the true masks of the drawn heart in place of a model's."""
    clips = [read_clip(path, spacing=spacing, fps=fps, region=region) for path in paths]
    total = sum(clip.count for clip in clips)
    for done in range(total + 1):
        progress(done, total)
        time.sleep(wait_s / total)
    return analyse(clips[0], drawn()[0], LABELS, view=(*views, "")[0], model={"hash": "0"})


@dataclass
class Gate:
    """A measuring that says when it began, and goes on when it is told to; `seen` are its calls."""

    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, paths: list[Path], **options: Any) -> CineResult:
        self.seen.append({"paths": paths, "bytes": [path.read_bytes() for path in paths], **options})
        options["progress"](0, 10)
        self.began.release()
        while not self.go.acquire(timeout=0.02):
            options["progress"](5, 10)
        text = self.seen[-1]["bytes"][0]
        raise ValueError(f"{paths[0]}: {text.decode('latin-1')}.")


@dataclass
class Quick:
    """A result whose files are written at once."""

    exit_code: int
    identifier: str = "0a1b2c"

    def save(self, out: Path) -> Path:
        out.mkdir(parents=True)
        (out / "report.html").write_text("report")
        return out


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Requests as the page makes them, unless told otherwise; `None` leaves a header out."""

    server: PageServer
    folder: Path

    def __call__(
        self, method: str, path: str = "", body: Any = None, *, raw: str | None = None, **headers: str | None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        given = {"Host": self.host, **({} if method == "GET" else {"Origin": f"http://{self.host}"})}
        if body is not None:
            given["Content-Length"] = str(len(body))
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, raw or f"/{self.server.token}/{path}", skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return reply

    def raw(self, request: str, wait: bool = False) -> bytes:
        """The answer to these bytes; unless `wait`, nothing more will come, and the server sees that."""
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=10) as connection:
            connection.sendall(request.encode())
            if not wait:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            while piece := connection.recv(4096):
                found += piece
            return found

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def announce(self, *sizes: int, ending: str = ".dcm", **more: Any) -> Reply:
        views = {"views": ["4CH", "2CH"]} if len(sizes) == 2 else {}
        return self("POST", "jobs", {"sizes": list(sizes), "endings": [ending] * len(sizes), **views, **more})

    def send(self, data: bytes, **more: Any) -> str:
        """Announce and send one clip; the job's path."""
        path = f"jobs/{self.announce(len(data), **more).json['job']}"
        self("PUT", f"{path}/clips/1", data)
        return path

    def finished(self, path: str, within_s: float = 60.0) -> dict[str, Any]:
        """The state of a job that is over."""
        end = time.monotonic() + within_s
        while (state := self("GET", path).json)["state"] not in ("done", "failed"):
            if time.monotonic() > end:
                raise TimeoutError(f"{path}: {state}")
            time.sleep(0.02)
        return state

    def files(self) -> list[str]:
        """What lies in the server's folder, but for its lock."""
        paths = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "lock")
        return sorted(path.relative_to(self.folder).as_posix().partition("/")[2] for path in paths)


def until(true: Callable[[], object], within_s: float = 10.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test alone where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def client(temporary: Path, gate: Gate) -> Iterator[Client]:
    """A server whose measuring is `gate`."""
    with serving(gate, LIMIT) as server:
        yield Client(server, next(temporary.iterdir()))


@pytest.fixture
def drawn_client(temporary: Path) -> Iterator[Client]:
    """A server that measures the drawn heart."""
    with serving(measure_drawn, LIMIT) as server:
        yield Client(server, next(temporary.iterdir()))
