"""Fields as telemetry writes them: numbers, coordinates and times, checked as they come in."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta

MAX_CHARACTERS = 64  # of a number or a time: reading a number takes time that grows with the square of its length
LATEST_NS = 1 << 62  # the year 2116; records keep times in 64 bits
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_NS = 86_400_000_000_000
_UNIT_NS = {"hour": 3_600_000_000_000, "minute": 60_000_000_000, "second": 1_000_000_000}
_DATE = re.compile(
    r"\+?0*(?P<year>\d{4})(?:-?W(?P<week>\d\d)(?:-?(?P<weekday>[1-7]))?"
    r"|-?(?P<ordinal>\d{3})(?!\d)|-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2}))?|(?P<month2>\d\d)(?P<day2>\d\d))?"
)
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d))?)?(?:[.,](?P<fraction>\d+))?\s*"
    r"(?P<zone>[zZ]|(?:UTC|GMT)|(?P<sign>[+\u2212-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?(?::?\d\d)?)?"
)


def number(text: str) -> float:
    """Read a finite number or a fraction; raises ValueError for anything else, NaN and infinity included."""
    above, slash, below = _short(text).partition("/")
    if "_" in text:  # Python reads 1_000
        raise ValueError(f"{text!r} is not a number")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
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
    """Read a time in any form of ISO 8601; nanoseconds since 1970.

    Extended and basic forms, calendar, week and ordinal dates, a fraction (point or comma) of the last unit, 24:00,
    leap seconds, ``Z`` and offsets; a time without an offset is UTC, a date without a time is its midnight. A blank in
    the place of the ``T`` is read too. Raises ValueError.
    """
    day_text, clock_text = _split(_short(text).strip())
    found = _DATE.fullmatch(day_text)
    if found is None:
        raise ValueError(f"{text!r} is not an ISO 8601 time")
    days = _day(found.groupdict()) - _EPOCH
    return moment_ns(days * _DAY_NS + (_clock_ns(clock_text, text) if clock_text else 0))


def _split(text: str) -> tuple[str, str]:
    found = re.match(r"([+\dW-]+?)(?:[Tt]|\s+)(?=\d)(.*)", text)
    return (found[1], found[2].strip()) if found else (text, "")


def _day(part: dict[str, str | None]) -> int:
    year = int(part["year"] or 0)
    if part["week"]:
        return date.fromisocalendar(year, int(part["week"]), int(part["weekday"] or 1)).toordinal()
    if part["ordinal"]:
        day = date(year, 1, 1) + timedelta(days=int(part["ordinal"]) - 1)
        if day.year != year:
            raise ValueError(f"day {part['ordinal']} is not in the year {year}")
        return day.toordinal()
    return date(year, int(part["month"] or part["month2"] or 1), int(part["day"] or part["day2"] or 1)).toordinal()


def _clock_ns(text: str, whole: str) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"{whole!r} is not an ISO 8601 time")
    values = {unit: int(found[unit] or 0) for unit in _UNIT_NS}
    if not (values["hour"] <= 24 and values["minute"] <= 59 and values["second"] <= 60):
        raise ValueError(f"{whole!r} is not a time of day")
    clock_ns = sum(values[unit] * size for unit, size in _UNIT_NS.items())
    if found["fraction"]:
        last = [unit for unit in _UNIT_NS if found[unit] is not None][-1]
        clock_ns += int(found["fraction"]) * _UNIT_NS[last] // 10 ** len(found["fraction"])
    if clock_ns > _DAY_NS + _UNIT_NS["second"] or (values["hour"] == 24 and clock_ns > _DAY_NS):
        raise ValueError(f"{whole!r} is not a time of day")
    offset_min = int(found["zone_hour"] or 0) * 60 + int(found["zone_minute"] or 0)
    return clock_ns - (1 if found["sign"] == "+" else -1) * offset_min * _UNIT_NS["minute"]


def rounding_m(text: str) -> float:
    """How far a coordinate may be off because it was written with few decimals, in metres (of latitude)."""
    decimals = len(text.partition(".")[2])
    return float(0.5 * 10.0**-decimals * 111_320.0)


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{text[:20]!r}… is {len(text)} characters long, expected at most {MAX_CHARACTERS}")
    return text
