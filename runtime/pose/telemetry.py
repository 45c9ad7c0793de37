"""MAVLink telemetry as poses: what an autopilot's messages say, and when it was so."""

from __future__ import annotations

import math
import mmap
import os
import re
from typing import TYPE_CHECKING, Any

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.pose.attitude import from_quaternion
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.record import Attitude, HeightAbove, Pose
from overflight.runtime.pose.track import Clock, PoseTrack

if TYPE_CHECKING:
    from pathlib import Path

DOWNWARD = 25  # MAV_SENSOR_ROTATION_PITCH_270
YAW_IN_VEHICLE_FRAME, YAW_IN_EARTH_FRAME, YAW_LOCK = 32, 64, 16  # GIMBAL_DEVICE_FLAGS
UNKNOWN_HEADING = 65535
FIX_2D = 2
GROUND_FRESH_MS = 1000
_WANTED = {2, 24, 30, 33, 132, 136, 158, 285}  # the messages that Telemetry.take knows
CLOCK_DRIFT = 100e-6  # two crystals may part by this much, so the least delay is forgotten as slowly
REBOOT_MS = 2000
MAX_BYTES = 256 << 20  # of a .tlog; an hour takes 20 to 100 MB
MAX_DAMAGED = 100_000
_MAGIC = re.compile(rb"[\xfd\xfe]")


class Telemetry:
    """A pose track made of MAVLink messages.

    The autopilot's clock counts from its boot. The smallest (arrival - boot time) seen is the offset between it and
    the clock of arrivals, within one transmission; what a busy line delays is thereby put back to when it was true.
    """

    def __init__(self, clock: Clock, *, keep_ns: int | None = None) -> None:
        self.track = PoseTrack(clock, keep_ns=keep_ns)
        self._offset_ns: float | None = None
        self._arrived_ns = 0
        self._boot_ms = 0
        self._epoch_ns = 0
        self._ground: tuple[int, float] | None = None
        self._vehicle: Attitude | None = None
        self._h_acc_m: float | None = None
        self._fixed = True

    def take(self, message: Any, arrived_ns: int) -> None:
        """Add what one message says; messages that say nothing of a pose are ignored."""
        match message.get_type():
            case "GLOBAL_POSITION_INT":
                self._position(message, arrived_ns)
            case "ATTITUDE":
                angles = [math.degrees(angle) for angle in (message.yaw, message.pitch, message.roll)]
                if all(map(math.isfinite, angles)):
                    self._vehicle = Attitude(angles[0] % 360.0, angles[1], angles[2])
                    self.track.turn(self._time_ns(message.time_boot_ms, arrived_ns), vehicle=self._vehicle)
            case "GIMBAL_DEVICE_ATTITUDE_STATUS":
                self._gimbal(message, arrived_ns)
            case "MOUNT_STATUS" if self._vehicle is not None:
                yaw_deg = (self._vehicle.yaw_deg + message.pointing_c / 100) % 360.0
                gimbal = Attitude(yaw_deg, message.pointing_a / 100, message.pointing_b / 100)
                self.track.turn(arrived_ns, gimbal=gimbal)
            case "DISTANCE_SENSOR" if message.orientation == DOWNWARD:
                self._rangefinder(message)
            case "TERRAIN_REPORT" if message.loaded and math.isfinite(message.current_height):
                self._ground = self._boot_ms, message.current_height
            case "GPS_RAW_INT":
                self._fixed = message.fix_type >= FIX_2D
                stated_mm = getattr(message, "h_acc", 0)
                self._h_acc_m = stated_mm / 1000 if stated_mm else None
            case "SYSTEM_TIME" if message.time_unix_usec:
                self._epoch_ns = message.time_unix_usec * 1000 - message.time_boot_ms * 1_000_000

    def _position(self, message: Any, arrived_ns: int) -> None:
        t_ns = self._time_ns(message.time_boot_ms, arrived_ns)
        if not self._fixed:
            return
        try:
            lat_deg, lon_deg = position(message.lat / 1e7, message.lon / 1e7)
        except ValueError:
            return
        height_m = message.relative_alt / 1000
        above: HeightAbove = "takeoff"
        if self._ground is not None and self._boot_ms - self._ground[0] <= GROUND_FRESH_MS:
            height_m, above = self._ground[1], "ground"
        boot_ns = message.time_boot_ms * 1_000_000
        pose = Pose(
            utc_ns=self._epoch_ns + boot_ns if self._epoch_ns else 0,
            lat_deg=lat_deg,
            lon_deg=lon_deg,
            height_m=height_m,
            height_above=above,
            altitude_m=message.alt / 1000,
            heading_deg=None if message.hdg == UNKNOWN_HEADING else message.hdg / 100,
            north_mps=message.vx / 100,
            east_mps=message.vy / 100,
            h_acc_m=self._h_acc_m,
        )
        self.track.add(t_ns, pose)

    def _gimbal(self, message: Any, arrived_ns: int) -> None:
        """Take the gimbal's attitude; a yaw against the vehicle's nose is turned by the vehicle's own."""
        if not all(map(math.isfinite, message.q)) or not any(message.q):
            return
        gimbal = from_quaternion(tuple(message.q))
        earth = message.flags & (YAW_IN_EARTH_FRAME | YAW_LOCK) and not message.flags & YAW_IN_VEHICLE_FRAME
        if not earth:
            if self._vehicle is None:
                return
            gimbal = Attitude((gimbal.yaw_deg + self._vehicle.yaw_deg) % 360.0, gimbal.pitch_deg, gimbal.roll_deg)
        self.track.turn(self._time_ns(message.time_boot_ms, arrived_ns), gimbal=gimbal)

    def _rangefinder(self, message: Any) -> None:
        if not message.min_distance < message.current_distance < message.max_distance:
            return
        tilt = 1.0
        if self._vehicle is not None:
            tilt = math.cos(math.radians(self._vehicle.pitch_deg)) * math.cos(math.radians(self._vehicle.roll_deg))
        self._ground = self._boot_ms, message.current_distance / 100 * tilt

    def _time_ns(self, boot_ms: int, arrived_ns: int) -> int:
        if boot_ms + REBOOT_MS < self._boot_ms:
            self._offset_ns, self._ground, self._epoch_ns = None, None, 0
        self._boot_ms = boot_ms
        delay_ns = float(arrived_ns - boot_ms * 1_000_000)
        if self._offset_ns is None:
            self._offset_ns = delay_ns
        else:
            forgotten_ns = max(0, arrived_ns - self._arrived_ns) * CLOCK_DRIFT
            self._offset_ns = min(self._offset_ns + forgotten_ns, delay_ns)
        self._arrived_ns = arrived_ns
        return boot_ms * 1_000_000 + round(self._offset_ns)


def read_tlog(path: Path) -> PoseTrack:
    """Read a ground station's ``.tlog`` as a track on the UTC clock of the station that wrote it.

    The file is a time in microseconds (big-endian, 8 bytes) before each packet. Damaged packets are counted in the
    track's ``refused``. Raises SourceError where there is no position in it.
    """
    os.environ.setdefault("MAVLINK20", "1")  # pymavlink's own switch, read when it is imported
    try:
        from pymavlink.dialects.v20 import ardupilotmega as dialect
    except ImportError as error:
        raise missing_extra("pymavlink", "mavlink") from error
    telemetry, parser = Telemetry("utc"), dialect.MAVLink(None)
    raw, place, damaged = _map(path), 0, 0
    while place + 8 < len(raw):
        length, kind = _packet(raw, place + 8)
        if length == 0:
            damaged, place = damaged + 1, _next_packet(raw, place + 1)
            if damaged > MAX_DAMAGED:
                raise SourceError(f"{path}: more than {MAX_DAMAGED} damaged packets; copy the log again")
            continue
        if kind in _WANTED:
            try:
                message = parser.decode(bytearray(raw[place + 8 : place + 8 + length]))
            except dialect.MAVError:
                damaged += 1
            else:
                telemetry.take(message, int.from_bytes(raw[place : place + 8], "big") * 1000)
        place += 8 + length
    if not len(telemetry.track):
        raise SourceError(f"{path}: no GLOBAL_POSITION_INT in this log; expected a .tlog of a flight with a position")
    if damaged:
        telemetry.track.refused = (f"{path}: {damaged} damaged packets were left out",)
    return telemetry.track


def _map(path: Path) -> mmap.mmap | bytes:
    """Map a log into memory, so that only the pages that are read take room."""
    with open_regular(path, MAX_BYTES) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _packet(raw: mmap.mmap | bytes, place: int) -> tuple[int, int]:
    """Return a packet's length and message id, 0 and -1 where none begins or the file ends inside it."""
    head = raw[place : place + 10]
    match head[:1]:
        case b"\xfd" if len(head) == 10:
            length = 12 + head[1] + (13 if head[2] & 1 else 0)
            kind = int.from_bytes(head[7:10], "little")
        case b"\xfe" if len(head) >= 6:
            length, kind = 8 + head[1], head[5]
        case _:
            return 0, -1
    return (length, kind) if place + length <= len(raw) else (0, -1)


def _next_packet(raw: mmap.mmap | bytes, place: int) -> int:
    """Return where the time of the next possible packet begins."""
    found = _MAGIC.search(raw, place + 8)
    return found.start() - 8 if found else len(raw)
