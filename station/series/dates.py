"""The date of a source: given, from its own tags, from its flight, or from its name; and the order of several."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Origin = Literal["given", "tags", "flight", "name"]
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_YEAR = r"(?P<year>19[5-9]\d|20\d\d)"
_MONTH, _DAY = r"(?P<month>0[1-9]|1[0-2])", r"(?P<day>0[1-9]|[12]\d|3[01])"
_NOT_A_DATE = r"(?!(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2]))"  # the second date of a composite is no time of day
_CLOCK = r"(?P<hour>[01]\d|2[0-3])[-_:]?(?P<minute>[0-5]\d)(?:[-_:]?(?P<second>[0-5]\d))?"
# The most exact form first. A digit on either side means that the digits are part of a longer number.
_IN_NAMES = tuple(
    re.compile(rf"(?<!\d){form}(?!\d)")
    for form in (
        rf"{_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}(?:[-_T ]{_NOT_A_DATE})?{_CLOCK}",
        rf"{_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}",
        rf"{_YEAR}[-_.]{_MONTH}",
        _YEAR,
    )
)
_GIVEN = re.compile(rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY}(?:[T ]{_CLOCK}Z?)?)?)?")


class Dated(msgspec.Struct, frozen=True):
    """When a source shows its ground: from ``begin_utc_ns`` up to, not including, ``end_utc_ns``.

    A year is as long as the year: two sources whose times overlap have no order.
    """

    text: str
    begin_utc_ns: int
    end_utc_ns: int
    origin: Origin


def read_date(text: str) -> Dated:
    """Read a date that a person gives: 2024, 2024-05, 2024-05-17 or 2024-05-17T10:30. Raises UsageError."""
    found = _GIVEN.fullmatch(text.strip())
    dated = None if found is None else _dated(found, "given")
    if dated is None:
        raise UsageError(f"--date {text}: expected a date such as 2024, 2024-05, 2024-05-17 or 2024-05-17T10:30 (UTC)")
    return dated


def date_in_name(name: str) -> Dated | None:
    """Return the date in a file's name; None where there is none.

    A name with two times of one day has that day, one with two days of one month that month; two years are no date.
    """
    today = datetime.now(timezone.utc)
    for form in _IN_NAMES:
        dates = [dated for found in form.finditer(name) if (dated := _dated(found, "name")) is not None]
        if len({dated.begin_utc_ns for dated in dates}) == 1:
            return dates[0] if _moment(dates[0].begin_utc_ns) <= today else None
    return None


def date_of_moment(utc_ns: int, origin: Origin) -> Dated:
    """Return the date of a source that records its time."""
    text = _moment(utc_ns).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Dated(text, utc_ns, utc_ns + 1, origin)


def order(names: Sequence[str], dates: Sequence[Dated | None]) -> list[int]:
    """Return the places of the sources from the earliest to the latest.

    Raises UsageError for a source without a date, and for two whose dates overlap.
    """
    unknown = [name for name, dated in zip(names, dates, strict=True) if dated is None]
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: no date in the tags, and not exactly one in the name; give one date for each "
            "source, in their order: --date 2023-05-17 --date 2024 ..."
        )
    known = [dated for dated in dates if dated is not None]
    places = sorted(range(len(known)), key=lambda place: (known[place].begin_utc_ns, known[place].end_utc_ns))
    for one, two in pairwise(places):
        if known[two].begin_utc_ns < known[one].end_utc_ns:
            raise UsageError(
                f"{names[one]} ({known[one].text}) and {names[two]} ({known[two].text}) cannot be ordered by their "
                "dates; give more exact ones, one for each source in their order: --date 2024-05-17 ..."
            )
    return places


def _dated(found: re.Match[str], origin: Origin) -> Dated | None:
    parts = {key: int(value) for key, value in found.groupdict().items() if value is not None}
    try:
        begin = datetime(
            parts["year"],
            parts.get("month", 1),
            parts.get("day", 1),
            parts.get("hour", 0),
            parts.get("minute", 0),
            parts.get("second", 0),
            tzinfo=timezone.utc,
        )
    except ValueError:  # 31 February
        return None
    if "second" in parts:
        end, text = begin + timedelta(seconds=1), begin.strftime("%Y-%m-%dT%H:%M:%SZ")
    elif "minute" in parts:
        end, text = begin + timedelta(minutes=1), begin.strftime("%Y-%m-%dT%H:%MZ")
    elif "day" in parts:
        end, text = begin + timedelta(days=1), begin.strftime("%Y-%m-%d")
    elif "month" in parts:
        end, text = (begin + timedelta(days=31)).replace(day=1), begin.strftime("%Y-%m")
    else:
        end, text = begin.replace(year=begin.year + 1), begin.strftime("%Y")
    return Dated(text, _ns(begin), _ns(end), origin)


def _ns(moment: datetime) -> int:
    whole = moment - _EPOCH
    return (whole.days * 86_400 + whole.seconds) * 1_000_000_000


def _moment(utc_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=utc_ns // 1000)
