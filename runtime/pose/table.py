"""Tracks in tables: a CSV file with a header, units in its column names."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from overflight.runtime.bounded import open_regular
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.fields import moment_ns, number, position, utc_ns, whole
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.refusals import Refusals
from overflight.runtime.pose.track import Clock, PoseTrack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

MAX_LINE = 16_384
MAX_BYTES = 64 << 20  # two hours at 50 rows a second take 40 MB
# What a value means -> the column names it is known by.
COLUMNS: dict[str, tuple[str, ...]] = {
    "lat": ("lat", "latitude", "lat_deg"),
    "lon": ("lon", "lng", "longitude", "lon_deg"),
    "takeoff": ("rel_alt", "relative_alt", "height", "height_m"),
    "ground": ("agl", "agl_m"),
    "altitude": ("alt", "altitude", "altitude_m", "abs_alt", "ele"),
    "north": ("vx", "vn", "north_mps"),
    "east": ("vy", "ve", "east_mps"),
    "heading": ("hdg", "heading", "heading_deg"),
    "yaw": ("yaw", "yaw_deg"),
    "pitch": ("pitch", "pitch_deg"),
    "roll": ("roll", "roll_deg"),
    "gimbal_yaw": ("gimbal_yaw", "gimbal_yaw_deg"),
    "gimbal_pitch": ("gimbal_pitch", "gimbal_pitch_deg"),
    "gimbal_roll": ("gimbal_roll", "gimbal_roll_deg"),
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


def read_csv(path: Path) -> PoseTrack:
    """Read a table of positions; the time column decides the clock.

    ``t_ms``, ``t_s`` count from the start of the recording, the first row being 0; ``utc_s``, ``utc_ms``, ``utc_ns``
    and ISO 8601 in ``time`` are UTC. A row that cannot be used is named in the track's ``refused``. Raises SourceError
    where the header lacks a time or a position, or no row can be used.
    """
    with io.TextIOWrapper(open_regular(path, MAX_BYTES), "utf-8-sig", "replace", newline="") as file:
        rows = csv.reader(_lines(path, file), strict=True)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            time, columns = _columns(path, header)
            clock: Clock = TIMES[time][0] if time in TIMES else "utc"
            track, refused = PoseTrack(clock), Refusals()
            first_ns: int | None = None
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                try:
                    t_ns, pose = _pose(dict(zip(header, row, strict=False)), time, columns)
                    if first_ns is None:
                        first_ns = t_ns if clock == "media" and time != "media_ns" else 0
                    track.add(t_ns - first_ns, pose)
                except (ValueError, KeyError, OverflowError) as error:
                    refused.add(f"{path}, line {rows.line_num}: {error}")
        except csv.Error as error:
            raise SourceError(f"{path}, line {rows.line_num}: {error}; expected comma-separated values") from error
    if not len(track):
        reason = refused.lines[0] if refused else f"{path}, line 2: no rows"
        raise SourceError(f"{reason}; expected at least one position")
    track.refused = refused.lines
    return track


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield the lines; one without an end would otherwise be read whole and split into millions of cells."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise SourceError(f"{path}: a line of more than {MAX_LINE} characters; expected comma-separated values")
        yield line


def _columns(path: Path, header: list[str]) -> tuple[str, dict[str, str]]:
    columns = {
        meaning: next(name for name in names if name in header)
        for meaning, names in COLUMNS.items()
        if any(name in header for name in names)
    }
    times = [name for name in (*TIMES, *ISO_TIMES) if name in header]
    if not times or "lat" not in columns or "lon" not in columns:
        got = ", ".join(header)[:80] or "nothing"
        raise SourceError(f"{path}, line 1: columns {got}; expected lat, lon and one of {', '.join(TIMES)}, time")
    return times[0], columns


def _pose(row: dict[str, str], time: str, columns: dict[str, str]) -> tuple[int, Pose]:
    def value(meaning: str) -> float | None:
        text = row.get(columns.get(meaning, ""), "").strip()
        return number(text) if text else None

    lat_deg, lon_deg = position(number(row[columns["lat"]]), number(row[columns["lon"]]))
    if time in TIMES:
        clock, unit = TIMES[time]
        t_ns = moment_ns(whole(row[time]) if unit == 1 else round(number(row[time]) * unit))
    else:
        clock, t_ns = "utc", utc_ns(row[time])
    ground, takeoff = value("ground"), value("takeoff")
    return t_ns, Pose(
        utc_ns=t_ns if clock == "utc" else 0,
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        height_m=takeoff if ground is None else ground,
        height_above="takeoff" if ground is None else "ground",
        altitude_m=value("altitude"),
        heading_deg=value("heading"),
        north_mps=value("north"),
        east_mps=value("east"),
        vehicle=_attitude(value("yaw"), value("pitch"), value("roll")),
        gimbal=_attitude(value("gimbal_yaw"), value("gimbal_pitch"), value("gimbal_roll") or 0.0),
        h_acc_m=value("h_acc"),
    )


def _attitude(yaw: float | None, pitch: float | None, roll: float | None) -> Attitude | None:
    return None if yaw is None or pitch is None or roll is None else Attitude(yaw, pitch, roll)
