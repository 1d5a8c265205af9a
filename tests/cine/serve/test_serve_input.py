"""What the local page's server takes: clips of a known length, options that can be meant, and all of it in time."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from serving import LIMIT, Client

from nnunet_echo.cine.serve import answers, server

pytest_plugins = ("serving",)


@pytest.fixture
def job(client: Client) -> str:
    return client.announce(5).json["job"]


def test_a_clip_needs_its_length(client: Client, job: str) -> None:
    path = f"jobs/{job}/clips/1"
    assert client("PUT", path, b"12345", Content_Length=None).status == 411
    assert client("PUT", path, b"12345", Transfer_Encoding="chunked").status == 411
    for length in ("-5", "5.0", "five", "+5", "9" * 30):
        assert client("PUT", path, b"12345", Content_Length=length).status == 400
    two = f"PUT /{client.server.token}/{path} HTTP/1.1\r\nHost: {client.host}\r\nOrigin: http://{client.host}\r\n"
    assert client.raw(f"{two}Content-Length: 5\r\nContent-Length: 5\r\n\r\n12345").startswith(b"HTTP/1.0 411")
    assert client("GET", f"jobs/{job}").json["state"] == "receiving" and client.files() == []


def test_a_clip_may_not_be_too_large(client: Client, job: str) -> None:
    reply = client.announce(LIMIT + 1)
    assert reply.status == 413 and b"at most 3 MB are taken" in reply.body
    assert client.announce(LIMIT).status == 201
    assert client.announce(1, LIMIT + 1).status == 413
    assert client("PUT", f"jobs/{job}/clips/1", b"123456").status == 413  # more than was announced
    assert client("PUT", f"jobs/{job}/clips/1", b"", Content_Length=str(LIMIT * 1000)).status == 413
    assert client("POST", "jobs", b" " * 5000, Content_Type="application/json").status == 413
    assert client.files() == []


MEANINGLESS = [
    [],
    {},
    {"sizes": [1]},
    {"sizes": 1, "endings": [""]},
    {"sizes": [], "endings": []},
    {"sizes": [1, 1, 1], "endings": ["", "", ""]},
    {"sizes": [-1], "endings": [""]},
    {"sizes": [True], "endings": [""]},
    {"sizes": ["1"], "endings": [""]},
    {"sizes": [1], "endings": ["", ""]},
    {"sizes": [1], "endings": [7]},
    {"sizes": [1], "endings": [""], "views": ["<b>"]},
    {"sizes": [1, 1], "endings": ["", ""], "views": ["4CH", "4CH"]},
    {"sizes": [1, 1], "endings": ["", ""]},
    {"sizes": [1], "endings": [""], "spacing": [0.3]},
    {"sizes": [1], "endings": [""], "spacing": [0.3, 0]},
    {"sizes": [1], "endings": [""], "spacing": [0.3, float("nan")]},
    {"sizes": [1], "endings": [""], "fps": 0},
    {"sizes": [1], "endings": [""], "fps": "50"},
    {"sizes": [1], "endings": [""], "region": 0},
    {"sizes": [1], "endings": [""], "region": 1.5},
    {"sizes": [1], "endings": [""], "region": True},
    {"sizes": [1], "endings": [""], "region": "1"},
    {"sizes": [1], "endings": [""], "smooth": 1},
    {"sizes": [1], "endings": [""], "model": "/etc/passwd"},
]


def test_only_what_can_be_meant_is_taken(client: Client) -> None:
    for content in MEANINGLESS:
        reply = client("POST", "jobs", content)
        assert reply.status == 400 and reply.body and b"<b>" not in reply.body, content


def test_only_json_is_taken(client: Client) -> None:
    good = json.dumps({"sizes": [1], "endings": [""]}).encode()
    assert client("POST", "jobs", good, Content_Type="application/json").status == 201
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        None,
    ):  # a form can send these
        assert client("POST", "jobs", good, Content_Type=kind).status == 415
    for bad in (b"", b"{", b"\xff", b"[" * 4000):
        assert client("POST", "jobs", bad, Content_Type="application/json").status == 400


def test_slow_headers_are_not_waited_for(client: Client) -> None:
    """Each byte comes in time, all of them do not."""
    client.server.headers_s = 0.6
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=5) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 200:
                connection.send(bytes([byte]))
                time.sleep(0.02)
        assert 0.3 < time.monotonic() - began < 3


def test_headers_that_do_not_come_are_not_waited_for(client: Client) -> None:
    client.server.headers_s = 0.3
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=5) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b"" and 0.1 < time.monotonic() - began < 3


def test_a_clip_that_stops_coming_is_given_up(client: Client, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SILENCE_S", 0.3)
    head = f"PUT /{client.server.token}/jobs/{job}/clips/1 HTTP/1.1\r\nHost: {client.host}\r\n"
    answer = client.raw(f"{head}Origin: http://{client.host}\r\nContent-Length: 5\r\n\r\n12", wait=True)
    assert answer.startswith(b"HTTP/1.0 408")
    assert client("GET", f"jobs/{job}").status == 404 and client.files() == []


def test_connections_are_few(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.server._places = threading.BoundedSemaphore(2)
    port = client.server.server_port
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)):
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as third:
            assert third.recv(1) == b""  # closed at once
        one.close()
        time.sleep(0.3)
        assert client("GET").status == 200
    assert server.MOST_CONNECTIONS < 100
