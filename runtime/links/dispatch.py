"""Publishing: every event to every link, without the flight loop ever waiting for one."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter, deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bounded import identity
from overflight.runtime.links.address import LinkAddress, open_link
from overflight.runtime.links.courier import Courier
from overflight.runtime.links.outbox import Outbox, claim
from overflight.runtime.links.outbox_repair import is_damage, move_aside_if_damaged
from overflight.runtime.log import say
from overflight.runtime.worker import Faults, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from overflight.runtime.event import Event
    from overflight.runtime.links.message import Link
    from overflight.runtime.pose.autopilot import Autopilot

UNSAVED = 1_000  # events kept in memory while the disk takes none
SYNC_S = 1.0


class LinkStatus(msgspec.Struct, frozen=True):
    """The state of a link: what it sent, what waits, what was shed by reason, and its trouble, if any."""

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
        self._links: list[Link] = []
        self._couriers: list[Courier] = []
        self._queued: Counter[str] = Counter()
        self._file: tuple[int, int] | None = None
        links = [self._link(address, vehicle, on_bank) for address in addresses]
        names = _distinct([address.name for address in addresses])
        self._path = outbox
        self._lock = claim(outbox)
        self._shed: dict[str, Counter[str]] = {name: Counter() for name in names}
        self._replace_damaged([])
        self._outbox = Outbox(outbox, in_flight_loop=True)
        self._file = identity(outbox)
        self._unsaved: deque[tuple[Event, bytes]] = deque(maxlen=UNSAVED)
        self._damaged = threading.Event()
        # What is in the outbox for each link, as far as this flight knows: it cannot be asked once the file is damaged.
        self._queued = Counter({name: self._outbox.waiting(name) for name in names})
        outboxes = [Outbox(outbox) for _ in names]
        self._outboxes = [self._outbox, *outboxes]
        self._syncer = Worker("outbox", self._sync)
        self._couriers = [
            Courier(name, link, box, address.rate_bps, self._report_damage)
            for name, address, link, box in zip(names, addresses, links, outboxes, strict=True)
        ]
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
        """Send an event to every link. Once this has returned, a killed process does not lose it."""
        if not self._couriers:
            return
        if len(self._unsaved) == UNSAVED:
            for shed in self._shed.values():
                shed["disk-refused"] += 1
        self._unsaved.append((event, thumbnail or b""))
        self._save()
        self._syncer.wake()
        for courier in self._couriers:
            courier.wake()

    def tick(self) -> None:
        """Send the heartbeats that are due; called once per frame, so that a stalled loop sends none."""
        self._save()
        now_ns = time.monotonic_ns()
        for vehicle in self.vehicles:
            vehicle.beat(now_ns)

    def troubles(self) -> dict[str, str | None]:
        """Return each link's trouble, without asking the disk."""
        return {courier.name: courier.trouble for courier in self._couriers}

    @property
    def workers(self) -> list[Worker]:
        """The supervised threads: one for each link, and one that syncs the outbox."""
        return [*(courier.worker for courier in self._couriers), self._syncer]

    @property
    def faults(self) -> list[Faults]:
        """The unexpected exceptions in callbacks of the links' libraries."""
        found = (getattr(link, "faults", None) for link in self._links)
        return [faults for faults in found if isinstance(faults, Faults)]

    def status(self) -> list[LinkStatus]:
        """Return the state of each link."""
        return [
            LinkStatus(c.name, c.sent, c.sent_bytes, c.waiting, dict(c.shed + self._shed[c.name]), c.trouble)
            for c in self._couriers
        ]

    def close(self, within_s: float = 5.0) -> list[LinkStatus]:
        """Deliver what can be within ``within_s``, keep the rest for the next flight, and return each link's state."""
        deadline_s = time.monotonic() + within_s
        for courier in self._couriers:
            courier.stop(within_s)
        for courier in self._couriers:
            courier.join(max(0.0, deadline_s - time.monotonic()) + 2.0)
        self._syncer.close(5.0)
        self._save()
        with suppress(OSError):
            self._outbox.sync()
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
        self._links.append(link)
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
            for name, kept in self._outbox.put(event, thumbnail, list(self._shed)).items():
                self._queued[name] += kept.added - kept.shed
                self._shed[name]["outbox-full"] += kept.shed
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if is_damage(error):
                self._report_damage()
            return False
        return True

    def _sync(self) -> float:
        """Sync the outbox to the disk; replace it where it is damaged or was deleted."""
        if self._damaged.is_set():
            self._damaged.clear()
            self._replace_damaged(self._outboxes)
        elif identity(self._path) != self._file:
            self._restore()
        self._outbox.sync()
        return SYNC_S

    def _report_damage(self) -> None:
        self._damaged.set()
        self._syncer.wake()

    def _replace_damaged(self, outboxes: Sequence[Outbox]) -> None:
        """Move a damaged outbox aside and begin a new one; what waited in it is counted as shed."""
        with ExitStack() as stack:
            for outbox in outboxes:
                stack.enter_context(outbox.released())
            aside = move_aside_if_damaged(self._path)
            if aside is None:
                return
            for name, shed in self._shed.items():
                shed["outbox-damaged"] += max(1, self._lost(name))
        say("outbox damaged", moved_to=str(aside), reason="not a sound outbox; a new one is begun")
        self._file = identity(self._path)

    def _restore(self) -> None:
        """Write the outbox again that was deleted while it was open."""
        copy = self._path.with_name(f".{self._path.name}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for outbox in self._outboxes[1:]:
                stack.enter_context(outbox.released())
            copy.unlink(missing_ok=True)
            self._outbox.copy_to(copy)
            stack.enter_context(self._outbox.released())
            copy.replace(self._path)
        say("outbox restored", path=str(self._path), reason="its file was deleted or replaced during the flight")
        self._file = identity(self._path)

    def _lost(self, name: str) -> int:
        """Return how many messages waited for a link, and count them as gone."""
        settled = sum(courier.settled for courier in self._couriers if courier.name == name)
        lost = self._queued[name] - settled
        self._queued[name] = settled
        return lost


def _distinct(names: Sequence[str]) -> list[str]:
    """Number names that are equal once credentials are hidden, since the outbox keeps a queue by name."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct
