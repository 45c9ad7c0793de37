"""What a flight carries besides its camera: telemetry that says where, and links that say it to whom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.decisions.incident import Incidents
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.flight.log import say
from overflight.runtime.paths import default_outbox
from overflight.runtime.tiles import window_gsd_m

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.event import Event
    from overflight.runtime.frame import Frame
    from overflight.runtime.links import Links
    from overflight.runtime.observe import FrameResult
    from overflight.runtime.pose.geotag import Geotagger

LANDING_S = 5.0  # what the links get at the end of a flight; the rest waits for the next one
REPORT_S = 5.0
THUMBNAIL_PX = 160
THUMBNAIL_QUALITY = 60


@dataclass(frozen=True)
class PeripheralConfig:
    """The addresses that ``overflight run`` was given; ``outbox`` is the file that keeps what waits for the links."""

    pose: str | None = None
    camera: str | None = None
    links: tuple[str, ...] = ()
    outbox: Path | None = None


class Peripherals:
    """Sees every frame of a flight and tells its events. Without an address it does nothing, at no cost.

    ``take_bank`` takes a label bank that comes over a link; until the flight sets it, banks are refused.
    """

    def __init__(self, outfit: PeripheralConfig, source: str) -> None:
        """Open telemetry and links. Raises what they raise: before the flight, never in it."""
        if outfit.camera and not outfit.pose:
            raise UsageError("--camera: without telemetry a picture has no place; name it with --pose")
        self.take_bank: Callable[[bytes], str] | None = None
        self._whereabouts = _whereabouts(outfit, source)
        try:
            self._links = self._open_links(outfit)
        except OverflightError:
            if self._whereabouts is not None:
                self._whereabouts.close()
            raise
        self._incidents = Incidents()
        self._frame: Frame | None = None
        self._told: dict[str, str | None] = {}
        self._report_s = 0.0
        self._refused = len(self._whereabouts.refused) if self._whereabouts else 0

    def see(self, sight: FrameResult) -> FrameResult:
        """Return the sight with its pose and place, and show the links that the loop lives."""
        self._frame = sight.frame
        if self._links is not None:
            self._links.tick()
            self._report()
        if self._whereabouts is None:
            return sight
        if self._whereabouts.vehicle is not None:
            self._whereabouts.vehicle.beat(time.monotonic_ns())
        return sight._replace(observation=self._whereabouts.observe(sight.frame, sight.observation))

    def gsd_m(self, frame: Frame) -> float | None:
        """Return how many metres of ground a pixel of the frame covers, where a mosaic or telemetry tells."""
        if self._whereabouts is None or frame.window is not None:
            return window_gsd_m(frame)
        _, place = self._whereabouts.locate(frame)
        return None if place is None else place.gsd_m

    def tell(self, event: Event) -> Event:
        """Return the event with its incident, and publish it, with a small picture when it begins."""
        event = self._incidents.join(event)
        if self._links is not None:
            picture = thumbnail(self._frame) if event.type == "begin" and self._frame is not None else b""
            self._links.publish(event, picture)
        return event

    def _open_links(self, outfit: PeripheralConfig) -> Links | None:
        if not outfit.links:
            return None
        from overflight.runtime.links import Links

        vehicle = self._whereabouts.vehicle if self._whereabouts else None
        return Links.open(outfit.links, outfit.outbox or default_outbox(), vehicle=vehicle, on_bank=self._bank)

    def _bank(self, raw: bytes) -> str:
        if self.take_bank is None:
            raise OverflightError("not flying yet; send the bank again")
        return self.take_bank(raw)

    def close(self) -> None:
        """Deliver what can be delivered soon, say what waits and what was shed, and let everything go."""
        if self._links is not None:
            for status in self._links.close(LANDING_S):
                say("link", **msgspec.structs.asdict(status))
        if self._whereabouts is not None:
            for line in self._whereabouts.refused[self._refused :]:
                say("telemetry refused", reason=line)
            self._whereabouts.close()

    def _report(self) -> None:
        """Say it when a link's trouble changes."""
        if self._links is None or time.monotonic() < self._report_s:
            return
        self._report_s = time.monotonic() + REPORT_S
        for name, trouble in self._links.troubles().items():
            if self._told.get(name, "") != trouble:
                say("link", name=name, trouble=trouble)
                self._told[name] = trouble


def _whereabouts(outfit: PeripheralConfig, source: str) -> Geotagger | None:
    if not outfit.pose:
        return None
    from overflight.runtime.pose.geotag import Geotagger

    path = Path(source)
    directory = path if path.is_dir() else path.parent if path.parent.is_dir() else None
    opened = Geotagger.open(outfit.pose, outfit.camera, directory=directory)
    for line in opened.refused:
        say("telemetry refused", reason=line)
    return opened


def thumbnail(frame: Frame) -> bytes:
    """Return a frame as a JPEG 160 pixels wide, about 4 kB; empty where it cannot be made."""
    from overflight.runtime.sources.image import opencv

    cv2 = opencv()
    height, width = frame.pixels.shape[:2]
    size = (THUMBNAIL_PX, max(1, round(height * THUMBNAIL_PX / width)))
    small = cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA)
    if frame.order == "rgb":
        small = small[:, :, ::-1]
    made, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    return bytes(jpeg) if made else b""
