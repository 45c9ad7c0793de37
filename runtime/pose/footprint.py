"""The footprint: which ground a picture, or a tile of it, shows, and how well that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.runtime.geodesy import offset
from overflight.runtime.pose.attitude import Quaternion, Vector, rotate, to_quaternion
from overflight.runtime.pose.record import DEFAULT_H_ACC_M

if TYPE_CHECKING:
    from overflight.runtime.pose.camera_model import CameraModel
    from overflight.runtime.pose.record import Attitude, Pose
    from overflight.runtime.pose.terrain import Terrain

MAX_RANGE_M = 1500.0  # beyond it a degree of gimbal error is worth hundreds of metres
MIN_HEIGHT_M = 1.0  # below it the aircraft stands on the ground
ATTITUDE_ERROR_DEG = 2.0  # of a gimbal and a compass in ordinary order
HEIGHT_ERROR_SHARE = 0.05
HEIGHT_ERROR_M = 2.0  # of a barometer after a flight's drift
GROUND_SLOPE = 0.1  # what flat ground is assumed to be wrong by: a metre in ten, away from below the camera

Tile = tuple[float, float, float, float]
WHOLE: Tile = (0.0, 0.0, 1.0, 1.0)


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where on the ground what was seen lies, WGS-84 degrees.

    ``lat_deg``, ``lon_deg`` is its middle and ``error_m`` the radius (68 %) within which that middle is known; the
    extent of the picture itself is ``footprint``: (lon, lat) corners, counter-clockwise, the first not repeated, empty
    where the camera's heading is not known. ``gsd_m`` is the ground sample distance at the middle, in the coarser
    direction. ``clipped`` says that the view reached the horizon or the range limit and was cut there; ``stale`` that
    it was made from a pose too old to trust. ``ground`` says what the rays were intersected with: ``flat`` ground was
    assumed, ``terrain`` taken from an elevation model.
    """

    lat_deg: float
    lon_deg: float
    error_m: float
    footprint: tuple[tuple[float, float], ...] = ()
    gsd_m: float | None = None
    clipped: bool = False
    stale: bool = False
    ground: Literal["flat", "terrain"] | None = None


Hit = tuple[float, float, float, bool]  # north and east of the camera, the ground below it, whether cut: metres


@dataclass(frozen=True)
class _View:
    """A camera over the ground: its pose and attitude, the tangents of its half angles, its range limit in metres.

    Without ``terrain`` the ground is flat and ``height_m`` below the camera; with it, the camera is ``eye_m`` above the
    sea.
    """

    pose: Pose
    attitude: Quaternion
    across: float
    down: float
    height_m: float
    range_m: float
    terrain: Terrain | None = None
    eye_m: float = 0.0

    def ray(self, x: float, y: float) -> Vector:
        """Return the direction (north, east, down) of the picture's point ``x``, ``y`` in [0, 1] from its top left."""
        return rotate(self.attitude, (1.0, (2 * x - 1) * self.across, (2 * y - 1) * self.down))

    def hits(self, points: list[tuple[float, float]]) -> list[Hit] | None:
        """Return where the rays of points meet the ground; None where the terrain is not known there."""
        rays = [self.ray(x, y) for x, y in points]
        if self.terrain is None:
            return [self._flat(ray) for ray in rays]
        found = self.terrain.hits(self.pose, self.eye_m, rays, self.range_m)
        return None if found is None else [(n, e, self.eye_m - ground_m, cut) for n, e, ground_m, cut in found]

    def _flat(self, ray: Vector) -> Hit:
        north, east, down = ray
        level = math.hypot(north, east)
        if level * self.height_m <= down * self.range_m:
            return north / down * self.height_m, east / down * self.height_m, self.height_m, False
        return north / level * self.range_m, east / level * self.range_m, self.height_m, True


def locate(
    pose: Pose,
    camera: CameraModel,
    size: tuple[int, int],
    tile: Tile = WHOLE,
    *,
    range_m: float = MAX_RANGE_M,
    terrain: Terrain | None = None,
) -> Place | None:
    """Return the ground that a picture of ``size`` (width, height) pixels shows, or one ``tile`` of it.

    ``tile`` is (left, top, right, bottom) in shares of the picture. Without ``terrain``, or where it has a hole, the
    ground is flat and ``camera.ground_m`` above the take-off point. None where nothing can be said: no height, no
    direction, or no ground within ``range_m``.
    """
    looking = camera.attitude(pose)
    if looking is None and not camera.looks_down(pose):
        return None
    if terrain is not None:
        eye = terrain.eye_m(pose, camera.ground_m)
        below_m = terrain.height_m(pose.lat_deg, pose.lon_deg)
        if eye is not None and below_m is not None:
            height_m = eye[0] - below_m
            error_m = math.hypot(eye[1], height_error_m(height_m))
            view = _view(pose, looking, camera.tangents(*size, pose.zoom), height_m, range_m, terrain, eye[0])
            place, known = _place(view, size, tile, error_m, looking is None)
            if known:
                return place
    flat_m = above_ground_m(pose, camera)
    if flat_m is None:
        return None
    view = _view(pose, looking, camera.tangents(*size, pose.zoom), flat_m, range_m)
    return _place(view, size, tile, height_error_m(flat_m), looking is None)[0]


def _view(
    pose: Pose,
    looking: Attitude | None,
    tangents: tuple[float, float],
    height_m: float,
    range_m: float,
    terrain: Terrain | None = None,
    eye_m: float = 0.0,
) -> _View:
    attitude = to_quaternion(looking) if looking is not None else (1.0, 0.0, 0.0, 0.0)
    return _View(pose, attitude, *tangents, height_m, range_m, terrain, eye_m)


def _place(
    view: _View, size: tuple[int, int], tile: Tile, height_error: float, below: bool
) -> tuple[Place | None, bool]:
    """Return the place that a view shows, and whether the ground was known; ``below`` where the heading is not."""
    pose = view.pose
    ground: Literal["flat", "terrain"] = "flat" if view.terrain is None else "terrain"
    if view.height_m < MIN_HEIGHT_M:
        return None, True
    stale = pose.quality == "stale"
    pose_error_m = pose.h_acc_m if pose.h_acc_m is not None else DEFAULT_H_ACC_M
    if below:
        gsd_m = 2 * view.across * view.height_m / size[0]
        return Place(pose.lat_deg, pose.lon_deg, pose_error_m, gsd_m=gsd_m, stale=stale, ground=ground), True
    left, top, right, bottom = tile
    points = [(left, bottom), (right, bottom), (right, top), (left, top), ((left + right) / 2, (top + bottom) / 2)]
    hits = view.hits(points)
    border = None if hits is None else _outline(view, points[:4], hits[:4])
    if hits is None or border is None:
        return None, False
    corners, clipped = border
    if not corners:
        return None, True
    north_m, east_m, height_m, cut = hits[4]
    if cut:
        north_m, east_m = (sum(c[i] for c in corners) / len(corners) for i in (0, 1))
    height_m = max(height_m, MIN_HEIGHT_M)  # terrain may rise to the camera
    lat_deg, lon_deg = offset(pose.lat_deg, pose.lon_deg, north_m, east_m)
    away_m = math.hypot(north_m, east_m)
    slant_m = math.hypot(away_m, height_m)
    if view.terrain is None:
        height_error = math.hypot(height_error, GROUND_SLOPE * away_m)
    error_m = math.hypot(
        pose_error_m,
        pitch_error_m(height_m, away_m, range_m=view.range_m),
        math.radians(ATTITUDE_ERROR_DEG) * away_m,
        away_m / height_m * height_error,
    )
    ring = tuple((lon, lat) for lat, lon in (offset(pose.lat_deg, pose.lon_deg, n, e) for n, e in corners))
    gsd_m = 2 * view.across / size[0] * slant_m * slant_m / height_m
    return Place(lat_deg, lon_deg, error_m, ring, gsd_m, clipped, stale, ground), True


def height_error_m(height_m: float) -> float:
    """Return how well a height above the take-off point is known."""
    return max(HEIGHT_ERROR_M, HEIGHT_ERROR_SHARE * height_m)


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


def _outline(
    view: _View, corners: list[tuple[float, float]], hits: list[Hit]
) -> tuple[list[tuple[float, float]], bool] | None:
    """Walk the picture's border over the ground, counter-clockwise; finer where the range limit bends it.

    Empty where no ground is in sight, None where the terrain is not known.
    """
    clipped = any(cut for *_, cut in hits)
    if clipped:
        steps = [i / 8 for i in range(8)]
        border = [
            (x0 + s * (x1 - x0), y0 + s * (y1 - y0))
            for (x0, y0), (x1, y1) in pairwise([*corners, corners[0]])
            for s in steps
        ]
        finer = view.hits(border)
        if finer is None:
            return None
        if all(cut for *_, cut in finer):
            return [], True
        hits = finer
    ring = [(north, east) for north, east, *_ in hits]
    twice_area = sum(a[1] * b[0] - b[1] * a[0] for a, b in pairwise([*ring, ring[0]]))
    return (ring if twice_area > 0 else ring[::-1]), clipped
