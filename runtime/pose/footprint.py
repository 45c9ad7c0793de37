"""The footprint: which ground a picture, or a tile of it, shows, and how well that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.pose.attitude import Quaternion, Vector, rotate, to_quaternion
from overflight.runtime.pose.geodesy import offset
from overflight.runtime.pose.record import DEFAULT_H_ACC_M

if TYPE_CHECKING:
    from overflight.runtime.pose.camera_model import CameraModel
    from overflight.runtime.pose.record import Pose

MAX_RANGE_M = 1500.0  # beyond it a degree of gimbal error is worth hundreds of metres
MIN_HEIGHT_M = 1.0  # below it the aircraft stands on the ground
ATTITUDE_ERROR_DEG = 2.0  # of a gimbal and a compass in ordinary order
HEIGHT_ERROR_SHARE = 0.05
HEIGHT_ERROR_M = 2.0  # of a barometer after a flight's drift

Tile = tuple[float, float, float, float]
WHOLE: Tile = (0.0, 0.0, 1.0, 1.0)


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where on the ground what was seen lies, WGS-84 degrees.

    ``lat_deg``, ``lon_deg`` is its middle and ``error_m`` the radius (68 %) within which that middle is known; the
    extent of the picture itself is ``footprint``: (lon, lat) corners, counter-clockwise, the first not repeated, empty
    where the camera's heading is not known. ``gsd_m`` is the ground sample distance at the middle, in the coarser
    direction. ``clipped`` says that the view reached the horizon or the range limit and was cut there; ``stale`` that
    it was made from a pose too old to trust.
    """

    lat_deg: float
    lon_deg: float
    error_m: float
    footprint: tuple[tuple[float, float], ...] = ()
    gsd_m: float | None = None
    clipped: bool = False
    stale: bool = False


@dataclass(frozen=True)
class _View:
    """A camera over flat ground: its attitude, the tangents of its half angles, height and range limit in metres."""

    attitude: Quaternion
    across: float
    down: float
    height_m: float
    range_m: float

    def ray(self, x: float, y: float) -> Vector:
        """Return the direction (north, east, down) of the picture's point ``x``, ``y`` in [0, 1] from its top left."""
        return rotate(self.attitude, (1.0, (2 * x - 1) * self.across, (2 * y - 1) * self.down))

    def hit(self, x: float, y: float) -> tuple[float, float, bool]:
        """Return where the ray meets the ground (north_m, east_m), and whether it had to be cut at the range limit."""
        north, east, down = self.ray(x, y)
        level = math.hypot(north, east)
        if level * self.height_m <= down * self.range_m:
            return north / down * self.height_m, east / down * self.height_m, False
        return north / level * self.range_m, east / level * self.range_m, True


def locate(
    pose: Pose, camera: CameraModel, size: tuple[int, int], tile: Tile = WHOLE, *, range_m: float = MAX_RANGE_M
) -> Place | None:
    """Return the ground that a picture of ``size`` (width, height) pixels shows, or one ``tile`` of it.

    ``tile`` is (left, top, right, bottom) in shares of the picture. The ground is flat and ``camera.ground_m`` above
    the take-off point. None where nothing can be said: no height, no direction, or no ground within ``range_m``.
    """
    height_m = above_ground_m(pose, camera)
    if height_m is None or height_m < MIN_HEIGHT_M:
        return None
    looking = camera.attitude(pose)
    across, down = camera.tangents(*size, pose.zoom)
    pose_error_m = pose.h_acc_m if pose.h_acc_m is not None else DEFAULT_H_ACC_M
    stale = pose.quality == "stale"
    if looking is None:
        if not camera.looks_down(pose):
            return None
        return Place(pose.lat_deg, pose.lon_deg, pose_error_m, gsd_m=2 * across * height_m / size[0], stale=stale)
    view = _View(to_quaternion(looking), across, down, height_m, range_m)
    corners, clipped = _outline(view, tile)
    if corners is None:
        return None
    left, top, right, bottom = tile
    north_m, east_m, cut = view.hit((left + right) / 2, (top + bottom) / 2)
    if cut:
        north_m, east_m = (sum(c[i] for c in corners) / len(corners) for i in (0, 1))
    lat_deg, lon_deg = offset(pose.lat_deg, pose.lon_deg, north_m, east_m)
    away_m = math.hypot(north_m, east_m)
    slant_m = math.hypot(away_m, height_m)
    error_m = math.hypot(
        pose_error_m,
        pitch_error_m(height_m, away_m, range_m=range_m),
        math.radians(ATTITUDE_ERROR_DEG) * away_m,
        away_m / height_m * max(HEIGHT_ERROR_M, HEIGHT_ERROR_SHARE * height_m),
    )
    ring = tuple((lon, lat) for lat, lon in (offset(pose.lat_deg, pose.lon_deg, n, e) for n, e in corners))
    gsd_m = 2 * across / size[0] * slant_m * slant_m / height_m
    return Place(lat_deg, lon_deg, error_m, ring, gsd_m, clipped, stale)


def above_ground_m(pose: Pose, camera: CameraModel) -> float | None:
    """Return the height above the ground: as measured, or above take-off less the terrain between."""
    if pose.height_m is None:
        return None
    return pose.height_m if pose.height_above == "ground" else pose.height_m - camera.ground_m


def pitch_error_m(
    height_m: float, away_m: float, *, error_deg: float = ATTITUDE_ERROR_DEG, range_m: float = MAX_RANGE_M
) -> float:
    """How far a point ``away_m`` moves on the ground when the camera is pitched up by ``error_deg``."""
    depression = math.atan2(height_m, away_m) - math.radians(error_deg)
    limit = math.atan2(height_m, range_m)
    return height_m / math.tan(max(depression, limit)) - away_m if depression < math.pi / 2 else 0.0


def _outline(view: _View, tile: Tile) -> tuple[list[tuple[float, float]] | None, bool]:
    """Walk the picture's border over the ground, counter-clockwise; finer where the range limit bends it."""
    left, top, right, bottom = tile
    corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
    hits = [view.hit(x, y) for x, y in corners]
    clipped = any(cut for _, _, cut in hits)
    if clipped:
        steps = [i / 8 for i in range(8)]
        border = [
            (x0 + s * (x1 - x0), y0 + s * (y1 - y0))
            for (x0, y0), (x1, y1) in pairwise([*corners, corners[0]])
            for s in steps
        ]
        hits = [view.hit(x, y) for x, y in border]
        if all(cut for _, _, cut in hits):
            return None, True
    ring = [(north, east) for north, east, _ in hits]
    twice_area = sum(a[1] * b[0] - b[1] * a[0] for a, b in pairwise([*ring, ring[0]]))
    return (ring if twice_area > 0 else ring[::-1]), clipped
