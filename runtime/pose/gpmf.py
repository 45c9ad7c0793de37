"""GoPro metadata: positions from the GPMF track of an MP4 (Hero cameras' GPS5 and GPS9, the Karma drone's GLPI).

Formats: ISO/IEC 14496-12 for the file, https://github.com/gopro/gpmf-parser for the payload.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.fields import position
from overflight.runtime.pose.mp4 import read_samples
from overflight.runtime.pose.record import DEFAULT_H_ACC_M, Attitude, Pose
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.track import PoseTrack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

Row = tuple[float, ...]
Items = list[tuple[bytes, str, int, bytes]]

_LETTERS = {"b": "b", "B": "B", "s": "h", "S": "H", "l": "i", "L": "I", "f": "f", "d": "d", "j": "q", "J": "Q"}
_KARMA = ("GLPI", "ATTD", "SYST")
_MAX_DEPTH = 8
USUAL_DILUTION = 2.0  # of precision, under open sky
MAX_BYTES = 1 << 40  # of the video; only its tables and its metadata are read
MAX_PAYLOAD_BYTES = 1 << 20  # cameras write a few kilobytes a second


def read_gpmf(path: Path) -> PoseTrack:
    """Read the position track of a GoPro MP4 on the video's clock.

    A payload that cannot be used is named, with its byte offset, in the track's ``refused``. Raises SourceError where
    the file has no such track, or no position in it.
    """
    track, refused = PoseTrack("media"), Refusals()
    karma: list[tuple[int, dict[str, list[Row]]]] = []
    with open_regular(path, MAX_BYTES) as file:
        for start_ns, length_ns, place, size in read_samples(path, file, b"gpmd"):
            try:
                streams = _streams(_payload(file, place, size))
                _add_hero(track, streams, start_ns, length_ns)
            except (ValueError, struct.error) as error:
                refused.add(f"{path}, byte {place}: {error}")
                continue
            if any(streams.get(name) for name in _KARMA):
                karma.append((start_ns + length_ns, {name: streams.get(name, []) for name in _KARMA}))
    _add_karma(track, karma, path, refused)
    if not len(track):
        raise SourceError(
            f"{refused.lines[0] if refused else f'{path}: no position in its GoPro metadata'}; switch GPS on"
        )
    track.refused = refused.lines
    return track


def _payload(file: BinaryIO, place: int, size: int) -> bytes:
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{size} bytes of GoPro metadata in one sample; expected at most {MAX_PAYLOAD_BYTES}")
    file.seek(place)
    return file.read(size)


def _add_hero(track: PoseTrack, streams: dict[str, list[Row]], start_ns: int, length_ns: int) -> None:
    """Add a Hero's fixes, spread evenly over their payload; GPSF says 0 where the receiver had none."""
    if (streams.get("GPSF") or [(3.0,)])[0][0] < 2:
        return
    rows = streams.get("GPS9") or streams.get("GPS5", [])
    dilution = streams.get("GPSP", [(0.0,)])[0][0] / 100  # of GPS5; a row of GPS9 has its own
    for i, row in enumerate(rows):
        if (len(row) == 9 and row[8] < 2) or row[0] == row[1] == 0.0:
            continue
        lat_deg, lon_deg = position(row[0], row[1])
        t_ns = start_ns + length_ns * i // len(rows)
        h_acc_m = DEFAULT_H_ACC_M * max(1.0, (row[7] if len(row) == 9 else dilution) / USUAL_DILUTION)
        track.add(t_ns, Pose(utc_ns=0, lat_deg=lat_deg, lon_deg=lon_deg, altitude_m=row[2], h_acc_m=h_acc_m))


def _add_karma(
    track: PoseTrack, payloads: list[tuple[int, dict[str, list[Row]]]], path: Path, refused: Refusals
) -> None:
    """Add the Karma's fixes, whose times count from its boot.

    A payload is closed after its newest row was received: the smallest (end of payload - time of row) over all
    payloads is the offset between the two clocks, within one transmission.
    """
    delays = [end_ns - round(s["GLPI"][-1][0] * 1e9) for end_ns, s in payloads if s.get("GLPI")]
    if not delays:
        return
    offset_ns = min(delays)
    unix = [row for _, s in payloads for row in s.get("SYST", []) if len(row) == 2]
    epoch_ns = round((unix[0][1] - unix[0][0]) * 1e9) if unix else None
    for _, streams in payloads:
        for row in streams.get("ATTD", []):
            roll, pitch, yaw = (math.degrees(angle) for angle in row[1:4])
            track.turn(round(row[0] * 1e9) + offset_ns, vehicle=Attitude(yaw % 360.0, pitch, roll))
        for row in streams.get("GLPI", []):
            try:
                lat_deg, lon_deg = position(row[1], row[2])
            except ValueError as error:
                refused.add(f"{path}, {row[0]:.3f} s after boot: {error}")
                continue
            boot_ns = round(row[0] * 1e9)
            pose = Pose(
                utc_ns=boot_ns + epoch_ns if epoch_ns is not None else 0, lat_deg=lat_deg, lon_deg=lon_deg,
                height_m=row[4], altitude_m=row[3], north_mps=row[5], east_mps=row[6], heading_deg=row[8],
            )  # fmt: skip
            track.add(boot_ns + offset_ns, pose)


def _streams(payload: bytes) -> dict[str, list[Row]]:
    """Return the rows of each stream we read, in its physical units."""
    wanted = {"GPS5": 5, "GPS9": 9, "GPSF": 1, "GPSP": 1, "GLPI": 9, "ATTD": 4, "SYST": 2}
    found: dict[str, list[Row]] = {}
    for stream in _nested(payload, b"STRM", 0):
        scale: Row = (1.0,)
        kinds = ""
        for key, kind, size, data in stream:
            name = key.decode("latin-1")
            if name == "SCAL":
                scale = tuple(value for row in _rows(data, kind, size) for value in row)
            elif name == "TYPE":
                kinds = data.decode("latin-1").rstrip("\x00")
            elif name in wanted:
                rows = _rows(data, kinds if kind == "?" else kind * (size // max(1, _size(kind))), size)
                found.setdefault(name, []).extend(_scaled(row, scale) for row in rows if len(row) >= wanted[name])
    return found


def _scaled(row: Row, scale: Row) -> Row:
    if not scale or 0.0 in scale or not all(map(math.isfinite, row)):
        raise ValueError("no scale, a scale of 0, or a value that is not a number, in the GoPro metadata")
    return tuple(value / scale[i % len(scale)] for i, value in enumerate(row))


def _size(kind: str) -> int:
    return struct.calcsize(_LETTERS[kind]) if kind in _LETTERS else 1


def _rows(data: bytes, kinds: str, size: int) -> list[Row]:
    letters = "".join(_LETTERS.get(kind, "") for kind in kinds)
    if not letters or len(letters) != len(kinds) or struct.calcsize(">" + letters) != size:
        raise ValueError(f"GoPro metadata of type {kinds!r} and {size} bytes, expected numbers of that size")
    whole = len(data) - len(data) % size
    return [tuple(map(float, row)) for row in struct.iter_unpack(">" + letters, data[:whole])]


def _items(data: bytes) -> Iterator[tuple[bytes, str, int, bytes]]:
    place = 0
    while place + 8 <= len(data):
        key, kind, size, repeat = struct.unpack_from(">4sBBH", data, place)
        length = size * repeat
        if place + 8 + length > len(data):
            raise ValueError(f"GoPro metadata cut off inside {key!r}")
        yield key, chr(kind), size, data[place + 8 : place + 8 + length]
        place += 8 + (length + 3) // 4 * 4


def _nested(data: bytes, wanted: bytes, depth: int) -> Iterator[Items]:
    """Yield the items of every ``wanted`` container, however deep."""
    for key, kind, _, inner in _items(data):
        if kind == "\x00" and key == wanted:
            yield list(_items(inner))
        elif kind == "\x00" and depth < _MAX_DEPTH:
            yield from _nested(inner, wanted, depth + 1)
