"""MISB ST 0601 metadata in an MPEG transport stream: where a military or public-safety camera was and looked.

Formats: MISB ST 0601 (UAS Datalink Local Set) for the keys, SMPTE ST 336 for their coding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overflight.runtime.bounded import read_regular, unsuitable
from overflight.runtime.errors import SourceError, missing_extra
from overflight.runtime.pose.attitude import mounted
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from overflight.runtime.pose.track import Clock

UNIVERSAL_KEY = bytes.fromhex("060e2b34020b01010e01030101000000")
_CHECKSUM, _TIME = 1, 2
_LARGEST_SET = 1 << 16
MAX_BYTES = 64 << 20  # of bare metadata; an hour at 30 sets a second takes 20 MB
MAX_VIDEO_BYTES = 1 << 40
_KEEP_NS = 60_000_000_000


@dataclass(frozen=True)
class _Scale:
    """How an integer of ``size`` bytes maps to a number: ``low`` to ``high`` over its range."""

    size: int
    low: float
    high: float
    signed: bool = False

    def decode(self, raw: bytes) -> float | None:
        """Return the number; None for another size, or for the signed minimum, which means out of range."""
        if len(raw) != self.size:
            return None
        whole = int.from_bytes(raw, "big", signed=self.signed)
        if not self.signed:
            return self.low + whole * (self.high - self.low) / ((1 << 8 * self.size) - 1)
        most = (1 << 8 * self.size - 1) - 1
        return None if whole < -most else whole * self.high / most


# Key -> the name it has here and how its value is coded (MISB ST 0601.17, section 8).
_KEYS = {
    5: ("yaw", _Scale(2, 0, 360)),
    6: ("pitch", _Scale(2, -20, 20, signed=True)),
    7: ("roll", _Scale(2, -50, 50, signed=True)),
    13: ("lat", _Scale(4, -90, 90, signed=True)),
    14: ("lon", _Scale(4, -180, 180, signed=True)),
    15: ("altitude", _Scale(2, -900, 19000)),
    16: ("hfov", _Scale(2, 0, 180)),
    17: ("vfov", _Scale(2, 0, 180)),
    18: ("azimuth", _Scale(4, 0, 360)),
    19: ("elevation", _Scale(4, -180, 180, signed=True)),
    20: ("turn", _Scale(4, 0, 360)),
    25: ("ground", _Scale(2, -900, 19000)),
    75: ("ellipsoid", _Scale(2, -900, 19000)),
    78: ("ground_ellipsoid", _Scale(2, -900, 19000)),
    90: ("full_pitch", _Scale(4, -90, 90, signed=True)),
    91: ("full_roll", _Scale(4, -90, 90, signed=True)),
}


def read_klv(path: Path) -> PoseTrack:
    """Read the metadata track of a transport stream, on the video's clock where its packets are timed, else in UTC.

    Sets whose checksum is wrong are counted in the track's ``refused``. Raises SourceError where there is no such
    track, or no position in it.
    """
    timed: list[tuple[int | None, bytes]] = list(_packets(path))
    clock: Clock = "media" if timed and all(media_ns is not None for media_ns, _ in timed) else "utc"
    track, sets, damaged = PoseTrack(clock), 0, 0
    for media_ns, data in timed:
        for body in _local_sets(data):
            sets += 1
            values = None if body is None else decode_local_set(body)
            if values is None:
                damaged += 1
            elif (t_ns := values.utc_ns if clock == "utc" else media_ns) is not None:
                values.add_to(track, t_ns)
    if not len(track):
        why = f"no position in {sets} sets, {damaged} of them damaged" if sets else "no ST 0601 metadata track"
        raise SourceError(f"{path}: {why}; expected an MPEG transport stream with MISB KLV")
    if damaged:
        track.refused = (f"{path}: {damaged} of {sets} metadata sets were damaged and left out",)
    return track


@dataclass(frozen=True)
class LocalSet:
    """One decoded set: its time since 1970 and the values by name, each missing where it is not known."""

    utc_ns: int | None
    values: dict[str, float]

    def add_to(self, track: PoseTrack, t_ns: int) -> None:
        """Add its pose and camera to a track; a set without a position adds nothing."""
        known = self.values
        try:
            lat_deg, lon_deg = position(known["lat"], known["lon"])
        except (KeyError, ValueError):
            return
        if 0.1 <= known.get("hfov", 0.0) < 179.0:
            vfov_deg = known.get("vfov", 0.0)
            track.describe_camera(t_ns, CameraModel(known["hfov"], vfov_deg if 0.1 <= vfov_deg < 179.0 else None))
        height_m, ground_m = self._height_m()
        pose = Pose(
            utc_ns=self.utc_ns or 0, lat_deg=lat_deg, lon_deg=lon_deg, height_m=height_m,
            height_above="takeoff" if height_m is None else "ground", altitude_m=known.get("altitude"),
            vehicle=self._vehicle(), gimbal=self._camera(), heading_deg=known.get("yaw"), ground_m=ground_m,
        )  # fmt: skip
        track.add(t_ns, pose)

    def _height_m(self) -> tuple[float | None, float | None]:
        """Return the height above the ground in the picture's middle, and that ground's height above the sea."""
        for sensor, ground in (("altitude", "ground"), ("ellipsoid", "ground_ellipsoid")):
            if sensor in self.values and ground in self.values:
                height_m = self.values[sensor] - self.values[ground]
                return height_m, self.values[ground] if sensor == "altitude" else None
        return None, None

    def _vehicle(self) -> Attitude | None:
        pitch = self.values.get("full_pitch", self.values.get("pitch"))
        roll = self.values.get("full_roll", self.values.get("roll"))
        if "yaw" not in self.values or pitch is None or roll is None:
            return None
        return Attitude(self.values["yaw"] % 360.0, pitch, roll)

    def _camera(self) -> Attitude | None:
        """Return where the camera looks: its angles against the airframe, turned by the airframe's own."""
        vehicle = self._vehicle()
        if vehicle is None or "azimuth" not in self.values or "elevation" not in self.values:
            return None
        return mounted(
            vehicle, Attitude(self.values["azimuth"], self.values["elevation"], self.values.get("turn", 0.0))
        )


def decode_local_set(body: bytes) -> LocalSet | None:
    """Decode a set, its universal key and length included; None where its checksum is missing or wrong."""
    items = dict(_items(body))
    if len(items.get(_CHECKSUM, b"")) != 2 or int.from_bytes(items[_CHECKSUM], "big") != checksum(body[:-2]):
        return None
    values = {
        name: value
        for key, (name, scale) in _KEYS.items()
        if key in items and (value := scale.decode(items[key])) is not None and math.isfinite(value)
    }
    time_us = int.from_bytes(items[_TIME], "big") if len(items.get(_TIME, b"")) == 8 else 0
    return LocalSet(time_us * 1000 or None, values)


def checksum(data: bytes) -> int:
    """Return the running 16-bit sum of ST 0601 over everything before the checksum's own value."""
    return sum(byte << (8 if i % 2 == 0 else 0) for i, byte in enumerate(data)) & 0xFFFF


def _local_sets(data: bytes) -> Iterator[bytes | None]:
    """Yield each set of a packet; None for one that is cut off."""
    start = data.find(UNIVERSAL_KEY)
    while start >= 0:
        size, begin = _ber_length(data, start + len(UNIVERSAL_KEY))
        end = begin + size
        yield data[start:end] if 0 < size <= _LARGEST_SET and end <= len(data) else None
        start = data.find(UNIVERSAL_KEY, start + len(UNIVERSAL_KEY))


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (key, value) of a set; what follows a damaged length is left out."""
    _, place = _ber_length(body, len(UNIVERSAL_KEY))
    while place < len(body):
        key, place = _ber_oid(body, place)
        size, place = _ber_length(body, place)
        if size < 0 or place + size > len(body):
            return
        yield key, body[place : place + size]
        place += size


def _ber_length(data: bytes, place: int) -> tuple[int, int]:
    """Return a length and where its value begins; -1 where it is cut off."""
    if place >= len(data):
        return -1, place
    first = data[place]
    if first < 0x80:
        return first, place + 1
    count = first & 0x7F
    if not 1 <= count <= 4 or place + 1 + count > len(data):
        return -1, place
    return int.from_bytes(data[place + 1 : place + 1 + count], "big"), place + 1 + count


def _ber_oid(data: bytes, place: int) -> tuple[int, int]:
    key = 0
    while place < len(data):
        key, byte = key << 7 | data[place] & 0x7F, data[place]
        place += 1
        if byte < 0x80:
            break
    return key, place


def _packets(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Yield (time from the start of the video, content) of the metadata packets."""
    if path.suffix.lower() == ".klv":
        yield None, read_regular(path, MAX_BYTES)
        return
    if reason := unsuitable(path, MAX_VIDEO_BYTES):
        raise SourceError(f"{path}: {reason}")
    try:
        import av
    except ImportError as error:
        raise missing_extra("PyAV", "cpu") from error
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            streams = [stream for stream in container.streams if stream.type == "data"]
            if streams:
                yield from _timed(container, streams)
    except av.FFmpegError as error:
        raise SourceError(f"{path}: {error}; expected an MPEG transport stream with MISB KLV") from error


def _timed(container: Any, streams: list[Any]) -> Iterator[tuple[int | None, bytes]]:
    video = next(iter(container.streams.video), None)
    start = video.start_time * video.time_base if video is not None and video.start_time is not None else 0
    joined = Joined()
    for packet in container.demux(*streams):
        stamp = packet.pts
        media_ns = None if stamp is None else round((stamp * packet.time_base - start) * 1_000_000_000)
        media_ns, whole = joined.put(media_ns, bytes(packet))
        if UNIVERSAL_KEY in whole:
            yield media_ns, whole
    if joined.rest:
        yield joined.rest_ns, joined.rest


class Joined:
    """Puts sets together that are cut between two packets. ``rest`` is what still waits, from ``rest_ns`` on."""

    def __init__(self) -> None:
        self.rest = b""
        self.rest_ns: int | None = None

    def put(self, t_ns: int | None, content: bytes) -> tuple[int | None, bytes]:
        """Take a packet's content; return what is complete now, and its time."""
        if self.rest and not content.startswith(UNIVERSAL_KEY):
            t_ns, content = self.rest_ns, self.rest + content
        self.rest, self.rest_ns = _unfinished(content), t_ns
        return t_ns, content[: len(content) - len(self.rest)]


class LiveMetadata:
    """The metadata of a stream as it comes in, on the clock of the stream's time stamps; the last minute is kept.

    ``note`` says how much of it was damaged.
    """

    def __init__(self) -> None:
        self.note: str | None = None
        self._track = PoseTrack("media", keep_ns=_KEEP_NS)
        self._joined = Joined()
        self._last_ns: int | None = None
        self._sets = self._damaged = 0

    def put(self, stamp_ns: int, content: bytes) -> None:
        """Take the content of a packet with its time stamp."""
        if self._last_ns is not None and stamp_ns < self._last_ns - _KEEP_NS:  # the sender started again
            self._track = PoseTrack("media", keep_ns=_KEEP_NS)
        self._last_ns = stamp_ns
        begun_ns, whole = self._joined.put(stamp_ns, content)
        for body in _local_sets(whole):
            self._sets += 1
            values = None if body is None else decode_local_set(body)
            if values is not None:
                values.add_to(self._track, stamp_ns if begun_ns is None else begun_ns)
                continue
            self._damaged += 1
            self.note = f"{self._damaged} of {self._sets} metadata sets were damaged and left out"

    def at(self, stamp_ns: int) -> tuple[Pose | None, CameraModel | None]:
        """Return the pose and the camera of the picture with this time stamp, None where they are not known."""
        return self._track.at(stamp_ns), self._track.camera_at(stamp_ns)


def _unfinished(content: bytes) -> bytes:
    """Return the start of a set that goes on in the next packet, empty where there is none."""
    start = content.rfind(UNIVERSAL_KEY)
    if start < 0:
        return b""
    size, begin = _ber_length(content, start + len(UNIVERSAL_KEY))
    unfinished = begin == start + len(UNIVERSAL_KEY) or size > len(content) - begin
    return content[start:] if unfinished and size <= _LARGEST_SET else b""
