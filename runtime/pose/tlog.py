"""The ``.tlog`` of a ground station: MAVLink packets, each behind the time at which it was heard."""

from __future__ import annotations

import mmap
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError, UsageError, missing_extra
from overflight.runtime.pose.telemetry import MESSAGES, Telemetry

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.pose.track import PoseTrack

    Log = mmap.mmap | bytes

MAX_BYTES = 256 << 20  # of a log; an hour takes 20 to 100 MB
MAX_DAMAGED = 100_000
EARLIEST_US = 946_684_800_000_000  # 2000: an earlier time is that of a clock which was not set
LATEST_US = 4_102_444_800_000_000  # 2100: a later time is a damaged one
_MAGIC = re.compile(rb"[\xfd\xfe]")
_POSITION = 33  # GLOBAL_POSITION_INT
_SYSTEM = {0xFD: 5, 0xFE: 3}  # where the system id stands in a packet of MAVLink 2 and of 1


def read_tlog(path: Path, system: int | None = None) -> PoseTrack:
    """Read a ground station's log as a track on the UTC clock of the station that wrote it.

    The file is a time in microseconds (big-endian, 8 bytes) before each packet. A station hears every aircraft on its
    link: ``system`` chooses one by its MAVLink system id. Damaged packets are counted in the track's ``refused``.
    Raises UsageError where several aircraft have positions and none was chosen, SourceError where there is no position.
    """
    raw, dialect = _map(path), _dialect()
    packets, damaged = _packets(path, raw)
    parser = dialect.MAVLink(None)

    def decode(place: int, length: int) -> Any:
        try:
            return parser.decode(bytearray(raw[place : place + length]))
        except dialect.MAVError:
            return None

    positions = Counter(
        raw[place + _SYSTEM[raw[place]]]
        for place, length, kind in packets
        if kind == _POSITION and (message := decode(place, length)) is not None and (message.lat or message.lon)
    )
    chosen = _choose(path, positions, system)
    telemetry, unset = Telemetry("utc"), 0
    timed = any(EARLIEST_US <= _time_us(raw, place) < LATEST_US for place, _, _ in packets)
    for place, length, _ in packets:
        time_us = _time_us(raw, place)
        if time_us >= LATEST_US:
            damaged += 1
            continue
        if timed and time_us < EARLIEST_US:
            unset += 1
            continue
        message = decode(place, length)
        if message is None:
            damaged += 1
        elif message.get_srcSystem() == chosen:
            telemetry.take(message, time_us * 1000)
    if not len(telemetry.track):
        raise SourceError(f"{path}: no usable position of system {chosen}; expected the log of a flight with a fix")
    kinds = ((damaged, "damaged packets"), (unset, "packets from before the station's clock was set"))
    telemetry.track.refused = tuple(f"{path}: {count} {kind} were left out" for count, kind in kinds if count)
    return telemetry.track


def _time_us(raw: Log, place: int) -> int:
    """Return the time before a packet; MAVLink programs keep the number of the link in its last two bits."""
    return int.from_bytes(raw[place - 8 : place], "big")


def _choose(path: Path, positions: Counter[int], system: int | None) -> int:
    """Return the aircraft to read: the one that was asked for, or the only one with positions."""
    found = sorted(positions)
    if not found:
        raise SourceError(f"{path}: no GLOBAL_POSITION_INT in this log; expected a .tlog of a flight with a position")
    names = ", ".join(f"{number} ({positions[number]} positions)" for number in found)
    if system is None and len(found) > 1:
        raise UsageError(f"{path}: positions of {len(found)} aircraft, systems {names}; add ?system={found[0]}")
    if system is not None and system not in found:
        raise UsageError(f"{path}: no position of system {system}; expected one of: {names}")
    return found[0] if system is None else system


def _dialect() -> Any:
    os.environ.setdefault("MAVLINK20", "1")  # pymavlink's own switch, read when it is imported
    try:
        from pymavlink.dialects.v20 import ardupilotmega
    except ImportError as error:
        raise missing_extra("pymavlink", "mavlink") from error
    return ardupilotmega


def _map(path: Path) -> Log:
    """Map a log into memory, so that only the pages that are read take room."""
    with open_regular(path, MAX_BYTES) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _packets(path: Path, raw: Log) -> tuple[list[tuple[int, int, int]], int]:
    """Return (place, length, message id) of each packet that says something of a pose, and how many were damaged."""
    packets, damaged, place = [], 0, 0
    while place + 8 < len(raw):
        length, kind = _packet(raw, place + 8)
        if length == 0:
            damaged, place = damaged + 1, _next_packet(raw, place + 1)
            if damaged > MAX_DAMAGED:
                raise SourceError(f"{path}: more than {MAX_DAMAGED} damaged packets; copy the log again")
            continue
        if kind in MESSAGES:
            packets.append((place + 8, length, kind))
        place += 8 + length
    return packets, damaged


def _packet(raw: Log, place: int) -> tuple[int, int]:
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


def _next_packet(raw: Log, place: int) -> int:
    """Return where the time of the next possible packet begins."""
    found = _MAGIC.search(raw, place + 8)
    return found.start() - 8 if found else len(raw)
