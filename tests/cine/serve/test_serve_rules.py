"""Who is answered by the local page's server, and what: each rule by a request that breaks it alone."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path

import pytest
from serving import LIMIT, Client, Gate

from nnunet_echo.cine.serve import answers
from nnunet_echo.cine.serve.server import PageServer, serving

pytest_plugins = ("serving",)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
WRITING = (("POST", "jobs"), ("PUT", "jobs/JOB/clips/1"), ("DELETE", "jobs/JOB"))
READING = (("GET", ""), ("GET", "page.js"), ("GET", "limits"), ("GET", "jobs/JOB"))


@pytest.fixture
def job(client: Client) -> str:
    return client.announce(5).json["job"]


def test_the_page_and_its_files(client: Client) -> None:
    kinds = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for path, kind in kinds.items():
        reply = client("GET", path)
        assert reply.status == 200 and reply.body and reply.headers["Content-Type"].startswith(kind)
        assert HEADERS.items() <= reply.headers.items()
        policy = reply.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert "unsafe" not in str(policy) and "http" not in str(policy)
    assert client("GET", "limits").json["bytes"] == LIMIT
    page = client("GET").body.decode()
    assert "Research use, not a medical device." in page
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|\sstyle=|https?:", page)  # nothing that its policy stops


@pytest.mark.parametrize(("method", "path"), READING + WRITING)
def test_a_wrong_token_gets_nothing(client: Client, job: str, method: str, path: str) -> None:
    token = client.server.token
    for wrong in ("", "x", "A" * 43, token[:-1], token + "A", token[:20], token.swapcase()):
        raw = f"/{wrong}/{path.replace('JOB', job)}"
        reply = client(method, body=None if method == "GET" else b"12345", raw=raw)
        assert (reply.status, reply.body) == (403, b""), wrong
        assert HEADERS.items() <= reply.headers.items()
    assert client("GET", f"jobs/{job}").json["state"] == "receiving"


def test_no_token_at_all(client: Client) -> None:
    for raw in ("/", "//", "/favicon.ico", "/page.js", f"/{client.server.token}", f"/x/{client.server.token}/"):
        assert client("GET", raw=raw).status == 403


@pytest.mark.parametrize(("method", "path"), READING + WRITING)
def test_a_foreign_host_gets_nothing(client: Client, job: str, method: str, path: str) -> None:
    """As after DNS rebinding, when the browser takes this server for that of another name."""
    body, port = None if method == "GET" else b"12345", client.server.server_port
    for host in (None, "", "evil.example", "127.0.0.1", "127.0.0.1:1", f"evil.example:{port}", f"[::1]:{port}"):
        reply = client(method, path.replace("JOB", job), body, Host=host, Origin=f"http://{host}")
        assert (reply.status, reply.body) == (403, b""), host
    assert client("GET", f"jobs/{job}").json["state"] == "receiving"


def test_two_hosts_are_none(client: Client) -> None:
    request = f"GET /{client.server.token}/ HTTP/1.1\r\nHost: {client.host}\r\nHost: {client.host}\r\n\r\n"
    assert client.raw(request).startswith(b"HTTP/1.0 403")


def test_localhost_is_this_computer_too(client: Client) -> None:
    host = f"localhost:{client.server.server_port}"
    assert client("GET", Host=host).status == 200
    body = {"sizes": [1], "endings": [""]}
    assert client("POST", "jobs", body, Host=host, Origin=f"http://{host}").status == 201
    assert client("POST", "jobs", body, Host=host, Origin=f"http://{client.host}").status == 403


@pytest.mark.parametrize(("method", "path"), WRITING)
def test_other_pages_cannot_change_anything(client: Client, job: str, method: str, path: str) -> None:
    host = client.host
    for origin in (None, "null", "", "http://evil.example", f"https://{host}", f"http://{host}.evil.example"):
        reply = client(method, path.replace("JOB", job), b"12345", Origin=origin)
        assert (reply.status, reply.body) == (403, b""), origin
    assert client("GET", f"jobs/{job}").json["state"] == "receiving" and client.files() == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_browsers_that_say_a_request_is_of_another_site_are_believed(client: Client, site: str) -> None:
    assert client("GET", Sec_Fetch_Site=site).status == 403
    assert client("GET", Sec_Fetch_Site="same-origin").status == client("GET", Sec_Fetch_Site="none").status == 200


UNKNOWN = [
    "serve.html",
    "server.py",
    "../server.py",
    "..%2f..%2fserver.py",
    "%2e%2e/server.py",
    "..\\server.py",
    "page.js/",
    "page.js?x",
    "page.js#x",
    "./page.js",
    "jobs/",
    "jobs/../jobs",
    "jobs/JOB/",
    "jobs/JOB/clip_1",
    "jobs/JOB/clips/3",
    "jobs/JOB/../JOB",
    "jobs/JOB/report.html/../result.zip",
    "jobs/JOB/report.html",
    "jobs/JOB/result.zip",
    "jobs/JOB/result/result.json",
    "jobs/0123456789abcdef",
    "jobs/lock",
    "lock",
    "/etc/passwd",
]


def test_only_known_paths_are_answered(client: Client, job: str) -> None:
    for path in (path.replace("JOB", job) for path in UNKNOWN):
        assert client("GET", path).status == 404, path
        assert client("PUT", path, b"12345").status in (404, 405), path
    assert client.files() == [] and client("GET", f"jobs/{job}").json["state"] == "receiving"


@pytest.mark.parametrize(
    "path", ["", "page.css", "limits", "jobs", "jobs/JOB", "jobs/JOB/clips/1", "jobs/JOB/report.html"]
)
def test_other_methods_are_refused(client: Client, job: str, path: str) -> None:
    allowed = {"jobs": {"POST"}, "jobs/JOB": {"GET", "DELETE"}, "jobs/JOB/clips/1": {"PUT"}}.get(path, {"GET"})
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"} - allowed:
        reply = client(method, path.replace("JOB", job), b"12345")
        assert (reply.status, reply.body) == (405, b""), method
        assert HEADERS.items() <= reply.headers.items()
        if method != "BREW":
            assert set(reply.headers["Allow"].split(", ")) == allowed
    assert client("GET", f"jobs/{job}").json["state"] == "receiving"


def test_what_cannot_be_read_is_not_repeated(client: Client) -> None:
    for request in ("GET /<b>x HTTP/9.9\r\n\r\n", "<b>x</b>\r\n\r\n", f"GET /{'x' * 70_000} HTTP/1.1\r\n\r\n"):
        answer = client.raw(request)
        assert re.match(rb"HTTP/1.0 4\d\d |HTTP/1.0 505 |$", answer) and b"<b>" not in answer and b"xxx" not in answer


def test_an_address_on_a_command_line_works_once(client: Client) -> None:
    path = client.server.first_url.removeprefix(f"http://{client.host}")
    assert client.server.token not in path
    assert client("GET", raw=path, Host="evil.example").status == 403
    assert client("GET", raw=path + "x").status == 403
    reply = client("GET", raw=path)
    assert (reply.status, reply.headers["Location"]) == (303, f"/{client.server.token}/")
    assert client("GET", raw=path).status == 403


def test_tokens_are_long_and_new_each_time(client: Client, gate: Gate) -> None:
    with serving(gate, LIMIT) as other:
        assert other.token != client.server.token and len(other.token) >= 43 and other.url.endswith(f"{other.token}/")


def test_it_listens_on_this_computer_alone(client: Client) -> None:
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    with socket.socket() as other:  # another address of this computer's own
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", client.server.server_port)) != 0


def test_a_port_that_is_taken_is_named(client: Client, gate: Gate) -> None:
    port = client.server.server_port
    with pytest.raises(RuntimeError, match=f"port={port}: cannot be had"), serving(gate, LIMIT, port):
        pass


def test_nothing_is_said_of_requests(
    client: Client, job: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client("GET", "limits")
    client("GET", raw="/secret/")
    client("PUT", f"jobs/{job}/clips/1", b"12345")
    client.raw("<b>\r\n\r\n")
    with socket.create_connection(("127.0.0.1", client.server.server_port)) as connection:
        connection.sendall(f"PUT /{client.server.token}/jobs/{job}/clips/1 HTTP/1.1\r\n".encode())
    monkeypatch.setattr(answers.Answers, "_limits", lambda self: {}["Zzyzx"])  # a mistake of the program
    with pytest.raises(http.client.HTTPException):
        client("GET", "limits")
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert "Python" not in client("GET").headers["Server"]


def test_the_page_is_shipped() -> None:
    assert {path.name for path in Path(answers.PAGE).iterdir()} == {"serve.html", "serve.css", "serve.js", "icon.svg"}


def test_the_class_is_threaded_and_does_not_wait_for_clients() -> None:
    assert PageServer.daemon_threads and not PageServer.block_on_close
