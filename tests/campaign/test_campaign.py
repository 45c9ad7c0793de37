"""One flight of an hour's frames with 200 random faults: it ends by its own end, and what is lost is counted by name.

``OVERFLIGHT_CAMPAIGN_SEED=7 pytest -s -m slow tests/campaign`` runs another one.
"""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import EngineError
from overflight.runtime.flight import journal as journal_module
from overflight.runtime.flight.bank_watch import MAX_BANK_BYTES
from overflight.runtime.flight.control_token import token_path
from overflight.runtime.flight.directory import Flight
from overflight.runtime.flight.journal_reader import read_events, read_observations
from overflight.runtime.flight.peripherals import PeripheralConfig
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.links import Links
from overflight.runtime.links.courier import Courier
from overflight.runtime.links.message import Message
from overflight.runtime.records import FlightRecord, Observation
from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")
SEED = int(os.environ.get("OVERFLIGHT_CAMPAIGN_SEED", "1"))
FRAMES = 18_000  # an hour at 5 frames a second
FAULTS = 200
CARD = ("black", "white", "torn", "clock")  # faults of the source itself, by the names that a flight counts them under
COUNTED = {"black": "black", "white": "blown-out", "torn": "torn", "clock": "clock-jump"}


class Web:
    """A web server for events that can go away, refuse, or never end its answer."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.keys: list[str] = []
        self.modes: list[str] = []
        self.met: Counter[str] = Counter()
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()
        self.start()

    def start(self) -> None:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                web._open.add(self.connection)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                mode = web.modes.pop() if web.modes else "good"
                web.met[mode] += 1
                if mode == "refuses":
                    self.send_response(422)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                web.keys.append(self.headers["Idempotency-Key"])
                self.send_response(200)
                self.send_header("Content-Length", "100000000" if mode == "endless" else "0")
                self.end_headers()
                with suppress(OSError):
                    for _ in range(1600 if mode == "endless" else 0):
                        self.wfile.write(bytes(65536))

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # closing alone does not wake the thread that reads from it
                connection.close()
            self._open.clear()


class Campaign:
    """Injects faults by name into a running flight, and knows when each has been counted."""

    def __init__(self, folder: Path, bank: LabelBank, port: int, log: list[dict[str, Any]]) -> None:
        self.rng = random.Random(SEED)
        self.folder, self.bank, self.port, self.log = folder, bank, port, log
        self.web = Web()
        self.banks = folder / "banks"
        self.banks.mkdir()
        bank.save(self.banks / "first.safetensors")
        self.outbox = folder / "outbox.sqlite"
        self.flight: Flight | None = None
        self.links: Links | None = None
        self.engine: list[str] = []
        self.full = False
        self.injected: Counter[str] = Counter()
        self.events = 0
        self.extra = 0
        self.unpublished = 0
        self.given_up: Counter[str] = Counter()  # refusals that the link received; and those it could not note
        self._seen = 0
        self._number = 0

    # What can be injected. Each returns once the flight has counted the fault by name.

    def posted_garbage(self) -> None:
        raw = bytearray(self.bank.raw)
        for _ in range(self.rng.randrange(1, 20)):
            raw[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
        code, text = self.post(bytes(raw))
        assert (code == 409 and text) or code == 200  # a flip may leave a valid bank, such as another name

    def posted_bank(self) -> None:
        assert self.post(self.another().raw)[0] == 200

    def broken_request(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(self.rng.randbytes(self.rng.randrange(1, 2000)) + b"\r\n\r\n")
        assert self.get("/live")[0] == 200

    def flipped_bank_file(self) -> None:
        raw = bytearray(self.bank.raw)
        raw[8 + self.rng.randrange(200)] ^= 0x80
        self.file("flipped").write_bytes(raw)
        self.said("bank refused", "bank in use", "warning")

    def pipe_as_bank(self) -> None:
        os.mkfifo(self.file("pipe"))
        self.said("bank skipped")

    def dangling_bank(self) -> None:
        self.file("dangling").symlink_to("/nonexistent")
        self.said("bank skipped")

    def huge_bank(self) -> None:
        with self.file("huge").open("wb") as file:
            file.truncate(MAX_BANK_BYTES + 1)
        self.said("bank skipped")

    def good_bank_file(self) -> None:
        self.another().save(self.file("good"))
        self.said("bank in use")

    def server_away(self) -> None:
        self.web.stop()
        self.force_event()  # an idle link to a web server has no connection that could break
        try:
            self.until(lambda: self.links is not None and self.links.status()[0].trouble is not None)
        finally:
            self.web.start()

    def server_endless(self) -> None:
        self.web.modes.append("endless")

    def server_refuses(self) -> None:
        self.web.modes.append("refuses")

    def disk_full(self) -> None:
        self.full = True
        try:
            self.until(lambda: "disk is full" in self.get("/ready")[1])
            assert self.get("/fresh")[0] == 503
        finally:
            self.full = False

    def journal_deleted(self) -> None:
        assert self.flight is not None
        self.until((self.flight.directory / "journal.sqlite").exists)  # deleted again before it was written again
        for path in self.flight.directory.glob("journal.sqlite*"):
            path.unlink()
        self.said("journal restored", "journal lost")

    def engine_nan(self) -> None:
        self.engine.append("nan")

    def engine_fails(self) -> None:
        self.engine.append("fails")

    def outbox_damaged(self) -> None:
        for path in (self.outbox, Path(f"{self.outbox}-wal")):
            if path.exists():
                with path.open("r+b") as file:
                    file.write(self.rng.randbytes(max(8192, path.stat().st_size)))
        self.force_event()
        self.said("outbox damaged")

    def outbox_deleted(self) -> None:
        for path in self.folder.glob("outbox.sqlite*"):
            if not path.name.endswith(".lock") and ".damaged" not in path.name:
                path.unlink()
        self.said("outbox restored", "outbox damaged")

    def undecodable_row(self) -> None:
        with suppress(sqlite3.Error):
            connection = sqlite3.connect(self.outbox, timeout=5)
            with connection:
                (link,) = [status.name for status in self.links.status()] if self.links else [""]
                done = connection.execute(
                    "INSERT INTO messages (key, kind, event, sequence, priority, record, picture) "
                    "VALUES (?, 'event', 'x', 0, 0, x'ff00', x'')",
                    (f"bad-{self._number}",),
                )
                connection.execute(
                    "INSERT INTO pending (link, priority, message) VALUES (?, 0, ?)", (link, done.lastrowid)
                )
            connection.close()
            self.injected["undecodable rows"] += 1

    def publishing_fails(self) -> None:
        assert self.links is not None
        links = self.links

        def fail(*_: object) -> None:
            self.unpublished += 1
            del links.publish  # the class's own again
            raise RuntimeError("publishing failed")

        links.publish = fail  # type: ignore[method-assign, assignment]

    # Helpers.

    def another(self) -> LabelBank:
        self._number += 1
        return LabelBank.make(msgspec.structs.replace(self.bank.header, name=f"b{self._number}"), self.bank.vectors)

    def file(self, name: str) -> Path:
        self._number += 1
        return self.banks / f"{name}-{self._number}.safetensors"

    def force_event(self) -> None:
        """Write to the outbox, so that its damage is met."""
        assert self.links is not None
        from overflight.runtime.event import Event

        self._number += 1
        Links.publish(self.links, Event(f"extra-{self._number}", "begin", "x", 1, 1, 1, 0.5))
        self.extra += 1

    def said(self, *what: str) -> None:
        before = self._seen
        self.until(lambda: any(line["what"] in what for line in self.log[before:]))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 600  # only for a fault that is never counted; a busy machine takes its time
        while not condition():
            assert time.monotonic() < deadline_s, f"the fault was not counted: {self.state()}"
            time.sleep(0.005)

    def state(self) -> str:
        """Describe the links, for a failure."""
        if self.links is None:
            return "no links"
        workers = {worker.faults.name: worker.trouble for worker in self.links.workers}
        return f"{self.links.status()}, {workers}, {len(self.links._unsaved)} unsaved, {dict(self.injected)}"

    def get(self, path: str, data: bytes | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token_path().read_text().strip()}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def post(self, raw: bytes) -> tuple[int, str]:
        return self.get("/bank", raw)

    def inject(self) -> None:
        """Inject one fault, chosen at random."""
        name = self.rng.choice(KINDS)
        self._seen = len(self.log)
        self.injected[name] += 1
        getattr(self, name)()


KINDS = [
    *("posted_garbage", "posted_bank", "broken_request", "flipped_bank_file", "pipe_as_bank", "dangling_bank"),
    *("huge_bank", "good_bank_file", "server_away", "server_endless", "server_refuses", "disk_full", "journal_deleted"),
    *("engine_nan", "engine_fails", "outbox_damaged", "outbox_deleted", "undecodable_row", "publishing_fails"),
]


@pytest.fixture
def campaign(colour_bank: LabelBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaign]:
    """Prepare a campaign: short waits everywhere, and the log kept."""
    log: list[dict[str, Any]] = []

    def say(what: str, **facts: Any) -> None:
        log.append({"what": what, **facts})

    for module in ("bank_watch", "banks", "journal", "run", "peripherals", "warnings"):
        monkeypatch.setattr(f"overflight.runtime.flight.{module}.say", say)
    monkeypatch.setattr("overflight.runtime.links.dispatch.say", say)
    monkeypatch.setattr("overflight.runtime.worker.say", say)
    for name, value in {
        "worker.FIRST_RETRY_S": 0.01, "worker.LONGEST_RETRY_S": 0.05, "flight.bank_watch.EVERY_S": 0.02,
        "flight.journal.COMMIT_S": 0.05, "links.courier.FIRST_RETRY_S": 0.02, "links.courier.LONGEST_RETRY_S": 0.05,
        "links.dispatch.SYNC_S": 0.05,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"overflight.runtime.{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    made = Campaign(tmp_path, colour_bank, port, log)
    begin, opened, commit, give_up = Flight.begin, Links.open, journal_module._commit, Courier._give_up

    def begin_flight(*arguments: Any, **given: Any) -> Flight:
        made.flight = begin(*arguments, **given)
        return made.flight

    def open_links(*arguments: Any, **given: Any) -> Links:
        made.links = opened(*arguments, **given)
        return made.links

    def commit_rows(connection: sqlite3.Connection, rows: Any) -> None:
        if made.full:
            raise sqlite3.OperationalError("database or disk is full")
        commit(connection, rows)

    def count_refusals(courier: Courier, message: Message, reason: str) -> None:
        made.given_up[reason] += 1
        try:
            give_up(courier, message, reason)
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ):  # the outbox was damaged at that moment: the message is counted with it
            made.given_up[f"{reason}, outbox damaged"] += 1
            raise

    monkeypatch.setattr(Courier, "_give_up", count_refusals)
    monkeypatch.setattr(Flight, "begin", begin_flight)
    monkeypatch.setattr(Links, "open", open_links)
    monkeypatch.setattr(journal_module, "_commit", commit_rows)
    yield made
    made.web.stop()


def card(rng: random.Random) -> tuple[str, Counter[str]]:
    """Return the source's own faults, and how many of each."""
    frames = rng.sample(range(200, FRAMES - 200, 7), 60)
    chosen = [(frame, rng.choice(CARD)) for frame in sorted(frames)]
    faults = [f"{name}@{frame}" + (":+60s" if name == "clock" else "") for frame, name in chosen]
    return ",".join(faults), Counter(name for _, name in chosen)


@pytest.mark.campaign
def test_two_hundred_faults_in_one_flight(campaign: Campaign, colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """Frames = observed + dropped; observed = recorded + unrecorded; published = delivered + waiting + shed."""
    faults, own = card(campaign.rng)
    moments = set(campaign.rng.sample(range(50, FRAMES - 300), FAULTS - sum(own.values())))
    seen: Counter[str] = Counter()

    def watch(stream: Stream, observation: Observation) -> None:
        seen["frames"] += 1
        due = [moment for moment in moments if moment <= observation.frame]
        for moment in due:
            moments.discard(moment)
            campaign.inject()

    def on_event(event: object) -> None:
        campaign.events += 1

    overflight = Overflight.load(colour_bundle, colour_bank)
    embed = overflight.engine.embed

    def broken(frames: Any) -> Any:
        answer = embed(frames)
        match campaign.engine.pop() if campaign.engine else None:
            case "nan":
                return np.full_like(answer, np.nan)
            case "fails":
                raise EngineError("the device was lost")
        return answer

    overflight.engine.embed = broken  # type: ignore[method-assign]
    out = campaign.folder / "flight"
    record = fly(
        overflight,
        f"test://?frames={FRAMES}&fps=0&size=64x48&faults={faults}",
        out,
        FlightConfig(
            watch_bank=campaign.banks,
            health_port=campaign.port,
            peripherals=PeripheralConfig(links=(f"http://127.0.0.1:{campaign.web.port}/hook",), outbox=campaign.outbox),
        ),
        on_observation=watch,
        on_event=on_event,
    )
    assert sum(campaign.injected[kind] for kind in KINDS) + sum(own.values()) == FAULTS
    report(campaign, own, record)
    assert record.ended_because == "source ended"
    # Frames.
    lost = Counter(record.dropped)
    changes = {"clock-jump", "resized"}  # counted, but no frame is lost by them
    assert record.observed + sum(count for name, count in lost.items() if name not in changes) == FRAMES
    for name, count in own.items():
        assert lost[COUNTED[name]] == count, name
    assert lost["engine-failed"] == campaign.injected["engine_nan"] + campaign.injected["engine_fails"]
    # Rows.
    kept = len(list(read_observations(out / "journal.sqlite")))
    assert kept + record.unrecorded.get("observations", 0) == record.observed
    kept_events = len(list(read_events(out / "journal.sqlite")))
    assert kept_events + record.unrecorded.get("events", 0) == campaign.events
    # Messages.
    (status,) = [line for line in campaign.log if line["what"] == "link" and "sent" in line]
    delivered = len({key for key in campaign.web.keys if "/thumbnail" not in key})
    shed_events = sum(count for name, count in status["shed"].items() if name.startswith(("event", "outbox")))
    assert delivered + status["waiting"] + shed_events >= campaign.events + campaign.extra - campaign.unpublished
    refused = status["shed"].get("event-refused", 0) + status["shed"].get("thumbnail-refused", 0)
    assert refused == campaign.given_up["refused"] - campaign.given_up["refused, outbox damaged"]
    # A server that goes away in the middle of an answer has refused what the link never heard of.
    cut_off = campaign.web.met["refuses"] - campaign.given_up["refused"]
    assert 0 <= cut_off <= campaign.injected["server_away"]


def report(campaign: Campaign, own: Counter[str], record: FlightRecord) -> None:
    """Print what was injected and what was counted."""
    print(f"\nseed {SEED}: {dict(campaign.injected)} and in the source {dict(own)}")
    print(f"observed {record.observed}, dropped {dict(record.dropped)}, unrecorded {dict(record.unrecorded)}")
    print(
        f"events {campaign.events}, delivered {len(campaign.web.keys)} messages, met {dict(campaign.web.met)}, "
        f"given up {dict(campaign.given_up)}"
    )
    print([line for line in campaign.log if line["what"] == "link"][-1:])
    print(Counter(line["what"] for line in campaign.log))
    print(Counter(line["part"] for line in campaign.log if line["what"] == "fault"))
