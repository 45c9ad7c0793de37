"""MAVLink: events as texts on the pilot's ground station, and as tracked points on its map.

STATUSTEXT when an event begins or ends, CAMERA_TRACKING_GEO_STATUS with its place at every step; nothing else is ever
sent, and nothing that steers. MAVLink acknowledges no text: one counts as delivered when a heartbeat of the vehicle
was heard after it, which also keeps texts a second apart; whatever was sent into a silence is sent again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from overflight.runtime.links.message import LinkDown, Message

if TYPE_CHECKING:
    from overflight.runtime.event import Event
    from overflight.runtime.pose.autopilot import Autopilot

NOTICE, INFO = 5, 6  # MAV_SEVERITY
TEXT_BYTES = 50
TRACKING_ACTIVE, TRACKING_IDLE = 1, 0  # CAMERA_TRACKING_STATUS_FLAGS
HEARD_S = 3.0  # three heartbeats missed: nobody is there
NOT_KNOWN = float("nan")


class MavlinkLink:
    """The autopilot, whose connection the pose track may share."""

    overhead_bytes = 25  # MAVLink 2 framing with a signature
    grace_s = 0.0
    refresh_s: float | None = None

    def __init__(self, vehicle: Autopilot) -> None:
        self._vehicle = vehicle

    def open(self) -> None:
        """See whether the vehicle is heard."""
        if time.monotonic_ns() - self._vehicle.heard_ns > HEARD_S * 1e9 or self._vehicle.system is None:
            raise LinkDown(f"{self._vehicle.address.device}: {self._vehicle.problem or 'no heartbeat of a vehicle'}")

    def check(self) -> None:
        """See whether the vehicle is still heard."""
        self.open()

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the status text; empty for a change, which only moves the tracked point; None for a picture."""
        if message.kind == "thumbnail":
            return None
        return b"" if message.event.type == "change" else text(message.event)

    def send(self, message: Message, payload: bytes) -> None:
        """Send the text and the place, and wait for the vehicle's next heartbeat."""
        self.open()
        event = message.event
        if payload and not self._vehicle.send(
            lambda mav: mav.statustext_send(NOTICE if event.type == "begin" else INFO, payload)
        ):
            raise LinkDown(f"{self._vehicle.address.device}: {self._vehicle.problem}")
        if event.place is not None and not self._vehicle.send(lambda mav: _track(mav, event)):
            raise LinkDown(f"{self._vehicle.address.device}: {self._vehicle.problem}")
        if payload:
            self._confirm()

    def close(self) -> None:
        """Leave the connection to its owner."""

    def _confirm(self) -> None:
        sent_ns = time.monotonic_ns()
        while self._vehicle.heard_ns <= sent_ns:
            if time.monotonic_ns() - sent_ns > HEARD_S * 1e9:
                raise LinkDown(f"{self._vehicle.address.device}: no heartbeat since the text was sent")
            time.sleep(0.02)


def text(event: Event) -> bytes:
    """Return an event in at most 50 bytes: its number, label, score and place; the label gives way."""
    number = event.id.rpartition("-")[2][-6:]
    known = event.place or event.pose
    place = f" {known.lat_deg:.5f},{known.lon_deg:.5f}" if known else ""
    head, tail = f"#{number} {'end ' if event.type == 'end' else ''}", f" {event.score:.0%}{place}"
    room = TEXT_BYTES - len(head.encode()) - len(tail.encode())
    label = event.label.encode()[: max(0, room)].decode(errors="ignore")
    return (head + label + tail).encode()[:TEXT_BYTES]


def _track(mav: Any, event: Event) -> None:
    place = event.place
    if place is None:
        return
    mav.camera_tracking_geo_status_send(
        TRACKING_IDLE if event.type == "end" else TRACKING_ACTIVE,
        round(place.lat_deg * 1e7),
        round(place.lon_deg * 1e7),
        NOT_KNOWN,
        place.error_m,
        *[NOT_KNOWN] * 8,
    )
