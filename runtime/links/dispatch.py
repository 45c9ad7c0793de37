"""Publishing: every event to every link, without the loop that flies ever waiting for one."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.links.address import LinkAddress, open_link
from overflight.runtime.links.courier import Courier
from overflight.runtime.links.outbox import Outbox, claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from overflight.runtime.event import Event
    from overflight.runtime.links.message import Link
    from overflight.runtime.pose.autopilot import Autopilot

UNSAVED = 1_000  # events kept in memory while the disk takes none


class LinkStatus(msgspec.Struct, frozen=True):
    """How a link stands: what it sent, what waits, what was shed by reason, and what troubles it, if anything."""

    name: str
    sent: int
    sent_bytes: int
    waiting: int
    shed: dict[str, int]
    trouble: str | None


class Links:
    """All links of a flight.

    Every event reaches every link at least once, however often the link or this process dies in between; ``(id,
    sequence)`` tells a repetition. What a link cannot keep up with is shed in this order and counted: pictures,
    changes, the oldest events.
    """

    def __init__(
        self,
        addresses: Sequence[LinkAddress],
        outbox: Path,
        vehicle: Autopilot | None,
        on_bank: Callable[[bytes], str] | None,
    ) -> None:
        self.vehicles: list[Autopilot] = []
        self._own_vehicles: list[Autopilot] = []
        links = [self._link(address, vehicle, on_bank) for address in addresses]
        self._lock = claim(outbox)
        self._outbox = Outbox(outbox, in_flight_loop=True)
        self._shed: dict[str, Counter[str]] = {address.name: Counter() for address in addresses}
        self._unsaved: deque[tuple[Event, bytes]] = deque(maxlen=UNSAVED)
        self._written = threading.Event()
        self._closing = False
        self._couriers = [
            Courier(address.name, link, Outbox(outbox), address.rate_bps)
            for address, link in zip(addresses, links, strict=True)
        ]
        self._syncer = threading.Thread(target=self._sync, name="outbox", daemon=True)
        self._syncer.start()

    @classmethod
    def open(
        cls,
        uris: Sequence[str],
        outbox: Path,
        *,
        vehicle: Autopilot | None = None,
        on_bank: Callable[[bytes], str] | None = None,
    ) -> Links:
        """Open links by address; see ``LinkAddress.parse``.

        ``outbox`` is a file that outlives the flight. ``vehicle`` is shared with a MAVLink link to the same device.
        ``on_bank`` takes a label bank that arrives on MQTT's ``bank/set`` and returns its hash; without it the topic
        is not listened to. Raises UsageError for an address, MissingError for a library that is not installed.
        """
        return cls([LinkAddress.parse(uri) for uri in uris], outbox, vehicle, on_bank)

    def publish(self, event: Event, thumbnail: bytes | None = None) -> None:
        """Send an event to every link. A killed process loses it no more once this has returned."""
        if not self._couriers:
            return
        if len(self._unsaved) == UNSAVED:
            for shed in self._shed.values():
                shed["disk-refused"] += 1
        self._unsaved.append((event, thumbnail or b""))
        self._save()
        self._written.set()
        for courier in self._couriers:
            courier.wake()

    def tick(self) -> None:
        """Show that the loop lives: call it once per frame, it sends the heartbeats that are due."""
        self._save()
        now_ns = time.monotonic_ns()
        for vehicle in self.vehicles:
            vehicle.beat(now_ns)

    def troubles(self) -> dict[str, str | None]:
        """Return what troubles each link, without asking the disk."""
        return {courier.name: courier.trouble for courier in self._couriers}

    def status(self) -> list[LinkStatus]:
        """Return how each link stands."""
        return [
            LinkStatus(c.name, c.sent, c.sent_bytes, c.waiting, dict(c.shed + self._shed[c.name]), c.trouble)
            for c in self._couriers
        ]

    def close(self, within_s: float = 5.0) -> list[LinkStatus]:
        """Deliver what can be within ``within_s``, keep the rest for the next flight, and say how each link stands."""
        deadline_s = time.monotonic() + within_s
        for courier in self._couriers:
            courier.stop(within_s)
        for courier in self._couriers:
            courier.join(max(0.0, deadline_s - time.monotonic()) + 2.0)
        self._closing = True
        self._written.set()
        self._syncer.join(5.0)
        self._save()
        status = self.status()
        for courier in self._couriers:
            courier.release()
        for vehicle in self._own_vehicles:
            vehicle.close()
        self._outbox.close()
        self._lock.close()
        return status

    def _link(self, address: LinkAddress, shared: Autopilot | None, on_bank: Callable[[bytes], str] | None) -> Link:
        link, vehicle = open_link(address, shared, on_bank)
        if vehicle is not None:
            self.vehicles.append(vehicle)
            if vehicle is not shared:
                self._own_vehicles.append(vehicle)
        return link

    def _save(self) -> None:
        """Move what waits in memory to the disk, as long as the disk takes it."""
        while self._unsaved and self._store(*self._unsaved[0]):
            self._unsaved.popleft()

    def _store(self, event: Event, thumbnail: bytes) -> bool:
        try:
            for name, count in self._outbox.put(event, thumbnail, list(self._shed)).items():
                self._shed[name]["outbox-full"] += count
        except sqlite3.Error:
            return False
        return True

    def _sync(self) -> None:
        """Bring the outbox to the disk's platter, and what the disk did not take a moment ago."""
        while not self._closing:
            self._written.wait(1.0)
            self._written.clear()
            try:
                self._outbox.sync()
            except OSError:
                continue
