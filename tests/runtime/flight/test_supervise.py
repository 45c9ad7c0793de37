"""Looking after a flight: health, metrics, the service manager, and a new bank in flight.

Covers: runtime/flight/gauges.py, runtime/flight/run.py, runtime/flight/systemd.py.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight.bank_watch import BankWatch, newest_bank
from overflight.runtime.flight.banks import BankInUse
from overflight.runtime.flight.control_token import ControlToken, token_path
from overflight.runtime.flight.gauges import Gauges, Status
from overflight.runtime.flight.health import HealthServer
from overflight.runtime.flight.journal import Journal
from overflight.runtime.flight.journal_reader import read_embeddings, read_observations
from overflight.runtime.flight.run import FlightConfig, fly
from overflight.runtime.flight.systemd import Notifier
from overflight.runtime.flight.warnings import Warnings
from overflight.runtime.records import Costs, Observation
from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")


@pytest.fixture
def overflight(colour_bundle: Bundle, colour_bank: LabelBank) -> Iterator[Overflight]:
    with Overflight.load(colour_bundle, colour_bank) as loaded:
        yield loaded


def renamed(bank: LabelBank, name: str, **changes: object) -> LabelBank:
    return LabelBank.make(msgspec.structs.replace(bank.header, name=name, **changes), bank.vectors)


def observation(number: int) -> Observation:
    return Observation(number, number, 30_000_000, "red", (), Costs(1, 2, 3), "b", "e", dropped={"black": 2})


def fetch(port: int, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_for(what: object, within_s: float = 5.0) -> None:
    assert callable(what)
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def test_health_tells_alive_from_ready_from_fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that runs is not yet one that sees, nor one that still does."""
    gauges = Gauges()
    gauges.flight, gauges.bundle, gauges.armed = "/flights/1", "b" * 64, lambda: False
    bank = BankInUse("scenes", "c" * 64, ("meadow", "road"))
    gauges.warnings.set("telemetry", "no pose")
    server = HealthServer(gauges, 0, lambda: bank, lambda raw: "", ControlToken(tmp_path / "token"))
    try:
        assert [fetch(server.port, path)[0] for path in ("/live", "/ready", "/fresh")] == [200, 503, 503]
        gauges.observe(observation(1))
        assert [fetch(server.port, path)[0] for path in ("/live", "/ready", "/fresh")] == [200, 200, 200]
        monkeypatch.setattr("overflight.runtime.flight.gauges.FRESH_S", 0.0)
        assert [fetch(server.port, path)[0] for path in ("/live", "/ready", "/fresh")] == [200, 200, 503]
        assert fetch(server.port, "/etc/passwd")[0] == 404
        status = Status(False, 1, None, False, "/flights/1", "b" * 64, "b", os.getpid(), {"telemetry": "no pose"})
        answer = msgspec.json.decode(fetch(server.port, "/status")[1], type=Status)
        assert answer.age_s is not None
        seen = observation(1)
        assert answer == msgspec.structs.replace(status, frame=seen.frame, label=seen.label, age_s=answer.age_s)
        assert msgspec.json.decode(fetch(server.port, "/bank")[1], type=BankInUse) == bank
    finally:
        server.close()


def test_metrics_are_counted_in_base_units() -> None:
    """Counters by reason and a histogram whose buckets add up."""
    gauges = Gauges()
    for number in range(3):
        gauges.observe(observation(number))
    gauges.warnings.set('link "x"', "down")
    gauges.warnings.set('link "x"', None)
    gauges.warnings.set('link "x"', "down")
    text = gauges.metrics()
    assert 'overflight_warnings_total{part="link \\"x\\""} 2' in text
    assert 'overflight_warning{part="link \\"x\\""} 1' in text
    assert "overflight_without_pose_total" not in text
    assert "overflight_observations_total 3" in text
    assert 'overflight_dropped_total{reason="black"} 6' in text
    assert 'overflight_age_seconds_bucket{le="0.02"} 0' in text
    assert 'overflight_age_seconds_bucket{le="0.05"} 3' in text
    assert 'overflight_age_seconds_bucket{le="+Inf"} 3' in text
    assert "overflight_age_seconds_sum 0.090000" in text


def test_events_are_counted_in_the_metrics(overflight: Overflight, tmp_path: Path) -> None:
    """The counter on the health port equals the events that the flight published until then."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    published: list[Event] = []
    counted: list[tuple[int, str]] = []

    def compare(stream: Stream, observation: Observation) -> None:
        if published and not counted:
            counted.append((len(published), fetch(port, "/metrics")[1]))
            stream.stop()

    fly(
        overflight,
        "test://?fps=50&size=64x48",
        tmp_path / "flight",
        FlightConfig(health_port=port),
        on_observation=compare,
        on_event=published.append,
    )
    ((count, metrics),) = counted
    assert f"overflight_events_total {count}\n" in metrics


def test_a_bank_that_is_sent_answers_from_the_next_frame(
    overflight: Overflight, colour_bank: LabelBank, tmp_path: Path
) -> None:
    """Over the loopback port: a good bank is used; a foreign or torn one, a browser and no token are refused."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    bank, foreign = renamed(colour_bank, "sent"), renamed(colour_bank, "foreign", tower="d" * 64)
    for one in (bank, foreign):
        one.save(tmp_path / f"{one.header.name}.safetensors")
    good = (tmp_path / "sent.safetensors").read_bytes()
    answers: list[int] = []
    seen: list[str] = []

    def send() -> None:
        wait_for(lambda: seen)
        token = {"Authorization": f"Bearer {token_path().read_text().strip()}"}
        answers.append(fetch(port, "/bank", (tmp_path / "foreign.safetensors").read_bytes(), **token)[0])
        answers.append(fetch(port, "/bank", good[:-5], **token)[0])
        answers.append(fetch(port, "/bank", good, Origin="http://evil.example", **token)[0])
        answers.append(fetch(port, "/bank", good)[0])
        answers.append(fetch(port, "/bank", good, Authorization="Bearer guess")[0])
        assert set(seen) == {colour_bank.sha256[:16]}
        answers.append(fetch(port, "/bank", good, **token)[0])

    sender = threading.Thread(target=send)
    sender.start()

    def watch(stream: Stream, observation: Observation) -> None:
        seen.append(observation.bank)
        if len(answers) == 6 and seen[-1] == bank.sha256[:16]:
            stream.stop()

    fly(
        overflight,
        "test://?fps=50&size=64x48",
        tmp_path / "flight",
        FlightConfig(health_port=port),
        on_observation=watch,
    )
    sender.join()
    assert answers == [409, 409, 403, 401, 401, 200]
    kept = {path.stem for path in (tmp_path / "flight" / "banks").iterdir()}
    assert kept == {colour_bank.sha256[:16], bank.sha256[:16]}


def test_a_bank_dropped_into_the_watched_folder_is_taken(
    colour_bank: LabelBank, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The newest good bank wins; a bad one is refused aloud, once."""
    colour_bank.save(tmp_path / "first.safetensors")
    taken: list[str] = []
    warnings = Warnings()
    watch = BankWatch(tmp_path, lambda bank: taken.append(bank.header.name), partial(warnings.set, "bank"))
    try:
        renamed(colour_bank, "second").save(tmp_path / "second.safetensors")
        wait_for(lambda: taken == ["second"])
        (tmp_path / "third.safetensors").write_bytes(b"torn")
        wait_for(lambda: "refused: " in capfd.readouterr().err)
        renamed(colour_bank, "fourth").save(tmp_path / "fourth.safetensors")
        wait_for(lambda: taken == ["second", "fourth"])
        wait_for(lambda: warnings.current == {})
        watch.reload()
        wait_for(lambda: taken == ["second", "fourth", "fourth"])
        for path in tmp_path.iterdir():
            path.unlink()
        wait_for(lambda: "no bank here any more" in warnings.current.get("bank", ""))
        assert warnings.counts == {"bank": 2}
    finally:
        watch.close()


def test_a_folder_without_banks_is_used_wrongly(tmp_path: Path) -> None:
    """The message names what was expected."""
    with pytest.raises(UsageError, match=r"no label bank \(\*\.safetensors\)"):
        newest_bank(tmp_path)


def test_the_service_manager_hears_of_frames_only(
    overflight: Overflight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY comes with the first observation, the watchdog is fed by observations, STOPPING comes at the end."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "90000")
        fly(overflight, "test://?frames=30&fps=100&size=64x48", tmp_path / "flight")
        heard = []
        while True:
            try:
                heard.append(manager.recv(4096).decode())
            except BlockingIOError:
                break
    assert heard[0] == "READY=1"
    assert heard[-1] == "STOPPING=1"
    fed = [line for line in heard if line.startswith("WATCHDOG=1\nSTATUS=")]
    assert 3 <= len(fed) <= 20


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop the notifier is silent."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().say("READY=1")
    Notifier().alive("x")


def test_a_budget_sheds_embeddings_before_observations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is counted; what is kept can be read."""
    monkeypatch.setattr("overflight.runtime.flight.journal.COMMIT_S", 0.02)
    journal = Journal(tmp_path / "journal.sqlite", budget_bytes=400_000)
    for number in range(600):
        journal.append(observation(number), np.full(256, 1 / 16, np.float32))
        time.sleep(0.002)
    journal.close()
    kept = len(list(read_observations(journal.path)))
    vectors = len(read_embeddings(journal.path)[0])
    assert kept + journal.unrecorded["observations"] == 600
    assert 0 < vectors < kept
    assert journal.unrecorded["embeddings"] == kept - vectors
    assert journal.path.stat().st_size < 600_000
