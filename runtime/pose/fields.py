"""Fields as telemetry writes them: numbers, coordinates and times, checked as they come in."""

from __future__ import annotations

import math
from datetime import datetime, timezone

MAX_CHARACTERS = 64  # of a number or a time: reading a number takes time that grows with the square of its length
LATEST_NS = 1 << 62  # the year 2116; records keep times in 64 bits


def number(text: str) -> float:
    """Read a finite number; raises ValueError for anything else, NaN and infinity included."""
    value = float(_short(text))
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def whole(text: str) -> int:
    """Read a whole number; raises ValueError for anything else."""
    return int(_short(text))


def moment_ns(t_ns: int) -> int:
    """Check a time in nanoseconds; raises ValueError where no record can keep it."""
    if abs(t_ns) > LATEST_NS:
        raise ValueError(f"time {t_ns / 1e9:g} s is out of range")
    return t_ns


def position(lat_deg: float, lon_deg: float) -> tuple[float, float]:
    """Check a position; raises ValueError where it is off the earth, or 0, 0: a receiver without a fix."""
    if not (abs(lat_deg) <= 90.0 and abs(lon_deg) <= 180.0):
        raise ValueError(f"latitude {lat_deg:g}, longitude {lon_deg:g} is not on the earth")
    if lat_deg == 0.0 and lon_deg == 0.0:
        raise ValueError("latitude 0, longitude 0: no fix")
    return lat_deg, lon_deg


def utc_ns(text: str) -> int:
    """Read an ISO 8601 time, ``Z`` or an offset meaning what they say, none meaning UTC; nanoseconds since 1970."""
    text = _short(text).strip()
    if text[-1:] in "zZ":
        text = text[:-1] + "+00:00"
    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction = rest[:digits] if dot else ""
    moment = datetime.fromisoformat(whole + rest[digits:])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())
    return moment_ns(seconds * 1_000_000_000 + int((fraction + "0" * 9)[:9]))


def rounding_m(text: str) -> float:
    """How far a coordinate may be off because it was written with few decimals, in metres (of latitude)."""
    decimals = len(text.partition(".")[2])
    return float(0.5 * 10.0**-decimals * 111_320.0)


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{text[:20]!r}… is {len(text)} characters long, expected at most {MAX_CHARACTERS}")
    return text
