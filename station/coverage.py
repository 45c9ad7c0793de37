"""Coverage: which ground the cameras of one or many flights showed, how often, and how fine.

It says where a camera looked. It is not a probability of detection: what was shown may still have been missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.errors import UsageError, missing_extra
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.runtime.geofiles.geometry import Geometry, polygon
from overflight.runtime.geofiles.layers import Feature, Layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.pose.footprint import Place

DEGREE_M = 111_320.0  # metres of a degree of latitude; areas of a few kilometres are right to 0.5 %
MOST_CELLS = 250_000
Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Coverage:
    """The ground that was shown.

    ``covered_m2`` is the union of the footprints; ``area_m2`` the searched area and ``gaps_m2`` the part of it that no
    footprint shows, both absent without an area. ``frames`` counts the footprints, ``without_place`` the frames that
    have none. ``layers`` hold the union, the gaps and the cells for a map.
    """

    covered_m2: float
    area_m2: float | None
    gaps_m2: float | None
    frames: int
    without_place: int
    layers: tuple[Layer, ...]


def cover(flights: Iterable[Path], *, area: Ring | None = None, cell_m: float | None = None) -> Coverage:
    """Return the coverage of flight directories; ``area`` is the searched ring of (lon, lat).

    ``cell_m`` is the side of the cells in which looks are counted; by itself an eighth of a typical footprint. Stale
    places do not count. Raises UsageError where no frame has a footprint.
    """
    places, without = _places(flights)
    if not places:
        raise UsageError(f"none of {without} frames has a footprint; fly with --pose and --camera")
    shapely = _shapely()
    lat_deg = float(np.mean([place.lat_deg for place in places]))
    lon_deg = float(np.mean([place.lon_deg for place in places]))
    scale = np.array([DEGREE_M * cos(radians(lat_deg)), DEGREE_M])
    origin = np.array([lon_deg, lat_deg])
    shapes = np.array([shapely.polygons((np.array(place.footprint) - origin) * scale) for place in places])
    shapes = shapely.make_valid(shapes)
    union = shapely.union_all(shapes)
    searched = gaps = None
    if area is not None:
        searched = shapely.make_valid(shapely.polygons((np.array(area) - origin) * scale))
        gaps = searched.difference(union)

    def back(shape: Any) -> list[Geometry]:
        return [polygon(tuple(map(tuple, np.array(ring) / scale + origin))) for ring in _rings(shapely, shape)]

    side_m = cell_m or float(np.sqrt(np.median(shapely.area(shapes)))) / 8
    cells = _cells(shapely, shapes, union, [place.gsd_m for place in places], side_m)
    layers = [Layer("covered", [Feature(shape, {"kind": "covered"}) for shape in back(union)])]
    if gaps is not None:
        layers.append(Layer("gaps", [Feature(shape, {"kind": "gap"}) for shape in back(gaps)]))
    layers.append(Layer("cells", [Feature(back(shape)[0], values) for shape, values in cells]))
    return Coverage(
        covered_m2=float(union.area),
        area_m2=None if searched is None else float(searched.area),
        gaps_m2=None if gaps is None else float(gaps.area),
        frames=len(places),
        without_place=without,
        layers=tuple(layer for layer in layers if layer.features),
    )


def read_area(path: Path) -> Ring:
    """Read the outer ring of the one polygon of a GeoJSON file. Raises UsageError."""
    import msgspec

    try:
        found: Any = msgspec.json.decode(path.read_bytes())
        while isinstance(found, dict) and found.get("type") != "Polygon":
            found = found["geometry"] if "geometry" in found else found["features"][0]
        ring = tuple((float(x), float(y)) for x, y, *_ in found["coordinates"][0])
    except (OSError, msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a polygon ({error}); expected GeoJSON with one polygon in WGS-84") from error
    if len(ring) < 4 or any(abs(lat) > 90 or abs(lon) > 360 for lon, lat in ring):
        raise UsageError(f"{path}: not a polygon in degrees; expected GeoJSON with longitude and latitude")
    return ring[:-1] if ring[0] == ring[-1] else ring


def _places(flights: Iterable[Path]) -> tuple[list[Place], int]:
    places: list[Place] = []
    without = 0
    for flight in flights:
        for observation in JournalReader(flight / JOURNAL).observations():
            place = observation.place
            if place is None or len(place.footprint) < 3 or place.stale:
                without += 1
            else:
                places.append(place)
    return places, without


def _cells(
    shapely: Any, shapes: NDArray[Any], union: Any, gsds_m: Sequence[float | None], side_m: float
) -> list[tuple[Any, dict[str, Any]]]:
    """Return square cells inside the union with how many footprints show their middle, and the finest of those."""
    west, south, east, north = union.bounds
    columns, rows = int((east - west) // side_m) + 1, int((north - south) // side_m) + 1
    if columns * rows > MOST_CELLS:
        raise UsageError(f"--cell {side_m:g}: {columns * rows:,} cells, at most {MOST_CELLS:,}; choose a larger cell")
    x = west + (np.arange(columns) + 0.5) * side_m
    y = south + (np.arange(rows) + 0.5) * side_m
    middles = shapely.points(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    cell, shown = shapely.STRtree(shapes).query(middles, predicate="intersects")
    looks = np.bincount(cell, minlength=len(middles))
    finest = np.full(len(middles), np.inf)
    np.minimum.at(finest, cell, np.array([np.inf if gsd is None else gsd for gsd in gsds_m])[shown])
    half = side_m / 2
    return [
        (
            shapely.box(point.x - half, point.y - half, point.x + half, point.y + half),
            {"looks": int(looks[number]), "gsd_m": None if np.isinf(finest[number]) else round(finest[number], 4)},
        )
        for number, point in enumerate(middles)
        if looks[number]
    ]


def _rings(shapely: Any, shape: Any) -> list[list[tuple[float, float]]]:
    """Return the rings of pieces without holes: a map file holds outer rings only, and a hole must stay a hole."""
    if shape.geom_type != "Polygon":
        return [ring for part in getattr(shape, "geoms", ()) for ring in _rings(shapely, part)]
    if shape.is_empty:
        return []
    if not shape.interiors:
        return [list(shape.exterior.coords)[:-1]]
    west, south, east, north = shape.bounds
    middle = shape.interiors[0].centroid.y
    halves = (shapely.box(west, south, east, middle), shapely.box(west, middle, east, north))
    return [ring for half in halves for ring in _rings(shapely, shape.intersection(half))]


def _shapely() -> Any:
    try:
        import shapely
    except ImportError as error:
        raise missing_extra("shapely", "station") from error
    return shapely
