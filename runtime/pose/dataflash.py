"""The on-board log of an ArduPilot autopilot (``.bin``, or ``.log`` as text): its own estimate of where it was."""

from __future__ import annotations

import io
import math
import os
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import MissingError, SourceError, missing_extra
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.record import Attitude, HeightAbove, Pose
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MESSAGES = ["POS", "GPS", "GPA", "ATT", "MNT", "RFND", "TERR", "BARO"]
MAX_BYTES = 512 << 20  # an hour of ordinary logging takes 100 MB
_EARLIEST_S = 946_684_800  # 2000: an earlier time counts from the autopilot's boot
_DOWNWARD, _FIX_2D, _FIX_3D = 25, 2, 3
_TAIL_BYTES = 600  # a log's last page may hold leftovers of an older one
_FRESH_S = 1.0  # how long a height above the ground holds


def read_dataflash(path: Path) -> PoseTrack:
    """Read an ArduPilot log as a track on the UTC clock of its GPS receiver.

    ``POS``, the filter's own estimate, is used where it is logged, else the fixes in ``GPS``. What pymavlink could not
    decode is counted in the track's ``refused``. Raises SourceError where the log has no position or never had a GPS
    time.
    """
    complaints = io.StringIO()  # pymavlink prints what it skips
    with redirect_stdout(complaints), redirect_stderr(complaints):
        log = _Log()
        try:
            for message in _messages(path):
                log.take(message)
        except (OSError, SourceError, MissingError):
            raise
        except Exception as error:  # a torn log fails in the library's own ways: struct, index, value, type
            complaints.write(f"{error}\n")
    track, skipped = log.track(), complaints.getvalue().splitlines()
    if not len(track):
        why = "no GPS time in it, so it cannot be joined to a picture" if log.untimed else "no position in it"
        why += f" ({skipped[-1][:100]})" if skipped else ""
        raise SourceError(f"{path}: {why}; expected the .bin of a flight with a GPS fix")
    if skipped:
        track.refused = (f"{path}: damaged, {len(skipped)} parts of it were left out",)
    return track


def _messages(path: Path) -> Iterator[Any]:
    """Yield the messages that say something of a pose.

    pymavlink's index ends at the first damage. Where that leaves a part of the file unread, every message is read in
    turn instead, which is slower and finds its way over the damage.
    """
    reader = _reader(path)
    try:
        places = reader.offsets if isinstance(reader.offsets, list) else []  # a text's index is another
        indexed = max((here[-1] for here in places if len(here)), default=reader.data_len)
        if reader.data_len - indexed < _TAIL_BYTES:
            while (message := reader.recv_match(type=_MESSAGES)) is not None:
                yield message
            return
        reader.rewind()
        while (message := reader.recv_msg()) is not None:
            if message.get_type() in _MESSAGES:
                yield message
    finally:
        reader.close()


def _reader(path: Path) -> Any:
    os.environ.setdefault("PYMAVLINK_FAST_INDEX", "0")  # the fast one prints past Python, so its words are not counted
    try:
        from pymavlink import DFReader
    except ImportError as error:
        raise missing_extra("pymavlink", "mavlink") from error
    with open_regular(path, MAX_BYTES) as file:
        head = file.read(4)
    binary = head[:2] == b"\xa3\x95"
    if not binary and head[:3] != b"FMT":
        raise SourceError(f"{path}: neither a binary ArduPilot log nor one as text; copy it from the autopilot again")
    return (DFReader.DFReader_binary if binary else DFReader.DFReader_text)(str(path))


class _Log:
    """Collects a log's messages into two tracks: of the filter's positions and of the receiver's."""

    def __init__(self) -> None:
        self.untimed = False
        self._filter, self._receiver = PoseTrack("utc"), PoseTrack("utc")
        self._h_acc_m: float | None = None
        self._velocity: tuple[float, float] | None = None
        self._ground: tuple[float, float] | None = None
        self._baro_m: float | None = None
        self._fixed = False

    def track(self) -> PoseTrack:
        """Return the better of the two tracks."""
        return self._filter if len(self._filter) else self._receiver

    def take(self, message: Any) -> None:
        """Add what one message says; values that are not numbers cost the message alone."""
        if message._timestamp < _EARLIEST_S:
            self.untimed = True
            return
        try:
            getattr(self, f"_{message.get_type().lower()}")(message, message._timestamp)
        except (AttributeError, ValueError, TypeError, OverflowError):
            return  # a dialect without that field, or no fix

    def _pos(self, message: Any, time_s: float) -> None:
        if self._fixed:
            self._add(self._filter, message, time_s, _known(getattr(message, "RelHomeAlt", None)))

    def _gps(self, message: Any, time_s: float) -> None:
        if getattr(message, "I", 0):
            return  # a second receiver
        self._fixed = message.Status >= _FIX_2D
        if not self._fixed:
            return
        course = math.radians(message.GCrs)
        self._velocity = message.Spd * math.cos(course), message.Spd * math.sin(course)
        self._add(self._receiver, message, time_s, self._baro_m)

    def _gpa(self, message: Any, _time_s: float) -> None:
        if not getattr(message, "I", 0) and message.HAcc > 0:
            self._h_acc_m = message.HAcc

    def _att(self, message: Any, time_s: float) -> None:
        angles = [float(message.Yaw), float(message.Pitch), float(message.Roll)]
        if all(map(math.isfinite, angles)):
            vehicle = Attitude(angles[0] % 360.0, angles[1], angles[2])
            for track in (self._filter, self._receiver):
                track.turn(round(time_s * 1e9), vehicle=vehicle)

    def _mnt(self, message: Any, time_s: float) -> None:
        """Take the mount's attitude where its yaw against the earth is logged."""
        angles = [float(message.YawE), float(message.Pitch), float(message.Roll)]
        if all(map(math.isfinite, angles)):
            gimbal = Attitude(angles[0] % 360.0, angles[1], angles[2])
            for track in (self._filter, self._receiver):
                track.turn(round(time_s * 1e9), gimbal=gimbal)

    def _rfnd(self, message: Any, time_s: float) -> None:
        if message.Orient == _DOWNWARD and getattr(message, "Stat", 4) == 4 and message.Dist > 0:
            self._ground = time_s, float(message.Dist)

    def _terr(self, message: Any, time_s: float) -> None:
        if message.Status == 2 and math.isfinite(message.CHeight):
            self._ground = time_s, float(message.CHeight)

    def _baro(self, message: Any, _time_s: float) -> None:
        if not getattr(message, "I", 0):
            self._baro_m = _known(message.Alt)

    def _add(self, track: PoseTrack, message: Any, time_s: float, height_m: float | None) -> None:
        lat_deg, lon_deg = position(float(message.Lat), float(message.Lng))
        above: HeightAbove = "takeoff"
        if self._ground is not None and time_s - self._ground[0] <= _FRESH_S:
            height_m, above = self._ground[1], "ground"
        t_ns = round(time_s * 1e9)
        pose = Pose(
            utc_ns=t_ns, lat_deg=lat_deg, lon_deg=lon_deg, height_m=height_m, height_above=above,
            altitude_m=_known(message.Alt), h_acc_m=self._h_acc_m,
            north_mps=self._velocity[0] if self._velocity else None,
            east_mps=self._velocity[1] if self._velocity else None,
        )  # fmt: skip
        track.add(t_ns, pose)


def _known(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
