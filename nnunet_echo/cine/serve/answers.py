"""What the server answers, and to whom: one request of one connection.

Everything lies below /TOKEN/, drawn at random at each start:

GET     (nothing), page.css, page.js, icon.svg, limits            the page
POST    jobs                                                      announce one or two clips
PUT     jobs/JOB/clips/1, jobs/JOB/clips/2                        the bytes of a clip
GET     jobs/JOB, jobs/JOB/report.html, jobs/JOB/result.zip       how far it is; what came out
DELETE  jobs/JOB                                                  give it up, or delete what came out

Web pages from elsewhere that run in the same browser get nothing: Host must be this address, so that no foreign name
can stand for it (DNS rebinding); what changes something must come from this page (Origin); no answer is kept, framed,
or read by others. The report runs in a sandbox without an origin. Nothing is logged of a request.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_echo.cine.report import report_policy
from nnunet_echo.cine.serve.jobs import ARCHIVE, REPORT, Busy, Job, NoRoom
from nnunet_echo.cine.serve.wanted import KNOWN_ENDINGS, TooLarge, read_wanted

if TYPE_CHECKING:
    from nnunet_echo.cine.serve.server import PageServer

SILENCE_S = 30.0  # for each piece of what comes and goes
SLOWEST_BYTES_S = 200_000.0  # of a clip, on average
_MOST_JSON, _PIECE, _DRAINED = 4096, 1 << 16, 1 << 20
PAGE = Path(__file__).with_name("page")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_NOTHING = "default-src 'none'; frame-ancestors 'none'; sandbox"
_FILES = {  # path -> file and type
    "": ("serve.html", "text/html; charset=utf-8"),
    "page.css": ("serve.css", "text/css; charset=utf-8"),
    "page.js": ("serve.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_JOB = re.compile(r"jobs/(?P<job>[0-9a-f]{16})(?:/(?P<rest>report\.html|result\.zip|clips/[12]))?", re.ASCII)


class _Refused(Exception):
    """A request that gets no more than a status and a text."""

    def __init__(self, status: HTTPStatus, text: str = "", **headers: str) -> None:
        super().__init__(status, text)
        self.status, self.text, self.headers = status, text, headers


class _Pieces(io.RawIOBase):
    """Reads of a connection, with a silence of at most `SILENCE_S` and an end of all patience."""

    def __init__(self, connection: socket.socket, patience_s: float) -> None:
        self._connection, self.deadline = connection, time.monotonic() + patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, SILENCE_S))
        return self._connection.recv_into(buffer)


class Answers(BaseHTTPRequestHandler):
    """One request of one connection."""

    server: PageServer

    def setup(self) -> None:
        super().setup()
        self.pieces = _Pieces(self.connection, self.server.headers_s)
        self.rfile = io.BufferedReader(self.pieces, _PIECE)

    def version_string(self) -> str:
        return "nnunet-echo"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library calls for requests that it cannot read; it would repeat them."""
        method_unknown = code == HTTPStatus.NOT_IMPLEMENTED
        self._send(HTTPStatus.METHOD_NOT_ALLOWED if method_unknown else HTTPStatus(code), b"", "text/plain")

    def _answer(self) -> None:
        self.close_connection = True
        try:
            self._route()
        except _Refused as refused:
            self._send(refused.status, refused.text.encode(), "text/plain; charset=utf-8", **refused.headers)
            self._drain()
        except TimeoutError:
            self._send(HTTPStatus.REQUEST_TIMEOUT, b"", "text/plain")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _answer

    def _route(self) -> None:
        if (self._header("Host") or "") not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN)
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN)
        _, token, path = (*self.path.split("/", 2), "", "")[:3]
        if self.command == "GET" and self.path.count("/") == 1 and self.server.take_first(token):
            return self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", Location=f"/{self.server.token}/")
        if not self.path.startswith(f"/{token}/") or not same(token, self.server.token):
            raise _Refused(HTTPStatus.FORBIDDEN)
        if path in _FILES or path == "limits":
            self._allow("GET")
            return self._limits() if path == "limits" else self._file(*_FILES[path])
        if path == "jobs":
            self._allow("POST")
            return self._announce()
        found = _JOB.fullmatch(path)
        job = found and self.server.jobs.find(found["job"])
        if not found or not job:
            raise _Refused(HTTPStatus.NOT_FOUND)
        rest = found["rest"]
        if rest is None:
            self._allow("GET", "DELETE")
            return self._json(self.server.jobs.describe(job)) if self.command == "GET" else self._delete(job)
        if rest.startswith("clips/"):
            self._allow("PUT")
            return self._clip(job, int(rest[-1]) - 1)
        self._allow("GET")
        return self._result(job, rest)

    def _allow(self, *methods: str) -> None:
        if self.command not in methods:
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(methods))
        if self.command != "GET" and self._header("Origin") != f"http://{self._header('Host')}":
            raise _Refused(HTTPStatus.FORBIDDEN)

    def _header(self, name: str) -> str | None:
        """The value of a header that stands once."""
        values = self.headers.get_all(name, [])
        return values[0] if len(values) == 1 else None

    def _length(self, most: int) -> int:
        if "Transfer-Encoding" in self.headers or not (text := self._header("Content-Length")):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED)
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise _Refused(HTTPStatus.BAD_REQUEST)
        if int(text) > most:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The clip is larger than was said, or than is allowed.")
        return int(text)

    def _limits(self) -> None:
        self._json({"bytes": self.server.limit_bytes, "endings": KNOWN_ENDINGS})

    def _file(self, name: str, kind: str) -> None:
        self._send(HTTPStatus.OK, (PAGE / name).read_bytes(), kind, PAGE_POLICY)

    def _announce(self) -> None:
        length = self._length(_MOST_JSON)
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        try:
            wanted = read_wanted(json.loads(self.rfile.read(length)), self.server.limit_bytes)
            job = self.server.jobs.announce(wanted)
        except TooLarge as error:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            text = str(error) if type(error) is ValueError else "expected JSON."
            raise _Refused(HTTPStatus.BAD_REQUEST, text) from None
        except Busy:
            text = "Too many clips are waiting. Try again when one is done."
            raise _Refused(HTTPStatus.TOO_MANY_REQUESTS, text, **{"Retry-After": "10"}) from None
        except NoRoom:
            raise _Refused(HTTPStatus.INSUFFICIENT_STORAGE, "The disk has no room for the clip.") from None
        self._json({"job": job.name}, HTTPStatus.CREATED)

    def _clip(self, job: Job, place: int) -> None:
        if place >= len(job.wanted.sizes):
            raise _Refused(HTTPStatus.NOT_FOUND)
        length = self._length(job.wanted.sizes[place])
        if not self.server.jobs.begin_clip(job, place):
            raise _Refused(HTTPStatus.CONFLICT)
        self.pieces.deadline = time.monotonic() + SILENCE_S + length / SLOWEST_BYTES_S
        left = length
        try:
            with open(job.clip(place), "xb", opener=_for_owner) as file:
                while left and (piece := self.rfile.read1(min(left, _PIECE))):
                    file.write(piece)
                    left -= len(piece)
        except (ConnectionError, TimeoutError):
            raise
        except FileNotFoundError:  # cancelled meanwhile
            raise _Refused(HTTPStatus.CONFLICT) from None
        except OSError:
            raise _Refused(HTTPStatus.INSUFFICIENT_STORAGE, "The clip could not be written to the disk.") from None
        finally:
            kept = self.server.jobs.end_clip(job, place, complete=not left and length == job.wanted.sizes[place])
        if not kept:
            raise _Refused(HTTPStatus.BAD_REQUEST, "The clip did not come completely.")
        self._send(HTTPStatus.NO_CONTENT, b"", "")

    def _delete(self, job: Job) -> None:
        self.server.jobs.cancel(job)
        self._send(HTTPStatus.NO_CONTENT, b"", "")

    def _result(self, job: Job, name: str) -> None:
        assert name in (REPORT, ARCHIVE)
        try:
            data = (job.folder / name).read_bytes()
        except OSError:
            raise _Refused(HTTPStatus.NOT_FOUND) from None
        if name == ARCHIVE:
            attachment = f'attachment; filename="cine_{job.identifier}.zip"'
            return self._send(HTTPStatus.OK, data, "application/zip", **{"Content-Disposition": attachment})
        policy = f"{report_policy()}; frame-ancestors 'self'; sandbox allow-scripts"
        return self._send(HTTPStatus.OK, data, "text/html; charset=utf-8", policy)

    def _json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, policy: str = _NOTHING, **headers: str) -> None:
        self.close_connection = True
        self.connection.settimeout(SILENCE_S)
        self.send_response(status)
        always = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Content-Length": str(len(data)),
        }
        for name, value in (always | headers | ({"Content-Type": kind} if kind else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _drain(self) -> None:
        """Take some of what a refused client still sends, so that it reads the answer before the connection ends."""
        self.pieces.deadline = time.monotonic() + 1
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            left = _DRAINED
            while left > 0 and (piece := self.rfile.read1(_PIECE)):
                left -= len(piece)


def same(given: str, expected: str) -> bool:
    """Whether two texts are the same, in a time that does not tell where they differ."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
