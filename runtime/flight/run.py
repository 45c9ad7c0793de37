"""Run a flight: the stream over one source, with its events, journal, health and links."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from overflight.runtime.decisions.event_tracker import EventRules, EventTracker
from overflight.runtime.errors import SourceError
from overflight.runtime.filters.pace import Pace
from overflight.runtime.flight.bank_watch import BankWatch
from overflight.runtime.flight.banks import Banks
from overflight.runtime.flight.control_token import ControlToken, token_path
from overflight.runtime.flight.device_log import DeviceLog
from overflight.runtime.flight.directory import Flight
from overflight.runtime.flight.gauges import Gauges
from overflight.runtime.flight.governor import GovernorLimits
from overflight.runtime.flight.governor_watch import GovernorActions, GovernorWatch
from overflight.runtime.flight.health import HealthServer
from overflight.runtime.flight.peripherals import PeripheralConfig, Peripherals
from overflight.runtime.flight.systemd import Notifier
from overflight.runtime.log import say
from overflight.runtime.sources.stills import Stills
from overflight.runtime.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from overflight.runtime.event import Event
    from overflight.runtime.flight.governor import Step
    from overflight.runtime.observe import FrameResult, Observer
    from overflight.runtime.overflight import Overflight
    from overflight.runtime.records import FlightRecord, Observation


@dataclass(frozen=True)
class FlightConfig:
    """The options of a flight.

    ``watch_bank`` is the file or folder whose newest label bank is taken in flight; ``health_port`` opens the health
    server on loopback (0 picks a port); ``peripherals`` names telemetry and links; ``budget_bytes`` bounds the journal;
    ``pace`` selects the frames that are evaluated, and ``limits`` those of heat, power and battery for which fewer are.
    """

    rules: EventRules = field(default_factory=EventRules)
    pace: Pace = field(default_factory=Pace)
    watch_bank: Path | None = None
    health_port: int | None = None
    peripherals: PeripheralConfig = field(default_factory=PeripheralConfig)
    budget_bytes: int | None = None
    limits: GovernorLimits = field(default_factory=GovernorLimits)
    replace: bool = False


def fly(
    overflight: Overflight,
    where: str,
    out: Path,
    config: FlightConfig = FlightConfig(),
    *,
    on_observation: Callable[[Stream, Observation], None] = lambda stream, observation: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> FlightRecord:
    """Run the stream over ``where`` and write a flight directory at ``out``.

    ``on_observation`` receives every observation, ``on_event`` every event. SIGTERM, SIGINT and SIGHUP end the flight
    cleanly; with a watched bank, SIGHUP reads it again. Raises SourceError, after the flight has been closed, when a
    recording could not be read to its end; the observations until then are kept.
    """
    with ExitStack() as stack:
        gauges, banks = Gauges(), Banks(overflight)
        peripherals = Peripherals(config.peripherals, where, banks.take, gauges.warnings)
        stack.callback(peripherals.close)
        stream = Stream(
            where, overflight.observer, config.pace, locate=peripherals.locate, notice=partial(_notice, gauges)
        )
        stack.callback(stream.close)
        if isinstance(stream.source, Stills):
            gauges.warnings.set("source", stream.source.left_out)
        overflight.bundle.accept()
        overflight.bank.accept()
        flight = Flight.begin(out, where, overflight, budget_bytes=config.budget_bytes, replace=config.replace)
        banks.begin(flight)
        _connect(gauges, overflight, flight, peripherals)
        gauges.watch(stream.faults)
        _govern(stack, gauges, overflight.observer, stream, flight, peripherals, config.limits)
        supervise = stack.enter_context(_supervise(gauges, banks, stream, flight, config))
        tracker = EventTracker(config.rules, f"{flight.record.started_utc_ns:x}")

        def write(events: Sequence[Event]) -> None:
            for event in map(peripherals.publish, events):
                gauges.events += 1
                flight.write_event(event)
                on_event(event)

        because = "failed"
        try:
            for result in stream.results():
                peripherals.update(result.frame, located=result.observation.pose is not None)
                gauges.without_pose = peripherals.without_pose
                flight.write(result, events := tracker.follow(result.observation, result.decision))
                supervise(result)
                on_observation(stream, result.observation)
                write(events)
            because = "stopped" if stream.stopped else "source ended"
        except SourceError as error:
            because = str(error)
            raise
        finally:
            write(tracker.end())
            for note in stream.notes:
                say("source", note=note)
            flight.end(because, stream)
    return flight.record


def _connect(gauges: Gauges, overflight: Overflight, flight: Flight, peripherals: Peripherals) -> None:
    """Show in the health answers what is flown with, and whether the journal and the links work."""
    gauges.flight, gauges.bundle = str(flight.directory.resolve()), overflight.bundle.sha256
    gauges.armed = peripherals.armed
    gauges.checks.append(lambda: flight.journal.trouble)
    gauges.notes.append(peripherals.links_note)
    gauges.watch(flight.journal.worker, *peripherals.watched)


def _govern(
    stack: ExitStack,
    gauges: Gauges,
    observer: Observer,
    stream: Stream,
    flight: Flight,
    peripherals: Peripherals,
    limits: GovernorLimits,
) -> None:
    """Start the governor where a limit is set."""
    if not limits.set:
        return

    def apply(step: Step) -> None:
        stream.slow_down(step.every)
        observer.reduce_tiles(step.tiles)

    gauges.governor = watch = GovernorWatch(
        limits,
        GovernorActions(apply, flight.journal.append_governor),
        gauges.warnings,
        tiled=observer.is_tiled,
        live=stream.source.live,
        battery_wh=peripherals.battery_wh,
    )
    stack.callback(watch.close)
    gauges.watch(watch.worker)
    gauges.notes.append(lambda: watch.note)


def _notice(gauges: Gauges, trouble: str | None) -> None:
    """Log a trouble when it changes, and show it in the health answers."""
    if trouble is not None and trouble != gauges.trouble:
        say("trouble", reason=trouble)
    gauges.trouble = trouble


@contextmanager
def _supervise(
    gauges: Gauges, banks: Banks, stream: Stream, flight: Flight, config: FlightConfig
) -> Iterator[Callable[[FrameResult], None]]:
    """Run health server, service notifications, bank watch and signals; yields what takes each result."""
    notifier = Notifier()

    def supervise(result: FrameResult) -> None:
        observation = result.observation
        gauges.newest.offer(observation.frame, result.frame)
        if not gauges.ready:
            notifier.say("READY=1")
        gauges.observe(observation)
        gauges.unrecorded = flight.journal.unrecorded
        notifier.alive(f"{gauges.observed} observations, {observation.label or 'unknown'}")

    with ExitStack() as stack:
        device_log = DeviceLog(flight.journal.append_device)
        stack.callback(device_log.close)
        gauges.watch(device_log.worker)
        if config.health_port is not None:
            token = ControlToken(token_path())
            server = HealthServer(gauges, config.health_port, banks.describe, banks.take, token)
            stack.callback(server.close)
            gauges.watch(server.worker, server.faults)
            say("health", address=f"http://127.0.0.1:{server.port}")
        warn = partial(gauges.warnings.set, "bank")
        bank_watch = BankWatch(config.watch_bank, banks.use, warn) if config.watch_bank is not None else None
        if bank_watch is not None:
            stack.callback(bank_watch.close)
            gauges.watch(bank_watch.worker)
        stack.enter_context(_signals(stream, bank_watch))
        yield supervise
    notifier.say("STOPPING=1")


@contextmanager
def _signals(stream: Stream, bank_watch: BankWatch | None) -> Iterator[None]:
    """Stop the stream on SIGTERM, SIGINT and SIGHUP; with a watched bank, SIGHUP reads it again instead.

    SIGHUP stays ignored where it was (nohup). Handlers can be set in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[signal.Signals, Callable[[], None]] = {signal.SIGTERM: stream.stop, signal.SIGINT: stream.stop}
    if bank_watch is not None and hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = bank_watch.reload
    elif hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = stream.stop  # a closed terminal ends a flight as Ctrl-C does; not on Windows
    previous = {number: signal.signal(number, lambda *_, act=act: act()) for number, act in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
