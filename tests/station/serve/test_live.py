"""Live data: little is sent twice, and a link that hangs delays nobody.

Covers: station/serve/health_links.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from overflight.runtime.flight.banks import BankInUse
from overflight.runtime.flight.gauges import Status
from overflight.station.serve import health_links, live
from overflight.station.serve.health_links import HealthLinks, LinkState
from overflight.station.serve.live_shapes import Aircraft, LiveEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

BANK = BankInUse("sites", "b" * 64, ("meadow",))


def status(**changed: Any) -> Status:
    """Return what a flight answers."""
    return Status(True, 5, None, None, "/flights/first", "a" * 64, "b" * 16, **changed)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the answers of every health link by the end of the address; what is missing is out of reach."""
    known = {"/status": msgspec.json.encode(status()), "/bank": msgspec.json.encode(BANK)}
    asked: list[str] = []
    known["asked"] = b""

    def get(address: str) -> bytes:
        asked.append(address)
        path = "/" + address.rsplit("/", 1)[1]
        known["asked"] += path.encode()
        if path not in known:
            raise OSError("no route to host")
        return known[path]

    monkeypatch.setattr(health_links, "_get", get)
    return known


def test_a_bank_is_asked_for_once_and_a_lost_link_keeps_its_flight(
    answers: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one late answer would turn a flight into two on the page."""
    monkeypatch.setattr(health_links, "EVERY_S", 0.0)
    links = HealthLinks(("http://a:1",))
    assert links.states()["http://a:1"].bank == BANK
    links.states()
    assert answers["asked"].count(b"/bank") == 1
    del answers["/status"]
    until_s = time.monotonic() + 10
    while (lost := links.states()["http://a:1"]).status is not None and time.monotonic() < until_s:
        pass
    assert lost.flight == "/flights/first"
    assert lost.trouble is not None and "no route to host" in lost.trouble


def test_a_link_that_hangs_delays_the_others_by_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known of it is shown meanwhile, and it is not asked again before it has answered."""
    entered, free, asked = threading.Event(), threading.Event(), []

    def get(address: str) -> bytes:
        asked.append(address)
        if "hangs" in address:
            entered.set()
            free.wait(30)
        return msgspec.json.encode(status() if address.endswith("status") else BANK)

    monkeypatch.setattr(health_links, "_get", get)
    monkeypatch.setattr(health_links, "PATIENCE_S", 0.05)
    links = HealthLinks(("http://hangs:1", "http://works:1"))
    try:
        until_s = time.monotonic() + 10
        while links.states()["http://works:1"].status is None and time.monotonic() < until_s:
            pass
        states = links.states()
        assert entered.is_set()
        assert states["http://works:1"].status is not None
        assert states["http://hangs:1"].trouble == "http://hangs:1 has not answered yet"
        assert sum("hangs" in one for one in asked) == 1
    finally:
        free.set()


def test_an_error_of_one_link_does_not_reach_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected of a link ended the view of every flight."""

    def read(address: str, before: object = None) -> LinkState:
        if "odd" in address:
            raise RecursionError("nested too deep")
        return LinkState(status(), BANK, flight="/flights/first")

    monkeypatch.setattr(health_links, "read_link", read)
    links = HealthLinks(("http://odd:1", "http://works:1"))
    until_s = time.monotonic() + 10
    while (states := links.states())["http://works:1"].status is None and time.monotonic() < until_s:
        pass
    assert states["http://works:1"].status is not None
    assert states["http://odd:1"].trouble == "http://odd:1 cannot be read (RecursionError: nested too deep)"


def test_a_socket_that_never_answers_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aircraft out of reach, as TCP sees it."""
    monkeypatch.setattr(health_links, "LINK_S", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        state = health_links.read_link(address)
    assert state.trouble == f"{address} does not answer (timed out)"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Aircraft]]]:
    """Return the readings that a board takes, one after the other; the last is repeated."""
    waiting: list[list[Aircraft]] = []
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(live, "all_aircraft", lambda desk: waiting.pop(0) if len(waiting) > 1 else waiting[0])
    yield waiting


def one(frame: int, *events: LiveEvent) -> list[Aircraft]:
    """Return a reading of one flight."""
    return [Aircraft("a", "a", False, frame=frame, events=events)]


def sent(board: live.LiveBoard, count: int) -> list[Any]:
    """Return the first events that a viewer gets."""

    async def look() -> list[Any]:
        found = []
        async for event in board.events():
            if event.startswith(b"event"):
                found.append(json.loads(event.split(b"data: ")[1]))
            if len(found) == count:
                break
        return found

    return asyncio.run(look())


def test_a_list_of_events_is_sent_when_it_changed(readings: list[list[Aircraft]]) -> None:
    """A viewer gets everything first, then only what is new; an emptied list is said, not left out."""
    began, other = LiveEvent("1", "fire", False, 0.9), LiveEvent("2", "road", False, 0.8)
    readings += [one(1, began), one(2, began), one(3, began, other), one(4, began, other), one(5)]
    found = [events[0] for events in sent(live.LiveBoard(None), 5)]  # type: ignore[arg-type]
    assert [entry["frame"] for entry in found] == [1, 2, 3, 4, 5]
    assert [len(entry["events"]) if "events" in entry else None for entry in found] == [1, None, 2, None, 0]
