"""What becomes of a clip on the local page: its turn, its measuring, its files, and that nothing is left of it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from cine_results import drawn_dicom
from serving import LIMIT, Client, Gate, Quick, Reply, until

from nnunet_echo.cine.clips import ClipError
from nnunet_echo.cine.report import report_policy
from nnunet_echo.cine.serve import jobs
from nnunet_echo.cine.serve.server import serving
from nnunet_echo.phantom.dicom import PATIENT

pytest_plugins = ("serving",)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return drawn_dicom(tmp_path_factory.mktemp("loop") / "Zzyzx.dcm").read_bytes()


def check_policy(report: Reply) -> None:
    """The report may do what it does, and nothing else."""
    policy = report.headers["Content-Security-Policy"]
    assert policy == f"{report_policy()}; frame-ancestors 'self'; sandbox allow-scripts"
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for kind in ("script", "style"):
        (inside,) = re.findall(f"<{kind}>(.*?)</{kind}>", report.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert f'content="{report_policy()}"' in report.body.decode()


def test_from_a_clip_to_a_report(drawn_client: Client, loop: bytes) -> None:
    client = drawn_client
    path = client.send(loop, views=["4CH"])
    state = client.finished(path)
    assert state["state"] == "done" and state["done"] == state["total"] == 96 and not state["refused"]
    report = client("GET", f"{path}/report.html")
    assert report.status == 200 and b"Ejection fraction" in report.body and b"4CH" in report.body
    check_policy(report)
    assert (
        client("GET", path).headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
    )
    archive = client("GET", f"{path}/result.zip")
    name = f"cine_{state['identifier']}"
    assert archive.headers["Content-Disposition"] == f'attachment; filename="{name}.zip"'
    with zipfile.ZipFile(io.BytesIO(archive.body)) as files:
        inside = {info.filename: info for info in files.infolist()}
        assert files.testzip() is None and files.read(f"{name}/report.html") == report.body
        texts = b"".join(files.read(info) for info in inside)
    kinds = {"result.json", "frames.csv", "beats.csv", "masks.nii.gz", "overlay.mp4", "report.html"}
    assert {Path(name).name for name in inside} == kinds
    assert {info.date_time for info in inside.values()} == {(1980, 1, 1, 0, 0, 0)}
    for text in (*PATIENT.values(), "clip_1", str(client.folder), "Zzyzx"):
        assert text.encode() not in texts
    assert client.files() == ["report.html", "result.zip"]  # the clip is gone as soon as it is measured
    assert client("DELETE", path).status == 204
    assert client.files() == [] and client("GET", path).status == client("GET", f"{path}/report.html").status == 404


@pytest.mark.parametrize("refused", [False, True])
def test_refused_numbers_are_told(temporary: Path, refused: bool) -> None:
    with serving(lambda paths, **options: Quick(int(refused)), LIMIT) as server:
        client = Client(server, next(temporary.iterdir()))
        assert client.finished(client.send(b"1"))["refused"] is refused


def test_options_reach_the_measuring(client: Client, gate: Gate) -> None:
    path = f"jobs/{client.announce(2, 3, spacing=[0.3, 0.4], fps=50, region=2, smooth=True).json['job']}"
    assert client("PUT", f"{path}/clips/2", b"two").status == 204
    assert client("GET", path).json["state"] == "receiving" and not gate.seen
    assert client("PUT", f"{path}/clips/1", b"on").status == 204
    assert gate.began.acquire(timeout=10)
    seen = gate.seen[0]
    assert [path.name for path in seen["paths"]] == ["clip_1", "clip_2"] and seen["bytes"] == [b"on", b"two"]
    assert seen["views"] == ("4CH", "2CH") and seen["spacing"] == (0.3, 0.4) and seen["fps"] == 50.0
    assert seen["smooth"] is True and seen["region"] == 2


def test_one_at_a_time(client: Client, gate: Gate) -> None:
    first, second, third = client.send(b"first"), client.send(b"second"), client.send(b"third")
    assert gate.began.acquire(timeout=10)
    assert until(lambda: client("GET", first).json["done"] == 5)
    states = [client("GET", path).json for path in (first, second, third)]
    assert [(state["state"], state["ahead"]) for state in states] == [("working", 0), ("waiting", 1), ("waiting", 2)]
    assert len(gate.seen) == 1
    gate.go.release()
    assert gate.began.acquire(timeout=10)
    assert gate.seen[1]["bytes"] == [b"second"] and client("GET", third).json["ahead"] == 1
    assert client("GET", first).json["state"] == "failed"


def test_no_more_wait_than_may(client: Client, gate: Gate) -> None:
    client.send(b"1")
    assert gate.began.acquire(timeout=10)
    waiting = [client.send(b"1") for _ in range(jobs.MOST_WAITING)]
    reply = client.announce(1)
    assert reply.status == 429 and int(reply.headers["Retry-After"]) > 0 and b"waiting" in reply.body
    client("DELETE", waiting[0])
    assert client.announce(1).status == 201  # announced ones count, too
    assert client.announce(1).status == 429


def test_finished_ones_do_not_pile_up(client: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.go = type(gate.go)(100)
    paths = []
    for _ in range(jobs.MOST_KEPT + 2):
        paths.append(client.send(b"1"))
        client.finished(paths[-1])
    assert [client("GET", path).status for path in paths] == [404, 404] + [200] * jobs.MOST_KEPT
    assert len(list(client.folder.iterdir())) == jobs.MOST_KEPT + 1


def test_a_cancelled_clip_is_gone_and_the_next_one_has_its_turn(client: Client, gate: Gate) -> None:
    first, second = client.send(b"first"), client.send(b"second")
    assert gate.began.acquire(timeout=10)
    assert client("DELETE", first).status == 204
    assert client("GET", first).status == 404
    assert gate.began.acquire(timeout=10)  # without being told to go
    assert gate.seen[1]["bytes"] == [b"second"]
    third = client.send(b"third")
    assert client("DELETE", third).status == client("DELETE", second).status == 204
    assert until(lambda: list(client.folder.iterdir()) == [client.folder / "lock"])
    assert len(gate.seen) == 2


def test_a_clip_that_comes_in_part_is_not_measured(client: Client, gate: Gate) -> None:
    path = f"jobs/{client.announce(5).json['job']}"
    with socket.create_connection(("127.0.0.1", client.server.server_port)) as connection:
        head = f"PUT /{client.server.token}/{path}/clips/1 HTTP/1.1\r\nHost: {client.host}\r\n"
        connection.sendall(f"{head}Origin: http://{client.host}\r\nContent-Length: 5\r\n\r\n12".encode())
        assert until(lambda: client.files() == ["clip_1"])
        assert client("PUT", f"{path}/clips/1", b"12345").status == 409  # it is on its way
    assert until(lambda: client("GET", path).status == 404) and client.files() == []
    path = f"jobs/{client.announce(5).json['job']}"
    assert client("PUT", f"{path}/clips/1", b"1234").status == 400  # fewer than announced
    assert client("GET", path).status == 404 and client.files() == [] and not gate.seen


def test_a_clip_comes_once(client: Client, gate: Gate) -> None:
    path = client.send(b"12345")
    assert gate.began.acquire(timeout=10)
    assert client("PUT", f"{path}/clips/1", b"54321").status == 409
    assert client("PUT", f"{path}/clips/2", b"54321").status == 404
    assert gate.seen[0]["paths"][0].read_bytes() == b"12345"


def test_announced_and_never_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    late = client.announce(1).json["job"]
    monkeypatch.setattr(jobs, "_PATIENCE_S", 0.0)
    assert client.announce(1).status == 201
    assert client("GET", f"jobs/{late}").status == 404


def test_a_full_disk_is_said_before_the_clip_comes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10))
    reply = client.announce(1)
    assert reply.status == 507 and b"disk" in reply.body


def test_why_it_failed_is_told_as_text_without_a_path(client: Client, gate: Gate) -> None:
    path = client.send(b"<script>alert(1)</script>")
    gate.go.release()
    state = client.finished(path)
    assert state["state"] == "failed" and state["text"] == "clip_1: <script>alert(1)</script>."
    reply = client("GET", path)
    assert reply.headers["Content-Type"] == "application/json" and reply.headers["X-Content-Type-Options"] == "nosniff"
    assert client("GET", f"{path}/report.html").status == 404 and client.files() == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ClipError("clip_1", "frame 7 of 30 is damaged", "Copy it again"),
            "clip_1: frame 7 of 30 is damaged. Copy it again.",
        ),
        (FileNotFoundError(2, "No such file", "/tmp/Zzyzx"), "A file could not be read or written (No such file)."),
        (KeyError("Zzyzx"), "The program failed (KeyError). nnunet-echo cine --traceback shows where."),
        (MemoryError("Zzyzx"), "The program failed (MemoryError). nnunet-echo cine --traceback shows where."),
    ],
)
def test_errors_hold_nothing_that_may_be_a_patients(
    temporary: Path, error: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(paths: list[Path], **options: object) -> None:
        raise error

    with serving(fail, LIMIT) as server:
        client = Client(server, next(temporary.iterdir()))
        for _ in range(2):  # and the next clip has its turn
            assert client.finished(client.send(b"1"))["text"] == text
        assert client.files() == []
    assert "Zzyzx" not in caplog.text


def test_what_is_no_clip_says_so(drawn_client: Client) -> None:
    state = drawn_client.finished(drawn_client.send(b"no clip"))
    assert state["state"] == "failed" and state["text"].startswith(
        "clip_1: it is not a clip that can be read. Give DICOM"
    )
