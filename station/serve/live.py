"""Live data for the page: one reading serves every viewer, so that viewers cost the flights nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
from starlette.concurrency import run_in_threadpool

from overflight.runtime.errors import OverflightError
from overflight.station.serve.aircraft import (
    event_picture,
    find_flights,
    newest_picture,
    read_aircraft,
    with_link,
)
from overflight.station.serve.endpoint import Call, File, NotKeptError, RefusedError
from overflight.station.serve.health_links import read_link, send_bank
from overflight.station.serve.live_shapes import Aircraft, Health
from overflight.station.serve.shapes import AircraftInfo, BankInFlight, SendAsked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from overflight.station.serve.desk import Desk

EVERY_S = 0.5
KEEP_ALIVE_S = 10.0


class FrameAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which frame is wanted, so that a browser asks anew; the newest picture is sent whatever it is."""

    frame: int = 0


class LiveBoard:
    """The newest state of every flight as a server-sent event; read at most twice a second, and only for viewers.

    A viewer that has the event before gets one without the lists of events that did not change.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._number = 0
        self._whole = self._changed = b""
        self._shown: dict[str, object] = {}
        self._read_s = 0.0
        self._reading = asyncio.Lock()
        self.closing = asyncio.Event()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield an event whenever something changed, until the viewer goes or the server ends."""
        seen, sent, sent_s = -1, b"", 0.0
        while not self.closing.is_set():
            await self._read()
            new, event = seen != self._number, self._changed if seen == self._number - 1 else self._whole
            seen, now_s = self._number, time.monotonic()
            if new and event != sent:
                yield event
                sent, sent_s = event, now_s
            elif now_s - sent_s > KEEP_ALIVE_S:
                yield b": nothing new\n\n"
                sent_s = now_s
            try:
                await asyncio.wait_for(self.closing.wait(), EVERY_S)
            except (TimeoutError, asyncio.TimeoutError):  # two names until Python 3.11
                continue

    async def _read(self) -> None:
        async with self._reading:
            if time.monotonic() - self._read_s < EVERY_S * 0.9:
                return
            aircraft = await run_in_threadpool(all_aircraft, self._desk)
            changed = [
                msgspec.structs.replace(one, events=None) if one.events == self._shown.get(one.id, ()) else one
                for one in aircraft
            ]
            self._shown = {one.id: one.events for one in aircraft}
            self._whole, self._changed = _event(aircraft), _event(changed)
            self._number += 1
            self._read_s = time.monotonic()


def _event(aircraft: list[Aircraft]) -> bytes:
    return b"event: aircraft\ndata: " + msgspec.json.encode(aircraft) + b"\n\n"


def all_aircraft(desk: Desk) -> list[Aircraft]:
    """Return every flight as it is now; one that cannot be read says why."""
    links = desk.links.states()
    named = {state.flight: address for address, state in links.items() if state.flight}
    found = []
    for directory in find_flights(desk.settings.flights):
        try:
            one = read_aircraft(directory)
        except (OverflightError, OSError) as error:
            name = directory.resolve().name
            one = Aircraft(name, name, False, health=(Health("journal", "bad", str(error)),))
        address = named.pop(directory.resolve().name, None) or named.pop(str(directory.resolve()), None)
        if address is not None:
            one = msgspec.structs.replace(with_link(one, links.pop(address)), id=aircraft_id(address))
        found.append(one)
    for address, state in links.items():
        name = state.flight or address
        found.append(with_link(Aircraft(aircraft_id(address), name.rsplit("/", 1)[-1], False), state))
    return found


def aircraft_id(address: str) -> str:
    """Return the id of an aircraft from its link's address: host and port."""
    return address.split("//", 1)[1].replace(":", "-").replace("/", "")


def aircraft_infos(desk: Desk) -> tuple[AircraftInfo, ...]:
    """Return the aircraft that take label banks."""
    return tuple(AircraftInfo(aircraft_id(one), aircraft_id(one)) for one in desk.settings.aircraft)


def get_live_picture(desk: Desk, call: Call) -> File:
    """Return the newest picture of a flight."""
    directory = _directory(desk, call.path["id"])
    address = _linked(desk, call.path["id"])
    jpeg = None if address is None else desk.links.picture(address)
    if jpeg is None and directory is not None:
        jpeg = newest_picture(directory)
    if jpeg is None:
        raise NotKeptError("no-picture", "the flight has kept no picture yet")
    return File(jpeg, "image/jpeg")


def get_event_picture(desk: Desk, call: Call) -> File:
    """Return the picture nearest to a frame of a flight."""
    directory = _directory(desk, call.path["id"])
    frame = call.path["file"].removesuffix(".jpg")
    jpeg = None
    if directory is not None and frame.isdecimal() and len(frame) < 16:
        jpeg = event_picture(directory, int(frame))
    if jpeg is None:
        raise NotKeptError("no-picture", "the flight has kept no picture near this frame")
    return File(jpeg, "image/jpeg")


def get_track(desk: Desk, call: Call) -> list[tuple[float, float]]:
    """Return where a flight has been, (lat, lon)."""
    directory = _directory(desk, call.path["id"])
    return [] if directory is None else desk.tracks.read(directory)


def get_aircraft_bank(desk: Desk, call: Call) -> BankInFlight:
    """Return the label bank that an aircraft matches now."""
    return _in_flight(_address(desk, call.path["id"]))


def post_aircraft_bank(desk: Desk, call: Call) -> BankInFlight:
    """Send a label bank to an aircraft; its answer says which bank it matches now."""
    from overflight.runtime.flight.control_token import token_path
    from overflight.runtime.signatures.signature_files import read_signature

    asked: SendAsked = call.body
    address = _address(desk, call.path["id"])
    path, _ = desk.bank(asked.bank)
    signature = asked.signature or read_signature(path)
    content = (signature or "").encode() + path.read_bytes()
    try:
        token = token_path().read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OverflightError(f"{token_path()}: {error}; copy the aircraft's control token there") from error
    refused = send_bank(address, content, token)
    found = _in_flight(address)
    return msgspec.structs.replace(found, error=refused)


def _in_flight(address: str) -> BankInFlight:
    state = read_link(address)
    if state.bank is None:
        raise OverflightError(state.trouble or f"{address} does not answer")
    return BankInFlight(state.bank.sha256, state.bank.name, state.bank.labels)


def _linked(desk: Desk, name: str) -> str | None:
    return next((one for one in desk.settings.aircraft if aircraft_id(one) == name), None)


def _address(desk: Desk, name: str) -> str:
    address = _linked(desk, name)
    if address is not None:
        return address
    raise RefusedError(404, "unknown", f"aircraft {name[:60]!r}: start the server with --aircraft http://HOST:PORT")


def _directory(desk: Desk, name: str) -> Path | None:
    """Return a flight's directory by the id that ``all_aircraft`` gave it; only known directories are read.

    None for an aircraft whose flight lies on another machine. Raises RefusedError for an unknown id.
    """
    found = find_flights(desk.settings.flights)
    for directory in found:
        if directory.resolve().name == name:
            return directory
    address = _linked(desk, name)
    if address is not None:
        flight = desk.links.known(address).flight
        return next((one for one in found if flight in {one.resolve().name, str(one.resolve())}), None)
    raise RefusedError(404, "unknown", f"flight {name[:60]!r}: not one that this server shows")
