"""Health links of flights: each is asked in a thread of its own, so that one that hangs delays no other flight."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from http.client import HTTPException

import msgspec

from overflight.runtime.flight.banks import BankInUse
from overflight.runtime.flight.gauges import Status
from overflight.runtime.json_input import decode_json

LINK_S = 2.0
EVERY_S = 0.45
PATIENCE_S = 0.3  # how long a reading of all flights waits for a link before it shows what was known
_HASH = 16  # characters of a bank's hash in a status


class LinkState(msgspec.Struct, frozen=True):
    """What a health link answered; ``trouble`` where it did not. ``flight`` and ``bank`` are then those of before."""

    status: Status | None = None
    bank: BankInUse | None = None
    trouble: str | None = None
    flight: str = ""


class HealthLinks:
    """The newest answer of every health link."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._known = {address: LinkState(trouble=f"{address} has not answered yet") for address in addresses}
        self._asked: dict[str, Future[LinkState]] = {}
        self._began_s = dict.fromkeys(addresses, 0.0)
        self._guard = threading.Lock()
        self._pictures: dict[str, tuple[float, bytes | None]] = {}
        self._fetching = {address: threading.Lock() for address in addresses}

    def states(self) -> dict[str, LinkState]:
        """Ask every link that is free and return what is known after a moment."""
        asked = {address: self._ask(address) for address in self._known}
        until_s = time.monotonic() + PATIENCE_S
        for address, answer in asked.items():
            try:
                self._known[address] = answer.result(max(0.0, until_s - time.monotonic()))
            except NotYet:
                continue
        return dict(self._known)

    def known(self, address: str) -> LinkState:
        """Return the newest answer without asking."""
        return self._known[address]

    def picture(self, address: str) -> bytes | None:
        """Return the newest frame, small, fetched once for all viewers; None where the flight does not give one."""
        with self._fetching[address]:
            fetched_s, jpeg = self._pictures.get(address, (-EVERY_S, None))
            if time.monotonic() - fetched_s >= EVERY_S:
                jpeg = None if self._known[address].status is None else _picture(address)
                self._pictures[address] = time.monotonic(), jpeg
            return jpeg

    def _ask(self, address: str) -> Future[LinkState]:
        with self._guard:
            asked = self._asked.get(address)
            rested = time.monotonic() - self._began_s[address] >= EVERY_S
            if asked is None or (asked.done() and rested):
                self._began_s[address] = time.monotonic()
                asked = self._asked[address] = Future()
                # A daemon: the end of the server does not wait for an aircraft out of reach.
                threading.Thread(target=_answer, args=(asked, address, self._known[address]), daemon=True).start()
            return asked


def read_link(address: str, before: LinkState | None = None) -> LinkState:
    """Ask a health link for its status, and for its bank where that is not the one of ``before``."""
    before = before or LinkState()
    bank = before.bank
    try:
        status = decode_json(_get(f"{address}/status"), Status)
        if bank is None or status.bank != bank.sha256[:_HASH]:
            bank = decode_json(_get(f"{address}/bank"), BankInUse)
        return LinkState(status, bank, flight=status.flight)
    except (OSError, ValueError, HTTPException) as error:
        trouble = f"{address} does not answer ({error or type(error).__name__})"
        return LinkState(None, bank, trouble, before.flight)


def send_bank(address: str, content: bytes, token: str) -> str | None:
    """Post a label bank to a health link; return why it was refused, or None."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{address}/bank", data=content, headers=headers)  # noqa: S310 - checked at start
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            answer.read(1000)
    except urllib.error.HTTPError as error:
        return error.read(2000).decode(errors="replace").strip() or f"status {error.code}"
    except (OSError, HTTPException) as error:
        return f"{address} does not answer ({error})"
    return None


def _picture(address: str) -> bytes | None:
    try:
        return _get(f"{address}/picture.jpg")
    except (OSError, ValueError, HTTPException):  # none yet, an older flight, or out of reach
        return None


def _answer(asked: Future[LinkState], address: str, before: LinkState) -> None:
    try:
        asked.set_result(read_link(address, before))
    except Exception as error:  # whatever one link does, the other flights are shown
        trouble = f"{address} cannot be read ({type(error).__name__}: {error})"
        asked.set_result(LinkState(None, before.bank, trouble, before.flight))


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=LINK_S) as answer:  # noqa: S310 - checked at start
        return bytes(answer.read(1_000_000))
