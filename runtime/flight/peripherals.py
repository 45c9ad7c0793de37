"""A flight's peripherals: the telemetry that locates its frames and the links that publish its events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.decisions.incident import Incidents
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.pictures import small_jpeg
from overflight.runtime.flight.warnings import Warnings
from overflight.runtime.links.address import LinkAddress
from overflight.runtime.log import say
from overflight.runtime.observe import nowhere
from overflight.runtime.paths import default_outbox
from overflight.runtime.sources.image import SUFFIXES as STILL_SUFFIXES
from overflight.runtime.sources.stills import folder_of
from overflight.runtime.worker import Faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.event import Event
    from overflight.runtime.frame import Frame
    from overflight.runtime.links import Links
    from overflight.runtime.pose.autopilot import Autopilot
    from overflight.runtime.pose.geotag import Geotagger, Location
    from overflight.runtime.worker import Worker

LANDING_S = 5.0  # the links may deliver for this long at the end of a flight; the rest waits for the next one
REPORT_S = 5.0
UNLOCATED_S = 10.0  # telemetry that begins later than this, or pauses for longer, is worth a warning
THUMBNAIL_PX = 160
THUMBNAIL_QUALITY = 60


@dataclass(frozen=True)
class PeripheralConfig:
    """The addresses that ``overflight run`` was given; ``outbox`` is the file that keeps what waits for the links."""

    pose: str | None = None
    camera: str | None = None
    links: tuple[str, ...] = ()
    outbox: Path | None = None
    terrain: str | None = None


class Peripherals:
    """Locates the frames of a flight and publishes its events. Without an address it does nothing.

    ``take_bank`` receives a label bank that arrives over a link and returns its hash, or raises OverflightError.
    """

    def __init__(
        self, config: PeripheralConfig, source: str, take_bank: Callable[[bytes], str], warnings: Warnings | None = None
    ) -> None:
        """Open telemetry and links. Errors are raised here, before the flight begins."""
        self._warnings = warnings or Warnings()
        self._geotagger = open_geotagger(config, source)
        try:
            self._links = self._open_links(config, take_bank)
        except OverflightError:
            if self._geotagger is not None:
                self._geotagger.close()
            raise
        self.faults = Faults("peripherals")
        self._incidents = Incidents()
        self._frame: Frame | None = None
        self._report_s = time.monotonic() + REPORT_S  # a link that connects sooner has no trouble
        self._positionless = () if config.pose else tuple(_needing_positions(config))
        for name in self._positionless:
            self._warnings.set(f"link {name}", "sends nothing without positions; name the telemetry with --pose")
        self._located_s = time.monotonic()
        self.without_pose = None if self._geotagger is None else 0
        self._refused = len(self._geotagger.refused) if self._geotagger else 0

    def locate(self, frame: Frame) -> Location:
        """Return a frame's pose and place, where the telemetry has them."""
        if self._geotagger is None:
            return nowhere(frame)
        try:
            return self._geotagger.locate(frame)
        except Exception as error:  # a frame without a place is worth more than no frame
            self.faults.note(error)
            return nowhere(frame)

    def update(self, frame: Frame, *, located: bool) -> None:
        """Take note of the newest evaluated frame, and send the heartbeats of links and autopilot."""
        self._frame = frame
        if self.without_pose is not None:
            self._check_telemetry(located=located)
        if self._links is not None:
            self._links.tick()
            self._report()
        if self._geotagger is not None and self._geotagger.autopilot is not None:
            self._geotagger.autopilot.beat(time.monotonic_ns())

    def armed(self) -> bool | None:
        """Whether the autopilot says that it is armed; None where none is connected or heard."""
        said = {one.armed for one in self._autopilots()}
        return True if True in said else False if False in said else None

    def battery_wh(self) -> float | None:
        """Return what the aircraft's battery has left; None where no autopilot states it."""
        left = [vehicle.battery.left_wh(time.monotonic_ns()) for vehicle in self._autopilots()]
        return next((wh for wh in left if wh is not None), None)

    def _autopilots(self) -> list[Autopilot]:
        autopilot = self._geotagger.autopilot if self._geotagger is not None else None
        return [autopilot] if autopilot is not None else self._links.vehicles if self._links is not None else []

    def publish(self, event: Event) -> Event:
        """Publish an event with its incident, and with a small picture when it begins; return it as published."""
        event = self._incidents.join(event)
        if self._links is not None:
            try:
                picture = thumbnail(self._frame) if event.type == "begin" and self._frame is not None else b""
                self._links.publish(event, picture)
                self.faults.clear()
            except Exception as error:  # the event is still recorded
                self.faults.note(error)
        return event

    @property
    def watched(self) -> list[Worker | Faults]:
        """The supervised threads and callbacks of links and autopilots; the faults of locating and publishing."""
        watched: list[Worker | Faults] = [self.faults, *(one.worker for one in self._autopilots())]
        return watched if self._links is None else [*watched, *self._links.workers, *self._links.faults]

    def links_note(self) -> str | None:
        """Return the troubles of the links, such as a broker that does not answer; None where all are connected."""
        troubles = {} if self._links is None else self._links.troubles()
        return "; ".join(f"link {name}: {trouble}" for name, trouble in troubles.items() if trouble) or None

    def _open_links(self, config: PeripheralConfig, take_bank: Callable[[bytes], str]) -> Links | None:
        if not config.links:
            return None
        from overflight.runtime.links import Links

        autopilot = self._geotagger.autopilot if self._geotagger else None
        return Links.open(config.links, config.outbox or default_outbox(), vehicle=autopilot, on_bank=take_bank)

    def close(self) -> None:
        """Deliver what can be delivered soon, log what waits and what was shed, and close everything."""
        if self._links is not None:
            for status in self._links.close(LANDING_S):
                say("link", **msgspec.structs.asdict(status))
        if self._geotagger is not None:
            for line in self._geotagger.refused[self._refused :]:
                say("telemetry refused", reason=line)
            self._geotagger.close()

    def _check_telemetry(self, *, located: bool) -> None:
        """Count the frames without a pose, and warn when none has had one for some seconds."""
        now_s = time.monotonic()
        if located:
            self._located_s = now_s
            self._warnings.set("telemetry", None)
            return
        self.without_pose = (self.without_pose or 0) + 1
        if now_s - self._located_s >= UNLOCATED_S:
            self._warnings.set("telemetry", f"no pose for a frame in the last {UNLOCATED_S:.0f} seconds; check --pose")

    def _report(self) -> None:
        """Log each link's trouble when it changes."""
        if self._links is None or time.monotonic() < self._report_s:
            return
        self._report_s = time.monotonic() + REPORT_S
        for name, trouble in self._links.troubles().items():
            if trouble is not None or name not in self._positionless:
                self._warnings.set(f"link {name}", trouble)


def _needing_positions(config: PeripheralConfig) -> list[str]:
    """Return the names of the links whose messages are markers on a map."""
    addresses = [LinkAddress.parse(uri) for uri in config.links]
    return [address.name for address in addresses if address.scheme.startswith("cot+")]


def open_geotagger(config: PeripheralConfig, source: str) -> Geotagger | None:
    """Open the telemetry of ``--pose`` and ``--camera``; None without. Raises UsageError, MissingError, SourceError."""
    for name, value in (("--camera", config.camera), ("--terrain", config.terrain)):
        if value and not config.pose:
            raise UsageError(f"{name}: a picture has no place without telemetry; name the telemetry with --pose")
    if not config.pose:
        return None
    from overflight.runtime.pose.geotag import Geotagger

    path = Path(source)
    directory = folder_of(source)
    if path.is_file() and path.suffix.lower() not in STILL_SUFFIXES:
        directory = None
    opened = Geotagger.open(config.pose, config.camera, directory=directory, terrain=config.terrain)
    for line in opened.refused:
        say("telemetry refused", reason=line)
    return opened


def thumbnail(frame: Frame) -> bytes:
    """Return a frame as a JPEG 160 pixels wide, about 4 kB; empty where it cannot be made."""
    return small_jpeg(frame, THUMBNAIL_PX, THUMBNAIL_QUALITY)
