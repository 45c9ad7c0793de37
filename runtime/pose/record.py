"""A pose: where a camera was and where it looked, with what is known about the error."""

from __future__ import annotations

from typing import Literal

import msgspec

HeightAbove = Literal["ground", "takeoff"]
DEFAULT_H_ACC_M = 5.0  # a single-frequency receiver under open sky, where the source says nothing
Quality = Literal["fix", "interpolated", "extrapolated", "stale"]


class Attitude(msgspec.Struct, frozen=True):
    """Yaw, pitch and roll in degrees, applied in that order (Z, Y, X) from north-east-down axes.

    Yaw is clockwise from true north, pitch is positive upwards (a camera that looks straight down has -90), roll is
    positive to the right.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


class Pose(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a camera was at ``utc_ns`` (0 where nothing names the time), WGS-84 degrees.

    ``height_m`` is above what ``height_above`` says: the ground below, or the take-off point, which differs from it by
    the terrain. ``altitude_m`` is above mean sea level as the aircraft reports it. ``vehicle`` is the airframe's
    attitude, ``gimbal`` the camera's own, both against the earth. ``heading_deg`` is where the nose points when no full
    attitude is known. ``h_acc_m`` is the horizontal error radius (68 %) at capture time, growing with the age of what
    it was made from; ``quality`` says how it was made: a ``stale`` pose is the last known one, moved by nothing.
    ``ground_m`` is the height above the sea of what ``height_m`` counts from, where the telemetry says it.
    ``zoom`` is the digital zoom of the picture: it shows so much less than the lens does.
    """

    utc_ns: int
    lat_deg: float
    lon_deg: float
    height_m: float | None = None
    height_above: HeightAbove = "takeoff"
    altitude_m: float | None = None
    vehicle: Attitude | None = None
    gimbal: Attitude | None = None
    heading_deg: float | None = None
    north_mps: float | None = None
    east_mps: float | None = None
    h_acc_m: float | None = None
    quality: Quality = "fix"
    age_ns: int = 0
    zoom: float = 1.0
    ground_m: float | None = None
