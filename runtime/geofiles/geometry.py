"""Geometries in longitude and latitude, cut at the date line, in the spellings that files want."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Point = tuple[float, float]
Kind = Literal["Point", "LineString", "Polygon", "MultiLineString", "MultiPolygon"]
_CODES: dict[Kind, int] = {"Point": 1, "LineString": 2, "Polygon": 3, "MultiLineString": 5, "MultiPolygon": 6}


@dataclass(frozen=True)
class Geometry:
    """A GeoJSON geometry kind and its parts: one point, lines, or outer rings (counter-clockwise, closed)."""

    kind: Kind
    parts: tuple[tuple[Point, ...], ...]

    def geojson(self) -> dict[str, object]:
        """Return it as RFC 7946 has it; 7 decimals are a centimetre."""
        rounded = [[[round(lon, 7), round(lat, 7)] for lon, lat in part] for part in self.parts]
        coordinates: object = rounded
        match self.kind:
            case "Point":
                coordinates = rounded[0][0]
            case "LineString":
                coordinates = rounded[0]
            case "MultiPolygon":
                coordinates = [[part] for part in rounded]
        return {"type": self.kind, "coordinates": coordinates}

    def wkt(self) -> str:
        """Return it as well-known text."""
        lists = [", ".join(f"{lon:.7f} {lat:.7f}" for lon, lat in part) for part in self.parts]
        match self.kind:
            case "Point" | "LineString":
                inner = lists[0]
            case "Polygon" | "MultiLineString":
                inner = ", ".join(f"({one})" for one in lists)
            case "MultiPolygon":
                inner = ", ".join(f"(({one}))" for one in lists)
        return f"{self.kind.upper()} ({inner})"

    def wkb(self) -> bytes:
        """Return it as little-endian well-known binary."""
        head = struct.pack("<BI", 1, _CODES[self.kind])
        match self.kind:
            case "Point":
                return head + struct.pack("<dd", *self.parts[0][0])
            case "LineString":
                return head + _points(self.parts[0])
            case "Polygon":
                return head + struct.pack("<I", len(self.parts)) + b"".join(map(_points, self.parts))
            case "MultiLineString" | "MultiPolygon":
                one: Kind = "LineString" if self.kind == "MultiLineString" else "Polygon"
                inner = b"".join(Geometry(one, (part,)).wkb() for part in self.parts)
                return head + struct.pack("<I", len(self.parts)) + inner

    def bounds(self) -> tuple[float, float, float, float]:
        """Return west, east, south, north."""
        lons, lats = zip(*(point for part in self.parts for point in part), strict=True)
        return min(lons), max(lons), min(lats), max(lats)


def point(lon_deg: float, lat_deg: float) -> Geometry:
    """Make a point."""
    return Geometry("Point", (((lon_deg, lat_deg),),))


def line(points: list[Point]) -> Geometry:
    """Make a line of at least two points, in two where it crosses the date line (RFC 7946, 3.1.9)."""
    parts: list[list[Point]] = [[points[0]]]
    for a, b in pairwise(points):
        if abs(b[0] - a[0]) > 180.0:
            edge = 180.0 if a[0] > 0 else -180.0
            span = b[0] + 2 * edge - a[0]
            lat = a[1] + (b[1] - a[1]) * ((edge - a[0]) / span if span else 0.0)
            parts[-1].append((edge, lat))
            parts.append([(-edge, lat)])
        parts[-1].append(b)
    return Geometry("MultiLineString" if len(parts) > 1 else "LineString", tuple(map(tuple, parts)))


def polygon(ring: tuple[Point, ...]) -> Geometry:
    """Make a polygon of a counter-clockwise open ring, in two where it crosses the date line."""
    first = ring[0][0]
    unwrapped = [(first + (lon - first + 180.0) % 360.0 - 180.0, lat) for lon, lat in ring]
    west, east = min(lon for lon, _ in unwrapped), max(lon for lon, _ in unwrapped)
    if west >= -180.0 and east <= 180.0:
        return Geometry("Polygon", ((*ring, ring[0]),))
    edge = 180.0 if east > 180.0 else -180.0
    inside = [side for side in (_clip(unwrapped, edge, -1.0), _clip(unwrapped, edge, 1.0)) if len(side) > 2]
    parts = []
    for side in inside:
        beyond = any(abs(lon) > 180.0 + 1e-12 for lon, _ in side)
        moved = [(lon - 2 * edge, lat) for lon, lat in side] if beyond else side
        parts.append((*moved, moved[0]))
    return Geometry("MultiPolygon", tuple(parts))


def _clip(ring: list[Point], edge: float, sign: float) -> list[Point]:
    """Keep the part of a ring west (sign -1) or east (+1) of a meridian (Sutherland and Hodgman, 1974)."""
    kept: list[Point] = []
    for a, b in pairwise([*ring, ring[0]]):
        a_in, b_in = sign * (a[0] - edge) >= 0, sign * (b[0] - edge) >= 0
        if a_in:
            kept.append(a)
        if a_in != b_in:
            kept.append((edge, a[1] + (b[1] - a[1]) * (edge - a[0]) / (b[0] - a[0])))
    return kept


def _points(points: tuple[Point, ...]) -> bytes:
    return struct.pack("<I", len(points)) + b"".join(struct.pack("<dd", *p) for p in points)
