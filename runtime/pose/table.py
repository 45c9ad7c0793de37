"""Tracks in tables: a CSV file with a header, as tools, spreadsheets and flight-log services write it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.attitude_tags import measured
from overflight.runtime.pose.fields import moment_ns, number, position, utc_ns, whole
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.track import MAX_VALUES, Clock, PoseTrack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO, TextIO

MAX_LINE = 16_384
MAX_BYTES = 64 << 20  # two hours at 50 rows a second take 40 MB
# What a value means -> the column names it is known by, units aside. Those with a prefix are of DJI's flight records,
# those that spell everything out of Airdata, Litchi and Flytrex.
COLUMNS: dict[str, tuple[str, ...]] = {
    "lat": ("lat", "latitude", "lat_deg", "osd.latitude"),
    "lon": ("lon", "lng", "longitude", "lon_deg", "osd.longitude"),
    "takeoff": ("rel_alt", "relative_alt", "height", "height_m", "height_above_takeoff", "ascent", "osd.height"),
    "ground": ("agl", "agl_m", "height_above_ground_at_drone_location"),
    "altitude": ("alt", "altitude", "altitude_m", "abs_alt", "ele", "altitude_above_sealevel", "osd.altitude"),
    "north": ("vx", "vn", "north_mps", "xspeed", "osd.xspeed"),
    "east": ("vy", "ve", "east_mps", "yspeed", "osd.yspeed"),
    "heading": ("hdg", "heading", "heading_deg", "compass_heading"),
    "yaw": ("yaw", "yaw_deg", "osd.yaw"),
    "pitch": ("pitch", "pitch_deg", "osd.pitch"),
    "roll": ("roll", "roll_deg", "osd.roll"),
    "gimbal_yaw": ("gimbal_yaw", "gimbal_yaw_deg", "gimbal_heading", "gimbal.yaw"),
    "gimbal_pitch": ("gimbal_pitch", "gimbal_pitch_deg", "gimbal.pitch"),
    "gimbal_roll": ("gimbal_roll", "gimbal_roll_deg", "gimbal.roll"),
    "h_acc": ("h_acc", "h_acc_m", "eph_m"),
}
# Column -> its clock and how many nanoseconds one unit is; ISO times stand apart.
TIMES: dict[str, tuple[Clock, int]] = {
    "t_ms": ("media", 1_000_000),
    "t_s": ("media", 1_000_000_000),
    "media_ns": ("media", 1),
    "utc_ns": ("utc", 1),
    "utc_ms": ("utc", 1_000_000),
    "utc_s": ("utc", 1_000_000_000),
}
ISO_TIMES = ("time", "utc", "timestamp", "datetime")
ELAPSED = "time(millisecond)"  # of a flight-log service, next to a UTC that has whole seconds
_ISO_COLUMNS = ("datetime(utc)", "custom.updatetime [utc]", *ISO_TIMES)
_UNIT = re.compile(r"([^(\[]{1,80}?)\s{0,4}[(\[]([^)\]]{0,40})[)\]]")
_FACTORS = {"feet": 0.3048, "ft": 0.3048, "mph": 0.44704, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "knots": 1852 / 3600}


@dataclass(frozen=True)
class _Header:
    """Which column holds what: the place of each meaning with its factor to our units, and of the times."""

    columns: dict[str, tuple[int, float]]
    time: tuple[int, str]
    elapsed: int | None
    decimal_comma: bool

    def cell(self, row: list[str], place: int) -> str:
        """Return a cell, empty where the row is too short, with a decimal point."""
        text = row[place].strip() if place < len(row) else ""
        return text.replace(",", ".") if self.decimal_comma else text


def read_csv(path: Path) -> PoseTrack:
    """Read a table of positions; the time column decides the clock.

    ``t_ms``, ``t_s`` count from the start of the recording, the first row being 0; ``utc_s``, ``utc_ms``, ``utc_ns``
    and ISO 8601 in ``time`` are UTC. Columns may name a unit, as ``height(feet)``, and be parted by commas, semicolons
    or tabs. A row that cannot be used is named in the track's ``refused``, and so is a value that cannot, which costs
    that value alone. Raises SourceError where the header lacks a time or a position, or no row can be used.
    """
    refused, found = Refusals(), list[tuple[int, int, Pose]]()
    with open_regular(path, MAX_BYTES) as raw, io.TextIOWrapper(raw, _encoding(raw), "replace", newline="") as file:
        lines = _lines(path, file)
        first, before = _first_line(lines)
        delimiter = max(",;\t", key=first.count)
        rows = csv.reader(_chain(first, lines), strict=True, delimiter=delimiter)
        try:
            header = _header(path, [name.strip().lower() for name in next(rows, [])], delimiter)
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                if len(found) == MAX_VALUES:
                    raise SourceError(f"{path}: more than {MAX_VALUES} rows; expected one flight, cut the file")
                where = f"{path}, line {rows.line_num + before}"
                try:
                    found.append((*_times(row, header), _pose(row, header, where, refused)))
                except (ValueError, OverflowError) as error:
                    refused.add(f"{where}: {error}")
        except csv.Error as error:
            raise SourceError(f"{path}, line {rows.line_num + before}: {error}; expected a table of values") from error
    if not found:
        reason = refused.lines[0] if refused else f"{path}, line {2 + before}: no rows"
        raise SourceError(f"{reason}; expected at least one position")
    track = _track(found, header)
    track.refused = refused.lines
    return track


def _encoding(raw: BinaryIO) -> str:
    """Return how the text is coded: UTF-16 where it says so, as spreadsheets write it."""
    mark = raw.read(2)
    raw.seek(0)
    return "utf-16" if mark in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines; one without an end would otherwise be read whole and split into millions of cells."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise SourceError(f"{path}: a line of more than {MAX_LINE} characters; expected comma-separated values")
        yield line


def _first_line(lines: Iterator[str]) -> tuple[str, int]:
    """Return the header's line, and how many came before it: spreadsheets write ``sep=,`` first."""
    first = next(lines, "")
    return (next(lines, ""), 1) if first.lower().startswith("sep=") else (first, 0)


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _header(path: Path, names: list[str], delimiter: str) -> _Header:
    bare: dict[str, tuple[int, float]] = {}
    for place, name in enumerate(names):
        unit = _UNIT.fullmatch(name)
        base, factor = (unit[1], _FACTORS.get(unit[2].strip(), 1.0)) if unit else (name, 1.0)
        bare.setdefault(base, (place, factor))
    columns = {
        meaning: next(bare[name] for name in known if name in bare)
        for meaning, known in COLUMNS.items()
        if any(name in bare for name in known)
    }
    elapsed = names.index(ELAPSED) if ELAPSED in names else None
    times = [name for name in (*TIMES, *_ISO_COLUMNS) if name in names]
    if not times and elapsed is not None:
        times = [ELAPSED]
    if not times or "lat" not in columns or "lon" not in columns:
        got = ", ".join(names)[:80] or "nothing"
        raise SourceError(f"{path}, line 1: columns {got}; expected lat, lon and one of {', '.join(TIMES)}, time")
    if times[0] not in _ISO_COLUMNS:
        elapsed = None
    return _Header(columns, (names.index(times[0]), times[0]), elapsed, delimiter == ";")


def _times(row: list[str], header: _Header) -> tuple[int, int]:
    """Return a row's time, and the time that has elapsed in a log which counts it too, else 0."""
    place, name = header.time
    text = header.cell(row, place)
    elapsed_ns = 0 if header.elapsed is None else round(number(header.cell(row, header.elapsed)) * 1e6)
    if name in _ISO_COLUMNS:
        return utc_ns(text), elapsed_ns
    unit = 1_000_000 if name == ELAPSED else TIMES[name][1]
    return moment_ns(whole(text) if unit == 1 else round(number(text) * unit)), elapsed_ns


def _pose(row: list[str], header: _Header, where: str, refused: Refusals) -> Pose:
    def needed(meaning: str) -> float:
        return number(header.cell(row, header.columns[meaning][0]))

    def value(meaning: str) -> float | None:
        place, factor = header.columns.get(meaning, (len(row), 1.0))
        text = header.cell(row, place)
        if not text:
            return None
        try:
            return number(text) * factor
        except ValueError as error:
            refused.add(f"{where}: {meaning}: {error}; this value is left out")
            return None

    lat_deg, lon_deg = position(needed("lat"), needed("lon"))
    ground, takeoff, heading = value("ground"), value("takeoff"), value("heading")
    yaw = value("yaw")
    vehicle = _attitude(heading if yaw is None else yaw, value("pitch"), value("roll"))
    gimbal = _attitude(value("gimbal_yaw"), value("gimbal_pitch"), value("gimbal_roll") or 0.0)
    if gimbal is not None and vehicle is not None and not measured(gimbal, vehicle):
        gimbal = None
    return Pose(
        utc_ns=0,
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        height_m=takeoff if ground is None else ground,
        height_above="takeoff" if ground is None else "ground",
        altitude_m=value("altitude"),
        heading_deg=heading,
        north_mps=value("north"),
        east_mps=value("east"),
        vehicle=vehicle,
        gimbal=gimbal,
        h_acc_m=value("h_acc"),
    )


def _attitude(yaw: float | None, pitch: float | None, roll: float | None) -> Attitude | None:
    return None if yaw is None or pitch is None or roll is None else Attitude(yaw, pitch, roll)


def _track(found: list[tuple[int, int, Pose]], header: _Header) -> PoseTrack:
    """Put rows on their clock. Where UTC has whole seconds, the elapsed time tells how far into one a row was."""
    name = header.time[1]
    utc = name in _ISO_COLUMNS or TIMES.get(name, ("media", 1))[0] == "utc"
    track = PoseTrack("utc" if utc else "media")
    start_ns = found[0][0] if not utc and name != "media_ns" else 0
    offset_ns = max(time_ns - elapsed_ns for time_ns, elapsed_ns, _ in found)  # a whole second is never too late
    for time_ns, elapsed_ns, pose in found:
        t_ns = time_ns - start_ns if header.elapsed is None else offset_ns + elapsed_ns
        track.add(t_ns, msgspec.structs.replace(pose, utc_ns=t_ns) if utc else pose)
    return track
