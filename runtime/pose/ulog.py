"""The on-board log of a PX4 autopilot (``.ulg``): its own estimate of where it was."""

from __future__ import annotations

import io
import math
import mmap
import struct
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.pose.attitude import from_quaternion
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.record import Pose
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES = 512 << 20  # an hour of ordinary logging takes 100 to 200 MB
_MAGIC = b"ULog\x01\x12\x35"
_HEADER_BYTES, _HEAD, _KINDS = 16, struct.Struct("<HB"), frozenset(b"BFIMPQARDLCSO")
_ESTIMATE, _ATTITUDE, _LOCAL, _HOME = (
    "vehicle_global_position", "vehicle_attitude", "vehicle_local_position", "home_position",
)  # fmt: skip
_RECEIVERS = ("vehicle_gps_position", "sensor_gps")  # the blended one, and each receiver's own
_FIX_2D = 2
_EARLIEST_US = 946_684_800_000_000  # 2000: earlier, a receiver does not know the time yet
_TURN_US = 20_000
_SOONEST = 98  # per cent: GPS time reaches the autopilot late, so the largest difference of the clocks is the best

_Columns = dict[str, "NDArray[Any]"]


def read_ulog(path: Path) -> PoseTrack:
    """Read a PX4 log as a track on the UTC clock of its GPS receiver.

    The filter's estimate is used where it is logged, else the receiver's fixes. Raises SourceError where the log has no
    position or never had a GPS time, MissingError without pyulog.
    """
    topics, damaged = _topics(path)
    receiver = next((topics[name] for name in _RECEIVERS if name in topics), {})
    offset_us = _utc_offset_us(receiver)
    track = PoseTrack("utc")
    if offset_us is not None:
        places, fixed = _places(topics.get(_ESTIMATE, {}), receiver)
        _add_positions(track, places, fixed, topics, offset_us)
        _add_attitudes(track, topics.get(_ATTITUDE, {}), offset_us)
    if not len(track):
        timed = (
            "no position in it" if offset_us is not None else "no GPS time in it, so it cannot be joined to a picture"
        )
        raise SourceError(f"{path}: {timed}; expected the .ulg of a flight with a GPS fix")
    if damaged:
        track.refused = (f"{path}: damaged or cut off; what could be read of it is used",)
    return track


def _topics(path: Path) -> tuple[dict[str, _Columns], bool]:
    """Return the columns of each topic's first instance, and whether the file is damaged."""
    try:
        from pyulog import ULog
    except ImportError as error:
        raise missing_extra("pyulog", "mavlink") from error
    complaints = io.StringIO()  # pyulog prints what it skips
    with open_regular(path, MAX_BYTES) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path}: not a PX4 log (ULog); copy it from the autopilot again")
        file.seek(0)
        with redirect_stdout(complaints), redirect_stderr(complaints):
            try:
                log = ULog(file, [_ESTIMATE, _ATTITUDE, _LOCAL, _HOME, *_RECEIVERS])
            except Exception as error:  # a damaged log fails in the library's own ways: struct, index, key, type
                raise SourceError(
                    f"{path}: cannot be read as a PX4 log ({type(error).__name__}: {error}); copy it again"
                ) from error
    topics: dict[str, _Columns] = {}
    for one in sorted(log.data_list, key=lambda one: one.multi_id):
        topics.setdefault(one.name, dict(one.data))
    return topics, bool(log.file_corruption or complaints.getvalue()) or not _is_whole(path)


def _is_whole(path: Path) -> bool:
    """Whether one message follows the other up to the end: pyulog passes over most damage and says nothing."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        at = _HEADER_BYTES
        while at + 3 <= len(raw):
            size, kind = _HEAD.unpack_from(raw, at)
            if kind not in _KINDS:
                return False
            at += 3 + size
        return at == len(raw)


def _utc_offset_us(receiver: _Columns) -> float | None:
    """Return what turns the autopilot's time since boot into UTC; None where the receiver never knew the time."""
    if not {"timestamp", "time_utc_usec"} <= set(receiver):
        return None
    utc_us = receiver["time_utc_usec"].astype(np.float64)
    known = utc_us > _EARLIEST_US
    differences = utc_us[known] - receiver["timestamp"].astype(np.float64)[known]
    return float(np.percentile(differences, _SOONEST)) if len(differences) else None


def _places(estimate: _Columns, receiver: _Columns) -> tuple[_Columns, NDArray[np.bool_]]:
    """Return time, degrees, altitude and error of the better source, and which rows hold."""
    if {"timestamp", "lat", "lon"} <= set(estimate) and len(estimate["lat"]):
        valid = estimate.get("lat_lon_valid", np.ones(len(estimate["lat"])))
        return {
            name: estimate[name] for name in ("timestamp", "lat", "lon", "alt", "eph") if name in estimate
        }, valid > 0
    scaled = {
        "lat": ("latitude_deg", "lat", 1e-7), "lon": ("longitude_deg", "lon", 1e-7),
        "alt": ("altitude_msl_m", "alt", 1e-3), "north": ("vel_n_m_s", "", 1.0), "east": ("vel_e_m_s", "", 1.0),
        "eph": ("eph", "", 1.0), "timestamp": ("timestamp", "", 1.0),
    }  # fmt: skip
    places: _Columns = {}
    for name, (new, old, scale) in scaled.items():  # PX4 1.14 put degrees and metres in place of integers
        if new in receiver:
            places[name] = receiver[new]
        elif old in receiver:
            places[name] = receiver[old] * scale
    if not {"lat", "lon", "timestamp"} <= set(places):
        return {}, np.zeros(0, bool)
    return places, receiver.get("fix_type", np.full(len(places["lat"]), _FIX_2D)) >= _FIX_2D


def _add_positions(
    track: PoseTrack, places: _Columns, fixed: NDArray[np.bool_], topics: dict[str, _Columns], offset_us: float
) -> None:
    home = topics.get(_HOME, {}).get("alt", np.zeros(0))
    home_m = float(home[0]) if len(home) and math.isfinite(home[0]) else None
    ground = topics.get(_LOCAL, {})
    for row in np.flatnonzero(fixed):
        values = {name: float(column[row]) for name, column in places.items()}
        try:
            lat_deg, lon_deg = position(values["lat"], values["lon"])
        except ValueError:
            continue
        altitude_m = _known(values.get("alt"))
        below_m = _below_m(ground, values["timestamp"])
        takeoff_m = None if altitude_m is None or home_m is None else altitude_m - home_m
        t_ns = round((values["timestamp"] + offset_us) * 1000)
        pose = Pose(
            utc_ns=t_ns, lat_deg=lat_deg, lon_deg=lon_deg, height_m=takeoff_m if below_m is None else below_m,
            height_above="takeoff" if below_m is None else "ground", altitude_m=altitude_m,
            h_acc_m=_known(values.get("eph")),
            north_mps=_known(values.get("north")),
            east_mps=_known(values.get("east")),
        )  # fmt: skip
        track.add(t_ns, pose)


def _below_m(local: _Columns, time_us: float) -> float | None:
    """Return the measured height above the ground, None where it is not valid then."""
    if not {"timestamp", "dist_bottom", "dist_bottom_valid"} <= set(local) or not len(local["timestamp"]):
        return None
    row = max(0, int(np.searchsorted(local["timestamp"], time_us, "right")) - 1)
    height_m = float(local["dist_bottom"][row])
    fresh = abs(time_us - float(local["timestamp"][row])) < 1e6
    return height_m if fresh and local["dist_bottom_valid"][row] and math.isfinite(height_m) else None


def _add_attitudes(track: PoseTrack, attitude: _Columns, offset_us: float) -> None:
    names = ["q[0]", "q[1]", "q[2]", "q[3]"]
    if not {"timestamp", *names} <= set(attitude):
        return
    turns = np.stack([attitude[name] for name in names], axis=1).astype(np.float64)
    good = np.isfinite(turns).all(axis=1) & (np.abs(np.linalg.norm(turns, axis=1) - 1) < 0.01)
    slots = attitude["timestamp"].astype(np.int64) // _TURN_US
    good &= np.diff(slots, prepend=-1) != 0  # logged up to 250 times a second, which no interpolation needs
    for time_us, (w, x, y, z) in zip(attitude["timestamp"][good], turns[good], strict=True):
        vehicle = from_quaternion((float(w), float(x), float(y), float(z)))
        track.turn(round((float(time_us) + offset_us) * 1000), vehicle=vehicle)


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
