"""The server of the page: the standard library's, on 127.0.0.1 alone. What it answers, `answers` says.

with serving(partial(measure_study, model), limit_bytes=10**9) as server:
    print(server.url)
"""

from __future__ import annotations

import secrets
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from nnunet_echo.cine.serve.answers import Answers, same
from nnunet_echo.cine.serve.folder import private_folder
from nnunet_echo.cine.serve.jobs import Jobs, Measure

ADDRESS = "127.0.0.1"
HEADERS_S = 10.0  # for a request's headers, all together
MOST_CONNECTIONS = 32


class PageServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 at `port` (0: a free one); `url` is the page, `first_url` leads there once."""

    daemon_threads, block_on_close = True, False

    def __init__(self, jobs: Jobs, limit_bytes: int, port: int = 0, *, headers_s: float = HEADERS_S) -> None:
        self.jobs, self.limit_bytes, self.headers_s = jobs, limit_bytes, headers_s
        self.token = secrets.token_urlsafe(32)
        # A browser's command line can be read by other users of the machine, so what stands there works only once.
        self._first: str | None = secrets.token_urlsafe(32)
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((ADDRESS, port), Answers)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser may call this server."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self.hosts[0]}/{self.token}/"

    @property
    def first_url(self) -> str:
        """An address that leads to the page the first time it is opened, and never again."""
        return f"http://{self.hosts[0]}/{self._first}"

    def take_first(self, token: str) -> bool:
        """Whether `token` is the one that works once; it is used up then."""
        if self._first is None or not same(token, self._first):
            return False
        self._first = None
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, unless there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What a thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: most are connections that were closed, and a traceback may hold what a request held."""


@contextmanager
def serving(measure: Measure, limit_bytes: int, port: int = 0) -> Iterator[PageServer]:
    """A server that runs in a thread, and its temporary files; both are gone at the end.

    `measure` is `study.measure_study` with a model: (paths, *, views, spacing, fps, region, smooth, progress) ->
    CineResult.
    Raises RuntimeError for a port that cannot be had, and where files could not be removed.
    """
    with private_folder() as folder:
        jobs = Jobs(measure, folder)
        try:
            try:
                server = PageServer(jobs, limit_bytes, port)
            except OSError as error:
                text = f"port={port}: cannot be had ({error.strerror}). Leave it out for any that is free."
                raise RuntimeError(text) from error
            with server:
                thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
                thread.start()
                try:
                    yield server
                finally:
                    server.shutdown()
                    thread.join()
        finally:
            jobs.stop()
