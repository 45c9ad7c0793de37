"""The health server: what it says is true, and no client can hold it, fill it or crash it.

Covers: runtime/deadline.py, runtime/flight/control_token.py.
"""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.runtime.errors import BankError
from overflight.runtime.flight import health as module
from overflight.runtime.flight.banks import BankInUse
from overflight.runtime.flight.control_token import ControlToken
from overflight.runtime.flight.gauges import Gauges
from overflight.runtime.flight.health import MAX_BANK_BYTES, MAX_CLIENTS, HealthServer
from overflight.runtime.frame import Frame
from overflight.runtime.records import Costs, Observation
from overflight.runtime.worker import Faults, Worker

BANK = BankInUse("sites", "b" * 64, ("meadow", "forest"))


class Door:
    """A health server with what it was given."""

    def __init__(self, folder: Path) -> None:
        self.gauges = Gauges()
        self.raises: Exception | None = None
        self.taken: list[int] = []
        self.entered = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        token = ControlToken(folder / "token")
        self.bearer = (folder / "token").read_text().strip()
        self.server = HealthServer(self.gauges, 0, lambda: BANK, self.take, token)

    def take(self, raw: bytes) -> str:
        self.entered.set()
        self.hold.wait(10)
        if self.raises is not None:
            raise self.raises
        self.taken.append(len(raw))
        return "hash"

    def fetch(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
        given = {"Authorization": f"Bearer {self.bearer}", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}{path}", data, given)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def raw(self, content: bytes) -> bytes:
        """Send bytes as they are and return what comes back until the end."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            connection.sendall(content)
            got = b""
            try:
                while data := connection.recv(65536):
                    got += data
            except OSError:
                pass
            return got


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    made = Door(tmp_path)
    yield made
    made.hold.set()
    made.server.close()


def observed(gauges: Gauges) -> None:
    gauges.observe(Observation(1, 1, 1, "red", (), Costs(1, 2, 3), "b", "e"))


def test_ready_and_fresh_name_what_does_not_work(door: Door) -> None:
    """A journal that lost its file, a worker that fails: 503 with the reason, and 200 again when it works."""
    journal: list[str | None] = ["journal.sqlite is no longer at its path"]
    door.gauges.checks.append(lambda: journal[0])
    observed(door.gauges)
    for path in ("/ready", "/fresh"):
        assert door.fetch(path) == (503, "journal.sqlite is no longer at its path\n")
    assert '"fresh":false' in door.fetch("/status")[1]
    journal[0] = None
    assert door.fetch("/ready") == (200, "ready\n")
    assert door.fetch("/fresh") == (200, "fresh\n")


def test_faults_stay_in_the_text_and_the_metrics(door: Door) -> None:
    """A fault that was survived is still said."""
    faults = Faults("bank-watch")
    door.gauges.watch(faults)
    observed(door.gauges)
    faults.note(ValueError("x"))
    assert door.fetch("/ready")[0] == 503
    faults.clear()
    assert door.fetch("/ready") == (200, "ready; bank-watch: 1 x ValueError\n")
    assert 'overflight_faults_total{part="bank-watch",kind="ValueError"} 1' in door.fetch("/metrics")[1]


def test_a_dead_worker_is_said(door: Door) -> None:
    """A courier whose thread has ended does not pass for a working one."""
    worker = Worker('link http://h/"x"', lambda: None)
    worker.start()
    worker.join(5)
    door.gauges.watch(worker)
    observed(door.gauges)
    assert door.fetch("/fresh") == (503, 'link http://h/"x": its thread has ended\n')


def test_a_link_that_is_down_is_said_and_is_no_failure(door: Door) -> None:
    """Links come and go in the field; what waits is kept."""
    door.gauges.notes.append(lambda: "link mqtt://h: refused")
    observed(door.gauges)
    assert door.fetch("/ready") == (200, "ready; link mqtt://h: refused\n")


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), OSError(28, "full")]
)
def test_a_bank_that_crashes_its_reader_is_answered(
    error: Exception, door: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    """500 with the reason, counted, no traceback; the next request is answered."""
    door.raises = error
    code, text = door.fetch("/bank", b"x")
    assert code == 500
    assert "the bank in use stays" in text
    assert door.server.faults.counts == {type(error).__name__: 1}
    door.raises = BankError("not a bank")
    assert door.fetch("/bank", b"x") == (409, "not a bank\n")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        (b"POST /bank HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"413"),
        (b"POST /bank HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"413"),
        (b"POST /bank HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"413"),
        (f"POST /bank HTTP/1.1\r\nContent-Length: {MAX_BANK_BYTES + 1}\r\n\r\n".encode(), b"413"),
        (b"POST /bank HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"413"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"\x00\xff\x16\x03\x01\r\n\r\n", b""),
        (b"DELETE / HTTP/1.1\r\n\r\n", b"501"),
    ],
)
def test_a_broken_request_is_answered_or_closed(
    request_line: bytes, code: bytes, door: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    """No traceback, and the next request is answered."""
    assert code in door.raw(request_line)
    assert door.fetch("/live")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_uploads_are_taken_one_at_a_time(door: Door) -> None:
    """The second is asked to retry, so that memory is bounded by one bank."""
    door.hold.clear()
    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(door.fetch("/bank", b"first")))
    first.start()
    assert door.entered.wait(10)
    code, text = door.fetch("/bank", b"second")
    assert code == 503
    assert "again later" in text
    door.hold.set()
    first.join()
    assert answers == [(200, "hash\n")]
    assert door.fetch("/bank", b"third")[0] == 200


def test_slow_clients_hold_neither_a_thread_nor_the_server(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the bound are closed at once; those that say nothing, or a byte at a time, at the deadline."""
    monkeypatch.setattr(module, "REQUEST_S", 0.5)
    idle = [socket.create_connection(("127.0.0.1", door.server.port), timeout=10) for _ in range(MAX_CLIENTS + 5)]
    deadline_s = time.monotonic() + 10
    for connection in idle:
        try:
            while connection.recv(100):
                pass
        except ConnectionResetError:
            pass
        connection.close()
    assert time.monotonic() < deadline_s
    assert door.fetch("/live")[0] == 200


def test_an_upload_that_stalls_ends(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a byte now and then is cut off at the deadline, and the next upload is taken."""
    monkeypatch.setattr(module, "UPLOAD_S", 0.5)
    head = f"POST /bank HTTP/1.1\r\nAuthorization: Bearer {door.bearer}\r\nContent-Length: 1000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", door.server.port), timeout=10) as connection:
        connection.sendall(head)
        try:
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            pass
    assert door.fetch("/bank", b"good")[0] == 200
    assert door.taken == [4]


def poll(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_the_server_survives_an_exception_of_its_own(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in accepting is counted, and the server goes on."""
    monkeypatch.setattr("overflight.runtime.worker.FIRST_RETRY_S", 0.01)
    door.server.worker._retry_s = 0.01
    original = door.server._server.handle_request
    fails = [True]

    def handle() -> None:
        if fails:
            fails.clear()
            raise RuntimeError("can't start new thread")
        original()

    monkeypatch.setattr(door.server._server, "handle_request", handle)
    poll(lambda: door.server.worker.faults.counts["RuntimeError"] == 1)
    assert door.fetch("/live")[0] == 200


def test_the_newest_picture_goes_to_programs_only(door: Door) -> None:
    """The first question has it made; a page in a browser does not get it, wherever its name points."""
    pytest.importorskip("cv2")
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 0)
    assert door.fetch("/picture.jpg")[0] == 503
    door.gauges.newest.offer(7, frame)
    with urllib.request.urlopen(f"http://127.0.0.1:{door.server.port}/picture.jpg", timeout=10) as answer:
        assert (answer.headers["X-Frame"], answer.headers["Content-Type"]) == ("7", "image/jpeg")
        assert answer.read()[:3] == b"\xff\xd8\xff"
    for name in ("Origin", "Sec-Fetch-Site"):
        assert door.fetch("/picture.jpg", None, **{name: "same-origin"})[0] == 403
