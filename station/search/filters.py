"""Filters of a search: time, place, height, flight, label, review; each becomes one condition on the index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.geodesy import beside, distance_m

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from overflight.station.archive import ArchivedFlight

Kind = Literal["all", "frames", "tiles"]


@dataclass(frozen=True)
class Filters:
    """What a row must fulfil; an absent condition holds for every row.

    Times are nanoseconds since 1970 in UTC. ``circle`` is (lat_deg, lon_deg, radius_m), ``polygon`` a ring of
    (lon_deg, lat_deg). ``heights_m`` bounds the height of the camera. Rows whose value is unknown (no time, no place,
    no height) do not pass a condition on it; ``Found.unknown`` counts them.
    """

    after_utc_ns: int | None = None
    before_utc_ns: int | None = None
    circle: tuple[float, float, float] | None = None
    polygon: tuple[tuple[float, float], ...] = ()
    heights_m: tuple[float, float] | None = None
    flights: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    rows_in: frozenset[int] | None = None
    kind: Kind = "all"

    def __post_init__(self) -> None:
        if self.circle is not None and not (abs(self.circle[0]) <= 90 and self.circle[2] > 0):
            raise UsageError(f"--near {self.circle}: expected LAT,LON,RADIUS_M with a radius above 0")
        if self.polygon and len(self.polygon) < 3:
            raise UsageError(f"--inside: {len(self.polygon)} corners, expected 3 or more")
        if self.heights_m is not None and not self.heights_m[0] <= self.heights_m[1]:
            raise UsageError(f"--height {self.heights_m[0]:g},{self.heights_m[1]:g}: expected LEAST,MOST in metres")
        after, before = self.after_utc_ns, self.before_utc_ns
        if after is not None and before is not None and after >= before:
            raise UsageError("--before: not later than --after; nothing lies between them")

    @property
    def any(self) -> bool:
        """Whether there is any condition on a row."""
        return self != Filters(flights=self.flights)

    def mask(self, connection: sqlite3.Connection, flight: ArchivedFlight) -> tuple[NDArray[np.bool_], int]:
        """Return which rows ``[rows]`` of a flight pass, and how many do not because a value is unknown."""
        if not self.any:
            return np.ones(flight.rows, np.bool_), 0
        span = (flight.first, flight.first + flight.rows)
        conditions, values = self._conditions()
        passing = connection.execute(
            "SELECT rows.id, lat_deg, lon_deg, west, east, south, north "  # noqa: S608 - our own columns
            "FROM rows LEFT JOIN places ON places.id = rows.id "
            f"WHERE rows.id >= ? AND rows.id < ? AND {' AND '.join(conditions) or '1'}",
            (*span, *values),
        )
        kept = np.zeros(flight.rows, np.bool_)
        for row, lat_deg, lon_deg, *box in passing:
            kept[row - flight.first] = self._at_place(lat_deg, lon_deg, box) and (
                self.rows_in is None or row in self.rows_in
            )
        unknown = [f"{column} IS NULL" for column in self._needed()]
        if not unknown:
            return kept, 0
        (count,) = connection.execute(
            f"SELECT count(*) FROM rows WHERE id >= ? AND id < ? AND ({' OR '.join(unknown)})",  # noqa: S608
            span,
        ).fetchone()
        return kept, int(count)

    def _conditions(self) -> tuple[list[str], list[object]]:
        """Return the conditions on columns, and their values."""
        labels = ", ".join("?" * len(self.labels))
        given: list[tuple[bool, str, tuple[object, ...]]] = [
            (self.after_utc_ns is not None, "utc_ns >= ?", (self.after_utc_ns,)),
            (self.before_utc_ns is not None, "utc_ns < ?", (self.before_utc_ns,)),
            (self.heights_m is not None, "height_m BETWEEN ? AND ?", self.heights_m or ()),
            (bool(self.labels), f"label IN ({labels})", self.labels),
            (self.kind == "frames", "tile = 0", ()),
            (self.kind == "tiles", "tile > 0", ()),
            (self.circle is not None or bool(self.polygon), "lat_deg IS NOT NULL", ()),
        ]
        kept = [(text, values) for wanted, text, values in given if wanted]
        return [text for text, _ in kept], [value for _, values in kept for value in values]

    def _needed(self) -> list[str]:
        timed = self.after_utc_ns is not None or self.before_utc_ns is not None
        placed = self.circle is not None or bool(self.polygon)
        return ["utc_ns"] * timed + ["lat_deg"] * placed + ["height_m"] * (self.heights_m is not None)

    def _at_place(self, lat_deg: float, lon_deg: float, box: Sequence[float]) -> bool:
        """Whether a row's ground is in reach of the circle and its middle in the polygon."""
        if self.circle is not None:
            middle_lat, middle_lon, radius_m = self.circle
            west, east, south, north = box
            beside_lon = beside(middle_lon, (west + east) / 2)
            nearest = (min(max(middle_lat, south), north), min(max(beside_lon, west), east))
            if distance_m(nearest, (middle_lat, middle_lon)) > radius_m:
                return False
        return not self.polygon or inside(self.polygon, lon_deg, lat_deg)


def inside(ring: Iterable[tuple[float, float]], x: float, y: float) -> bool:
    """Whether (longitude, latitude) lies in a ring, by the even-odd rule; an edge above 180° crosses the date line."""
    points = list(ring)
    points = [(beside(lon, points[0][0]), lat) for lon, lat in points]
    x = beside(x, (min(lon for lon, _ in points) + max(lon for lon, _ in points)) / 2)
    found = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            found = not found
    return found
