"""The autopilot on a MAVLink connection: its telemetry as a pose track, and the few messages that may be sent to it.

One connection serves both, because a serial line has one owner. Nothing here steers: what is sent is a heartbeat,
STATUSTEXT and CAMERA_TRACKING_GEO_STATUS, and, only where ``rate=`` asks for it, SET_MESSAGE_INTERVAL.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from overflight.runtime.errors import MissingError, UsageError, missing_extra
from overflight.runtime.pose.battery import BatteryGauge
from overflight.runtime.pose.telemetry import Telemetry
from overflight.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

COMPONENT = 191  # MAV_COMP_ID_ONBOARD_COMPUTER
GROUND_STATION = 6  # MAV_TYPE_GCS
ONBOARD_CONTROLLER = 18  # MAV_TYPE_ONBOARD_CONTROLLER
NO_AUTOPILOT = 8  # MAV_AUTOPILOT_INVALID
ARMED = 128  # MAV_MODE_FLAG_SAFETY_ARMED
HEARD_NS = 5_000_000_000
ACTIVE = 4  # MAV_STATE_ACTIVE
SET_MESSAGE_INTERVAL = 511
STREAMS = (33, 30, 24, 2, 132, 285, 147)  # position, attitude, GPS, system time, rangefinder, gimbal, battery
HEARTBEAT_NS = 1_000_000_000
KEEP_NS = 60_000_000_000
RETRY_S = 1.0


class Address(msgspec.Struct, frozen=True):
    """Where the autopilot is: pymavlink's device string and our own place on the bus."""

    device: str
    baud: int = 57600
    system: int | None = None
    component: int = COMPONENT
    rate_hz: float = 0.0

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read ``udpin:0.0.0.0:14550``, ``tcp:HOST:PORT``, ``/dev/ttyUSB0`` with ``?baud=…&rate=…&system=…``."""
        device, _, query = uri.removeprefix("mavlink:").partition("?")
        options = dict(parse_qsl(query))
        known = {"baud", "system", "component", "rate"}
        if set(options) - known or not device:
            raise UsageError(f"{uri}: expected DEVICE?baud=57600&rate=10&system=1&component=191, each option optional")
        try:
            return cls(
                device,
                int(options.get("baud", "57600")),
                int(options["system"]) if "system" in options else None,
                int(options.get("component", str(COMPONENT))),
                float(options.get("rate", "0")),
            )
        except ValueError as error:
            raise UsageError(f"{uri}: {error}; baud, system, component and rate are numbers") from error


class Autopilot:
    """A connected autopilot. ``track`` fills from a reading thread, on the monotonic clock."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.telemetry = Telemetry("monotonic", keep_ns=KEEP_NS)
        self.battery = BatteryGauge()
        self.system: int | None = None
        self.heard_ns = 0
        self._armed = False
        self.problem: str | None = None
        self._sending = threading.Lock()
        self._beaten_ns = 0
        self._connection = _connect(address)
        self.worker = Worker("autopilot", self._read, longest_retry_s=RETRY_S)
        self.worker.start()

    def send(self, message: Callable[[Any], None], *, unheard: bool = False) -> bool:
        """Send by calling ``message`` with pymavlink's sender; False while no vehicle is heard or the line is down."""
        connection = self._connection
        if connection is None or (self.system is None and not unheard):
            return False
        try:
            with self._sending:
                message(connection.mav)
        except Exception as error:
            self.problem = f"{self.address.device}: {error}"
            return False
        return True

    def beat(self, now_ns: int) -> None:
        """Send a heartbeat if one is due: called from the working loop, so that a stalled loop falls silent."""
        if now_ns - self._beaten_ns < HEARTBEAT_NS:
            return
        self._beaten_ns = now_ns
        calling = self.address.device.startswith("udpout:")  # an autopilot that listens must hear us first
        self.send(lambda mav: mav.heartbeat_send(ONBOARD_CONTROLLER, NO_AUTOPILOT, 0, 0, ACTIVE), unheard=calling)

    @property
    def armed(self) -> bool | None:
        """Whether the autopilot says that its motors are armed; None where it has not been heard for 5 s."""
        if self.system is None or time.monotonic_ns() - self.heard_ns > HEARD_NS:
            return None
        return self._armed

    def close(self) -> None:
        """Stop reading and let the line go."""
        self.worker.close(3.0)
        if self._connection is not None:
            self._connection.close()

    def _read(self) -> float:
        """Take one message, or connect again after a pause."""
        try:
            if self._connection is None:
                self._connection = _connect(self.address)
            message = self._connection.recv_match(blocking=True, timeout=0.2)
        except Exception as error:
            self.problem = f"{self.address.device}: {error}"
            if self._connection is not None:
                with suppress(Exception):
                    self._connection.close()
            self._connection = None
            if isinstance(error, (OSError, MissingError)):  # a line that is down is no fault of ours
                return RETRY_S
            raise
        if message is not None:
            self._take(message)
        return 0.0

    def _take(self, message: Any) -> None:
        arrived_ns = time.monotonic_ns()
        if message.get_type() == "HEARTBEAT":
            self._meet(message)
        elif self.system is None or message.get_srcSystem() == self.system:
            self.telemetry.take(message, arrived_ns)
            self.battery.take(message, arrived_ns)

    def _meet(self, heartbeat: Any) -> None:
        """Learn the vehicle's system id from the first heartbeat of an autopilot, and use it for our own component."""
        if self.system is not None and heartbeat.get_srcSystem() == self.system and heartbeat.autopilot != NO_AUTOPILOT:
            self.heard_ns = time.monotonic_ns()
            self._armed = bool(heartbeat.base_mode & ARMED)
        if self.system is not None or heartbeat.type == GROUND_STATION or heartbeat.autopilot == NO_AUTOPILOT:
            return
        system = heartbeat.get_srcSystem()
        if self.address.system is not None and system != self.address.system:
            return
        mav = self._connection.mav
        mav.srcSystem, mav.srcComponent = system, self.address.component
        self._armed = bool(heartbeat.base_mode & ARMED)
        self.system, self.heard_ns = system, time.monotonic_ns()
        if self.address.rate_hz > 0:
            interval_us = 1e6 / self.address.rate_hz
            for stream in STREAMS:
                mav.command_long_send(
                    system, heartbeat.get_srcComponent(), SET_MESSAGE_INTERVAL, 0, stream, interval_us, 0, 0, 0, 0, 0
                )


def _connect(address: Address) -> Any:
    os.environ.setdefault("MAVLINK20", "1")  # pymavlink's own switch, read when it is imported
    try:
        from pymavlink import mavutil
    except ImportError as error:
        raise missing_extra("pymavlink", "mavlink") from error
    try:
        return mavutil.mavlink_connection(
            address.device,
            baud=address.baud,
            source_system=address.system or 1,
            source_component=address.component,
            autoreconnect=False,
            dialect="ardupilotmega",
        )
    except (OSError, ValueError) as error:
        raise MissingError(f"{address.device}: {error}; expected udpin:0.0.0.0:14550 or a port") from error
