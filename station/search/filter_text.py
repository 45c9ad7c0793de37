"""Filters of a search as people write them: times, circles, polygons, heights."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from overflight.runtime.errors import UsageError
from overflight.station.search.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_filters(given: Mapping[str, Any], rows: frozenset[int] | None) -> Filters:
    """Read the filters of a search; ``rows`` is what a review condition leaves. Raises UsageError."""
    circle = _numbers("--near", given["near"], 3)
    heights = _numbers("--height", given["height"], 2)
    corners = (_numbers("--inside", corner, 2) for corner in (given["inside"] or "").split())
    return Filters(
        after_utc_ns=_time("--after", given["after"]),
        before_utc_ns=_time("--before", given["before"]),
        circle=None if circle is None else (circle[0], circle[1], circle[2]),
        polygon=tuple((corner[1], corner[0]) for corner in corners if corner is not None),
        heights_m=None if heights is None else (heights[0], heights[1]),
        flights=given["flights"],
        labels=given["labels"],
        rows_in=rows,
        kind=given["kind"],
    )


def _numbers(option: str, text: str | None, count: int) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise UsageError(f"{option} {text}: expected {count} numbers with commas between them")
    return numbers


def _time(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected a time such as 2026-05-01T10:00:00Z") from error
    if not 1970 <= moment.year <= 2200:  # nanoseconds fit 64 bits until 2262
        raise UsageError(f"{option} {text}: expected a year from 1970 to 2200")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp() * 1_000_000) * 1000
