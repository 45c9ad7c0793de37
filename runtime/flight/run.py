"""Flying: one run of the stream over one source, followed, recorded, and looked after."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overflight.runtime.bank import LabelBank
from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.errors import SourceError
from overflight.runtime.filters.pace import Pace
from overflight.runtime.flight.bank_watch import BankWatch
from overflight.runtime.flight.device_log import DeviceLog
from overflight.runtime.flight.directory import Flight
from overflight.runtime.flight.health import Gauges, HealthServer
from overflight.runtime.flight.log import say
from overflight.runtime.flight.peripherals import PeripheralConfig, Peripherals
from overflight.runtime.flight.systemd import Notifier
from overflight.runtime.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from overflight.runtime.event import Event
    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import FlightRecord, Observation


@dataclass(frozen=True)
class FlightConfig:
    """How a flight is flown.

    ``watch_bank`` is the file or folder whose newest label bank is taken in flight; ``health_port`` opens the health
    server on loopback (0 picks a port); ``outfit`` names telemetry and links; ``budget_bytes`` bounds the journal;
    ``pace`` says which frames are looked at.
    """

    rules: EventRules = field(default_factory=EventRules)
    pace: Pace = field(default_factory=Pace)
    watch_bank: Path | None = None
    health_port: int | None = None
    outfit: PeripheralConfig = field(default_factory=PeripheralConfig)
    budget_bytes: int | None = None
    replace: bool = False


def fly(
    overflight: Overflight,
    where: str,
    out: Path,
    orders: FlightConfig = FlightConfig(),
    *,
    watch: Callable[[Stream, Observation], None] = lambda stream, observation: None,
    tell: Callable[[Event], None] = lambda event: None,
) -> FlightRecord:
    """Fly over ``where`` and leave a flight directory at ``out``.

    ``watch`` sees every observation, ``tell`` every event.

    SIGTERM and SIGINT end the flight cleanly, SIGHUP reads the watched bank again. Raises SourceError after the flight
    has been closed, when a recording could not be read to its end: what was observed is kept.
    """
    with ExitStack() as stack:
        stream = Stream(where, overflight.observer, orders.pace)
        stack.callback(stream.close)
        aboard = Peripherals(orders.outfit, where)
        stack.callback(aboard.close)
        overflight.observer.gsd_m = aboard.gsd_m
        flight = Flight.begin(out, where, overflight, budget_bytes=orders.budget_bytes, replace=orders.replace)
        banks = _Banks(overflight, flight)
        care = stack.enter_context(_supervise(banks, stream, flight, orders))
        aboard.take_bank = banks.take
        follower = EventTracker(orders.rules, f"{flight.record.started_utc_ns:x}", flight.record.started_utc_ns)
        because = "failed"
        try:
            for seen in stream.observations():
                sight = aboard.see(seen)
                flight.write(sight.observation, sight.embedding)
                care(sight.observation)
                watch(stream, sight.observation)
                for event in map(aboard.tell, follower.follow(sight.observation, sight.verdict)):
                    flight.write_event(event)
                    tell(event)
            because = "stopped" if stream.stopped else "source ended"
        except SourceError as error:
            because = str(error)
            raise
        finally:
            for event in map(aboard.tell, follower.end()):
                flight.write_event(event)
                tell(event)
            flight.end(because, stream.dropped, None if stream.gate is None else stream.gate.report)
    return flight.record


@dataclass(frozen=True)
class _Banks:
    """Takes label banks in flight and keeps a copy of each with the flight."""

    overflight: Overflight
    flight: Flight

    def use(self, bank: LabelBank) -> None:
        self.overflight.use(bank)
        self.flight.keep_bank(bank)

    def take(self, raw: bytes) -> str:
        """Take a bank that was sent and return its hash. Raises BankError."""
        bank = LabelBank.decode(raw, source="the bank that was sent")
        self.use(bank)
        say("bank in use", bank=bank.header.name, sha256=bank.sha256, labels=len(bank))
        return bank.sha256


@contextmanager
def _supervise(
    banks: _Banks, stream: Stream, flight: Flight, orders: FlightConfig
) -> Iterator[Callable[[Observation], None]]:
    """Look after a flight: health, service manager, bank watch, signals; yields what each observation is shown to."""
    gauges, notifier = Gauges(), Notifier()

    def care(observation: Observation) -> None:
        if not gauges.ready:
            notifier.say("READY=1")
        gauges.observe(observation)
        gauges.unrecorded = flight.journal.unrecorded
        notifier.alive(f"{gauges.observed} observations, {observation.label or 'unknown'}")

    def notice(trouble: str | None) -> None:
        if trouble is not None and trouble != gauges.trouble:
            say("trouble", reason=trouble)
        gauges.trouble = trouble

    stream.notice = notice
    with ExitStack() as stack:
        stack.callback(DeviceLog(flight.journal.append_device).close)
        if orders.health_port is not None:
            server = HealthServer(gauges, orders.health_port, banks.take)
            stack.callback(server.close)
            say("health", address=f"http://127.0.0.1:{server.port}")
        bank_watch = BankWatch(orders.watch_bank, banks.use) if orders.watch_bank is not None else None
        if bank_watch is not None:
            stack.callback(bank_watch.close)
        stack.enter_context(_signals(stream, bank_watch))
        yield care
    notifier.say("STOPPING=1")


@contextmanager
def _signals(stream: Stream, bank_watch: BankWatch | None) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the stream and SIGHUP reload the bank; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[signal.Signals, Callable[[], None]] = {signal.SIGTERM: stream.stop, signal.SIGINT: stream.stop}
    if bank_watch is not None:
        handlers[signal.SIGHUP] = bank_watch.reload
    previous = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
