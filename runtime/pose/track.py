"""A track: poses through time, asked for at the moment a picture was taken."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import msgspec

from overflight.runtime.errors import SourceError
from overflight.runtime.geodesy import offset
from overflight.runtime.pose.attitude import slerp
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, Attitude, Pose, Quality

if TYPE_CHECKING:
    from overflight.runtime.pose.camera_model import CameraModel

Clock = Literal["monotonic", "utc", "media"]
T = TypeVar("T")

ACCELERATION_MPS2 = 3.0  # how hard a multirotor brakes or turns in ordinary flight
UNKNOWN_SPEED_MPS = 15.0  # what a multirotor may fly when the source gives no velocity
TOP_SPEED_MPS = 30.0
EXTRAPOLATE_NS = 500_000_000
POSITION_GAP_NS = 5_000_000_000
ATTITUDE_GAP_NS = 2_000_000_000
MAX_VALUES = 250_000  # an hour at 60 a second, with some to spare; about 90 MB


class _Series(Generic[T]):
    """Values in order of time; what is older than ``keep_ns`` is dropped.

    Late values are sorted in when the series is next read: putting each in its place would take time that grows with
    the square of a file that is written backwards.
    """

    def __init__(self, keep_ns: int | None) -> None:
        self.times: list[int] = []
        self.values: list[T] = []
        self._keep_ns = keep_ns
        self._sorted = True

    def add(self, t_ns: int, value: T) -> None:
        if len(self.times) == MAX_VALUES:
            self._make_room()
        self._sorted = self._sorted and (not self.times or self.times[-1] <= t_ns)
        self.times.append(t_ns)
        self.values.append(value)
        if self._keep_ns is not None and abs(t_ns - self.times[0]) > 2 * self._keep_ns:
            self.sort()
            cut = bisect_right(self.times, self.times[-1] - self._keep_ns)
            del self.times[:cut], self.values[:cut]

    def _make_room(self) -> None:
        """Drop the older half of a live series; refuse a file."""
        if self._keep_ns is None:
            raise SourceError(f"more than {MAX_VALUES} values in one track; expected one flight, cut the file")
        self.sort()
        del self.times[: MAX_VALUES // 2], self.values[: MAX_VALUES // 2]

    def sort(self) -> None:
        """Put the values in order of time; those of one time stay as they came."""
        if not self._sorted:
            order = sorted(range(len(self.times)), key=self.times.__getitem__)
            self.times = [self.times[i] for i in order]
            self.values = [self.values[i] for i in order]
            self._sorted = True

    def around(self, t_ns: int) -> tuple[int | None, int | None]:
        """Return the places of the last value at or before ``t_ns`` and of the first after it."""
        self.sort()
        place = bisect_right(self.times, t_ns)
        return (place - 1 if place else None), (place if place < len(self.times) else None)


class PoseTrack:
    """Poses on one clock, interpolated to the moment asked for.

    Between two positions no further apart than 5 s it interpolates, attitude by slerp; up to 0.5 s beyond the ends it
    extrapolates with the velocity; otherwise it returns the last known pose, marked ``stale``, its error radius grown
    with its age. Before anything is known it returns None. ``refused`` names what a reader could not use, by line.
    Safe to fill from one thread while another asks.
    """

    def __init__(self, clock: Clock, *, keep_ns: int | None = None) -> None:
        self.clock: Clock = clock
        self.refused: tuple[str, ...] = ()
        self._positions = _Series[Pose](keep_ns)
        self._vehicle = _Series[Attitude](keep_ns)
        self._gimbal = _Series[Attitude](keep_ns)
        self._camera = _Series["CameraModel"](keep_ns)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._positions.times)

    @property
    def times_ns(self) -> tuple[int, ...]:
        """When the track has a position, on its own clock."""
        with self._lock:
            self._positions.sort()
            return tuple(self._positions.times)

    @property
    def first(self) -> Pose | None:
        """The earliest pose that is kept."""
        with self._lock:
            self._positions.sort()
            return self._positions.values[0] if self._positions.values else None

    def add(self, t_ns: int, pose: Pose) -> None:
        """Add a position, with whatever attitudes it carries."""
        self.turn(t_ns, vehicle=pose.vehicle, gimbal=pose.gimbal)
        with self._lock:
            self._positions.add(t_ns, pose)

    def turn(self, t_ns: int, *, vehicle: Attitude | None = None, gimbal: Attitude | None = None) -> None:
        """Add an attitude that came without a position."""
        with self._lock:
            if vehicle is not None:
                self._vehicle.add(t_ns, vehicle)
            if gimbal is not None:
                self._gimbal.add(t_ns, gimbal)

    def describe_camera(self, t_ns: int, camera: CameraModel) -> None:
        """Add what the telemetry says of the camera from a moment on."""
        with self._lock:
            self._camera.add(t_ns, camera)

    def camera_at(self, t_ns: int) -> CameraModel | None:
        """Return the camera that was described last before a moment, within 5 s; None where none was."""
        with self._lock:
            before, after = self._camera.around(t_ns)
            near = [(abs(t_ns - self._camera.times[i]), i) for i in (before, after) if i is not None]
            return self._camera.values[min(near)[1]] if near and min(near)[0] <= POSITION_GAP_NS else None

    def at(self, t_ns: int) -> Pose | None:
        """Return the pose at a moment of the track's clock, or None while nothing is known."""
        with self._lock:
            pose = _position_at(self._positions, t_ns)
            if pose is None:
                return None
            return msgspec.structs.replace(
                pose, vehicle=_attitude_at(self._vehicle, t_ns), gimbal=_attitude_at(self._gimbal, t_ns)
            )


def _position_at(series: _Series[Pose], t_ns: int) -> Pose | None:
    before, after = series.around(t_ns)
    if before is None:
        if after is None or series.times[after] - t_ns > EXTRAPOLATE_NS:
            return None
        return _moved(series.values[after], t_ns - series.times[after])
    start_ns = series.times[before]
    if start_ns == t_ns:
        return series.values[before]
    if after is not None and series.times[after] - start_ns <= POSITION_GAP_NS:
        return _between(series.values[before], series.values[after], t_ns - start_ns, series.times[after] - start_ns)
    if t_ns - start_ns <= EXTRAPOLATE_NS:
        return _moved(series.values[before], t_ns - start_ns)
    return _stale(series.values[before], t_ns - start_ns)


def _attitude_at(series: _Series[Attitude], t_ns: int) -> Attitude | None:
    """Return the attitude at a moment; None rather than one that may have turned away meanwhile."""
    before, after = series.around(t_ns)
    if before is not None and after is not None and series.times[after] - series.times[before] <= ATTITUDE_GAP_NS:
        gap = series.times[after] - series.times[before]
        return slerp(series.values[before], series.values[after], (t_ns - series.times[before]) / gap)
    near = [(abs(t_ns - series.times[i]), i) for i in (before, after) if i is not None]
    if not near or min(near)[0] > EXTRAPOLATE_NS:
        return None
    return series.values[min(near)[1]]


def _between(a: Pose, b: Pose, into_ns: int, gap_ns: int) -> Pose:
    """Interpolate; the path may bow out by at most a·s·(gap - s)/2 between two known points."""
    share, s, rest = into_ns / gap_ns, into_ns / 1e9, (gap_ns - into_ns) / 1e9
    same_height = a.height_above == b.height_above
    east_turn = (b.lon_deg - a.lon_deg + 180.0) % 360.0 - 180.0
    return Pose(
        utc_ns=a.utc_ns + into_ns if a.utc_ns else 0,
        lat_deg=a.lat_deg + share * (b.lat_deg - a.lat_deg),
        lon_deg=(a.lon_deg + share * east_turn + 180.0) % 360.0 - 180.0,
        height_m=_mix(a.height_m, b.height_m, share) if same_height else a.height_m,
        height_above=a.height_above,
        altitude_m=_mix(a.altitude_m, b.altitude_m, share),
        heading_deg=_turn(a.heading_deg, b.heading_deg, share),
        north_mps=_mix(a.north_mps, b.north_mps, share),
        east_mps=_mix(a.east_mps, b.east_mps, share),
        h_acc_m=max(_h_acc(a), _h_acc(b)) + ACCELERATION_MPS2 * s * rest / 2,
        quality="interpolated",
        age_ns=min(into_ns, gap_ns - into_ns),
        zoom=a.zoom if share < 0.5 else b.zoom,
        ground_m=_mix(a.ground_m, b.ground_m, share) if same_height else a.ground_m,
    )


def _moved(pose: Pose, by_ns: int) -> Pose:
    """Carry a pose on, or back, by its velocity; without one it stays where it is and the radius takes the doubt."""
    s = by_ns / 1e9
    if pose.north_mps is None or pose.east_mps is None:
        return _aged(pose, by_ns, "extrapolated", UNKNOWN_SPEED_MPS * abs(s))
    lat_deg, lon_deg = offset(pose.lat_deg, pose.lon_deg, pose.north_mps * s, pose.east_mps * s)
    moved = msgspec.structs.replace(pose, lat_deg=lat_deg, lon_deg=lon_deg)
    return _aged(moved, by_ns, "extrapolated", ACCELERATION_MPS2 * s * s / 2)


def _stale(pose: Pose, by_ns: int) -> Pose:
    s = by_ns / 1e9
    speed = UNKNOWN_SPEED_MPS
    if pose.north_mps is not None and pose.east_mps is not None:
        speed = (pose.north_mps**2 + pose.east_mps**2) ** 0.5
    return _aged(pose, by_ns, "stale", min(speed * s + ACCELERATION_MPS2 * s * s / 2, TOP_SPEED_MPS * s))


def _aged(pose: Pose, by_ns: int, quality: Quality, doubt_m: float) -> Pose:
    return msgspec.structs.replace(
        pose,
        utc_ns=pose.utc_ns + by_ns if pose.utc_ns else 0,
        h_acc_m=_h_acc(pose) + doubt_m,
        quality=quality,
        age_ns=abs(by_ns),
    )


def _h_acc(pose: Pose) -> float:
    return DEFAULT_H_ACC_M if pose.h_acc_m is None else pose.h_acc_m


def _mix(a: float | None, b: float | None, share: float) -> float | None:
    return None if a is None or b is None else a + share * (b - a)


def _turn(a: float | None, b: float | None, share: float) -> float | None:
    return None if a is None or b is None else (a + share * ((b - a + 180.0) % 360.0 - 180.0)) % 360.0
