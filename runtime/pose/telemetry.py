"""MAVLink telemetry as poses: what an autopilot's messages say, and when it was so."""

from __future__ import annotations

import math
from typing import Any

from overflight.runtime.pose.attitude import from_quaternion
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.record import Attitude, HeightAbove, Pose
from overflight.runtime.pose.track import Clock, PoseTrack

DOWNWARD = 25  # MAV_SENSOR_ROTATION_PITCH_270
YAW_IN_VEHICLE_FRAME, YAW_IN_EARTH_FRAME, YAW_LOCK = 32, 64, 16  # GIMBAL_DEVICE_FLAGS
UNKNOWN_HEADING = 65535
FIX_2D = 2
GROUND_FRESH_MS = 1000
MESSAGES = frozenset({2, 24, 30, 33, 132, 136, 158, 285})  # those that Telemetry.take knows
CLOCK_DRIFT = 100e-6  # two crystals may part by this much, so the least delay is forgotten as slowly
CLOCK_STEP_NS = 10_000_000_000  # no line delays a message by so much
REBOOT_MS = 2000


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
        if self.track.clock == "utc" and self._offset_ns is not None:  # a station's clock may be set meanwhile
            stepped = abs(delay_ns - self._offset_ns) > CLOCK_STEP_NS
            self._offset_ns = None if stepped else self._offset_ns
        if self._offset_ns is None:
            self._offset_ns = delay_ns
        else:
            forgotten_ns = max(0, arrived_ns - self._arrived_ns) * CLOCK_DRIFT
            self._offset_ns = min(self._offset_ns + forgotten_ns, delay_ns)
        self._arrived_ns = arrived_ns
        return boot_ms * 1_000_000 + round(self._offset_ns)
