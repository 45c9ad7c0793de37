"""Links under attack: damaged outboxes, servers that never end an answer, banks that crash their reader.

Covers: runtime/links/courier.py, runtime/links/outbox_repair.py, runtime/links/webhook.py.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.event import Event
from overflight.runtime.links import Links
from overflight.runtime.links.courier import ATTEMPTS, Courier
from overflight.runtime.links.message import Message
from overflight.runtime.links.outbox import Outbox
from overflight.runtime.links.webhook import MAX_ANSWER_BYTES, WebhookLink

Step = Callable[..., Event]
Wait = Callable[..., bool]


@pytest.fixture
def event() -> Step:
    def make(number: int) -> Event:
        return Event(f"f-{number}", "begin", "person", 1, 1, number, 0.5)

    return make


def until(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


class Server:
    """A TCP server that answers every connection with ``talk``."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._talk = talk
        self._ear = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._ear.getsockname()[1]}/hook"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._ear.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._talk(connection)
        except OSError:
            return

    def close(self) -> None:
        self._ear.close()


def read_request(connection: socket.socket) -> bool:
    """Read one POST; False at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    )
    while len(body) < length:
        body += connection.recv(65536)
    return True


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    made: list[Server] = []

    def start(talk: Callable[[socket.socket], None]) -> Server:
        made.append(Server(talk))
        return made[-1]

    yield start
    for server in made:
        server.close()


def endless(connection: socket.socket) -> None:
    while read_request(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def drip(connection: socket.socket) -> None:
    read_request(connection)
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def continues(connection: socket.socket) -> None:
    read_request(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.001)


def negative(connection: socket.socket) -> None:
    """Answer with a chunk of negative length."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n")


def deliver(uri: str, event: Event) -> str:
    """Send one event and say how that ended."""
    link = WebhookLink(uri)
    try:
        link.open()
        link.send(Message(1, "event", event), b"{}")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        link.close()
    return "delivered"


@pytest.mark.parametrize(
    ("talk", "ends"),
    [
        (endless, "delivered"),
        (drip_body, "delivered"),
        (drip, "LinkDown"),
        (continues, "LinkDown"),
        (negative, "delivered"),
    ],
    ids=["endless", "drip-body", "drip", "continues", "negative"],
)
def test_a_web_server_cannot_hold_a_link_or_its_memory(
    talk: Callable[[socket.socket], None],
    ends: str,
    serve: Callable[[Callable[[socket.socket], None]], Server],
    event: Step,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A status of 2xx is an acknowledgement; what follows it is read up to 4 kB and for a limited time."""
    monkeypatch.setattr("overflight.runtime.links.webhook.TIMEOUT_S", 1.0)
    read: list[int] = []
    original = socket.socket.recv_into

    def counted(self: socket.socket, *arguments: Any) -> int:
        read.append(original(self, *arguments))
        return read[-1]

    monkeypatch.setattr("socket.socket.recv_into", counted)
    assert deliver(serve(talk).uri, event(1)).startswith(ends)
    assert sum(read) < MAX_ANSWER_BYTES + 65_536


def test_the_next_message_after_an_endless_answer_has_a_connection_of_its_own(
    serve: Callable[[Callable[[socket.socket], None]], Server], event: Step, tmp_path: Path
) -> None:
    """Every event arrives, on a new connection each time."""
    server = serve(endless)
    links = Links.open([server.uri], tmp_path / "o.sqlite")
    for number in range(3):
        links.publish(event(number))
    assert until(lambda: links.status()[0].sent == 3)
    (status,) = links.close()
    assert (status.waiting, status.shed, status.trouble) == (0, {}, None)
    assert server.connections == 3


def damage_header(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def damage_middle(path: Path) -> None:
    box = Outbox(path)
    for number in range(400):
        box.put(Event(f"old-{number}", "begin", "person", 1, 1, number, 0.5), b"picture" * 100, ["http://x"])
    box.close()
    with path.open("r+b") as file:
        for page in range(1, 60, 2):
            file.seek(4096 * page)
            file.write(os.urandom(4096))


def other_schema(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    connection.commit()
    connection.close()


def make_outbox(path: Path, script: str) -> None:
    box = Outbox(path)
    box.put(Event("old", "begin", "person", 1, 1, 1, 0.5), b"", ["http://127.0.0.1:9/x"])
    box.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def undecodable_column(path: Path) -> None:
    make_outbox(path, "")
    raw = path.read_bytes()
    assert b"\n    handed" in raw
    path.write_bytes(raw.replace(b"\n    handed", b"\n  \xff handed"))


def refusing_trigger(path: Path) -> None:
    make_outbox(path, "CREATE TRIGGER t BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END;")


def view_for_a_table(path: Path) -> None:
    make_outbox(path, "ALTER TABLE pending RENAME TO p; CREATE VIEW pending AS SELECT * FROM p;")


def further_column(path: Path) -> None:
    make_outbox(path, "DROP TABLE pending; CREATE TABLE pending (link, priority, message, handed, x NOT NULL);")


def last_number(path: Path) -> None:
    make_outbox(path, f"UPDATE sqlite_sequence SET seq = {(1 << 63) - 1}")


def empty_index(path: Path) -> None:
    """Make the index of pending messages an empty one: they are found, and never deleted."""
    make_outbox(path, "")
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'pending_message'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes([10, 0, 0, 0, 0]) + size.to_bytes(2, "big") + b"\0")


DAMAGES = [
    *(damage_header, damage_middle, other_schema, undecodable_column),
    *(refusing_trigger, view_for_a_table, further_column, last_number, empty_index),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_outbox_is_moved_aside_and_the_flight_begins(
    damage: Callable[[Path], None], event: Step, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is kept under another name, said, counted, and the new one works."""
    path = tmp_path / "o.sqlite"
    damage(path)
    links = Links.open(["http://127.0.0.1:9/x"], path)
    links.publish(event(1))
    (status,) = links.close(0.1)
    assert status.waiting == 1
    assert status.shed == {"outbox-damaged": 1}
    assert len(list(tmp_path.glob("o.sqlite.damaged-*"))) >= 1
    assert '"outbox damaged"' in capfd.readouterr().err


def test_an_outbox_damaged_in_flight_is_replaced_and_what_was_in_it_is_counted(event: Step, tmp_path: Path) -> None:
    """Publishing goes on: kept + lost is what was published."""
    path = tmp_path / "o.sqlite"
    links = Links.open(["http://127.0.0.1:9/x"], path)
    for number in range(50):
        links.publish(event(number))
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    with Path(f"{path}-wal").open("r+b") as file:
        file.write(os.urandom(Path(f"{path}-wal").stat().st_size))
    published = 50
    deadline_s = time.monotonic() + 20
    while not list(tmp_path.glob("o.sqlite.damaged-*")) and time.monotonic() < deadline_s:
        links.publish(event(published))
        published += 1
        time.sleep(0.05)
    time.sleep(0.3)
    links.publish(event(published))
    (status,) = links.close(0.5)
    assert status.waiting >= 1
    assert status.waiting + status.shed["outbox-damaged"] == published + 1


def test_an_outbox_deleted_in_flight_is_written_again(
    event: Step, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing that waited is lost."""
    path = tmp_path / "box" / "o.sqlite"
    links = Links.open(["http://127.0.0.1:9/x"], path)
    for number in range(20):
        links.publish(event(number))
    for file in path.parent.glob("o.sqlite*"):
        if not file.name.endswith(".lock"):
            file.unlink()
    assert until(path.exists)
    links.publish(event(20))
    (status,) = links.close(0.5)
    assert (status.waiting, status.shed) == (21, {})
    assert '"outbox restored"' in capfd.readouterr().err
    again = Outbox(path)
    assert again.waiting("http://127.0.0.1:9/x") == 21
    again.close()


@pytest.mark.parametrize("record", [b"{}", b"\xff\xfe", b"[" * 100_000, b'{"id":"x"}', b"null", "text"])
def test_a_row_that_cannot_be_decoded_is_given_up_and_counted(
    record: bytes | str, web: Any, event: Step, tmp_path: Path
) -> None:
    """As of an older version: the others arrive."""
    path = tmp_path / "o.sqlite"
    name = f"http://***@127.0.0.1:{web.port}/hook"
    box = Outbox(path)
    box.put(event(1), b"", [name])
    box.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE messages SET record = ?", (record,))
    connection.commit()
    connection.close()
    links = Links.open([web.uri], path)
    links.publish(event(2))
    assert until(lambda: web.keys == ["f-2/0"])
    (status,) = links.close()
    assert (status.waiting, status.shed) == (0, {"event-unreadable": 1})


@pytest.mark.parametrize("column", ["kind = CAST(x'66ff' AS TEXT)", "kind = 'other'", "picture = 9000000000000"])
def test_a_row_with_another_kind_or_picture_is_given_up_and_counted(
    column: str, web: Any, event: Step, tmp_path: Path
) -> None:
    """No allocation of what a number says, no link that stays silent."""
    path = tmp_path / "o.sqlite"
    box = Outbox(path)
    box.put(event(1), b"", [f"http://***@127.0.0.1:{web.port}/hook"])
    box.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE messages SET {column}")
    links = Links.open([web.uri], path)
    links.publish(event(2))
    assert until(lambda: web.keys == ["f-2/0"])
    (status,) = links.close()
    assert status.waiting == 0
    assert sum(status.shed.values()) == 1


class Failing:
    """A link whose encoder has a mistake for one message."""

    overhead_bytes = 0
    grace_s = 0.0
    refresh_s: float | None = None

    def __init__(self) -> None:
        self.sent: list[str] = []

    def open(self) -> None: ...

    def check(self) -> None: ...

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        if message.event.id == "f-1":
            raise RecursionError("too deep")
        return b"x"

    def send(self, message: Message, payload: bytes) -> None:
        self.sent.append(message.key)

    def close(self) -> None:
        raise ValueError("cannot even close")


def test_a_message_that_a_link_cannot_carry_does_not_block_the_others(
    event: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three unexpected failures it is given up, counted, and said in the worker's trouble meanwhile."""
    monkeypatch.setattr("overflight.runtime.worker.FIRST_RETRY_S", 0.05)
    box, link = Outbox(tmp_path / "o.sqlite"), Failing()
    for number in range(3):
        box.put(event(number), b"", ["x"])
    courier = Courier("x", link, box, None)
    assert until(lambda: link.sent == ["f-0/0", "f-2/0"])
    assert courier.shed == {"event-failed": 1}
    assert sum(courier.worker.faults.counts.values()) >= ATTEMPTS
    courier.stop(0.0)
    courier.join(5)
    courier.release()


@pytest.mark.parametrize("error", [RecursionError("deep"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), MemoryError()])
def test_a_retained_bank_that_crashes_its_reader_is_answered(
    error: Exception, broker: Any, event: Step, tmp_path: Path
) -> None:
    """The link's thread lives, the ground hears why, events arrive, and the fault is counted."""

    def on_bank(raw: bytes) -> str:
        raise error

    links = Links.open([f"{broker.uri}#accept=banks"], tmp_path / "o.sqlite", on_bank=on_bank)
    assert until(lambda: broker.topic("of/available") == [b"online"])
    broker.publish("of/bank/set", b"poison")
    assert until(lambda: len(broker.topic("of/bank/state")) == 1)
    state = json.loads(broker.topic("of/bank/state")[0])
    assert state["bank"] is None
    assert type(error).__name__ in state["error"]
    links.publish(event(1))
    assert until(lambda: broker.keys == ["f-1/0"])
    assert [faults.counts for faults in links.faults] == [{type(error).__name__: 1}]
    (status,) = links.close()
    assert status.trouble is None


def test_two_links_that_differ_only_in_credentials_have_queues_of_their_own(event: Step, tmp_path: Path) -> None:
    """Hidden credentials make their names equal; each still gets every event."""
    links = Links.open(["http://a:x@127.0.0.1:9/h", "http://b:y@127.0.0.1:9/h"], tmp_path / "o.sqlite")
    links.publish(event(1))
    statuses = links.close(0.1)
    assert [status.waiting for status in statuses] == [1, 1]
    assert statuses[0].name != statuses[1].name
